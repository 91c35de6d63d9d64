//! The function on the guest's bus.

use std::io;
use std::sync::Arc;

use super::decode::{BarWindow, Decoder};
use super::filter::{BuildError, Layout, POWER_STATE};
use super::interface::{Acceptance, Interface};
use super::lockdown::Lockdown;
use super::physical::{BarMapper, PhysicalFunction};
use super::signalling::{Signalling, Wanted};
use super::tdi::Incident;
use crate::irq::{IntxLine, MsiController};
use crate::pci::capability::dword;
use crate::pci::registers::{
    COMMAND, COMMAND_BUS_MASTER, COMMAND_INTX_DISABLE, COMMAND_IO, COMMAND_MEMORY, INTERRUPT_PIN,
};
use crate::pci::{AddressSpace, Bar, BarIndex, BarKind, Bdf, ConfigSpace, MsixTable, PciFunction};
use crate::rate_limit::RateLimit;

static ACCESS_FAILURES: RateLimit = RateLimit::per_second(5);

/// What a function is connected to on the guest's side.
pub struct Wiring {
    /// Where the guest sees the function.
    pub bdf: Bdf,
    /// Where BARs can answer.
    pub windows: Vec<BarWindow>,
    /// What places BAR pages in the guest.
    pub mapper: Box<dyn BarMapper>,
    /// Where message interrupts go.
    pub controller: Arc<dyn MsiController>,
    /// The wire of the interrupt pin; without one the guest sees no pin.
    pub pin: Option<Box<dyn IntxLine>>,
    /// What puts the function's DMA under T1 and back; without it has no interface to lock.
    pub acceptance: Option<Box<dyn Acceptance>>,
}

/// A device of the host, on the guest's root bus.
pub struct PassthroughFunction {
    pub(super) physical: Box<dyn PhysicalFunction>,
    pub(super) bdf: Bdf,
    /// As after reset.
    pub(super) layout: Layout,
    pub(super) space: ConfigSpace,
    table: MsixTable,
    decoder: Decoder,
    signalling: Signalling,
    /// The device's power state is D0: its BARs answer.
    powered: bool,
    /// What the device's own command register was last set to.
    command: Option<u16>,
    pub(super) interface: Option<Interface>,
    /// While the interface is locked.
    pub(super) lockdown: Option<Lockdown>,
    life: Life,
}

/// Whether the guest has the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Live,
    Ended,
}

impl PassthroughFunction {
    /// Shows `physical` to the guest, in the state after reset: no BAR answers, no interrupt is on.
    ///
    /// # Errors
    /// When the device is not an endpoint, or its registers are malformed.
    pub fn new(physical: Box<dyn PhysicalFunction>, wiring: Wiring) -> Result<Self, BuildError> {
        let mut image = vec![0; usize::from(physical.config_bytes())];
        let read = physical.config_read(0, &mut image);
        read.map_err(BuildError::Unreadable)?;
        // Drivers fail on a BAR without an address: one that can have none is not there.
        let spaces: Vec<_> = wiring.windows.iter().map(|window| window.space).collect();
        let bar_bytes = |bar: BarIndex| {
            let kind = dword(&image, bar.register()).map(BarKind::of_register);
            let io = kind == Some(BarKind::Io) && !spaces.contains(&AddressSpace::Io);
            if io { 0 } else { physical.bar_bytes(bar) }
        };
        let mut layout = Layout::of(&image, bar_bytes)?;
        if wiring.pin.is_none() || layout.pin == 0 {
            layout.pin = 0;
            layout.space.emulate(INTERRUPT_PIN, [0], [0]);
        }
        let msix = layout.msix.as_ref();
        let decoder = Decoder::new(
            &layout.bars,
            msix,
            wiring.windows,
            wiring.mapper,
            physical.as_ref(),
        );
        let pin = wiring.pin.filter(|_| layout.pin != 0);
        let mut function = Self {
            bdf: wiring.bdf,
            space: layout.space.clone(),
            table: MsixTable::new(msix.map_or(0, |msix| msix.vectors())),
            decoder,
            signalling: Signalling::new(wiring.controller, wiring.bdf, pin),
            powered: true,
            command: None,
            interface: wiring.acceptance.map(Interface::new),
            lockdown: None,
            life: Life::Live,
            layout,
            physical,
        };
        function.apply();
        Ok(function)
    }

    /// The interrupt pin that the guest sees: 0 none, 1 to 4 INTA to INTD.
    #[must_use]
    pub fn interrupt_pin(&self) -> u8 {
        self.layout.pin
    }

    /// Takes the device from the guest: interrupts are off, no page of it is in the guest, it is reset
    /// and does no DMA. From now on the guest finds nothing there.
    pub fn shut_down(&mut self) {
        if self.life == Life::Live {
            self.suffer(Incident::ConventionalReset);
            self.reset();
            self.life = Life::Ended;
        }
    }

