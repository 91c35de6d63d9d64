//! Handing a PCI device to VFIO and back.
//!
//! ```text
//!        bind: note driver and masks, driver_override = vfio-pci, unbind, probe
//!  ┌────────────┐ ───────────────────────────────────────────────► ┌──────────┐
//!  │ own driver │                                                  │ vfio-pci │
//!  │  or none   │ ◄─────────────────────────────────────────────── │          │
//!  └────────────┘   unbind: driver_override = none, unbind, probe   └──────────┘
//! ```
//!
//! A step that fails undoes those before it, so that the device is left as it was found. The kernel
//! does the work; it is told by writing to sysfs.

use std::io;
use std::path::Path;

use super::class::is_bridge;
use super::dependents::dependents;
use super::facts::{DeviceFacts, PciAddress};
use super::function::{self, has_own_driver, is_vfio};
use super::register;
use super::remembered::{self, Remembered};
use super::roots::{Roots, attribute, link_name};
use crate::diagnostic::{Code, Diagnostic};

/// The driver that hands a device to user space.
const VFIO_PCI: &str = "vfio-pci";

/// The host, as far as devices are moved between its drivers.
pub struct Binder<'a> {
    roots: &'a Roots,
    kernel: &'a dyn Kernel,
}

/// What the binder has the kernel do.
pub trait Kernel {
    /// Writes `text` to an attribute.
    ///
    /// # Errors
    /// The kernel's own.
    fn write(&self, attribute: &Path, text: &str) -> io::Result<()>;

    /// Whether something, most likely a VM, has the group open.
    fn group_is_open(&self, group: u32) -> bool;

    /// The DMA width that a register of a device on VFIO tells, where it has one that can be read.
    fn register_dma_bits(&self, device: &DeviceFacts) -> Option<u8>;
}

/// The kernel that runs this process.
pub struct ThisKernel;

impl Kernel for ThisKernel {
    fn write(&self, attribute: &Path, text: &str) -> io::Result<()> {
        use std::io::Write as _;
        // Never creates: an attribute that is not there is an error, not a new file.
        std::fs::OpenOptions::new()
            .write(true)
            .open(attribute)?
            .write_all(text.as_bytes())
    }

    fn group_is_open(&self, group: u32) -> bool {
        let opened = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(format!("/dev/vfio/{group}"));
        opened.is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy)
    }

    fn register_dma_bits(&self, device: &DeviceFacts) -> Option<u8> {
        register::read(&Roots::this_host(), device)
    }
}

/// What to do about a device that the host itself depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostUse {
    /// Leave the device alone.
    Respect,
    /// Take it all the same.
    Override,
}

/// What came of handing a device over, in either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// The driver that it had.
    pub from: Option<String>,
    /// The driver that it has.
    pub to: Option<String>,
    /// The other functions of its IOMMU group that still have a host driver: VFIO gives out the
    /// group only when these have moved, too.
    pub must_follow: Vec<DeviceFacts>,
}

impl<'a> Binder<'a> {
    /// A binder for the host that these directories show.
    #[must_use]
    pub fn new(roots: &'a Roots, kernel: &'a dyn Kernel) -> Self {
        Self { roots, kernel }
    }

    /// Moves a device from its driver to `vfio-pci`.
    ///
    /// # Errors
    /// When the device is absent, a bridge or outside of any IOMMU group (without a driver of its own: if it
    /// stays there), when the host depends on it, when `vfio-pci` is not there, or when the kernel refuses; the
    /// device is then as it was.
    pub fn bind(&self, pci: PciAddress, host_use: HostUse) -> Result<Moved, Diagnostic> {
        let device = self.find(pci)?;
        require_endpoint(&device)?;
        if device.group.is_none() && device.driver.is_some() {
            return Err(ungrouped(pci, ""));
        }
        if device.driver.as_deref().is_some_and(is_vfio) {
            return Ok(self.moved(&device, device.group, device.driver.clone()));
        }
        if !self.roots.pci_driver(VFIO_PCI).is_dir() {
            let message = format!("{pci} cannot be bound: the kernel has no {VFIO_PCI} driver");
            return Err(Diagnostic::error(Code::VfioDriverAbsent, message)
                .about(pci)
                .with_help("run 'modprobe vfio-pci'"));
        }
        if host_use == HostUse::Respect {
            self.require_unused(pci)?;
        }
        self.note(&device)?;
        let former = self.driver_override(pci);
        if let Err(reason) = self.move_to_vfio(&device) {
            let left = self.put_back(&device, &former);
            return Err(match device.group {
                Some(_) => refused(pci, "bound to vfio-pci", &reason, &left),
                None => ungrouped(pci, &format!("; nor was it bound: {reason}; {left}")),
            });
        }
        let group = match device.group {
            Some(group) => group,
            None => self.group_since(&device, &former)?,
        };
        if let Some(bits) = self.kernel.register_dma_bits(&device) {
            self.note_register(&device, bits);
        }
        Ok(self.moved(&device, Some(group), Some(VFIO_PCI.to_owned())))
    }

