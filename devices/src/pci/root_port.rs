//! A root port with a slot for one card, which can come and go while the guest runs.
//!
//! ```text
//!   bus 0 ── RootPort ── slot ── card: device 0, function 0 of the port's own bus
//!               │ interrupt by MSI
//!               ▼
//!   guest's slot driver ── slot control: power on, power off ──► SlotState ──► event: released
//! ```
//! The port has no I/O window and no prefetchable one, no error reporting and no power management: what
//! a card needs is memory below 4 GiB. BARs of a card answer wherever the root passes memory on, and not
//! only in the port's window: a guest that programs them elsewhere gets what it programs.
//!
//! Lock order: the port, then its card.

use std::io;
use std::sync::{Arc, PoisonError};

use vmm_sys_util::eventfd::EventFd;

use super::bar::{AddressSpace, BarIndex};
use super::bdf::Bdf;
use super::capability;
use super::msi::MsiCapability;
use super::registers as reg;
use super::root::{PciFunction, SharedFunction};
use super::slot::{BUTTON, EVENTS, LINK_CHANGED, PRESENCE_CHANGED, PRESENT, SlotEvent, SlotState};
use super::space::ConfigSpace;
use crate::irq::{MsiController, MsiMessage, MsiVector};
use crate::rate_limit::RateLimit;

static FAILURES: RateLimit = RateLimit::per_second(5);

/// Red Hat's generic PCI Express root port: Linux knows ports by their class.
const IDS: [u8; 4] = [0x36, 0x1b, 0x0c, 0x00];
/// Revision 0, bridge device, PCI-to-PCI bridge.
const REVISION_AND_CLASS: [u8; 4] = [0x00, 0x00, 0x04, 0x06];
const HEADER_TYPE: u16 = 0x0e;
const BRIDGE: u8 = 1;
/// Numbers of the bus above, of the port's own and of the last below (PCI Express Base, 7.5.1.3).
const BUS_NUMBERS: u16 = 0x18;
const SECONDARY_BUS: u16 = BUS_NUMBERS + 1;
/// Base and limit of the memory window: bits 31:20 of its first and last byte.
const MEMORY_WINDOW: u16 = 0x20;
const BRIDGE_CONTROL: u16 = 0x3e;
const SECONDARY_RESET: u16 = 1 << 6;
/// Parity, SERR and secondary bus reset.
const BRIDGE_CONTROL_WRITABLE: u16 = 0b11 | SECONDARY_RESET;
const COMMAND_WRITABLE: u16 = reg::COMMAND_IO
    | reg::COMMAND_MEMORY
    | reg::COMMAND_BUS_MASTER
    | reg::COMMAND_PARITY
    | reg::COMMAND_SERR
    | reg::COMMAND_INTX_DISABLE;

/// Where the PCI Express capability is (PCI Express Base, 7.5.3).
const EXPRESS: u16 = 0x40;
/// Version 2, root port, with a slot.
const EXPRESS_FLAGS: u16 = 2 | 4 << 4 | 1 << 8;
/// Device capabilities: role-based error reporting, as every port since 1.1.
const DEVICE_CAPABILITIES: u32 = 1 << 15;
/// 2.5 GT/s on one lane, which nothing is transferred over.
const LINK: u16 = 1 | 1 << 4;
/// Link capabilities: link status tells whether the link is up.
const LINK_TELLS: u32 = 1 << 20;
const LINK_STATUS: u16 = EXPRESS + 0x12;
const LINK_ACTIVE: u16 = 1 << 13;
/// Slot capabilities: attention button, power controller, power indicator, hot-plug capable, no command
/// completed event.
const SLOT_CAPABILITIES: u32 = 1 << 0 | 1 << 1 | 1 << 4 | 1 << 6 | 1 << 18;
const SLOT_NUMBER_SHIFT: u32 = 19;
const SLOT_CONTROL: u16 = EXPRESS + 0x18;
/// Which events interrupt: the bits of slot status, but for the link's.
const SLOT_EVENTS_ENABLED: u16 = BUTTON | PRESENCE_CHANGED;
const SLOT_INTERRUPT: u16 = 1 << 5;
/// The power indicator: on, blinking, or off. It blinks while the guest is giving a card power or taking it.
const SLOT_INDICATOR: u16 = 0b11 << 8;
const SLOT_INDICATOR_BLINKS: u16 = 0b10 << 8;
const SLOT_INDICATOR_OFF: u16 = 0b11 << 8;
const SLOT_POWER_OFF: u16 = 1 << 10;
const SLOT_LINK_ENABLED: u16 = 1 << 12;
const SLOT_CONTROL_WRITABLE: u16 =
    SLOT_EVENTS_ENABLED | SLOT_INTERRUPT | SLOT_INDICATOR | SLOT_POWER_OFF | SLOT_LINK_ENABLED;
