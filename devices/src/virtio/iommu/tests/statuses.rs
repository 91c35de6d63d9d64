//! Which status each request gets: the table of the specification's words.

use iommu::PAGE_SIZE;
use iommu::wire::Status;

use super::{ENDPOINT, attach, detach, guest, map, status, unmap};

/// What a request is, its bytes, and its status.
type Step = (&'static str, Vec<u8>, Status);

fn check(steps: &[Step]) {
    let (mut guest, _) = guest();
    for (what, request, expected) in steps {
        assert_eq!(status(&mut guest, request), *expected as u8, "{what}");
    }
}

/// The first and the last byte of a page.
const fn page(number: u64) -> (u64, u64) {
    (number * PAGE_SIZE, number * PAGE_SIZE + PAGE_SIZE - 1)
}

#[test]
fn of_attach_and_detach() {
    let mut reserved_field = attach(1, ENDPOINT, 0);
    reserved_field[16] = 1;
    check(&[
        (
            "attach a device that is not there",
            attach(1, 7, 0),
            Status::NoEntry,
        ),
        ("a reserved field", reserved_field, Status::Invalid),
        ("an unknown flag", attach(1, ENDPOINT, 2), Status::Invalid),
        (
            "detach what is not attached",
            detach(1, ENDPOINT),
            Status::Invalid,
        ),
        (
            "detach a device that is not there",
            detach(1, 7),
            Status::NoEntry,
        ),
        ("attach", attach(1, ENDPOINT, 0), Status::Ok),
        (
            "attach as another kind",
            attach(1, ENDPOINT, 1),
            Status::Invalid,
        ),
        ("detach", detach(1, ENDPOINT), Status::Ok),
        (
            "a domain that is gone",
            map(1, page(1), 0, 3),
            Status::NoEntry,
        ),
        ("attach in bypass mode", attach(1, ENDPOINT, 1), Status::Ok),
        ("map in bypass mode", map(1, page(1), 0, 3), Status::Invalid),
        ("unmap in bypass mode", unmap(1, page(1)), Status::Invalid),
        ("move to another domain", attach(2, ENDPOINT, 0), Status::Ok),
        ("leave the old one", detach(1, ENDPOINT), Status::Invalid),
        ("leave the new one", detach(2, ENDPOINT), Status::Ok),
    ]);
}

#[test]
fn of_map_by_its_range() {
    check(&[
        ("map in no domain", map(1, page(1), 0, 3), Status::NoEntry),
        ("attach", attach(1, ENDPOINT, 0), Status::Ok),
        ("map", map(1, page(1), 0x1000, 3), Status::Ok),
        ("map for reading", map(1, page(2), 0x1000, 1), Status::Ok),
        (
            "map over a mapping",
            map(1, page(1), 0x3000, 3),
            Status::Invalid,
        ),
        ("map for nothing", map(1, page(4), 0, 0), Status::Invalid),
        (
            "map with an unknown flag",
            map(1, page(4), 0, 11),
            Status::Invalid,
        ),
        ("half a page", map(1, (0x4000, 0x47ff), 0, 3), Status::Range),
        (
            "a misaligned start",
            map(1, (0x4800, 0x4fff), 0, 3),
            Status::Range,
        ),
        (
            "a misaligned target",
            map(1, page(4), 0x800, 3),
            Status::Range,
        ),
        (
            "an end before the start",
            map(1, (0x5000, 0x3fff), 0, 3),
            Status::Range,
        ),
        (
            "beyond the input range",
            map(1, page(1 << 20), 0, 3),
            Status::Range,
        ),
        (
            "an end that wraps",
            map(1, (0, u64::MAX), 0, 3),
            Status::Range,
        ),
    ]);
}

#[test]
fn of_map_by_its_target() {
    check(&[
        ("attach", attach(1, ENDPOINT, 0), Status::Ok),
        (
            "a reserved window",
            map(1, page(0x8000), 0, 3),
            Status::Invalid,
        ),
        (
            "a target that is not memory",
            map(1, page(4), 1 << 30, 3),
            Status::Fault,
        ),
        (
            "a target that wraps",
            map(1, page(4), !0xfff, 3),
            Status::Fault,
        ),
        (
            "a target partly in memory",
            map(1, (0x4000, 0x5fff), 63 << 12, 3),
            Status::Fault,
        ),
        (
            "registers of a device",
            map(1, page(4), 1 << 30, 7),
            Status::Fault,
        ),
        (
            "registers that are memory",
            map(1, page(4), 0, 7),
            Status::Fault,
        ),
    ]);
}

#[test]
fn of_unmap() {
    check(&[
        ("unmap in no domain", unmap(1, page(1)), Status::NoEntry),
        ("attach", attach(1, ENDPOINT, 0), Status::Ok),
        ("map", map(1, page(1), 0x1000, 3), Status::Ok),
        (
            "a large mapping",
            map(1, (0x10000, 0x1ffff), 0, 3),
            Status::Ok,
        ),
        ("a part of it", unmap(1, (0x10000, 0x17fff)), Status::Range),
        ("unmap all of it", unmap(1, (0x10000, 0x1ffff)), Status::Ok),
        ("unmap a hole", unmap(1, (0x10000, 0x1ffff)), Status::Ok),
        ("unmap everything", unmap(1, (0, u64::MAX)), Status::Ok),
    ]);
}
