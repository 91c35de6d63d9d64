//! Requests that are well-formed chains and make no sense.

use super::{DOMAIN, FREE, MAPPED, OK, PAGE, Rig};
use crate::mmio;
use crate::viommu::{Answer, Request, access, answer};

const INVALID: Answer = Answer::Status(answer::INVALID);
const RANGE: Answer = Answer::Status(answer::RANGE);
const NO_ENTRY: Answer = Answer::Status(answer::NO_ENTRY);
const FAULT: Answer = Answer::Status(answer::FAULT);

pub(super) fn run(rig: &mut Rig<'_>) -> Result<(), &'static str> {
    rig.set_up()?;
    shapes(rig);
    endpoints(rig);
    ranges(rig);
    targets(rig);
    windows(rig)?;
    unmaps(rig)
}

fn check(rig: &mut Rig<'_>, cases: &[(&str, Request, Answer)]) {
    for (name, request, expected) in cases {
        let answer = rig.viommu.ask(request);
        rig.expect(name, answer, *expected);
    }
    rig.still_works(cases.last().map_or("nothing", |(name, ..)| name));
}

/// Types, lengths, flags and reserved fields.
fn shapes(rig: &mut Rig<'_>) {
    let map = Request::map(DOMAIN, FREE, PAGE, rig.pages.page(8), access::BOTH);
    let flags = |flags: u32| map.with(32, &flags.to_le_bytes());
    let attach = Request::attach(DOMAIN, rig.edu.endpoint, 0);
    let unmap = Request::unmap(DOMAIN, FREE, PAGE);
    check(
        rig,
        &[
            ("type 0", map.with(0, &[0]), Answer::Unwritten),
            ("type 6", map.with(0, &[6]), Answer::Unwritten),
            ("type 255", map.with(0, &[255]), Answer::Unwritten),
            ("a type alone", map.cut(4), Answer::Unwritten),
            ("a short MAP", map.cut(35), Answer::Unwritten),
            ("a short ATTACH", attach.cut(19), Answer::Unwritten),
            ("a short UNMAP", unmap.cut(23), Answer::Unwritten),
            ("no flags", flags(0), INVALID),
            ("an unknown flag", flags(8 | access::BOTH), INVALID),
            ("all flags", flags(u32::MAX), INVALID),
            ("ATTACH, unknown flag", attach.with(12, &[2]), INVALID),
            ("ATTACH, reserved field", attach.with(16, &[1]), INVALID),
            ("UNMAP, reserved field", unmap.with(24, &[1]), INVALID),
        ],
    );
}

fn endpoints(rig: &mut Rig<'_>) {
    const BYPASS: u32 = 1;
    let endpoint = rig.edu.endpoint;
    let other = 0xfff8;
    let map = Request::map(7, FREE, PAGE, rig.pages.page(8), access::BOTH);
    check(
        rig,
        &[
            (
                "ATTACH of nobody",
                Request::attach(DOMAIN, other, 0),
                NO_ENTRY,
            ),
            (
                "ATTACH of all ones",
                Request::attach(DOMAIN, u32::MAX, 0),
                NO_ENTRY,
            ),
            (
                "ATTACH, bypass in a domain that translates",
                Request::attach(DOMAIN, endpoint, BYPASS),
                INVALID,
            ),
            ("DETACH of nobody", Request::detach(DOMAIN, other), NO_ENTRY),
            (
                "DETACH, wrong domain",
                Request::detach(7, endpoint),
                INVALID,
            ),
            ("MAP, no such domain", map, NO_ENTRY),
            (
                "UNMAP, no such domain",
                Request::unmap(7, FREE, PAGE),
                NO_ENTRY,
            ),
        ],
    );
    let (answer, _) = rig.viommu.probe(other);
    rig.expect("PROBE of nobody", answer, NO_ENTRY);
}

/// IOVAs.
fn ranges(rig: &mut Rig<'_>) {
    let page = rig.pages.page(8);
    let input_end = rig.viommu.virtio.config64(0x10);
    let map = |virt: u64, bytes: u64| Request::map(DOMAIN, virt, bytes, page, access::BOTH);
    let last = |virt: u64, last: u64| map(virt, 0).with(16, &last.to_le_bytes());
    check(
        rig,
        &[
            ("MAP, misaligned start", map(FREE + 8, PAGE - 8), RANGE),
            ("MAP, misaligned end", map(FREE, PAGE - 1), RANGE),
            ("MAP, one byte", map(FREE, 1), RANGE),
            ("MAP, empty", map(FREE, 0), RANGE),
            ("MAP, backwards", last(FREE + PAGE, FREE - 1), RANGE),
            ("MAP, all there is", last(0, u64::MAX), RANGE),
            ("MAP, to the very end", last(FREE, u64::MAX), RANGE),
            ("MAP, the last page", last(!(PAGE - 1), u64::MAX), RANGE),
            (
                "MAP, beyond the input range",
                map(input_end.wrapping_add(1) & !(PAGE - 1), PAGE),
                RANGE,
            ),
            (
                "MAP, across the end of the input range",
                map((input_end & !(PAGE - 1)).wrapping_sub(PAGE), 4 * PAGE),
                RANGE,
            ),
            ("MAP, the same again", map(MAPPED, 4 * PAGE), INVALID),
            ("MAP, inside", map(MAPPED + PAGE, PAGE), INVALID),
            ("MAP, around", map(MAPPED - PAGE, 8 * PAGE), INVALID),
            (
                "MAP, across the start",
                map(MAPPED - PAGE, 2 * PAGE),
                INVALID,
            ),
            (
                "MAP, across the end",
                map(MAPPED + 3 * PAGE, 2 * PAGE),
                INVALID,
            ),
        ],
    );
}

/// What is mapped to.
fn targets(rig: &mut Rig<'_>) {
    let machine = rig.machine;
    let top = machine.highest_page() + PAGE;
    let map =
        |phys: u64, pages: u64, flags: u32| Request::map(DOMAIN, FREE, pages * PAGE, phys, flags);
    let none = |name, phys| (name, map(phys, 1, access::BOTH), FAULT);
    let ecam = machine.ecam.unwrap_or_default().start;
    let window = machine
        .window
        .or(machine.window_64)
        .unwrap_or_default()
        .start;
    let bar = rig.edu.base;
    check(
        rig,
        &[
            (
                "MAP, misaligned target",
                map(rig.pages.page(8) + 8, 1, access::BOTH),
                RANGE,
            ),
            none(
                "MAP of the platform's registers",
                machine.registers.start & !(PAGE - 1),
            ),
            none(
                "MAP of their alias",
                machine.shared(machine.registers.start) & !(PAGE - 1),
            ),
            none("MAP of configuration space", ecam),
            none("MAP of a PCI window", window),
            none("MAP of the device's own registers", bar),
            none("MAP of where there is nothing", machine.nowhere),
            none("MAP of what is beyond memory", machine.shared(top)),
            none("MAP of the highest address", !(PAGE - 1)),
            (
                "MAP across the end of memory",
                map(machine.shared(top - PAGE), 2, access::BOTH),
                FAULT,
            ),
            ("MAP that wraps", map(!(PAGE - 1), 2, access::BOTH), FAULT),
            (
                "MAP of registers as such",
                map(bar, 1, access::BOTH | access::DEVICE),
                FAULT,
            ),
            (
                "MAP of memory as registers",
                map(rig.pages.page(8), 1, access::BOTH | access::DEVICE),
                FAULT,
            ),
        ],
    );
}

/// The windows that the host keeps for itself, as PROBE tells them.
fn windows(rig: &mut Rig<'_>) -> Result<(), &'static str> {
    const RESERVED_MEMORY: u16 = 1;
    let (answer, at) = rig.viommu.probe(rig.edu.endpoint);
    rig.expect("PROBE", answer, OK);
    let mut windows = [None; 8];
    let mut next = at;
    for window in &mut windows {
        let (kind, length) = (mmio::read16(next), mmio::read16(next + 2));
        if kind & 0xfff != RESERVED_MEMORY {
            break;
        }
        *window = Some((mmio::read64(next + 8), mmio::read64(next + 16)));
        next += 4 + u64::from(length);
    }
    let mut count = 0;
    for (start, last) in windows.into_iter().flatten() {
        let page = rig.pages.page(8);
        for (name, virt, bytes) in [
            ("MAP over a reserved window", start, PAGE),
            (
                "MAP over the end of a reserved window",
                last & !(PAGE - 1),
                PAGE,
            ),
            (
                "MAP across a reserved window",
                start.wrapping_sub(PAGE),
                2 * PAGE,
            ),
        ] {
            let map = Request::map(DOMAIN, virt, bytes, page, access::BOTH);
            let answer = rig.viommu.ask(&map);
            rig.expect(name, answer, INVALID);
        }
        count += 1;
    }
    rig.still_works("a MAP over a reserved window");
    // Arm hosts keep a window for interrupt messages at least.
    match count {
        0 => Err("PROBE tells of no reserved window"),
        _ => Ok(()),
    }
}

fn unmaps(rig: &mut Rig<'_>) -> Result<(), &'static str> {
    let unmap = |virt: u64, bytes: u64| Request::unmap(DOMAIN, virt, bytes);
    let everything = unmap(0, 0).with(16, &u64::MAX.to_le_bytes());
    check(
        rig,
        &[
            ("UNMAP of the first half", unmap(MAPPED, 2 * PAGE), RANGE),
            (
                "UNMAP of the second half",
                unmap(MAPPED + 2 * PAGE, 2 * PAGE),
                RANGE,
            ),
            ("UNMAP of the middle", unmap(MAPPED + PAGE, PAGE), RANGE),
            (
                "UNMAP across the end",
                unmap(MAPPED + PAGE, 16 * PAGE),
                RANGE,
            ),
            ("UNMAP of a hole", unmap(FREE, PAGE), OK),
            ("UNMAP, backwards", unmap(FREE, 0).with(16, &[0; 8]), RANGE),
            ("UNMAP of nothing", unmap(FREE, 0), RANGE),
        ],
    );
    // A refused UNMAP has removed nothing.
    rig.edu.read(MAPPED)?;
    let map = Request::map(DOMAIN, MAPPED, PAGE, rig.pages.page(0), access::BOTH);
    check(
        rig,
        &[
            ("MAP over what was not unmapped", map, INVALID),
            ("UNMAP of everything", everything, OK),
            ("MAP where all has gone", map, OK),
        ],
    );
    Ok(())
}
