//! The in-kernel interrupt controllers: a local APIC for each vCPU, one IOAPIC, and a pair of 8259s
//! that no guest is told of.

use std::fmt;

use kvm_bindings::{KVM_CAP_SPLIT_IRQCHIP, kvm_enable_cap, kvm_msi};

use super::halves;
use crate::error::ioctl;
use crate::{Error, Vm};

/// Where KVM keeps the task state of real mode, three pages, on Intel processors that cannot run it
/// otherwise: between the local APIC and the reset vector, where no memory is.
const TASK_STATE: usize = 0xfffb_d000;
/// The page table that it uses there: the page below.
const IDENTITY_MAP: u64 = 0xfffb_c000;

/// What the routing table of KVM looks like for these interrupt controllers.
pub(crate) mod routing {
    /// Which of KVM's interrupt controllers a pin is of.
    pub(crate) const IRQCHIP: u32 = kvm_bindings::KVM_IRQCHIP_IOAPIC;
    /// Each interrupt line is driven by way of its route, from the start.
    pub(crate) const PINS: u32 = super::IoapicPin::COUNT;
    /// GSIs below are pins.
    pub(crate) const FIRST_MESSAGE: u32 = super::IoapicPin::COUNT;
    /// A message says by itself where it goes.
    pub(crate) const MESSAGE_FLAGS: u32 = 0;
}

/// An input of the IOAPIC, which is the GSI of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IoapicPin(u32);

impl IoapicPin {
    /// How many there are.
    pub const COUNT: u32 = 24;

    /// The pin with this number, or `None` beyond the last.
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        if number < Self::COUNT {
            Some(Self(number))
        } else {
            None
        }
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for IoapicPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IOAPIC pin {}", self.0)
    }
}

impl Vm {
    /// Gives the VM its interrupt controllers. Before the first vCPU is created.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn create_irqchip(&self) -> Result<(), Error> {
        let place = "place the pages that run real mode";
        ioctl("KVM_SET_IDENTITY_MAP_ADDR", place, || {
            self.fd().set_identity_map_address(IDENTITY_MAP)
        })?;
        ioctl("KVM_SET_TSS_ADDR", place, || {
            self.fd().set_tss_address(TASK_STATE)
        })?;
        ioctl("KVM_CREATE_IRQCHIP", "create interrupt controllers", || {
            self.fd().create_irq_chip()
        })
    }

    /// Gives the VM local APICs only, with an IOAPIC of this process's. Before the first vCPU is created.
    /// A TD has no others: KVM does not see the end of its interrupts.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn create_local_apics(&self) -> Result<(), Error> {
        let capability = kvm_enable_cap {
            cap: KVM_CAP_SPLIT_IRQCHIP,
            // How many messages KVM keeps back for an IOAPIC.
            args: [IoapicPin::COUNT.into(), 0, 0, 0],
            ..Default::default()
        };
        ioctl("KVM_ENABLE_CAP", "create local APICs", || {
            self.fd().enable_cap(&capability)
        })
    }

    /// Sends a message interrupt: one that stays with the local APICs of this VM.
    ///
    /// # Errors
    /// When KVM refuses; a message to no local APIC is lost without one.
    pub fn signal_message(&self, address: u64, data: u32) -> Result<(), Error> {
        let [address_lo, address_hi] = halves(address);
        let message = kvm_msi {
            address_lo,
            address_hi,
            data,
            ..Default::default()
        };
        ioctl("KVM_SIGNAL_MSI", "send a message interrupt", || {
            self.fd().signal_msi(message).map(drop)
        })
    }

    /// Drives the input `pin` of the IOAPIC.
    ///
    /// # Errors
    /// When the VM has no interrupt controller.
    pub fn set_irq_line(&self, pin: IoapicPin, high: bool) -> Result<(), Error> {
        ioctl("KVM_IRQ_LINE", "drive an interrupt line", || {
            self.fd().set_irq_line(pin.0, high)
        })
    }
}
