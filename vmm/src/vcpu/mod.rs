//! The loop of a vCPU: run guest code, answer what it stopped for, go on.
//!
//! ```text
//!          ┌──────────────────────────────────────────────┐
//!          ▼                                              │
//!     KVM_RUN ─► MMIO, port ────────► bus ────────────────┤
//!          │ ─► hypercall ──────────► platform ───────────┤
//!          │ ─► memory fault ───────► platform ───────────┤
//!          │ ─► no memory, no syndrome ─► external abort ─┤     (arm64)
//!          │ ─► Realm turned off by another ─► a moment ──┤     (arm64)
//!          │ ─► event not delivered ─► once more ─────────┤     (x86-64)
//!          │ ─► page of a Realm not mapped ─► once more ──┤     (arm64)
//!          │ ─► kick ─► has the run ended? ── no ─────────┘
//!          │                             └─── yes ─► done
//!          └─► system event, failure ─► EndOfRun ─► done
//! ```

#[cfg(target_arch = "aarch64")]
mod aarch64;
mod device_addresses;
mod mmio;
mod realm_off;
mod retries;
mod thread;
#[cfg(target_arch = "x86_64")]
mod x86_64;

use std::sync::Arc;

use devices::bus::Bus;
use devices::ports::PortBus;
use devices::rate_limit::RateLimit;
use iommu::{Gpa, PageRange};
use kvm::{Exit, Fault, GaveUp, Ipa, SystemEvent, Vcpu};

use crate::causes::chain;
use crate::platform::{LastFault, PageExits};
use crate::run::{EndOfRun, Ending, Gate};
use crate::stats::Stats;
#[cfg(target_arch = "aarch64")]
pub use aarch64::GuestCalls;
pub use device_addresses::DeviceAddresses;
use mmio::Mmio;
pub use realm_off::RealmOff;
pub use retries::Retries;
pub use thread::VcpuThreads;

/// A guest that goes astray again and again does not fill the log.
static ASTRAY: RateLimit = RateLimit::per_second(5);

/// Nor does one that looks for devices where there are none.
static UNCLAIMED: RateLimit = RateLimit::per_second(5);

/// What all vCPUs of a VM share.
pub struct World {
    /// The devices, by guest-physical address.
    pub bus: Bus,
    /// The devices, by port, on a machine that has I/O ports of its own.
    pub ports: PortBus,
    /// How the guest's accesses to devices arrive.
    pub devices: DeviceAddresses,
    /// What the platform makes of exits that are about pages, where it has any.
    pub page_exits: Option<Arc<dyn PageExits>>,
    /// Where I/O ports of PCI functions answer in memory, on a machine that has none.
    pub port_window: Option<PageRange<Gpa>>,
    /// Counters.
    pub stats: Arc<Stats>,
    /// Where vCPUs are held while the VM is paused.
    pub gate: Arc<Gate>,
    /// The end of the run.
    pub end: Arc<EndOfRun>,
}

/// One vCPU with what it needs to run.
pub struct Processor {
    /// The vCPU.
    pub vcpu: Vcpu,
    /// What answers its calls; without, none is known.
    #[cfg(target_arch = "aarch64")]
    pub calls: Option<Box<dyn GuestCalls>>,
    /// What the platform remembers of its last memory fault.
    pub last_fault: LastFault,
    /// What it knows of the end of its Realm, if it is in one.
    pub realm_off: RealmOff,
    /// How often in a row KVM has given it up.
    pub retries: Retries,
    /// What it shares with the others.
    pub world: Arc<World>,
}

impl Processor {
    /// Runs until the run ends, by this vCPU or from elsewhere.
    pub fn run(mut self) {
        self.world.stats.enter_guest();
        while self.world.end.ending().is_none() {
            self.world.gate.pass();
            match self.step() {
                Ok(None) => {}
                Ok(Some(ending)) => self.world.end.end(ending),
                Err(error) => self.world.end.end(Ending::Failed(chain(&error))),
            }
        }
    }

