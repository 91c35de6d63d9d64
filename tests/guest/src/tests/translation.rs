//! What a device reaches by way of the virtual IOMMU, while pages change their state.

use super::Outcome;
use super::dma::{ALL, fill, matches};
use crate::edu::Edu;
use crate::isolation::{Isolation, State};
use crate::machine::Machine;
use crate::memory::{Shared, Spare};
use crate::rsi::GRANULE;
use crate::viommu::{Answer, Fault, Request, Viommu, access, answer};
use crate::{report, time};

const OK: Answer = Answer::Status(answer::OK);
const DOMAIN: u32 = 1;

/// IOVAs. They are where configuration space is: no memory is there, by any name.
#[derive(Clone, Copy)]
struct Iovas {
    page: u64,
    witness: u64,
    read_only: u64,
    nowhere: u64,
}

impl Iovas {
    fn of(machine: &Machine<'_>) -> Self {
        let start = machine.ecam.unwrap_or_default().start;
        Self {
            page: start + 0x1_0000,
            witness: start + 0x2_0000,
            read_only: start + 0x3_0000,
            nowhere: start + 0x4_0000,
        }
    }
}

/// A device behind the IOMMU, with a page that it is to reach and one that shows what it has read.
struct Rig {
    iovas: Iovas,
    viommu: Viommu,
    edu: Edu,
    page: Shared,
    witness: Shared,
}

impl Rig {
    fn new(machine: &Machine<'_>) -> Result<Self, super::Failure> {
        let mut spare = Spare::of(machine);
        let iovas = Iovas::of(machine);
        let edu = Edu::find(machine)?;
        let page = spare.share(machine, 1)?;
        let witness = spare.share(machine, 1)?;
        let mut viommu = Viommu::find(machine, &mut spare)?;
        let requests = [
            Request::attach(DOMAIN, edu.endpoint, 0),
            Request::map(DOMAIN, iovas.page, GRANULE, page.address, access::BOTH),
            Request::map(
                DOMAIN,
                iovas.witness,
                GRANULE,
                witness.address,
                access::BOTH,
            ),
        ];
        if requests.map(|request| viommu.ask(&request)) != [OK; 3] {
            return Err("a good request is refused".into());
        }
        Ok(Self {
            iovas,
            viommu,
            edu,
            page,
            witness,
        })
    }

    /// What the device finds at an IOVA, if it is what [`fill`] has put there.
    fn reads(&self, iova: u64, seed: u64) -> Result<bool, &'static str> {
        fill(self.witness.address, 0);
        self.edu.read(iova)?;
        self.edu.write(self.iovas.witness)?;
        Ok(matches(self.witness.address, seed) == ALL)
    }

    /// Whether the device can change what [`fill`] has put at `address`, which it knows as `iova`.
    fn writes(&self, iova: u64, address: u64) -> Result<bool, &'static str> {
        fill(self.witness.address, 0x77);
        self.edu.read(self.iovas.witness)?;
        fill(address, 0x78);
        self.edu.write(iova)?;
        Ok(matches(address, 0x77) == ALL)
    }

    /// The next fault that is reported within some seconds.
    fn fault(&mut self) -> Option<Fault> {
        let mut fault = None;
        time::wait(10, || {
            fault = self.viommu.fault();
            fault.is_some()
        });
        fault
    }
}

/// All of it; what needs pages to change their state, where they can.
pub fn run(machine: &Machine<'_>) -> Outcome {
    let mut rig = Rig::new(machine)?;
    fill(rig.page.address, 1);
    if !rig.reads(rig.iovas.page, 1)? || !rig.writes(rig.iovas.page, rig.page.address)? {
        return Err("the device does not reach what is mapped".into());
    }
    report!("mapped=reached");
    let isolation = Isolation::of(machine);
    if isolation.converts() {
        goes_private(&mut rig, isolation)?;
    }
    read_only(&mut rig)?;
    outside(&mut rig)?;
    unmapped(&mut rig)
}

