//! The function on the guest's bus.

use std::io;
use std::sync::Arc;

use super::decode::{BarWindow, Decoder};
use super::filter::{BuildError, Layout};
use super::physical::{BarMapper, PhysicalFunction};
use super::signalling::{Signalling, Wanted};
use crate::irq::{IntxLine, MsiController};
use crate::pci::registers::{
    COMMAND, COMMAND_INTX_DISABLE, COMMAND_IO, COMMAND_MEMORY, INTERRUPT_PIN,
};
use crate::pci::{AddressSpace, Bar, BarIndex, Bdf, ConfigSpace, MsixTable, PciFunction};
use crate::rate_limit::RateLimit;

static ACCESS_FAILURES: RateLimit = RateLimit::per_second(5);

/// The power state field of power-management control and status; 0 is D0.
const POWER_STATE: u8 = 0b11;

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
}

/// A device of the host, on the guest's root bus.
pub struct PassthroughFunction {
    physical: Box<dyn PhysicalFunction>,
    bdf: Bdf,
    /// As after reset.
    layout: Layout,
    space: ConfigSpace,
    table: MsixTable,
    decoder: Decoder,
    signalling: Signalling,
    /// The device's power state is D0: its BARs answer.
    powered: bool,
    /// What the device's own command register was last set to.
    command: Option<u16>,
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
        if physical.config_read(0, &mut image).is_err() {
            return Err(BuildError::Short(0));
        }
        let mut layout = Layout::of(&image, |bar| physical.bar_bytes(bar))?;
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
    fn apply(&mut self) {
        let Self { space, powered, .. } = self;
        let wanted = |bar: &Bar| wanted_address(space, *powered, bar);
        self.decoder.retract(wanted);
        self.forward_command();
        let Self { space, powered, .. } = self;
        let wanted = |bar: &Bar| wanted_address(space, *powered, bar);
        self.decoder.place(wanted);
        let signals = self.wanted_signals();
        self.signalling.apply(&signals, self.physical.as_mut());
    }

    fn forward_command(&mut self) {
        let command = self.space.u16(COMMAND);
        if self.command != Some(command) {
            let written = self.physical.config_write(COMMAND, &command.to_le_bytes());
            report(self.bdf, "write of the command register", &written);
            self.command = Some(command);
        }
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
    }

    fn config_write(&mut self, register: u16, data: &[u8]) {
        if self.life == Life::Ended {
            return;
        }
        if self.asks_for_reset(register, data) {
            self.reset();
            self.apply();
            return;
        }
        // A device that leaves D0 stops answering: its pages go first.
        let power = self.layout.power;
        let state = power.and_then(|at| written(register, data, at));
        if state.is_some_and(|state| state & POWER_STATE != 0) {
            self.powered = false;
            self.decoder.retract(|_| None);
        }
        let (physical, bdf) = (self.physical.as_ref(), self.bdf);
        self.space.write(register, data, |register, data| {
            let result = physical.config_write(register, data);
            report(bdf, "configuration write", &result);
        });
        if let (Some(at), Some(_)) = (power, state) {
            let mut now = [0];
            let read = self.physical.config_read(at, &mut now);
            self.powered = read.is_ok() && now[0] & POWER_STATE == 0;
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
}

impl Drop for PassthroughFunction {
    fn drop(&mut self) {
        self.shut_down();
    }
}

/// Where a BAR is to answer, by what the guest has programmed.
fn wanted_address(space: &ConfigSpace, powered: bool, bar: &Bar) -> Option<u64> {
    let enable = match bar.space() {
        AddressSpace::Io => COMMAND_IO,
        AddressSpace::Memory => COMMAND_MEMORY,
    };
    let decodes = powered && space.u16(COMMAND) & enable != 0;
    decodes.then(|| bar.address(space))
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