    /// Back to the state after reset, as the guest asks for by a function-level reset.
    fn reset(&mut self) {
        self.signalling.silence(self.physical.as_mut());
        self.decoder.retract(|_| None);
        let result = self.physical.reset();
        report(self.bdf, "reset", &result);
        self.space = self.layout.space.clone();
        self.table = MsixTable::new(self.layout.msix.map_or(0, |msix| msix.vectors()));
        self.powered = true;
        self.command = None;
    }

    /// Makes decoding, the device's command register and interrupts follow the registers. BARs go
    /// before the device stops to answer, and come after it has begun to.
    pub(super) fn apply(&mut self) {
        let answers: Vec<_> = self
            .layout
            .bars
            .iter()
            .map(|bar| self.answers(bar))
            .collect();
        let wanted = |bar: &Bar| wanted_address(&answers, bar);
        self.decoder.retract(wanted);
        self.forward_command();
        self.decoder.place(wanted);
        let signals = self.wanted_signals();
        self.signalling.apply(&signals, self.physical.as_mut());
    }

    fn forward_command(&mut self) {
        let command = self.command_in_force();
        if self.command != Some(command) {
            let written = self.physical.config_write(COMMAND, &command.to_le_bytes());
            report(self.bdf, "write of the command register", &written);
            self.command = Some(command);
        }
    }

    /// The guest's command register, but for what a locked interface holds back.
    fn command_in_force(&self) -> u16 {
        let command = self.space.u16(COMMAND);
        self.lockdown
            .as_ref()
            .map_or(command, |lockdown| lockdown.command(command))
    }

    /// Where a BAR answers while it is enabled.
    pub(super) fn address_in_force(&self, bar: &Bar) -> u64 {
        let lockdown = self.lockdown.as_ref();
        let locked = lockdown.and_then(|lockdown| lockdown.address(bar));
        locked.unwrap_or_else(|| bar.address(&self.space))
    }

    /// Where a BAR is to answer, by what the guest has programmed.
    fn answers(&self, bar: &Bar) -> Option<(BarIndex, u64)> {
        let enable = match bar.space() {
            AddressSpace::Io => COMMAND_IO,
            AddressSpace::Memory => COMMAND_MEMORY,
        };
        let decodes = self.powered && self.command_in_force() & enable != 0;
        decodes.then(|| (bar.index(), self.address_in_force(bar)))
    }

    fn wanted_signals(&self) -> Wanted {
        if let Some(msix) = self.layout.msix.filter(|msix| msix.is_enabled(&self.space)) {
            let mut messages = self.table.messages();
            if msix.is_masked(&self.space) {
                messages.fill(None);
            }
            return Wanted::Msix(messages);
        }
        if let Some(msi) = self.layout.msi.filter(|msi| msi.is_enabled(&self.space)) {
            return Wanted::Msi(msi.messages(&self.space));
        }
        if self.signalling.has_pin() && self.space.u16(COMMAND) & COMMAND_INTX_DISABLE == 0 {
            return Wanted::Intx;
        }
        Wanted::Nothing
    }

    /// Whether a write asks for a function-level reset.
    fn asks_for_reset(&self, register: u16, data: &[u8]) -> bool {
        let bits = &self.layout.reset;
        bits.iter()
            .any(|&(at, bit)| written(register, data, at).is_some_and(|new| new & bit != 0))
    }

    /// Whether a write takes the device's permission to do DMA away.
    fn ends_bus_master(&self, register: u16, data: &[u8]) -> bool {
        let [bit, _] = COMMAND_BUS_MASTER.to_le_bytes();
        let was = self.space.u16(COMMAND) & COMMAND_BUS_MASTER != 0;
        was && written(register, data, COMMAND).is_some_and(|new| new & bit == 0)
    }

    /// Passes a write on to the device, but for what a locked interface holds back.
    pub(super) fn write_physical(&mut self, register: u16, data: &[u8]) {
        let mut data = data.to_vec();
        if let Some(lockdown) = &mut self.lockdown
            && let Some(withheld) = lockdown.defer(
                &self.layout.guarded,
                (register, &mut data),
                self.physical.as_ref(),
            )
        {
            self.withhold(withheld);
        }
        // A device that leaves D0 stops answering: its pages go first.
        let power = self.layout.power;
        let state = power.and_then(|at| written(register, &data, at));
        if state.is_some_and(|state| state & POWER_STATE != 0) {
            self.powered = false;
            self.decoder.retract(|_| None);
        }
        let result = self.physical.config_write(register, &data);
        report(self.bdf, "configuration write", &result);
        if let (Some(at), Some(_)) = (power, state) {
            let mut now = [0];
            let read = self.physical.config_read(at, &mut now);
            self.powered = read.is_ok() && now[0] & POWER_STATE == 0;
        }
    }

    /// Has the guest's registers take a write; what goes to the device comes back.
    fn write_registers(&mut self, register: u16, data: &[u8]) -> Vec<(u16, Vec<u8>)> {
        let before = self.lockdown.is_some().then(|| self.space.clone());
        let mut passed_on = Vec::new();
        self.space.write(register, data, |register, data| {
            passed_on.push((register, data.to_vec()));
        });
        if let (Some(lockdown), Some(before)) = (&mut self.lockdown, before) {
            for withheld in lockdown.note(&before, &self.space, &self.layout.bars) {
                self.withhold(withheld);
            }
        }
        passed_on
    }

