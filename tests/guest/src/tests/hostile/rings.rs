//! Rings that are none: the device says that it needs to be reset, and works after it.

use super::{PAGE, Rig};
use crate::rsi::{EMPTY, RAM};
use crate::viommu::Answer;
use crate::virtio::{Place, VERSION_1, status};

pub(super) fn run(rig: &mut Rig<'_>) -> Result<(), &'static str> {
    heads(rig)?;
    places(rig)?;
    handshake(rig)?;
    gone(rig)
}

/// What the driver says that it has offered.
fn heads(rig: &mut Rig<'_>) -> Result<(), &'static str> {
    for (name, head) in [("head 256", 256), ("head 65535", u16::MAX)] {
        rig.set_up()?;
        rig.viommu.requests.offer(head);
        let answer = rig.viommu.send(0);
        rig.expect(name, answer, Answer::NeedsReset);
    }
    for (name, index) in [
        ("300 offers at once", 300_u16),
        ("an offer taken back", u16::MAX),
    ] {
        rig.set_up()?;
        // The request of `set_up` were two.
        rig.viommu.requests.claim(index.wrapping_add(2));
        let answer = rig.viommu.send(0);
        rig.expect(name, answer, Answer::NeedsReset);
    }
    rig.set_up()?;
    rig.still_works("a bad ring");
    Ok(())
}

/// Where the driver says that the ring is.
fn places(rig: &mut Rig<'_>) -> Result<(), &'static str> {
    let machine = rig.machine;
    let good = Place::of(rig.pages, 8);
    let bad = [
        ("where there is nothing", Some(machine.nowhere)),
        ("at the highest address", Some(u64::MAX - 15)),
        (
            "beyond memory",
            Some(machine.shared(machine.highest_page() + PAGE)),
        ),
        (
            "across the end of memory",
            Some(machine.shared(machine.highest_page() + PAGE - 16)),
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
        ("misaligned", Some(good.descriptors + 1)),
    ];
    for (name, address) in bad {
        let Some(address) = address else { continue };
        let rings = [
            Place {
                descriptors: address,
                ..good
            },
            Place {
                available: address,
                ..good
            },
            Place {
                used: address,
                ..good
            },
        ];
        for ring in rings {
            let virtio = &rig.viommu.virtio;
            virtio.negotiate(virtio.features())?;
            virtio.enable(0, ring);
            virtio.go_live();
            let refused = virtio.status() & status::NEEDS_RESET != 0;
            let answer = if refused {
                Answer::NeedsReset
            } else {
                Answer::Silent
            };
            rig.expect(name, answer, Answer::NeedsReset);
        }
    }
    rig.set_up()?;
    rig.still_works("a ring in a bad place");
    Ok(())
}

/// A driver that leaves steps out.
fn handshake(rig: &mut Rig<'_>) -> Result<(), &'static str> {
    let agreed = |agreed| {
        if agreed {
            Answer::Status(0)
        } else {
            Answer::Unwritten
        }
    };
    let offered = rig.viommu.virtio.features();
    for (name, features, expected) in [
        ("all that is offered", offered, true),
        ("no version 1", offered & !VERSION_1, false),
        ("a feature that is not offered", offered | 1 << 3, false),
        ("all features", u64::MAX, false),
    ] {
        let answer = agreed(rig.viommu.virtio.negotiate(features)?);
        rig.expect(name, answer, agreed(expected));
    }
    rig.viommu.virtio.reset()?;
    for _ in 0..3 {
        rig.viommu.requests.notify();
    }
    let answer = Answer::Status(rig.viommu.virtio.status());
    rig.expect("a notification before all else", answer, Answer::Status(0));
    rig.set_up()?;
    rig.still_works("a bad handshake");
    Ok(())
}

/// A ring whose memory goes private while it is in use.
fn gone(rig: &mut Rig<'_>) -> Result<(), &'static str> {
    let (Some(realm), Some(page)) = (rig.machine.realm, rig.private) else {
        return Ok(());
    };
    let refused = "a conversion was refused";
    rig.set_up()?;
    realm.set(page, page + PAGE, EMPTY).map_err(|_| refused)?;
    let place = Place {
        available: rig.machine.shared(page),
        ..Place::of(rig.pages, 8)
    };
    place.clear();
    let virtio = &rig.viommu.virtio;
    virtio.negotiate(virtio.features())?;
    rig.viommu.requests = virtio.enable(0, place);
    virtio.go_live();
    realm.set(page, page + PAGE, RAM).map_err(|_| refused)?;
    let answer = rig.viommu.send(0);
    rig.expect("a ring that has gone private", answer, Answer::NeedsReset);
    rig.set_up()?;
    rig.still_works("a ring that has gone private");
    Ok(())
}
