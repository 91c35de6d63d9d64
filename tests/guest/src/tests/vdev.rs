//! Two devices and one shared page: the guest accepts one of them, and not the other.

use super::Outcome;
use super::dma::{ALL, fill, matches, share};
use crate::edu::Edu;
use crate::machine::Machine;
use crate::rsi::function::{FEATURES, VDEV_VALIDATE_MAPPING};
use crate::rsi::{DEVICE, GRANULE, Realm, SUCCESS, rsi};
use crate::vdev::{Info, Vdev, host_features, state};
use crate::{mmio, report, time};

/// Objects, interface reports and states.
const SERVED: u64 = 0b11_0011;
/// The host's word that the device is not in the right state.
const HOST_DEVICE: u64 = 6;
/// The command register, and what it holds with memory on and DMA off.
const COMMAND: u64 = 4;
const MEMORY_ONLY: u32 = 2;

/// The pages of the test.
struct Pages {
    private: u64,
    /// At its shared address.
    shared: u64,
    /// Where a device shows what it has read.
    witness: u64,
}

impl Pages {
    fn new(machine: &Machine<'_>) -> Result<Self, super::Failure> {
        let private = machine.free_memory(4 * GRANULE).ok_or("no free memory")?;
        let [shared, witness] = [private + GRANULE, private + 2 * GRANULE];
        share(machine, shared)?;
        share(machine, witness)?;
        Ok(Self {
            private,
            shared: machine.shared(shared),
            witness: machine.shared(witness),
        })
    }

    /// Whether a device gets what is at `page`.
    fn reads(&self, edu: &Edu, page: u64, seed: u64) -> Result<bool, &'static str> {
        fill(page, seed);
        edu.read(page)?;
        edu.write(self.witness)?;
        match matches(self.witness, seed) {
            ALL => Ok(true),
            0 => Ok(false),
            _ => Err("a device got a part of a page"),
        }
    }

    /// Whether what a device writes arrives at `page`; its buffer comes from the shared page.
    fn writes(&self, edu: &Edu, page: u64, seed: u64) -> Result<bool, &'static str> {
        fill(self.shared, seed);
        edu.read(self.shared)?;
        fill(page, !seed);
        edu.write(page)?;
        match (matches(page, seed), matches(page, !seed)) {
            (ALL, _) => Ok(true),
            (_, ALL) => Ok(false),
            _ => Err("a device wrote a part of a page"),
        }
    }
}