const SLOT_STATUS: u16 = EXPRESS + 0x1a;
/// Link capabilities 2: 2.5 GT/s.
const LINK_SPEEDS: u32 = 1 << 1;

/// Where the MSI capability is: 64-bit, one vector, no mask.
const MSI: u16 = 0x80;
const MSI_WIDE: u16 = 1 << 7;

/// Which port this is, to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortIdentity {
    /// Where it is on bus 0.
    pub bdf: Bdf,
    /// The number of its slot, 1 to 255.
    pub slot: u8,
    /// The number of its own bus until the guest gives it another, 1 to 255.
    pub bus: u8,
}

/// A card cannot be put into a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SlotError {
    /// There is one already.
    #[error("there is a card in the slot")]
    Taken,
    /// The guest has given the port's bus another number, and the card's messages would have the first.
    #[error("the guest has numbered the port's bus {now}, and not {planned}")]
    Renumbered {
        /// As the guest has it.
        now: u8,
        /// As it was.
        planned: u8,
    },
}

/// A root port and what is in its slot.
pub struct RootPort {
    identity: PortIdentity,
    space: ConfigSpace,
    msi: Option<MsiCapability>,
    state: SlotState,
    /// The events that the guest has not cleared.
    events: u16,
    /// The button is to be pressed when the guest is done with what it is at.
    press_due: bool,
    card: Option<SharedFunction>,
    vector: Box<dyn MsiVector>,
    /// Where the vector goes now.
    message: Option<MsiMessage>,
    /// An enabled event is there: the next interrupt is due when there is one after none.
    pending: bool,
    released: Arc<EventFd>,
}

impl RootPort {
    /// A port with an empty slot, without power. `released` is signalled when the guest has given up a
    /// card that it was asked for.
    ///
    /// # Errors
    /// When no message vector can be had.
    pub fn new(
        identity: PortIdentity,
        controller: &dyn MsiController,
        released: Arc<EventFd>,
    ) -> io::Result<Self> {
        let mut space = ConfigSpace::default();
        install_header(&mut space, identity.bus);
        install_express(&mut space, identity.slot);
        let msi = install_msi(&mut space);
        let mut port = Self {
            identity,
            space,
            msi,
            state: SlotState::Empty,
            events: 0,
            press_due: false,
            card: None,
            vector: controller.vector(identity.bdf)?,
            message: None,
            pending: false,
            released,
        };
        port.show();
        Ok(port)
    }

    /// What is in the slot.
    #[must_use]
    pub fn state(&self) -> SlotState {
        self.state
    }

    /// Puts `card` in, and tells the guest.
    ///
    /// # Errors
    /// When there is one already, or its messages would not be taken for those of the port's bus.
    pub fn insert(&mut self, card: SharedFunction) -> Result<(), SlotError> {
        if self.state.has_card() {
            return Err(SlotError::Taken);
        }
        let (now, planned) = (self.secondary_bus(), self.identity.bus);
        if now != planned {
            return Err(SlotError::Renumbered { now, planned });
        }
        self.card = Some(card);
        self.suffer(SlotEvent::Insert);
        Ok(())
    }

    /// Asks the guest for the card; returns what is in the slot now. Asking again does no harm.
    ///
    /// A guest takes a second press for a change of mind. While it is at the card already, which its power
    /// indicator shows, the button waits until that is over, and is pressed only if the card is still there.
    pub fn ask(&mut self) -> SlotState {
        self.press_due = self.is_busy();
        self.suffer(SlotEvent::Ask);
        self.state
    }

