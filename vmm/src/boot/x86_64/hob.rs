//! What the firmware of a TD is told: a list of hand-off blocks (UEFI Platform Initialization
//! specification, volume 3, chapter 5; TDX Virtual Firmware Design Guide, "TD HOB").
//!
//! ```text
//!   hand-off │ memory: accepted or not, devices ... │ ACPI table ... │ the kernel │ end
//! ```

use iommu::{Gpa, PageRange};

/// What the guest finds at some addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Memory that is part of the launch.
    Memory,
    /// Memory that the firmware or the kernel has yet to accept.
    Unaccepted,
    /// Registers of devices.
    Devices,
}

/// What the firmware is told.
#[derive(Debug, Clone, Copy)]
pub struct Told<'a> {
    /// What is where, ascending.
    pub resources: &'a [(PageRange<Gpa>, Resource)],
    /// ACPI tables, each by itself, without the ones that point at them.
    pub acpi: &'a [Vec<u8>],
    /// Where the kernel, a bzImage, lies.
    pub kernel: Gpa,
}

/// There is no room for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the firmware has room for {room} bytes of what it is told, and these are {bytes}")]
pub struct TooLarge {
    /// How much there is to tell.
    pub bytes: u64,
    /// How much the firmware has room for.
    pub room: u64,
}

const HANDOFF: u16 = 1;
/// `EFI_HOB_HANDOFF_TABLE_VERSION`.
const VERSION: u32 = 9;
const RESOURCE: u16 = 3;
const GUIDED: u16 = 4;
const END: u16 = 0xffff;
/// Blocks start at multiples of it.
const ALIGNMENT: usize = 8;

/// `6a0c5870-d4ed-44f4-a135-dd238b6f0c8d`: an ACPI table.
const ACPI_TABLE: [u8; 16] = [
    0x70, 0x58, 0x0c, 0x6a, 0xed, 0xd4, 0xf4, 0x44, 0xa1, 0x35, 0xdd, 0x23, 0x8b, 0x6f, 0x0c, 0x8d,
];
/// `b96fa412-461f-4be3-8c0d-ad805a497ac0`: what the kernel is, and where.
const PAYLOAD: [u8; 16] = [
    0x12, 0xa4, 0x6f, 0xb9, 0x1f, 0x46, 0xe3, 0x4b, 0x8c, 0x0d, 0xad, 0x80, 0x5a, 0x49, 0x7a, 0xc0,
];
const BZIMAGE: u32 = 1;

/// The list, to be put into `place`.
///
/// # Errors
/// When it does not fit.
pub fn list(place: PageRange<Gpa>, told: &Told<'_>) -> Result<Vec<u8>, TooLarge> {
    let mut list = List::default();
    // The end of the list is known at the end.
    list.block(HANDOFF, &[0; 48]);
    for (range, resource) in told.resources {
        list.block(RESOURCE, &descriptor(*range, *resource));
    }
    for table in told.acpi {
        list.block(GUIDED, &[&ACPI_TABLE, table.as_slice()].concat());
    }
    let mut payload = PAYLOAD.to_vec();
    payload.extend(BZIMAGE.to_le_bytes());
    payload.extend(0_u32.to_le_bytes());
    payload.extend(told.kernel.raw().to_le_bytes());
    list.block(GUIDED, &payload);
    let end = place.start().raw().saturating_add(list.0.len() as u64);
    list.block(END, &[]);
    let bytes = list.0.len() as u64;
    let room = match told.acpi.iter().any(|table| table.len() > LONGEST) {
        true => LONGEST as u64,
        false => place.bytes(),
    };
    if bytes > room {
        return Err(TooLarge { bytes, room });
    }
    // Behind the header: version, boot mode, four addresses of memory, the end of the list.
    if let Some(version) = list.0.get_mut(8..12) {
        version.copy_from_slice(&VERSION.to_le_bytes());
    }
    if let Some(place) = list.0.get_mut(48..56) {
        place.copy_from_slice(&end.to_le_bytes());
    }
    Ok(list.0)
}