fn must(holds: bool, otherwise: &'static str) -> Result<(), &'static str> {
    holds.then_some(()).ok_or(otherwise)
}

/// One device goes all the way to RUN and back, with the other beside it; then it fails.
pub fn accept_one_of_two(machine: &Machine<'_>, realm: Realm) -> Outcome {
    let [_, features, ..] = rsi(FEATURES, [0]);
    must(features & 1 == 1, "the Realm has no device assignment")?;
    must(host_features() == SERVED, "the host serves other calls")?;
    let [accepted, other] = [Edu::at(machine, 0)?, Edu::at(machine, 1)?];
    let device = Vdev(u64::from(accepted.function.id));
    let pages = Pages::new(machine)?;
    report!("refused_page={:#x}", pages.private);
    let seen = lock(machine, device, &pages)?;
    // The first faults are to be those of the other device: the host's kernel logs few at a time.
    start(realm, device, seen)?;
    side_by_side(&accepted, &other, &pages)?;
    report!("side_by_side=ok");

    must(device.disable_dma() == SUCCESS, "no way to disable DMA")?;
    must(
        !pages.reads(&accepted, pages.private, 11)?,
        "a device whose DMA is disabled reads private memory",
    )?;
    stop_after_fault(device)?;
    device.accept()?;
    must(
        pages.reads(&accepted, pages.private, 12)?,
        "a device does not reach private memory again",
    )?;
    stop(device, &accepted, &pages)?;
    report!("stopped=ok");

    fail(device, &accepted, &pages)?;
    report!("failed=ok");
    Ok(())
}

/// Locks the device and looks at it.
fn lock(machine: &Machine<'_>, device: Vdev, pages: &Pages) -> Result<Info, &'static str> {
    let before = device.info().ok_or("no information on the device")?;
    must(
        before.state == state::UNLOCKED,
        "the device is not unlocked",
    )?;
    must(
        device.enable_dma(before) == DEVICE,
        "DMA of an unlocked device",
    )?;
    must(
        device.bring_to(state::RUN) == HOST_DEVICE,
        "a start without a lock",
    )?;
    must(
        device.bring_to(state::LOCKED) == 0,
        "the device cannot be locked",
    )?;
    let seen = device.info().ok_or("no information on the locked device")?;
    must(seen.state == state::LOCKED, "the device is not locked")?;
    must(
        device.enable_dma(before) == DEVICE,
        "what was seen before the lock counts",
    )?;
    let plain = pages.witness & !machine.shared_bit().unwrap_or(0);
    let [status, bytes] = device.read_report(plain, GRANULE);
    must(status == 0 && bytes == 36, "the report is not of one range")?;
    let page = mmio::read64(pages.witness + 16);
    let window = machine.window.ok_or("no window")?;
    must(window.contains(page), "the report has registers elsewhere")?;
    report!("report_page={page:#x}");
    Ok(seen)
}

fn start(realm: Realm, device: Vdev, seen: Info) -> Result<(), &'static str> {
    let base = realm.shared_bit() / 2;
    let [status, reached, response, ..] = rsi(
        VDEV_VALIDATE_MAPPING,
        seen.mapping(device, base, base + GRANULE),
    );
    must(
        (status, reached, response) == (SUCCESS, base, 1),
        "the host has private device memory",
    )?;
    must(device.enable_dma(seen) == SUCCESS, "DMA cannot be enabled")?;
    must(
        device.bring_to(state::RUN) == 0,
        "the device cannot be started",
    )?;
    let state = device.info().map(|info| info.state);
    must(state == Some(state::RUN), "the device does not run")
}

/// Both reach the shared page; only the accepted one reaches the private one.
fn side_by_side(accepted: &Edu, other: &Edu, pages: &Pages) -> Result<(), &'static str> {
    for (edu, seed) in [(accepted, 2), (other, 3)] {
        must(
            pages.reads(edu, pages.shared, seed)?,
            "a device does not read the shared page",
        )?;
        must(
            pages.writes(edu, pages.shared + GRANULE / 2, seed + 2)?,
            "a device does not write the shared page",
        )?;
    }
    must(
        pages.reads(accepted, pages.private, 6)?,
        "the accepted device does not read the private page",
    )?;
    must(
        pages.writes(accepted, pages.private, 7)?,
        "the accepted device does not write the private page",
    )?;
    must(
        !pages.reads(other, pages.private, 8)?,
        "the other device reads the private page",
    )?;
    must(
        !pages.writes(other, pages.private, 9)?,
        "the other device writes the private page",
    )
}

/// A device has been refused memory. If the host hears of that, which its kernel's rate
/// limit decides, an interface that is locked is in ERROR a little later. From UNLOCKED all begins
/// anew, either way.
fn stop_after_fault(device: Vdev) -> Result<(), &'static str> {
    time::wait(1, || false);
    must(
        device.bring_to(state::UNLOCKED) == 0,
        "the device cannot be stopped after a fault",
    )
}

fn stop(device: Vdev, accepted: &Edu, pages: &Pages) -> Result<(), &'static str> {
    must(
        device.bring_to(state::UNLOCKED) == 0,
        "the device cannot be stopped",
    )?;
    let state = device.info().map(|info| info.state);
    must(state == Some(state::UNLOCKED), "the device is not stopped")?;
    must(
        !pages.reads(accepted, pages.private, 13)?,
        "a stopped device reads private memory",
    )?;
    must(
        pages.reads(accepted, pages.shared, 14)?,
        "a stopped device has lost the shared page",
    )
}

/// A guest that ends the DMA of a running device fails its interface, which must be stopped then.
fn fail(device: Vdev, accepted: &Edu, pages: &Pages) -> Result<(), &'static str> {
    stop_after_fault(device)?;
    must(device.bring_to(state::LOCKED) == 0, "no second lock")?;
    let seen = device.info().ok_or("no information on the device")?;
    must(device.enable_dma(seen) == SUCCESS, "DMA cannot be enabled")?;
    must(
        !pages.reads(accepted, pages.private, 1)?,
        "a device that is only locked reads private memory",
    )?;
    stop_after_fault(device)?;
    device.accept()?;
    accepted.function.write(COMMAND, MEMORY_ONLY);
    let state = device.info().map(|info| info.state);
    must(state == Some(state::ERROR), "the interface has not failed")?;
    must(
        device.bring_to(state::LOCKED) == HOST_DEVICE,
        "a lock without a stop",
    )?;
    accepted.function.switch_on();
    must(
        !pages.reads(accepted, pages.private, 15)?,
        "a failed device reads private memory",
    )?;
    stop(device, accepted, pages)
}