    /// Moves a device from `vfio-pci` back to the driver that it had.
    ///
    /// # Errors
    /// When the device is absent or open by a VM, or when the kernel refuses; the device is then as
    /// it was.
    pub fn unbind(&self, pci: PciAddress) -> Result<Moved, Diagnostic> {
        let device = self.find(pci)?;
        require_endpoint(&device)?;
        let group = device.group;
        if has_own_driver(device.driver.as_deref()) {
            return Ok(self.moved(&device, group, device.driver.clone()));
        }
        if let Some(group) = group.filter(|&group| self.kernel.group_is_open(group)) {
            let message = format!("{pci} is in use: its IOMMU group {group} is open");
            return Err(Diagnostic::error(Code::DeviceInUse, message)
                .about(pci)
                .with_help("stop the VM that has it"));
        }
        let note = self.noted(&device);
        if device.driver.is_none() && note.is_none() {
            return Ok(self.moved(&device, group, None));
        }
        if let Err(reason) = self.move_back(&device, note.as_ref()) {
            // Best effort: it was on VFIO's driver, and that is where it is sent again.
            let left = match self.move_to_vfio(&device) {
                Ok(()) => "it is on vfio-pci, as before".to_owned(),
                Err(again) => format!("putting it back failed too: {again}"),
            };
            return Err(refused(pci, "given back", &reason, &left));
        }
        let to = self.driver(pci);
        if has_own_driver(to.as_deref()) {
            // sysfs shows the driver's masks again. A note that stays is passed over from here on.
            let _ = remembered::forget(self.roots, pci);
        }
        Ok(self.moved(&device, group, to))
    }

    fn find(&self, pci: PciAddress) -> Result<DeviceFacts, Diagnostic> {
        let absent = |reason: String| {
            Diagnostic::error(Code::DeviceAbsent, reason)
                .about(pci)
                .with_help("'ccvm device list' shows the devices of this host")
        };
        if !self.roots.pci_device(pci).is_dir() {
            return Err(absent(format!("there is no PCI device {pci}")));
        }
        let mut unknown = Vec::new();
        function::read(self.roots, pci, &mut unknown).ok_or_else(|| absent(unknown.join("; ")))
    }

    /// The group that a device came into on its way to VFIO. Up to Linux 6.14, those that a device tree
    /// describes are in none before a driver has first come to them.
    fn group_since(&self, device: &DeviceFacts, former: &str) -> Result<u32, Diagnostic> {
        let group = self.find(device.pci)?.group;
        group.ok_or_else(|| {
            let left = self.put_back(device, former);
            ungrouped(device.pci, &format!("; {left}"))
        })
    }

    fn require_unused(&self, pci: PciAddress) -> Result<(), Diagnostic> {
        let dependents = dependents(self.roots, pci);
        if dependents.is_empty() {
            return Ok(());
        }
        let message = format!("this host depends on {pci}: {}", dependents.join("; "));
        Err(Diagnostic::error(Code::DeviceInUse, message)
            .about(pci)
            .with_help("free it first, or take it all the same with --force"))
    }

    fn driver(&self, pci: PciAddress) -> Option<String> {
        link_name(&self.roots.pci_device(pci).join("driver"))
    }

    /// What `driver_override` says, as it would have to be written back: the kernel shows an unset
    /// one as `(null)`, and unsets it on an empty line.
    fn driver_override(&self, pci: PciAddress) -> String {
        let shown = attribute(&self.roots.pci_device(pci).join("driver_override"));
        shown
            .ok()
            .filter(|text| text != "(null)")
            .unwrap_or_default()
    }

    fn noted(&self, device: &DeviceFacts) -> Option<Remembered> {
        remembered::recall(self.roots, device.pci, (device.vendor, device.device))
    }

    fn note(&self, device: &DeviceFacts) -> Result<(), Diagnostic> {
        let own = has_own_driver(device.driver.as_deref());
        if !own && self.noted(device).is_some() {
            // It has been here before: what its driver had set then is better than nothing now.
            return Ok(());
        }
        let note = Remembered {
            vendor: device.vendor,
            device: device.device,
            driver: device.driver.clone().filter(|_| own),
            dma_mask_bits: device.dma_mask_bits.filter(|_| own),
            coherent_dma_mask_bits: device.coherent_dma_mask_bits.filter(|_| own),
            register_dma_bits: None,
        };
        remembered::remember(self.roots, device.pci, &note).map_err(|error| {
            let state = self.roots.state.display();
            let message = format!(
                "the DMA masks of {} cannot be noted in {state}: {error}",
                device.pci
            );
            Diagnostic::error(Code::MasksNotKept, message)
                .about(device.pci)
                .with_help("run as root, or name another directory in CCVM_STATE_DIR")
        })
    }

