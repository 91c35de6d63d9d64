//! Emulated devices of one VM: from the plan to the guest's PCI bus, and the threads that serve them.
//!
//! ```text
//!   open: files, locks ──> [attach: on the guest's bus, threads for the queues] ─── run
//!     │                                                                              │
//!     v                                                                              v
//!   refused, nothing touched               rings served no more, threads ended, files closed
//! ```

mod console;
mod counted;
mod disk;
mod doorbell;
mod entropy;
mod net;
mod site;
mod stop;
mod vhost;
mod worker;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use devices::pci::{Bdf, PciFunction, SharedFunction, SlotTaken};
use devices::virtio::BuildError;
use devices::virtio::console::{self as virtio_console, VirtioConsole};
use devices::virtio::rng::VirtioRng;

use crate::causes::chain;
use crate::config::spec::{DaemonSpec, VsockSpec};
use crate::convert::Pages;
use crate::diagnostic::{Code, Diagnostic, Place};
use crate::pci_bus::PciBus;
use crate::plan::{Emulated, VmPlan};
use crate::run::{EndOfRun, InputPort};

use console::ConsoleRing;
pub use console::Terminal;
pub use counted::{Counted, CountedKind};
use disk::OpenDisk;
pub use disk::look_at_disk;
use entropy::HostEntropy;
use net::OpenNet;
pub use net::look_at_interface;
use site::Site;
use stop::Stop;
use worker::Worker;

/// Why an emulated device is not on the guest's bus.
#[derive(Debug, thiserror::Error)]
pub enum EmulateError {
    /// Two functions have one address on the guest's bus.
    #[error(transparent)]
    Slot(#[from] SlotTaken),
    /// A device cannot be shown to a guest.
    #[error("{what} cannot be shown to the guest")]
    Build {
        /// What it is.
        what: String,
        /// Why not.
        #[source]
        source: BuildError,
    },
    /// KVM does not take notifications.
    #[error("an emulated device cannot be notified")]
    Doorbell(#[source] kvm::Error),
    /// The host gives no thread, or no event.
    #[error("an emulated device cannot be served")]
    Worker(#[source] io::Error),
    /// A bug in the plan: there is one terminal.
    #[error("a second console has no terminal")]
    OneConsole,
    /// The host does not have what the device needs.
    #[error("{0}")]
    Host(Box<Diagnostic>),
}

impl EmulateError {
    fn host(finding: Diagnostic) -> Self {
        Self::Host(Box::new(finding))
    }
}

impl From<EmulateError> for Diagnostic {
    fn from(error: EmulateError) -> Self {
        match error {
            EmulateError::Host(finding) => *finding,
            other => Self::error(Code::EmulatedNotMade, chain(&other)),
        }
    }
}

/// What is behind the emulated devices of a plan, opened: nobody else has it. What needs the guest's
/// memory is opened when that is there.
pub struct OpenDevices(Vec<(Bdf, OpenDevice)>);

enum OpenDevice {
    Disk(OpenDisk),
    Net(OpenNet),
    /// With its index in the config.
    Daemon(usize, DaemonSpec),
    Vsock(VsockSpec),
    Rng,
    Console,
}

impl OpenDevices {
    /// Opens what the emulated devices of `plan` need of the host.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn open(plan: &VmPlan) -> Result<Self, Vec<Diagnostic>> {
        let (mut opened, mut findings) = (Vec::new(), Vec::new());
        let (mut disks, mut nets, mut daemons) = (0.., 0.., 0..);
        for function in plan.functions() {
            let device = match &function.device {
                Emulated::Disk(spec) => {
                    let index = disks.next().unwrap_or_default();
                    let disk = OpenDisk::open(spec, |key| Place::Disk(index, Some(key)));
                    disk.map(OpenDevice::Disk)
                }
                Emulated::Net(spec) => {
                    let index = nets.next().unwrap_or_default();
                    OpenNet::open(spec, index).map(OpenDevice::Net)
                }
                Emulated::Daemon(spec) => {
                    let index = daemons.next().unwrap_or_default();
                    Ok(OpenDevice::Daemon(index, spec.clone()))
                }
                Emulated::Vsock(spec) => Ok(OpenDevice::Vsock(*spec)),
                Emulated::Rng => Ok(OpenDevice::Rng),
                Emulated::Console => Ok(OpenDevice::Console),
            };
            match device {
                Ok(device) => opened.push((function.guest, device)),
                Err(finding) => findings.push(finding),
            }
        }
        match findings.is_empty() {
            true => Ok(Self(opened)),
            false => Err(findings),
        }
    }

    /// Puts the devices on the guest's bus and starts what serves them; `terminal` is what a console is
    /// connected to. A thread that comes to grief ends the run.
    ///
    /// # Errors
    /// When the host has no more interrupts, events or threads, or not what a device needs.
    pub fn attach(
        self,
        pci: &mut PciBus,
        pages: &Arc<Pages>,
        end: &Arc<EndOfRun>,
        terminal: Terminal,
    ) -> Result<EmulatedDevices, EmulateError> {
        let mut devices = EmulatedDevices::default();
        let mut terminal = Some(terminal);
        for (guest, device) in self.0 {
            let site = Site {
                guest,
                pci,
                pages,
                end,
            };
            let function = devices.make(device, &site, &mut terminal)?;
            pci.insert(guest, function)?;
        }
        devices.watch(end)?;
        Ok(devices)
    }
}

/// The emulated devices of a VM. When this goes, what has been begun is completed, and their threads have
/// ended, whoever else still has the bus.
#[derive(Default)]
pub struct EmulatedDevices {
    functions: Vec<Arc<Mutex<dyn Stop>>>,
    /// What is to be watched once all devices are there.
    watches: Vec<worker::Server>,
    watcher: Option<Worker>,
    workers: Vec<Worker>,
    input: Option<ConsoleRing>,
    counted: Vec<Counted>,
}

impl EmulatedDevices {
    /// The console that takes the terminal's input, if it is one of these.
    pub fn take_input(&mut self) -> Option<Box<dyn InputPort>> {
        let input = self.input.take()?;
        Some(Box::new(input))
    }

    /// Those whose queues are counted, in the order of the guest's bus.
    #[must_use]
    pub fn counted(&self) -> &[Counted] {
        &self.counted
    }

    /// Starts to wait for the ends of those who serve devices from outside.
    fn watch(&mut self, end: &Arc<EndOfRun>) -> Result<(), EmulateError> {
        if !self.watches.is_empty() {
            let watches = std::mem::take(&mut self.watches);
            let watcher = Worker::start("daemons".to_owned(), end, watches);
            self.watcher = Some(watcher.map_err(EmulateError::Worker)?);
        }
        Ok(())
    }

    /// Remembers to stop a function, and what counts its queues.
    fn keep_counted<F: Stop + PciFunction + 'static>(
        &mut self,
        guest: Bdf,
        kind: CountedKind,
        function: Arc<Mutex<F>>,
    ) -> SharedFunction {
        let queues = {
            let function = function.lock().unwrap_or_else(PoisonError::into_inner);
            function.counters()
        };
        self.counted.push(Counted {
            guest,
            kind,
            queues,
        });
        self.keep(function)
    }

    /// Remembers to stop a function.
    fn keep<F: Stop + PciFunction + 'static>(&mut self, function: Arc<Mutex<F>>) -> SharedFunction {
        self.functions.push(Arc::<Mutex<F>>::clone(&function));
        function
    }