    /// Runs up to the next exit and deals with it.
    fn step(&mut self) -> Result<Option<Ending>, kvm::Error> {
        let world = &self.world;
        let exits = &world.stats.exits;
        let exit = self.vcpu.run()?;
        if !matches!(exit, Exit::RealmOff) {
            self.realm_off.runs();
        }
        if !matches!(exit, Exit::Failed(_)) {
            self.retries.runs();
        }
        match exit {
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
            #[cfg(target_arch = "aarch64")]
            Exit::Arch(exit) => return self.answer(exit),
            #[cfg(target_arch = "x86_64")]
            Exit::Arch(exit) => return Ok(x86_64::answer(world, exit)),
            Exit::SystemEvent(event) => return Ok(Some(ending_of(event))),
            Exit::MemoryFault(fault) => {
                exits.memory_fault.add_one();
                return self.memory_fault(fault);
            }
            Exit::Interrupted => exits.interrupted.add_one(),
            Exit::RealmOff => {
                exits.other.add_one();
                return Ok(self.realm_off.wait());
            }
            Exit::Failed(why) => {
                exits.other.add_one();
                if self.retries.grant(&why) {
                    self.log_retry(&why)?;
                    return Ok(None);
                }
                return self.stopped(&why.to_string());
            }
            Exit::Unsupported { reason } => {
                exits.other.add_one();
                return self.stopped(&format!("exit reason {reason} is none of ccvm's"));
            }
        }
        Ok(None)
    }

    /// KVM will not go on.
    fn stopped(&self, why: &str) -> Result<Option<Ending>, kvm::Error> {
        let place = self.place()?;
        let why = format!("KVM stopped a vCPU{place}: {why}");
        Ok(Some(Ending::Failed(why)))
    }

    /// Where KVM has two forms of a page, this is the platform's business. Anywhere else there is no memory.
    fn memory_fault(&mut self, fault: Option<Fault>) -> Result<Option<Ending>, kvm::Error> {
        let (Some(exits), Some(fault)) = (&self.world.page_exits, fault) else {
            return self.no_memory(fault);
        };
        let done = exits.memory_fault(fault, &mut self.last_fault);
        Ok(done.err().map(|error| Ending::Failed(chain(&error))))
    }

    /// Where the guest is, if that is anything for its host to know: as ` at 0x1000`.
    fn place(&self) -> Result<String, kvm::Error> {
        match self.vcpu.is_protected() {
            true => Ok(String::new()),
            false => self.vcpu.pc().map(|pc| format!(" at {pc:#x}")),
        }
    }

    /// Says that KVM is asked to go on where it gave up.
    fn log_retry(&self, why: &GaveUp) -> Result<(), kvm::Error> {
        if let Some(skipped) = ASTRAY.permit() {
            let place = self.place()?;
            tracing::warn!(
                skipped,
                "KVM stopped a vCPU{place}: {why}; it is run once more"
            );
        }
        Ok(())
    }

    /// Says that an access of the guest was refused.
    fn log_refusal(&self, what: &str, at: Ipa) -> Result<(), kvm::Error> {
        if let Some(skipped) = ASTRAY.permit() {
            let place = self.place()?;
            tracing::warn!(skipped, "guest{place}: {what} at {at} is refused");
        }
        Ok(())
    }
}

/// The host has no memory where the guest has some.
fn lost_memory(fault: Option<Fault>) -> Ending {
    let place = fault.map_or_else(String::new, |fault| format!(" at {}", fault.at));
    Ending::Failed(format!("the host cannot provide guest memory{place}"))
}

fn ending_of(event: SystemEvent) -> Ending {
    match event {
        SystemEvent::Shutdown => Ending::PowerOff,
        SystemEvent::Reset => Ending::Reboot,
        SystemEvent::Crash => Ending::Crash,
        SystemEvent::SevTermination(reason) => {
            let (set, code) = (reason >> 12 & 0xf, reason >> 16 & 0xff);
            tracing::error!("the SNP guest ends itself: reason {code:#x} of set {set:#x}");
            Ending::Crash
        }
        SystemEvent::TdFatalError(code) => {
            tracing::error!("the TD ends itself: error {code:#x}");
            Ending::Crash
        }
        SystemEvent::Other(kind) => Ending::Failed(format!("KVM reports system event {kind}")),
    }
}
