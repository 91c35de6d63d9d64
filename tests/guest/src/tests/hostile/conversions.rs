//! Conversions of what is no memory, and conversions that race with requests.

use core::sync::atomic::{AtomicBool, Ordering};

use super::{DOMAIN, FREE, OK, PAGE, Rig};
use crate::arch::processor;
use crate::rsi::function::IPA_STATE_SET;
use crate::rsi::{EMPTY, RAM, Realm, SUCCESS, rsi};
use crate::viommu::{Answer, Request, access};
use crate::{mmio, report};

pub(super) fn run(rig: &mut Rig<'_>) -> Result<(), &'static str> {
    let Some(realm) = rig.machine.realm else {
        return Ok(());
    };
    devices(rig, realm)?;
    race(rig, realm)
}

/// The host gives no memory where devices are, and they stay.
fn devices(rig: &mut Rig<'_>, realm: Realm) -> Result<(), &'static str> {
    const REJECTED: u64 = 1;
    let machine = rig.machine;
    let own = |address: u64| address & !realm.shared_bit();
    let places = [
        ("the serial port", machine.registers.start),
        (
            "configuration space",
            machine.ecam.unwrap_or_default().start,
        ),
        ("a device's registers", own(rig.edu.base)),
    ];
    for (name, start) in places {
        let start = start & !(PAGE - 1);
        for (state, expected) in [(RAM, REJECTED), (EMPTY, SUCCESS)] {
            let arguments = [start, start + PAGE, state, 0];
            let [status, _, response, ..] = rsi(IPA_STATE_SET, arguments);
            rig.cases += 1;
            if (status, response) != (SUCCESS, expected) {
                rig.wrong += 1;
                report!("wrong=conversion of {name} to {state}: {status:#x}, {response}");
            }
        }
    }
    // Its version is still there.
    match mmio::read32(rig.edu.base) {
        0x0100_00ed => Ok(()),
        _ => Err("a device has gone after a conversion of its registers"),
    }
}

/// One processor maps and unmaps the pages that the other one converts.
fn race(rig: &mut Rig<'_>, realm: Realm) -> Result<(), &'static str> {
    const ROUNDS: usize = 300;
    if rig.machine.second_processor.is_none() {
        return Err("the race needs two processors");
    }
    rig.set_up()?;
    let start = rig.private.ok_or("there is no private page")?;
    let alias = rig.machine.shared(start);
    let (stop, refused) = (AtomicBool::new(false), AtomicBool::new(false));
    let convert = || {
        while !stop.load(Ordering::Relaxed) {
            for state in [EMPTY, RAM] {
                if realm.set(start, start + 2 * PAGE, state).is_err() {
                    refused.store(true, Ordering::Relaxed);
                }
            }
        }
    };
    let machine = rig.machine;
    processor::beside(machine, &convert, || {
        for _ in 0..ROUNDS {
            for target in [alias, start, alias + PAGE] {
                let map = Request::map(DOMAIN, FREE, PAGE, target, access::BOTH);
                let unmap = Request::unmap(DOMAIN, FREE, PAGE);
                let answers = [map, unmap].map(|request| rig.viommu.ask(&request));
                for answer in answers {
                    rig.expect("MAP or UNMAP beside a conversion", answer, OK);
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
    })?;
    if refused.load(Ordering::Relaxed) {
        return Err("a conversion beside a MAP was refused");
    }
    let answer = rig.viommu.ask(&Request::detach(DOMAIN, rig.edu.endpoint));
    rig.expect("DETACH after the race", answer, Answer::Status(0));
    Ok(())
}
