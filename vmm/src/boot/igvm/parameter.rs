//! What an IGVM guest is told of its VM: parameters, in areas that its file lays out.
//!
//! Nothing of it is measured: the guest has to check what it reads.

use std::ops::Range;

use iommu::{Gpa, PAGE_SIZE, PageRange};

use crate::boot::x86_64::acpi;
use crate::plan::VmPlan;

/// A kind of parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// How many processors there are: 32 bits.
    VcpuCount,
    /// The ACPI table of processors and interrupt controllers.
    Madt,
    /// Where devices are: two ranges, below and above 4 GiB, each a first page and a number of pages.
    MmioRanges,
    /// Where memory is: entries of 24 bytes, and one of zeros.
    MemoryMap,
    /// What the operator tells: bytes, and a zero.
    CommandLine,
    /// Whether memory is the guest's from the start: it is, so 32 bits of zeros.
    Environment,
}

impl Kind {
    /// What a person calls it.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::VcpuCount => "number of processors",
            Self::Madt => "MADT",
            Self::MmioRanges => "device ranges",
            Self::MemoryMap => "memory map",
            Self::CommandLine => "command line",
            Self::Environment => "environment",
        }
    }
}

/// A parameter does not fit into its area, or not beside the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the IGVM file has no room for the {} of this VM: {bytes} bytes at offset {offset:#x} of an area of {area} end beyond it, \
     or are where another parameter is",
    .kind.title()
)]
pub struct NoRoom {
    /// Which parameter.
    pub kind: Kind,
    /// How long it is.
    pub bytes: usize,
    /// Where it was to be in its area.
    pub offset: usize,
    /// Bytes of the area.
    pub area: usize,
}

/// Memory for parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Area {
    /// What it holds where no parameter is.
    pub(super) initial: Vec<u8>,
    /// Each parameter with its offset, in the file's order.
    pub(super) parameters: Vec<(Kind, usize)>,
}

impl Area {
    /// The content for a VM.
    pub(super) fn filled(&self, told: &Told<'_>) -> Result<Vec<u8>, NoRoom> {
        let mut area = self.initial.clone();
        let mut taken: Vec<Range<usize>> = Vec::new();
        for &(kind, offset) in &self.parameters {
            let value = told.value(kind);
            let no_room = NoRoom {
                kind,
                bytes: value.len(),
                offset,
                area: area.len(),
            };
            let place = offset..offset.saturating_add(value.len());
            let meets = |other: &Range<usize>| other.start < place.end && place.start < other.end;
            if taken.iter().any(meets) {
                return Err(no_room);
            }
            let bytes = area.get_mut(place.clone()).ok_or(no_room)?;
            bytes.copy_from_slice(&value);
            taken.push(place);
        }
        Ok(area)
    }
}

/// What there is to tell.
#[derive(Debug, Clone, Copy)]
pub struct Told<'a> {
    /// How many processors there are.
    pub vcpus: u32,
    /// Memory, ascending.
    pub dram: &'a [PageRange<Gpa>],
    /// Where devices are: the first range below 4 GiB, and the first above.
    pub devices: [Option<PageRange<Gpa>>; 2],
    /// What the operator tells.
    pub cmdline: &'a str,
}

impl<'a> Told<'a> {
    /// What a guest of `plan` is told.
    #[must_use]
    pub fn of(plan: &'a VmPlan, cmdline: &'a str) -> Self {
        const HALVES: u64 = 4 << 30;
        let mut windows = plan.pci_windows().iter().map(|window| window.range);
        Self {
            vcpus: plan.vcpus(),
            dram: plan.dram(),
            devices: [
                windows.clone().find(|range| range.end().raw() <= HALVES),
                windows.find(|range| range.start().raw() >= HALVES),
            ],
            cmdline,
        }
    }

    fn value(&self, kind: Kind) -> Vec<u8> {
        match kind {
            Kind::VcpuCount => self.vcpus.to_le_bytes().to_vec(),
            Kind::Madt => acpi::processors(self.vcpus),
            Kind::MmioRanges => self.devices.into_iter().flat_map(pages).collect(),
            Kind::MemoryMap => {
                // Type and flags of zero: plain memory.
                let entry = |range| [pages(Some(range)).as_slice(), &[0; 8]].concat();
                let mut map: Vec<u8> = self.dram.iter().copied().flat_map(entry).collect();
                map.extend([0; 24]);
                map
            }
            Kind::CommandLine => [self.cmdline.as_bytes(), &[0]].concat(),
            Kind::Environment => vec![0; 4],
        }
    }
}

/// The number of the first page, and how many there are; zeros for none.
fn pages(range: Option<PageRange<Gpa>>) -> Vec<u8> {
    let numbers = range.map_or([0, 0], |range| {
        [range.start().raw() / PAGE_SIZE, range.pages()]
    });
    numbers.map(u64::to_le_bytes).concat()
}