    /// The MSI pending bits are the only register of ours that changes by itself.
    fn refresh_pending(&mut self) {
        if let Some(register) = self.layout.msi.as_ref().and_then(|msi| msi.pending()) {
            let bit = |vector| u32::from(self.signalling.is_pending(vector)) << vector;
            let pending = (0..32).map(bit).fold(0, |all, bit| all | bit);
            self.space.set(register, pending.to_le_bytes());
        }
    }

    /// Fills `data` with MSI-X pending bits from byte `offset` on.
    fn read_pending(&self, offset: u64, data: &mut [u8]) {
        for (at, data) in (offset..).zip(data) {
            let first = usize::try_from(at).unwrap_or(usize::MAX).saturating_mul(8);
            let bit = |bit| u8::from(self.signalling.is_pending(first.saturating_add(bit))) << bit;
            *data = (0..8).map(bit).fold(0, |all, bit| all | bit);
        }
    }
}

impl PciFunction for PassthroughFunction {
    fn config_read(&mut self, register: u16, data: &mut [u8]) {
        if self.life == Life::Ended {
            return data.fill(0xff);
        }
        self.refresh_pending();
        let (physical, bdf) = (self.physical.as_ref(), self.bdf);
        self.space.read(register, data, |register, data| {
            let result = physical.config_read(register, data);
            if !report(bdf, "configuration read", &result) {
                data.fill(0xff);
            }
        });
        if let Some(lockdown) = &self.lockdown {
            lockdown.show(register, data);
        }
    }

    fn config_write(&mut self, register: u16, data: &[u8]) {
        if self.life == Life::Ended {
            return;
        }
        if self.asks_for_reset(register, data) {
            self.suffer(Incident::FunctionReset);
            self.reset();
            self.apply();
            return;
        }
        if self.ends_bus_master(register, data) {
            self.suffer(Incident::ConfigChanged);
        }
        for (register, data) in self.write_registers(register, data) {
            self.write_physical(register, &data);
        }
        self.apply();
    }

    fn claims(&self, space: AddressSpace, address: u64, bytes: u64) -> Option<(BarIndex, u64)> {
        self.decoder.claims(space, address, bytes)
    }

    fn bar_read(&mut self, bar: BarIndex, offset: u64, data: &mut [u8]) {
        let bytes = data.len() as u64;
        if let Some(msix) = self.layout.msix {
            if let Some(offset) = msix.table().locate(bar, offset, bytes) {
                return self.table.read(offset, data);
            }
            if let Some(offset) = msix.pending().locate(bar, offset, bytes) {
                return self.read_pending(offset, data);
            }
            if msix.table().touches(bar, offset, bytes)
                || msix.pending().touches(bar, offset, bytes)
            {
                return data.fill(0xff);
            }
        }
        let result = self.physical.bar_read(bar, offset, data);
        if !report(self.bdf, "BAR read", &result) {
            data.fill(0xff);
        }
    }

    fn bar_write(&mut self, bar: BarIndex, offset: u64, data: &[u8]) {
        let bytes = data.len() as u64;
        if let Some(msix) = self.layout.msix {
            if let Some(offset) = msix.table().locate(bar, offset, bytes) {
                self.table.write(offset, data);
                if msix.is_enabled(&self.space) {
                    let signals = self.wanted_signals();
                    self.signalling.apply(&signals, self.physical.as_mut());
                }
                return;
            }
            if msix.table().touches(bar, offset, bytes)
                || msix.pending().touches(bar, offset, bytes)
            {
                return;
            }
        }
        let result = self.physical.bar_write(bar, offset, data);
        report(self.bdf, "BAR write", &result);
    }

    fn lose_power(&mut self) {
        if self.life == Life::Live {
            self.suffer(Incident::ConventionalReset);
            self.reset();
            self.apply();
        }
    }
}

impl Drop for PassthroughFunction {
    fn drop(&mut self) {
        self.shut_down();
    }
}

/// Where a BAR is to answer, by `answers`.
fn wanted_address(answers: &[Option<(BarIndex, u64)>], bar: &Bar) -> Option<u64> {
    let mut answers = answers.iter().flatten();
    answers.find_map(|(index, at)| (*index == bar.index()).then_some(*at))
}

/// What a write puts into the byte `at`, if it covers it.
fn written(register: u16, data: &[u8], at: u16) -> Option<u8> {
    let index = at.checked_sub(register)?;
    data.get(usize::from(index)).copied()
}

/// Logs a failure at a bounded rate; whether there was none.
fn report(function: Bdf, what: &str, result: &io::Result<()>) -> bool {
    if let Err(error) = result
        && let Some(skipped) = ACCESS_FAILURES.permit()
    {
        tracing::warn!(%function, skipped, "{what} failed: {error}");
    }
    result.is_ok()
}
