//! The loop of a vCPU: run guest code, answer what it stopped for, go on.
//!
//! ```text
//!          ┌──────────────────────────────────────────────┐
//!          ▼                                              │
//!     KVM_RUN ─► MMIO ──────────────► bus ────────────────┤
//!          │ ─► hypercall ──────────► platform ───────────┤
//!          │ ─► no memory, no syndrome ─► external abort ─┤
//!          │ ─► kick ─► has the run ended? ── no ─────────┘
//!          │                             └─── yes ─► done
//!          └─► system event, failure ─► EndOfRun ─► done
//! ```

mod mmio;
mod thread;

use std::sync::Arc;

use devices::bus::Bus;
use devices::rate_limit::RateLimit;
use iommu::{Gpa, PageRange};
use kvm::Ipa;
use kvm::aarch64::{Exit, Fault, SystemEvent, Vcpu};

use crate::run::{EndOfRun, Ending};
use crate::stats::Stats;
use mmio::Mmio;
pub use thread::VcpuThreads;

/// A guest that goes astray again and again does not fill the log.
static ASTRAY: RateLimit = RateLimit::per_second(5);

/// Answers the calls that the platform has had forwarded, for one vCPU.
pub trait GuestCalls: Send {
    /// Answers the SMCCC call of `function`: arguments are in the registers of `vcpu`, and so go the
    /// results.
    ///
    /// # Errors
    /// When KVM does not give or take a register.
    fn call(&mut self, function: u32, vcpu: &Vcpu) -> Result<(), kvm::Error>;
}

/// What all vCPUs of a VM share.
pub struct World {
    /// The devices, by guest-physical address.
    pub bus: Bus,
    /// The bit that the guest sets in the address of a device, where the platform has one.
    pub shared_bit: Option<u8>,
    /// Where I/O ports of PCI functions answer.
    pub ports: Option<PageRange<Gpa>>,
    /// Counters.
    pub stats: Arc<Stats>,
    /// The end of the run.
    pub end: Arc<EndOfRun>,
}

/// One vCPU with what it needs to run.
pub struct Processor {
    /// The vCPU.
    pub vcpu: Vcpu,
    /// What answers its calls; without, none is known.
    pub calls: Option<Box<dyn GuestCalls>>,
    /// What it shares with the others.
    pub world: Arc<World>,
}

impl Processor {
    /// Runs until the run ends, by this vCPU or from elsewhere.
    pub fn run(mut self) {
        self.world.stats.enter_guest();
        while self.world.end.ending().is_none() {
            match self.step() {
                Ok(None) => {}
                Ok(Some(ending)) => self.world.end.end(ending),
                Err(error) => self.world.end.end(Ending::Failed(describe(&error))),
            }
        }
    }

    /// Runs up to the next exit and deals with it.
    fn step(&mut self) -> Result<Option<Ending>, kvm::Error> {
        let world = &self.world;
        let exits = &world.stats.exits;
        match self.vcpu.run()? {
            Exit::MmioRead { at, data } => {
                exits.mmio_read.add_one();
                if let Mmio::Refused = mmio::read(world, at, data) {
                    self.refuse("load", at)?;
                }
            }
            Exit::MmioWrite { at, data } => {
                exits.mmio_write.add_one();
                if let Mmio::Refused = mmio::write(world, at, data) {
                    self.refuse("store", at)?;
                }
            }
            Exit::Hypercall { function, .. } => {
                exits.hypercall.add_one();
                return self.hypercall(function).map(|()| None);
            }
            Exit::SystemEvent(event) => return Ok(Some(ending_of(event))),
            Exit::MemoryFault(fault) => {
                exits.memory_fault.add_one();
                return self.memory_fault(fault);
            }
            Exit::NoSyndrome { at } => {
                exits.memory_fault.add_one();
                self.refuse("access that cannot be emulated", at)?;
            }
            Exit::Interrupted => exits.interrupted.add_one(),
            Exit::Failed { reason } | Exit::Unsupported { reason } => {
                exits.other.add_one();
                let pc = self.vcpu.pc()?;
                let why = format!("KVM stopped a vCPU at {pc:#x} with exit reason {reason}");
                return Ok(Some(Ending::Failed(why)));
            }
        }
        Ok(None)
    }

    fn hypercall(&mut self, function: u32) -> Result<(), kvm::Error> {
        /// SMCCC `NOT_SUPPORTED`.
        const NOT_SUPPORTED: u64 = u64::MAX;
        match &mut self.calls {
            Some(calls) => calls.call(function, &self.vcpu),
            None => self.vcpu.set_smccc_results([NOT_SUPPORTED]),
        }
    }

    /// Where shared pages have an alias, the alias of a private page is a hole that a guest's mistake
    /// falls into: its own fault. Anywhere else the host has lost memory that it owes the guest.
    fn memory_fault(&mut self, fault: Option<Fault>) -> Result<Option<Ending>, kvm::Error> {
        if self.world.shared_bit.is_some() {
            self.vcpu.inject_external_abort()?;
            if let Some(skipped) = ASTRAY.permit() {
                let pc = self.vcpu.pc()?;
                tracing::warn!(
                    skipped,
                    "guest at {pc:#x}: no memory for it there ({fault:x?})"
                );
            }
            return Ok(None);
        }
        let place = fault.map_or_else(String::new, |fault| format!(" at {}", fault.at));
        let why = format!("the host cannot provide guest memory{place}");
        Ok(Some(Ending::Failed(why)))
    }

    /// Makes the access of the guest fail.
    fn refuse(&self, what: &str, at: Ipa) -> Result<(), kvm::Error> {
        if let Some(skipped) = ASTRAY.permit() {
            let pc = self.vcpu.pc()?;
            tracing::warn!(skipped, "guest at {pc:#x}: {what} at {at} is refused");
        }
        self.vcpu.inject_external_abort()
    }
}

fn ending_of(event: SystemEvent) -> Ending {
    match event {
        SystemEvent::Shutdown => Ending::PowerOff,
        SystemEvent::Reset => Ending::Reboot,
        SystemEvent::Crash => Ending::Crash,
        SystemEvent::Other(kind) => Ending::Failed(format!("KVM reports system event {kind}")),
    }
}

/// An error with its causes, on one line.
fn describe(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let causes: Vec<String> = causes.map(ToString::to_string).collect();
    causes.join(": ")
}