    /// Whether the guest is giving a card power or taking it.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.space.u16(SLOT_CONTROL) & SLOT_INDICATOR == SLOT_INDICATOR_BLINKS
    }

    /// The button that waited is pressed, or has become pointless.
    fn press(&mut self) {
        if self.press_due && !self.is_busy() {
            self.press_due = false;
            if self.state == SlotState::Leaving {
                self.events |= BUTTON;
            }
        }
    }

    /// Takes the card out, whatever its guest is doing with it. Nothing reaches it by this port from now
    /// on; whoever has it must still stop it.
    pub fn remove(&mut self) -> Option<SharedFunction> {
        self.suffer(SlotEvent::Remove);
        self.card.take()
    }

    /// The number that the guest has given to the port's own bus.
    fn secondary_bus(&self) -> u8 {
        let [bus, _] = self.space.u16(SECONDARY_BUS).to_le_bytes();
        bus
    }

    fn suffer(&mut self, event: SlotEvent) {
        let Some((after, told)) = self.state.after(event) else {
            return;
        };
        let lost_power = self.state.has_power() && !after.has_power();
        self.state = after;
        self.events |= match event {
            SlotEvent::Ask if self.press_due => 0,
            _ => told,
        };
        if lost_power {
            self.reset_card();
        }
        if after == SlotState::Released
            && let Err(error) = self.released.write(1)
        {
            self.report("nobody is told that a card is released", &error);
        }
        self.follow_power();
        self.show();
        self.interrupt();
    }

    /// The card follows slot control, in which an empty slot can have power, too.
    fn follow_power(&mut self) {
        let off = self.space.u16(SLOT_CONTROL) & SLOT_POWER_OFF != 0;
        let event = match (self.state.has_power(), off) {
            (true, true) => SlotEvent::PowerOff,
            // What is given up stays so until the guest asks for power anew.
            (false, false) if self.state == SlotState::Off => SlotEvent::PowerOn,
            _ => return,
        };
        self.suffer(event);
    }

    fn reset_card(&self) {
        if let Some(card) = &self.card {
            let mut card = card.lock().unwrap_or_else(PoisonError::into_inner);
            card.lose_power();
        }
    }

    /// The card that answers: one with power.
    fn powered_card(&self) -> Option<&SharedFunction> {
        self.card.as_ref().filter(|_| self.state.has_power())
    }

    /// Makes the registers show the slot.
    fn show(&mut self) {
        let present = if self.state.has_card() { PRESENT } else { 0 };
        let status = self.events | present;
        let link = match self.state.has_power() {
            true => LINK | LINK_ACTIVE,
            false => 0,
        };
        self.space.set(SLOT_STATUS, status.to_le_bytes());
        self.space.set(LINK_STATUS, link.to_le_bytes());
    }

    /// Sends a message when an enabled event is there after there was none (PCI Express Base, 6.7.3.4).
    fn interrupt(&mut self) {
        let control = self.space.u16(SLOT_CONTROL);
        let link = match control & SLOT_LINK_ENABLED {
            0 => 0,
            _ => LINK_CHANGED,
        };
        let enabled = control & SLOT_EVENTS_ENABLED | link;
        let pending = control & SLOT_INTERRUPT != 0 && self.events & enabled != 0;
        let due = pending && !self.pending && self.message.is_some();
        self.pending = pending && (self.pending || due);
        if due && let Err(error) = self.vector.event().write(1) {
            self.report("no interrupt", &error);
        }
    }

    /// Has the vector go where the guest has programmed.
    fn route(&mut self) {
        let enabled = self.msi.filter(|msi| msi.is_enabled(&self.space));
        let message = enabled.and_then(|msi| msi.messages(&self.space).first().copied().flatten());
        if message == self.message {
            return;
        }
        match self.vector.route(message) {
            Ok(()) => self.message = message,
            Err(error) => {
                self.message = None;
                self.report("no interrupts", &error);
            }
        }
    }

    fn report(&self, what: &str, error: &io::Error) {
        if let Some(skipped) = FAILURES.permit() {
            tracing::warn!(port = %self.identity.bdf, skipped, "{what}: {error}");
        }
    }
}

impl PciFunction for RootPort {
    fn config_read(&mut self, register: u16, data: &mut [u8]) {
        self.space.read(register, data, |_, _| {});
    }

    fn config_write(&mut self, register: u16, data: &[u8]) {
        let before = (self.space.u16(SLOT_CONTROL), self.space.u16(BRIDGE_CONTROL));
        self.space.write(register, data, |_, _| {});
        self.events &= !(written(register, data, SLOT_STATUS) & EVENTS);
        let turned_on = before.0 & !self.space.u16(SLOT_CONTROL) & SLOT_POWER_OFF != 0;
        if self.space.u16(BRIDGE_CONTROL) & !before.1 & SECONDARY_RESET != 0 {
            self.reset_card();
        }
        self.route();
        if turned_on {
            self.suffer(SlotEvent::PowerOn);
        }
        self.follow_power();
        self.press();
        self.show();
        self.interrupt();
    }

    fn claims(&self, space: AddressSpace, address: u64, bytes: u64) -> Option<(BarIndex, u64)> {
        let card = self.powered_card()?;
        let card = card.lock().unwrap_or_else(PoisonError::into_inner);
        card.claims(space, address, bytes)
    }

