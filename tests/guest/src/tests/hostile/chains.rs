//! Chains of descriptors that are no requests: each goes back with nothing written.

use super::{DOMAIN, FREE, OK, PAGE, Rig};
use crate::viommu::{Answer, Request};
use crate::virtio::{Descriptor, INDIRECT, NEXT, WRITABLE, write_descriptor};

/// Bytes of the request that each chain carries, were it one.
const REQUEST: u32 = 28;
const TAIL: u32 = 4;

pub(super) fn run(rig: &mut Rig<'_>) -> Result<(), &'static str> {
    rig.set_up()?;
    shapes(rig)?;
    places(rig)?;
    tables(rig)
}

/// Offers a chain, which begins at descriptor 0.
fn check(
    rig: &mut Rig<'_>,
    name: &str,
    chain: &[Descriptor],
    expected: Answer,
) -> Result<(), &'static str> {
    rig.viommu.put(0, &Request::unmap(DOMAIN, FREE, PAGE));
    for (number, descriptor) in chain.iter().enumerate() {
        rig.viommu.requests.describe(number as u16, *descriptor);
    }
    rig.viommu.requests.offer(0);
    let answer = rig.viommu.send(0);
    rig.expect(name, answer, expected);
    if answer == Answer::NeedsReset {
        rig.set_up()?;
    }
    rig.still_works(name);
    Ok(())
}

fn shapes(rig: &mut Rig<'_>) -> Result<(), &'static str> {
    let (from, to) = (rig.viommu.request_address(), rig.viommu.answer_address());
    let request = |length, flags, next| Descriptor {
        address: from,
        length,
        flags,
        next,
    };
    let tail = |length, flags, next| Descriptor {
        address: to,
        length,
        flags,
        next,
    };
    let good = [request(REQUEST, NEXT, 1), tail(TAIL, WRITABLE, 0)];
    let nothing = Answer::Unwritten;
    let cases: &[(&str, &[Descriptor], Answer)] = &[
        ("a good chain", &good, OK),
        ("a loop of one", &[request(REQUEST, NEXT, 0)], nothing),
        (
            "a loop of two",
            &[request(REQUEST, NEXT, 1), tail(TAIL, WRITABLE | NEXT, 0)],
            nothing,
        ),
        (
            "a loop of tails",
            &[request(REQUEST, NEXT, 1), tail(TAIL, WRITABLE | NEXT, 1)],
            nothing,
        ),
        (
            "no such descriptor",
            &[request(REQUEST, NEXT, 256)],
            nothing,
        ),
        (
            "no such descriptor at all",
            &[request(REQUEST, NEXT, u16::MAX)],
            nothing,
        ),
        (
            "more than 4 GiB",
            &[request(u32::MAX, NEXT, 1), tail(u32::MAX, WRITABLE, 0)],
            nothing,
        ),
        ("an empty request", &[request(0, NEXT, 1), good[1]], nothing),
        ("nothing at all", &[request(0, 0, 0)], nothing),
        ("no tail", &[request(REQUEST, 0, 0)], nothing),
        ("an empty tail", &[good[0], tail(0, WRITABLE, 0)], nothing),
        (
            "a tail of three bytes",
            &[good[0], tail(3, WRITABLE, 0)],
            nothing,
        ),
        ("a tail to read", &[good[0], tail(TAIL, 0, 0)], nothing),
        ("a tail alone", &[tail(TAIL, WRITABLE, 0)], nothing),
        (
            "the tail first",
            &[tail(TAIL, WRITABLE | NEXT, 1), request(REQUEST, 0, 0)],
            nothing,
        ),
        (
            "a request in pieces",
            &[
                request(8, NEXT, 1),
                Descriptor {
                    address: from + 8,
                    ..request(REQUEST - 8, NEXT, 2)
                },
                tail(TAIL, WRITABLE, 0),
            ],
            OK,
        ),
    ];
    cases
        .iter()
        .try_for_each(|(name, chain, expected)| check(rig, name, chain, *expected))
}

/// Buffers where no buffer can be.
fn places(rig: &mut Rig<'_>) -> Result<(), &'static str> {
    let (from, to) = (rig.viommu.request_address(), rig.viommu.answer_address());
    let machine = rig.machine;
    let outside = [
        ("where there is nothing", Some(machine.nowhere)),
        ("at the highest address", Some(u64::MAX - 3)),
        (
            "beyond memory",
            Some(machine.shared(machine.highest_page() + PAGE)),
        ),
        (
            "in the platform's registers",
            Some(machine.shared(machine.registers.start)),
        ),
        ("in a device's registers", Some(rig.edu.base)),
        ("in a private page", rig.private),
        (
            "at a private page's alias",
            rig.private.map(|page| machine.shared(page)),
        ),
    ];
    for (name, address) in outside {
        let Some(address) = address else { continue };
        let readable = |address| Descriptor {
            address,
            length: REQUEST,
            flags: NEXT,
            next: 1,
        };
        let writable = |address| Descriptor {
            address,
            length: TAIL,
            flags: WRITABLE,
            next: 0,
        };
        let cases = [
            [readable(address), writable(to)],
            [readable(from), writable(address)],
        ];
        for chain in cases {
            check(rig, name, &chain, Answer::Unwritten)?;
        }
    }
    Ok(())
}

/// Tables of descriptors, which the device does not offer to follow.
fn tables(rig: &mut Rig<'_>) -> Result<(), &'static str> {
    let machine = rig.machine;
    let (table, registers) = (rig.pages.page(12), machine.shared(machine.registers.start));
    let itself = Descriptor {
        address: table,
        length: 16,
        flags: INDIRECT,
        next: 0,
    };
    write_descriptor(table, itself);
    let at = |address, length, flags| {
        [Descriptor {
            address,
            length,
            flags,
            next: 0,
        }]
    };
    let cases = [
        ("a table that holds itself", at(table, 16, INDIRECT)),
        ("a table of 17 bytes", at(table, 17, INDIRECT)),
        ("an empty table", at(table, 0, INDIRECT)),
        ("a table of 4 GiB", at(table, u32::MAX & !15, INDIRECT)),
        ("a table in registers", at(registers, 16, INDIRECT)),
        (
            "a table at the highest address",
            at(u64::MAX - 15, 16, INDIRECT),
        ),
        ("a table and a next", at(table, 16, INDIRECT | NEXT)),
        ("a table to write", at(table, 16, INDIRECT | WRITABLE)),
    ];
    cases
        .iter()
        .try_for_each(|(name, chain)| check(rig, name, chain, Answer::Unwritten))
}