/// The longest content of a block whose length has 16 bits, with its GUID.
const LONGEST: usize = 0xfff8 - 8 - 16;

#[derive(Default)]
struct List(Vec<u8>);

impl List {
    fn block(&mut self, kind: u16, content: &[u8]) {
        let length = (8 + content.len()).next_multiple_of(ALIGNMENT);
        self.0.extend(kind.to_le_bytes());
        // A longer one is found out at the end.
        self.0
            .extend(u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes());
        self.0.extend(0_u32.to_le_bytes());
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(ALIGNMENT), 0);
    }
}

/// `EFI_HOB_RESOURCE_DESCRIPTOR` behind its header.
fn descriptor(range: PageRange<Gpa>, resource: Resource) -> Vec<u8> {
    /// Present, initialized, tested.
    const USABLE: u32 = 0b111;
    let number: u32 = match resource {
        Resource::Memory => 0,
        Resource::Devices => 1,
        Resource::Unaccepted => 7,
    };
    // Of no owner.
    let mut block = vec![0; 16];
    block.extend(number.to_le_bytes());
    block.extend(USABLE.to_le_bytes());
    block.extend(range.start().raw().to_le_bytes());
    block.extend(range.bytes().to_le_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, bytes: u64) -> PageRange<Gpa> {
        PageRange::new(Gpa::new(start), bytes).unwrap()
    }

    /// Kinds and contents, by walking the list as firmware does.
    fn walk(list: &[u8]) -> Vec<(u16, Vec<u8>)> {
        let (mut at, mut blocks) = (0, Vec::new());
        loop {
            let kind = u16::from_le_bytes([list[at], list[at + 1]]);
            let length = usize::from(u16::from_le_bytes([list[at + 2], list[at + 3]]));
            blocks.push((kind, list[at + 8..at + length].to_vec()));
            at += length;
            if kind == END {
                assert_eq!(at, list.len());
                return blocks;
            }
        }
    }

    #[test]
    fn firmware_can_walk_the_list_and_finds_all_of_it() {
        let resources = [
            (range(0, 0x80_0000), Resource::Unaccepted),
            (range(0x80_0000, 0x2000), Resource::Memory),
            (range(0xe000_0000, 0x10_0000), Resource::Devices),
        ];
        let acpi = [b"FACP1".to_vec(), vec![7; 100]];
        let told = Told {
            resources: &resources,
            acpi: &acpi,
            kernel: Gpa::new(0x100_0000),
        };
        let list = list(range(0x80_0000, 0x2000), &told).unwrap();
        let blocks = walk(&list);
        let kinds: Vec<u16> = blocks.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [1, 3, 3, 3, 4, 4, 4, 0xffff]);
        let end = 0x80_0000 + list.len() as u64 - 8;
        assert_eq!(blocks[0].1[40..48], end.to_le_bytes());
        assert_eq!(blocks[0].1[0..4], 9_u32.to_le_bytes());
        assert_eq!(blocks[1].1[16..20], 7_u32.to_le_bytes());
        assert_eq!(blocks[2].1[24..32], 0x80_0000_u64.to_le_bytes());
        assert_eq!(blocks[2].1[32..40], 0x2000_u64.to_le_bytes());
        assert_eq!(blocks[4].1[..21], [&ACPI_TABLE[..], b"FACP1"].concat());
        assert_eq!(blocks[6].1[16..20], 1_u32.to_le_bytes());
        assert_eq!(blocks[6].1[24..32], 0x100_0000_u64.to_le_bytes());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let acpi = [vec![0; 0x2000]];
        let told = Told {
            resources: &[],
            acpi: &acpi,
            kernel: Gpa::new(0),
        };
        assert!(list(range(0, 0x2000), &told).is_err());
        assert!(list(range(0, 0x3000), &told).is_ok());
        let acpi = [vec![0; 0x1_0000]];
        let told = Told {
            acpi: &acpi,
            ..told
        };
        assert!(
            list(range(0, 0x10_0000), &told).is_err(),
            "no block is so long"
        );
    }
}