    /// Adds a width to the note. The device is where it should be, so failing is no reason to refuse.
    fn note_register(&self, device: &DeviceFacts, bits: u8) {
        if let Some(mut note) = self.noted(device) {
            note.register_dma_bits = Some(bits);
            let _ = remembered::remember(self.roots, device.pci, &note);
        }
    }

    fn move_to_vfio(&self, device: &DeviceFacts) -> Result<(), String> {
        self.set_override(device.pci, VFIO_PCI)?;
        self.detach(device.pci)?;
        self.probe(device.pci)?;
        match self.driver(device.pci) {
            Some(driver) if is_vfio(&driver) => Ok(()),
            Some(other) => Err(format!("the kernel gave it to {other}")),
            None => Err("vfio-pci did not take it; the kernel log says why".to_owned()),
        }
    }

    fn move_back(&self, device: &DeviceFacts, note: Option<&Remembered>) -> Result<(), String> {
        self.set_override(device.pci, "")?;
        self.detach(device.pci)?;
        match note.map(|note| note.driver.as_deref()) {
            // By name, since several drivers may know the device; one that is gone cannot be had.
            Some(Some(driver)) => self
                .attach(device.pci, driver)
                .or_else(|_| self.probe(device.pci)),
            Some(None) => Ok(()),
            None => self.probe(device.pci),
        }
    }

    /// Undoes a failed move to VFIO and says how that went.
    fn put_back(&self, device: &DeviceFacts, former_override: &str) -> String {
        let back = || -> Result<(), String> {
            self.set_override(device.pci, former_override)?;
            let now = self.driver(device.pci);
            if now == device.driver {
                return Ok(());
            }
            self.detach(device.pci)?;
            match &device.driver {
                Some(driver) => self.attach(device.pci, driver),
                None => Ok(()),
            }
        };
        match back() {
            Ok(()) => {
                let _ = remembered::forget(self.roots, device.pci);
                "it is as it was".to_owned()
            }
            Err(reason) => format!("putting it back failed too: {reason}"),
        }
    }

    fn set_override(&self, pci: PciAddress, driver: &str) -> Result<(), String> {
        let attribute = self.roots.pci_device(pci).join("driver_override");
        self.write(&attribute, &format!("{driver}\n"))
    }

    /// Takes the device from its driver, if it has one.
    fn detach(&self, pci: PciAddress) -> Result<(), String> {
        match self.driver(pci) {
            Some(driver) => {
                let attribute = self.roots.pci_driver(&driver).join("unbind");
                self.write(&attribute, &pci.to_string())
            }
            None => Ok(()),
        }
    }

    fn attach(&self, pci: PciAddress, driver: &str) -> Result<(), String> {
        let attribute = self.roots.pci_driver(driver).join("bind");
        self.write(&attribute, &pci.to_string())
    }

    fn probe(&self, pci: PciAddress) -> Result<(), String> {
        let attribute = self.roots.sysfs.join("bus/pci/drivers_probe");
        self.write(&attribute, &pci.to_string())
    }

    fn write(&self, attribute: &Path, text: &str) -> Result<(), String> {
        self.kernel
            .write(attribute, text)
            .map_err(|error| format!("writing to {}: {error}", attribute.display()))
    }

    fn moved(&self, before: &DeviceFacts, group: Option<u32>, to: Option<String>) -> Moved {
        let members = group.and_then(|group| self.roots.group_members(group).ok());
        let must_follow = members
            .into_iter()
            .flatten()
            .filter(|&member| member != before.pci)
            .filter_map(|member| function::read(self.roots, member, &mut Vec::new()))
            .filter(|member| has_own_driver(member.driver.as_deref()) && !is_bridge(member.class.0))
            .collect();
        Moved {
            from: before.driver.clone(),
            to,
            must_follow,
        }
    }
}

/// Bridges stay with the host.
fn require_endpoint(device: &DeviceFacts) -> Result<(), Diagnostic> {
    let pci = device.pci;
    if is_bridge(device.class.0) {
        let message = format!("{pci} is a bridge: it stays with the host");
        return Err(Diagnostic::error(Code::DeviceNotAssignable, message)
            .about(pci)
            .with_help("name the devices behind it"));
    }
    Ok(())
}

/// `what` more there is to say of it, after a semicolon.
fn ungrouped(pci: PciAddress, what: &str) -> Diagnostic {
    let message = format!("{pci} is in no IOMMU group: nothing would confine its DMA{what}");
    Diagnostic::error(Code::DeviceNotAssignable, message)
        .about(pci)
        .with_help(
            "turn the IOMMU on in the firmware and, on Intel, with 'intel_iommu=on' on the host's \
             command line",
        )
}

fn refused(pci: PciAddress, what: &str, reason: &str, left: &str) -> Diagnostic {
    let message = format!("{pci} cannot be {what}: {reason}; {left}");
    Diagnostic::error(Code::DeviceNotMoved, message)
        .about(pci)
        .with_help("run as root; the kernel log may say more")
}

#[cfg(test)]
mod tests;