/// The page leaves the device's reach as it goes private, and comes back as it is shared again. The
/// guest's mapping stays all the time.
fn goes_private(rig: &mut Rig, isolation: Isolation) -> Outcome {
    let start = rig.page.range.start;
    isolation.set(rig.page.range, State::Private)?;
    fill(start, 2);
    if rig.reads(rig.iovas.page, 2)? {
        return Err("the device read a private page".into());
    }
    if rig.writes(rig.iovas.page, start)? {
        return Err("the device wrote to a private page".into());
    }
    report!("private=blocked");
    let again = Request::map(
        DOMAIN,
        rig.iovas.page,
        GRANULE,
        rig.page.address,
        access::BOTH,
    );
    if rig.viommu.ask(&again) != Answer::Status(answer::INVALID) {
        return Err("the mapping went with the page".into());
    }
    report!("mapping=stays");
    isolation.set(rig.page.range, State::Shared)?;
    fill(rig.page.address, 3);
    if !rig.reads(rig.iovas.page, 3)? || !rig.writes(rig.iovas.page, rig.page.address)? {
        return Err("the device does not reach a page that is shared again".into());
    }
    report!("shared_again=reached");
    // Each access to the private page was reported: at least one of them, and none beside.
    while let Some(fault) = rig.viommu.fault() {
        if fault.endpoint != rig.edu.endpoint || fault.address & !(GRANULE - 1) != rig.iovas.page {
            return Err("a fault that was none is reported".into());
        }
    }
    Ok(())
}

/// A device reads and does not write where it is told to read.
fn read_only(rig: &mut Rig) -> Outcome {
    let map = Request::map(
        DOMAIN,
        rig.iovas.read_only,
        GRANULE,
        rig.page.address,
        access::READ,
    );
    if rig.viommu.ask(&map) != OK {
        return Err("a mapping for reading is refused".into());
    }
    fill(rig.page.address, 4);
    if !rig.reads(rig.iovas.read_only, 4)? {
        return Err("the device does not read what it may read".into());
    }
    if rig.writes(rig.iovas.read_only, rig.page.address)? {
        return Err("the device wrote to what it may only read".into());
    }
    report!("read_only=kept");
    Ok(())
}

/// An access outside of the mappings is reported, and does no harm.
fn outside(rig: &mut Rig) -> Outcome {
    // What was refused before is still on its way, and the host reports so many in some seconds only.
    const SECONDS: u64 = 8;
    time::wait(SECONDS, || {
        while rig.viommu.fault().is_some() {}
        false
    });
    rig.edu.read(rig.iovas.nowhere)?;
    let fault = rig.fault().ok_or("a fault is not reported")?;
    report!("fault_reason={}", fault.reason);
    report!("fault_flags={:#x}", fault.flags);
    report!("fault_address={:#x}", fault.address);
    let place = fault.address & !(GRANULE - 1);
    if (fault.endpoint, place) != (rig.edu.endpoint, rig.iovas.nowhere) {
        return Err("another fault is reported".into());
    }
    report!("fault=reported");
    fill(rig.page.address, 5);
    match rig.reads(rig.iovas.page, 5)? {
        true => Ok(()),
        false => Err("after a fault the device does not reach what is mapped".into()),
    }
}

/// What is unmapped is out of reach, and everything is once the device has left its domain.
fn unmapped(rig: &mut Rig) -> Outcome {
    let unmap = Request::unmap(DOMAIN, rig.iovas.page, GRANULE);
    if rig.viommu.ask(&unmap) != OK {
        return Err("UNMAP is refused".into());
    }
    fill(rig.page.address, 6);
    if rig.reads(rig.iovas.page, 6)? || rig.writes(rig.iovas.page, rig.page.address)? {
        return Err("the device reaches what was unmapped".into());
    }
    report!("unmapped=blocked");
    let detach = Request::detach(DOMAIN, rig.edu.endpoint);
    if rig.viommu.ask(&detach) != OK {
        return Err("DETACH is refused".into());
    }
    fill(rig.witness.address, 7);
    rig.edu.write(rig.iovas.witness)?;
    if matches(rig.witness.address, 7) != ALL {
        return Err("the device reaches what its old domain maps".into());
    }
    report!("detached=blocked");
    Ok(())
}
