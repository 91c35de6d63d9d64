//! ELF kernels that are whole, damaged or something else.

use std::io::Write;

use proptest::prelude::*;
use tempfile::tempfile;

use super::*;

const LOAD: u64 = 0x100_0000;
const ENTRY: u32 = 0x100_0010;

fn note(name: &[u8], kind: u32, content: &[u8]) -> Vec<u8> {
    let mut note = Vec::new();
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
    for number in [length(name), length(content), kind] {
        note.extend(number.to_le_bytes());
    }
    for part in [name, content] {
        note.extend(part);
        note.resize(note.len().next_multiple_of(4), 0);
    }
    note
}

fn segment(kind: u32, offset: u64, physical: u64, file: u64, memory: u64) -> Vec<u8> {
    let mut header = vec![0; SEGMENT_BYTES];
    header[0..4].copy_from_slice(&kind.to_le_bytes());
    header[8..16].copy_from_slice(&offset.to_le_bytes());
    header[24..32].copy_from_slice(&physical.to_le_bytes());
    header[32..40].copy_from_slice(&file.to_le_bytes());
    header[40..48].copy_from_slice(&memory.to_le_bytes());
    header
}

/// A kernel of 256 bytes that takes 1 MiB, with `notes`.
pub(in crate::boot::x86_64) fn elf(notes: &[u8]) -> Vec<u8> {
    let mut elf = vec![0; HEADER_BYTES];
    elf[0..4].copy_from_slice(b"\x7fELF");
    elf[4..6].copy_from_slice(&[2, 1]);
    elf[18] = 62;
    elf[32] = 64;
    elf[54] = 56;
    elf[56] = 2;
    let content = (HEADER_BYTES + 2 * SEGMENT_BYTES) as u64;
    elf.extend(segment(SEGMENT_LOAD, content, LOAD, 256, 1 << 20));
    let bytes = notes.len() as u64;
    elf.extend(segment(SEGMENT_NOTE, content + 256, 0, bytes, bytes));
    elf.extend([0x90; 256]);
    elf.extend(notes);
    elf
}

/// The notes of a kernel with a PVH entry.
pub(in crate::boot::x86_64) fn notes() -> Vec<u8> {
    let entry = note(b"Xen\0", ENTRY_NOTE, &ENTRY.to_le_bytes());
    [note(b"GNU\0", 3, &[1; 20]), entry].concat()
}

fn read(bytes: &[u8]) -> Result<Vmlinux, NotBootable> {
    let mut file = tempfile().unwrap();
    file.write_all(bytes).unwrap();
    Vmlinux::read(&file, bytes.len() as u64)
}

#[test]
fn a_kernel_tells_its_segments_and_its_entry() {
    let vmlinux = read(&elf(&notes())).unwrap();
    assert_eq!(vmlinux.entry, ENTRY);
    let segment = Segment {
        start: LOAD,
        bytes: 1 << 20,
    };
    assert_eq!(vmlinux.segments, [segment]);
    let wide = note(b"Xen\0", ENTRY_NOTE, &u64::from(ENTRY).to_le_bytes());
    assert_eq!(read(&elf(&wide)).unwrap().entry, ENTRY);
}

#[test]
fn a_kernel_without_a_usable_entry_is_refused() {
    let foreign = note(b"GNU\0", ENTRY_NOTE, &ENTRY.to_le_bytes());
    let odd = note(b"Xen\0", ENTRY_NOTE, &[1, 2]);
    for notes in [foreign, odd, vec![], vec![0xff; 64]] {
        assert!(matches!(read(&elf(&notes)), Err(NotBootable::Unlike(_))));
    }
    let outside = note(b"Xen\0", ENTRY_NOTE, &0x90_0000_u32.to_le_bytes());
    assert!(matches!(read(&elf(&outside)), Err(NotBootable::Damaged(_))));
}

#[test]
fn a_kernel_for_another_machine_is_refused() {
    for (at, value) in [(4, 1), (5, 2), (18, 183), (18, 3)] {
        let mut bytes = elf(&notes());
        bytes[at] = value;
        assert!(matches!(read(&bytes), Err(NotBootable::Unlike(_))));
    }
}

#[test]
fn a_file_that_ends_early_is_damaged() {
    let whole = elf(&notes());
    for end in [20, HEADER_BYTES, HEADER_BYTES + 80, whole.len() - 1] {
        assert!(matches!(read(&whole[..end]), Err(NotBootable::Damaged(_))));
    }
}

proptest! {
    #[test]
    fn no_file_makes_the_reader_panic(
        changes in prop::collection::vec((0..600_usize, any::<u8>()), 0..12),
        end in 0..600_usize,
    ) {
        let mut bytes = elf(&notes());
        for (at, value) in changes {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.truncate(end);
        if let Ok(vmlinux) = read(&bytes) {
            prop_assert!(!vmlinux.segments.is_empty());
        }
    }
}
