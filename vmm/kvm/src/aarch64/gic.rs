//! The in-kernel interrupt controller: GICv3 with an ITS for message interrupts.

use std::fmt;

use kvm_bindings::{
    KVM_ARM_IRQ_TYPE_SHIFT, KVM_ARM_IRQ_TYPE_SPI, KVM_DEV_ARM_VGIC_CTRL_INIT,
    KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_GRP_NR_IRQS,
    KVM_VGIC_ITS_ADDR_TYPE, KVM_VGIC_V3_ADDR_TYPE_DIST, KVM_VGIC_V3_ADDR_TYPE_REDIST,
    kvm_create_device, kvm_device_attr, kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_ITS as ITS,
    kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3 as GIC_V3,
};
use kvm_ioctls::DeviceFd;

use crate::{Error, Ipa, Vm};

/// The first interrupt id that is a shared peripheral interrupt.
const FIRST_SPI: u32 = 32;

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

/// A GICv3 with its ITS. Its devices live as long as this.
#[derive(Debug)]
pub struct Gic {
    _gic: DeviceFd,
    its: DeviceFd,
}

impl Gic {
    /// Gives `vm` its interrupt controller, with SPIs 0 up to `spis`. After the last vCPU was
    /// created, before any of them runs.
    ///
    /// # Errors
    /// When the host has no GICv3, or KVM refuses an address.
    pub fn create(vm: &Vm, layout: GicLayout, spis: u32) -> Result<Self, Error> {
        let gic = device(vm, GIC_V3, "create a GICv3")?;
        place(&gic, KVM_VGIC_V3_ADDR_TYPE_DIST, layout.distributor)?;
        place(&gic, KVM_VGIC_V3_ADDR_TYPE_REDIST, layout.redistributors)?;
        let ids = spis
            .min(Spi::MAX)
            .saturating_add(FIRST_SPI)
            .next_multiple_of(32);
        let ids = ids.clamp(64, 1024);
        let address = std::ptr::from_ref(&ids).expose_provenance() as u64;
        set(&gic, KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, address)
            .map_err(Error::ioctl("set the number of interrupts of the GIC"))?;
        initialise(&gic)?;
        let its = device(vm, ITS, "create an ITS")?;
        place(&its, KVM_VGIC_ITS_ADDR_TYPE, layout.its)?;
        initialise(&its)?;
        Ok(Self { _gic: gic, its })
    }

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
        self.fd()
            .set_irq_line(irq, high)
            .map_err(Error::ioctl("drive an interrupt line"))
    }
}

fn device(vm: &Vm, kind: u32, operation: &'static str) -> Result<DeviceFd, Error> {
    let mut request = kvm_create_device {
        type_: kind,
        ..Default::default()
    };
    vm.fd()
        .create_device(&mut request)
        .map_err(Error::ioctl(operation))
}

fn place(device: &DeviceFd, part: u32, at: Ipa) -> Result<(), Error> {
    let raw = at.raw();
    let address = std::ptr::from_ref(&raw).expose_provenance() as u64;
    set(device, KVM_DEV_ARM_VGIC_GRP_ADDR, part, address)
        .map_err(Error::ioctl("place a part of the interrupt controller"))
}

fn initialise(device: &DeviceFd) -> Result<(), Error> {
    set(
        device,
        KVM_DEV_ARM_VGIC_GRP_CTRL,
        KVM_DEV_ARM_VGIC_CTRL_INIT,
        0,
    )
    .map_err(Error::ioctl("initialise the interrupt controller"))
}

fn set(
    device: &DeviceFd,
    group: u32,
    attribute: u32,
    address: u64,
) -> Result<(), vmm_sys_util::errno::Error> {
    device.set_device_attr(&kvm_device_attr {
        group,
        attr: u64::from(attribute),
        addr: address,
        flags: 0,
    })
}