    /// Makes one of them.
    fn make(
        &mut self,
        device: OpenDevice,
        site: &Site<'_>,
        terminal: &mut Option<Terminal>,
    ) -> Result<SharedFunction, EmulateError> {
        match device {
            OpenDevice::Disk(disk) => {
                let (function, workers) = disk.attach(site)?;
                self.workers.extend(workers);
                Ok(self.keep_counted(site.guest, CountedKind::Disk, function))
            }
            OpenDevice::Net(net) => {
                let (function, workers) = net.attach(site)?;
                self.workers.extend(workers);
                Ok(self.keep_counted(site.guest, CountedKind::Net, function))
            }
            OpenDevice::Daemon(index, spec) => vhost::daemon(self, &spec, index, site),
            OpenDevice::Vsock(spec) => vhost::vsock(self, spec, site),
            OpenDevice::Rng => {
                let rng = VirtioRng::new(HostEntropy);
                let function =
                    site.function("the source of random numbers", rng, site.doorbells(0)?)?;
                let function = Arc::new(Mutex::new(function));
                Ok(self.keep_counted(site.guest, CountedKind::Rng, function))
            }
            OpenDevice::Console => {
                let terminal = terminal.take().ok_or(EmulateError::OneConsole)?;
                let console = VirtioConsole::new(terminal);
                let function = site.function("the console", console, site.doorbells(0)?)?;
                self.input = function
                    .rings()
                    .into_iter()
                    .nth(virtio_console::INPUT)
                    .map(ConsoleRing);
                let function = Arc::new(Mutex::new(function));
                Ok(self.keep_counted(site.guest, CountedKind::Console, function))
            }
        }
    }
}

impl Drop for EmulatedDevices {
    fn drop(&mut self) {
        // A daemon may end as soon as its rings are taken away: that is nothing to tell.
        self.watcher = None;
        for function in &self.functions {
            let mut function = function.lock().unwrap_or_else(PoisonError::into_inner);
            function.stop();
        }
        self.workers.clear();
    }
}