    fn bar_read(&mut self, bar: BarIndex, offset: u64, data: &mut [u8]) {
        if let Some(card) = self.powered_card() {
            let mut card = card.lock().unwrap_or_else(PoisonError::into_inner);
            card.bar_read(bar, offset, data);
        }
    }

    fn bar_write(&mut self, bar: BarIndex, offset: u64, data: &[u8]) {
        if let Some(card) = self.powered_card() {
            let mut card = card.lock().unwrap_or_else(PoisonError::into_inner);
            card.bar_write(bar, offset, data);
        }
    }

    fn behind(&self, id: Bdf) -> Option<SharedFunction> {
        let here = id.bus() == self.secondary_bus() && id.device() == 0 && id.function() == 0;
        self.powered_card().filter(|_| here).cloned()
    }
}

/// The bits that a write puts into the two bytes at `at`.
fn written(register: u16, data: &[u8], at: u16) -> u16 {
    let byte = |at: u16| {
        let index = at.checked_sub(register).map(usize::from);
        index.and_then(|index| data.get(index)).copied()
    };
    let [low, high] = [at, at + 1].map(|at| byte(at).unwrap_or(0));
    u16::from_le_bytes([low, high])
}

fn install_header(space: &mut ConfigSpace, bus: u8) {
    space.emulate(reg::VENDOR_ID, IDS, [0; 4]);
    space.emulate(reg::COMMAND, [0; 2], COMMAND_WRITABLE.to_le_bytes());
    space.emulate(reg::STATUS, reg::STATUS_CAPABILITIES.to_le_bytes(), [0; 2]);
    space.emulate(reg::REVISION_ID, REVISION_AND_CLASS, [0; 4]);
    space.emulate(reg::CACHE_LINE_SIZE, [0], [0xff]);
    space.emulate(HEADER_TYPE, [BRIDGE], [0]);
    space.emulate(BUS_NUMBERS, [0, bus, bus], [0xff; 3]);
    // A window that ends before it begins is closed.
    space.emulate(MEMORY_WINDOW, [0xf0, 0xff, 0, 0], [0xf0, 0xff, 0xf0, 0xff]);
    let [express, _] = EXPRESS.to_le_bytes();
    space.emulate(reg::CAPABILITIES, [express], [0]);
    space.emulate(reg::INTERRUPT_LINE, [0], [0xff]);
    let writable = BRIDGE_CONTROL_WRITABLE.to_le_bytes();
    space.emulate(BRIDGE_CONTROL, [0; 2], writable);
}

fn install_express(space: &mut ConfigSpace, slot: u8) {
    let [next, _] = MSI.to_le_bytes();
    space.emulate(EXPRESS, [capability::EXPRESS, next], [0; 2]);
    space.emulate(EXPRESS + 0x02, EXPRESS_FLAGS.to_le_bytes(), [0; 2]);
    space.emulate(EXPRESS + 0x04, DEVICE_CAPABILITIES.to_le_bytes(), [0; 4]);
    let link = u32::from(LINK) | LINK_TELLS | u32::from(slot) << 24;
    space.emulate(EXPRESS + 0x0c, link.to_le_bytes(), [0; 4]);
    space.emulate(LINK_STATUS, [0; 2], [0; 2]);
    let slot = SLOT_CAPABILITIES | u32::from(slot) << SLOT_NUMBER_SHIFT;
    space.emulate(EXPRESS + 0x14, slot.to_le_bytes(), [0; 4]);
    space.emulate(
        SLOT_CONTROL,
        (SLOT_POWER_OFF | SLOT_INDICATOR_OFF).to_le_bytes(),
        SLOT_CONTROL_WRITABLE.to_le_bytes(),
    );
    space.emulate(SLOT_STATUS, [0; 2], [0; 2]);
    space.emulate(EXPRESS + 0x2c, LINK_SPEEDS.to_le_bytes(), [0; 4]);
}

fn install_msi(space: &mut ConfigSpace) -> Option<MsiCapability> {
    let mut image = [0; 256];
    let control = usize::from(MSI) + 2;
    if let Some(bytes) = image.get_mut(control..control + 2) {
        bytes.copy_from_slice(&MSI_WIDE.to_le_bytes());
    }
    let found = capability::Capability {
        id: capability::MSI,
        register: MSI,
        room: reg::EXTENDED - MSI,
    };
    let msi = MsiCapability::read_from(&image, found)?;
    space.emulate(MSI, [capability::MSI, 0], [0; 2]);
    msi.install(space);
    Some(msi)
}

#[cfg(test)]
mod tests;
