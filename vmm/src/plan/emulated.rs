//! Emulated devices: where the guest sees them.
//!
//! They are not behind the virtual IOMMU. It protects memory from a device that does as its guest says;
//! an emulated one reaches what ccvm lets it, and that is the shared pages only, with or without one.

use devices::pci::Bdf;
use devices::virtio::BAR_BYTES;

use super::assigned::slots;
use crate::config::spec::{ConsoleChoice, DaemonSpec, DiskSpec, NetSpec, VmSpec, VsockSpec};
use crate::diagnostic::{Code, Diagnostic, Place};
use crate::host::facts::{BarFacts, BarKind};
use crate::platform::Platform;

/// The registers of a virtio function.
pub(super) const BAR: BarFacts = BarFacts {
    index: 0,
    size: BAR_BYTES,
    kind: BarKind::Mem64,
};

/// An emulated device with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedFunction {
    /// Where the guest sees it.
    pub guest: Bdf,
    /// What it is.
    pub device: Emulated,
}

/// What an emulated device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Emulated {
    /// A disk.
    Disk(DiskSpec),
    /// A network interface.
    Net(NetSpec),
    /// What another process of the host serves.
    Daemon(DaemonSpec),
    /// Sockets between guest and host.
    Vsock(VsockSpec),
    /// A source of random numbers.
    Rng,
    /// A console.
    Console,
}

impl Emulated {
    /// Who serves it outside of ccvm, with a look at all of guest memory.
    const fn outside(&self) -> Option<&'static str> {
        match self {
            Self::Daemon(_) => Some("a vhost-user daemon"),
            Self::Vsock(_) => Some("the host's vhost-vsock"),
            Self::Disk(_) | Self::Net(_) | Self::Rng | Self::Console => None,
        }
    }

    /// Whether guest memory must be in a file that another process can be given.
    #[must_use]
    pub const fn shares_memory(&self) -> bool {
        matches!(self, Self::Daemon(_))
    }
}

/// Places the emulated devices of a config, in functions behind the first `taken`.
pub(super) fn place(
    spec: &VmSpec,
    platform: Platform,
    taken: usize,
    findings: &mut Vec<Diagnostic>,
) -> Vec<PlannedFunction> {
    let mut slots = slots().skip(taken);
    let mut placed = Vec::new();
    for (place, device) in devices(spec) {
        if let Some(who) = device.outside().filter(|_| platform.is_confidential()) {
            let message = format!("{who} would see all memory of a confidential VM");
            let finding = Diagnostic::error(Code::ServedOutside, message).on(place);
            let help = "leave the device out, or use `platform = \"none\"`";
            findings.push(finding.with_help(help));
        }
        match slots.next() {
            Some(guest) => placed.push(PlannedFunction { guest, device }),
            None => {
                let message = "no slot of the guest's PCI bus is left for an emulated device";
                findings.push(Diagnostic::error(Code::TooManyDevices, message).on(place));
            }
        }
    }
    placed
}

/// The emulated devices of a config, each with its place there.
pub(super) fn devices(spec: &VmSpec) -> impl Iterator<Item = (Place, Emulated)> + '_ {
    let virtio = &spec.virtio;
    let disks = spec.disks.iter().enumerate();
    let disks = disks.map(|(index, disk)| (Place::Disk(index, None), Emulated::Disk(disk.clone())));
    let nets = virtio.nets.iter().enumerate();
    let nets = nets.map(|(index, net)| (Place::Net(index, None), Emulated::Net(net.clone())));
    let daemons = virtio.daemons.iter().enumerate();
    let daemons = daemons.map(|(index, daemon)| {
        let device = Emulated::Daemon(daemon.clone());
        (Place::VhostUser(index), device)
    });
    let vsock = virtio
        .vsock
        .map(|vsock| (Place::Vsock, Emulated::Vsock(vsock)));
    let rng = virtio.rng.map(|_| (Place::Rng, Emulated::Rng));
    let console =
        (virtio.console == ConsoleChoice::Virtio).then_some((Place::Console, Emulated::Console));
    let single = [vsock, rng, console].into_iter().flatten();
    disks.chain(nets).chain(daemons).chain(single)
}
