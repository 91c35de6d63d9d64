use super::*;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn range(start: u64, bytes: u64) -> PageRange<Gpa> {
    PageRange::new(Gpa::new(start), bytes).unwrap()
}

fn bzimage(alignment: Option<u64>) -> Linux {
    Linux::BzImage(Header::for_tests(16 * MIB, alignment, 40 * MIB))
}

fn vmlinux() -> Linux {
    let segment = |start, bytes| Segment { start, bytes };
    Linux::Vmlinux(Vmlinux {
        segments: vec![segment(16 * MIB, 20 * MIB), segment(36 * MIB, 5 * MIB + 1)],
        entry: 0x100_0010,
    })
}

fn kernel(placement: LinuxPlacement) -> u64 {
    match placement.entry {
        Entry::Long { kernel, .. } => kernel.raw(),
        Entry::Pvh { .. } => panic!("not in 64-bit mode"),
    }
}

#[test]
fn a_kernel_goes_where_it_prefers_to_be_and_the_initrd_behind() {
    let dram = [range(0, 512 * MIB)];
    let placed = find(&dram, &bzimage(Some(2 * MIB)), Some(7 * MIB)).unwrap();
    let entry = Entry::Long {
        kernel: Gpa::new(16 * MIB),
        entry: Gpa::new(16 * MIB + 0x200),
    };
    assert_eq!(placed.entry, entry);
    assert_eq!(placed.initrd, Some(Gpa::new(56 * MIB)));
    let placed = find(&dram, &vmlinux(), Some(1)).unwrap();
    assert_eq!(placed.entry, Entry::Pvh { entry: 0x100_0010 });
    assert_eq!(placed.initrd, Some(Gpa::new(41 * MIB + 0x1000)));
}

#[test]
fn a_kernel_moves_up_over_a_hole_if_it_can() {
    let dram = [range(0, 32 * MIB), range(64 * MIB, GIB)];
    let placed = find(&dram, &bzimage(Some(16 * MIB)), Some(MIB)).unwrap();
    assert_eq!(kernel(placed), 64 * MIB);
    assert_eq!(placed.initrd, Some(Gpa::new(104 * MIB)));
    let error = find(&dram, &bzimage(None), None).unwrap_err();
    assert_eq!((error.what, error.free), ("kernel", 16 * MIB));
    let error = find(&dram, &vmlinux(), None).unwrap_err();
    assert_eq!((error.what, error.free), ("kernel", 16 * MIB));
}

#[test]
fn nothing_is_loaded_beyond_4_gib() {
    let dram = [range(0, 32 * MIB), range(4 * GIB, GIB)];
    assert!(find(&dram, &bzimage(Some(2 * MIB)), None).is_err());
    let dram = [range(0, 64 * MIB), range(4 * GIB, GIB)];
    let error = find(&dram, &bzimage(Some(2 * MIB)), Some(9 * MIB)).unwrap_err();
    assert_eq!((error.what, error.free), ("initrd", 8 * MIB));
    let text = "the initrd needs 9437184 bytes of guest memory in one piece, and 8388608 are free \
                behind the kernel, below 4 GiB";
    assert_eq!(error.to_string(), text);
}

#[test]
fn the_initrd_stays_below_what_the_kernel_allows() {
    let dram = [range(0, 3 * GIB)];
    let placed = find(&dram, &bzimage(Some(2 * MIB)), Some(GIB)).unwrap();
    assert_eq!(placed.initrd, Some(Gpa::new(56 * MIB)));
    let error = find(&dram, &bzimage(Some(2 * MIB)), Some(2 * GIB)).unwrap_err();
    assert_eq!((error.what, error.free), ("initrd", 2 * GIB - 56 * MIB));
}

#[test]
fn the_first_mib_must_be_memory() {
    for dram in [vec![], vec![range(2 * MIB, GIB)]] {
        let error = find(&dram, &bzimage(Some(2 * MIB)), None).unwrap_err();
        assert_eq!((error.bytes, error.free), (MIB, 0));
    }
}
