//! The in-kernel interrupt controller: GICv3 with an ITS for message interrupts.
//!
//! ```text
//!   PlacedGic: created, at its addresses ─► (vCPUs) ─► Gic: initialised ─► (the vCPUs run)
//! ```
//! KVM takes the vCPUs before or after the first step. They come after it here, as in the VMMs that were
//! seen to run Realms: each then finds its redistributor's place when it is made.

use std::fmt;

use kvm_bindings::{
    KVM_ARM_IRQ_TYPE_SHIFT, KVM_ARM_IRQ_TYPE_SPI, KVM_DEV_ARM_VGIC_CTRL_INIT,
    KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_GRP_NR_IRQS,
    KVM_VGIC_ITS_ADDR_TYPE, KVM_VGIC_V3_ADDR_TYPE_DIST, KVM_VGIC_V3_ADDR_TYPE_REDIST,
    kvm_create_device, kvm_device_attr, kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_ITS as ITS,
    kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3 as GIC_V3,
};
use kvm_ioctls::DeviceFd;

use crate::error::ioctl;
use crate::{Error, Ipa, Vm};

/// The first interrupt id that is a shared peripheral interrupt.
const FIRST_SPI: u32 = 32;

/// What the routing table of KVM looks like for this interrupt controller.
pub(crate) mod routing {
    /// Which of KVM's interrupt controllers a pin is of.
    pub(crate) const IRQCHIP: u32 = 0;
    /// No interrupt line needs a route of its own: KVM drives them by their number.
    pub(crate) const PINS: u32 = 0;
    /// GSIs below are pins: there are 988.
    pub(crate) const FIRST_MESSAGE: u32 = 1024;
    /// The ITS knows a message by the device that it comes from.
    pub(crate) const MESSAGE_FLAGS: u32 = kvm_bindings::KVM_MSI_VALID_DEVID;
}

/// A shared peripheral interrupt, counted from 0 as in a device tree: interrupt id 32 is SPI 0.
///
/// KVM's default routing gives it the same number as a GSI, for irqfd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spi(u32);

impl Spi {
    /// How many a GICv3 has at most.
    pub const MAX: u32 = 988;

    /// The SPI with this number, or `None` beyond [`Spi::MAX`].
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        if number < Self::MAX {
            Some(Self(number))
        } else {
            None
        }
    }

    /// Its number, as in a device tree and as a GSI.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SPI {}", self.0)
    }
}

/// Where the interrupt controller answers, shared bit included where the guest looks there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GicLayout {
    /// The distributor, 64 KiB.
    pub distributor: Ipa,
    /// The redistributors, 128 KiB for each vCPU, one after the other.
    pub redistributors: Ipa,
    /// The ITS, 128 KiB.
    pub its: Ipa,
}

/// A GICv3 with its ITS that does not know its vCPUs yet.
#[derive(Debug)]
pub struct PlacedGic {
    gic: DeviceFd,
    its: DeviceFd,
}

impl PlacedGic {
    /// Gives `vm` its interrupt controller, before its vCPUs.
    ///
    /// # Errors
    /// When the host has no GICv3, or KVM refuses an address.
    pub fn create(vm: &Vm, layout: GicLayout) -> Result<Self, Error> {
        let gic = device(vm, GIC_V3, "create a GICv3")?;
        place(&gic, KVM_VGIC_V3_ADDR_TYPE_DIST, layout.distributor)?;
        place(&gic, KVM_VGIC_V3_ADDR_TYPE_REDIST, layout.redistributors)?;
        let its = device(vm, ITS, "create an ITS")?;
        place(&its, KVM_VGIC_ITS_ADDR_TYPE, layout.its)?;
        Ok(Self { gic, its })
    }

    /// Makes it ready, with SPIs 0 up to `spis`. After the last vCPU was created, before any of them runs.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn initialise(self, spis: u32) -> Result<Gic, Error> {
        let ids = spis
            .min(Spi::MAX)
            .saturating_add(FIRST_SPI)
            .next_multiple_of(32);
        let ids = ids.clamp(64, 1024);
        let address = std::ptr::from_ref(&ids).expose_provenance() as u64;
        let attribute = (KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, address);
        let Self { gic, its } = self;
        set(&gic, "set the number of interrupts of the GIC", attribute)?;
        initialise(&gic)?;
        initialise(&its)?;
        Ok(Gic { _gic: gic, its })
    }
}

/// A GICv3 with its ITS. Its devices live as long as this.
#[derive(Debug)]
pub struct Gic {
    _gic: DeviceFd,
    its: DeviceFd,
}

impl Gic {
    /// The ITS, for what other modules ask of it.
    #[must_use]
    pub fn its(&self) -> &DeviceFd {
        &self.its
    }
}

impl Vm {
    /// Drives the input `line` of the interrupt controller.
    ///
    /// # Errors
    /// When the VM has no interrupt controller, or not that line.
    pub fn set_irq_line(&self, line: Spi, high: bool) -> Result<(), Error> {
        let irq = (KVM_ARM_IRQ_TYPE_SPI << KVM_ARM_IRQ_TYPE_SHIFT) | (line.0 + FIRST_SPI);
        ioctl("KVM_IRQ_LINE", "drive an interrupt line", || {
            self.fd().set_irq_line(irq, high)
        })
    }
}

fn device(vm: &Vm, kind: u32, operation: &'static str) -> Result<DeviceFd, Error> {
    let mut request = kvm_create_device {
        type_: kind,
        ..Default::default()
    };
    ioctl("KVM_CREATE_DEVICE", operation, || {
        vm.fd().create_device(&mut request)
    })
}

fn place(device: &DeviceFd, part: u32, at: Ipa) -> Result<(), Error> {
    let raw = at.raw();
    let address = std::ptr::from_ref(&raw).expose_provenance() as u64;
    let attribute = (KVM_DEV_ARM_VGIC_GRP_ADDR, part, address);
    set(
        device,
        "place a part of the interrupt controller",
        attribute,
    )
}

fn initialise(device: &DeviceFd) -> Result<(), Error> {
    let attribute = (KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT, 0);
    set(device, "initialise the interrupt controller", attribute)
}

fn set(
    device: &DeviceFd,
    operation: &'static str,
    (group, attribute, address): (u32, u32, u64),
) -> Result<(), Error> {
    let attribute = kvm_device_attr {
        group,
        attr: u64::from(attribute),
        addr: address,
        flags: 0,
    };
    ioctl("KVM_SET_DEVICE_ATTR", operation, || {
        device.set_device_attr(&attribute)
    })
}
