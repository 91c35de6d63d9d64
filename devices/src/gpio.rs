//! A PL061 GPIO controller (Arm DDI 0190), of which one input is wired to a button.
//!
//! ```text
//!             press                       the guest has read it
//!   let go ──────────► pressed, pin high ─────────────────────► let go, pin low
//!                      └ an edge, if the guest takes edges       └ another edge
//! ```
//! The button is held until the guest has seen it: a slow guest misses no press, and one that comes
//! before the guest has a driver is seen when it gets one.

use std::sync::Arc;

use crate::bus::MmioDevice;
use crate::irq::IrqLine;

/// Bytes of data registers: bits 9:2 of the address say which pins an access is for.
const DATA_END: u64 = 0x400;
const DIRECTION: u64 = 0x400;
const SENSE: u64 = 0x404;
const BOTH_EDGES: u64 = 0x408;
const EVENT: u64 = 0x40c;
const MASK: u64 = 0x410;
const RAW_STATUS: u64 = 0x414;
const MASKED_STATUS: u64 = 0x418;
const CLEAR: u64 = 0x41c;
const FUNCTION: u64 = 0x420;
/// Peripheral and PrimeCell identification, one byte in each of eight words.
const IDS: u64 = 0xfe0;
const ID_BYTES: [u8; 8] = [0x61, 0x10, 0x04, 0x00, 0x0d, 0xf0, 0x05, 0xb1];

/// A controller of eight pins, one bit each.
pub struct Gpio {
    line: Arc<dyn IrqLine>,
    /// What the pins are driven to from outside.
    input: u8,
    /// What the guest drives its outputs to.
    output: u8,
    /// Pins that are outputs.
    direction: u8,
    /// Pins that interrupt by their level.
    level: u8,
    /// Pins that interrupt by either edge.
    both_edges: u8,
    /// Pins that interrupt when they are high, or rise.
    rising: u8,
    /// Pins that may interrupt.
    enabled: u8,
    /// Edges that have been seen and not cleared.
    edges: u8,
    /// Pins that the guest has given to hardware that there is not.
    function: u8,
}

impl Gpio {
    /// The pin that the button is wired to, 0 to 7.
    pub const BUTTON: u8 = 3;
    const BUTTON_BIT: u8 = 1 << Self::BUTTON;

    /// A controller that drives `line`, whose button is not pressed.
    #[must_use]
    pub fn new(line: Arc<dyn IrqLine>) -> Self {
        Self {
            line,
            input: 0,
            output: 0,
            direction: 0,
            level: 0,
            both_edges: 0,
            rising: 0,
            enabled: 0,
            edges: 0,
            function: 0,
        }
    }

    /// Presses the button, until the guest has seen it. One that is pressed stays so.
    pub fn press(&mut self) {
        self.drive(self.input | Self::BUTTON_BIT);
    }

    fn drive(&mut self, input: u8) {
        let (rose, fell) = (input & !self.input, self.input & !input);
        let taken =
            (rose & (self.rising | self.both_edges)) | (fell & (!self.rising | self.both_edges));
        self.edges |= taken & !self.level & !self.direction;
        self.input = input;
        self.signal();
    }

    fn signal(&self) {
        self.line.set_level(self.raw() & self.enabled != 0);
    }

    /// Which pins ask for an interrupt, enabled or not.
    fn raw(&self) -> u8 {
        let active = !(self.pins() ^ self.rising);
        (active & self.level) | (self.edges & !self.level)
    }

    fn pins(&self) -> u8 {
        (self.output & self.direction) | (self.input & !self.direction)
    }

    fn register(&self, offset: u64) -> u8 {
        match offset {
            DIRECTION => self.direction,
            SENSE => self.level,
            BOTH_EDGES => self.both_edges,
            EVENT => self.rising,
            MASK => self.enabled,
            RAW_STATUS => self.raw(),
            MASKED_STATUS => self.raw() & self.enabled,
            FUNCTION => self.function,
            IDS.. if offset.is_multiple_of(4) => {
                let index = usize::try_from((offset - IDS) / 4).ok();
                index.and_then(|at| ID_BYTES.get(at)).copied().unwrap_or(0)
            }
            _ => 0,
        }
    }
}

/// The pins that an access to a data register is for.
fn data_mask(offset: u64) -> Option<u8> {
    if offset >= DATA_END {
        return None;
    }
    u8::try_from(offset >> 2).ok()
}

impl MmioDevice for Gpio {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let Some(low) = data.first_mut() else {
            return;
        };
        let Some(mask) = data_mask(offset) else {
            *low = self.register(offset);
            return;
        };
        let seen = self.pins() & mask;
        *low = seen;
        if seen & !self.direction & Self::BUTTON_BIT != 0 {
            self.drive(self.input & !Self::BUTTON_BIT);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let Some(&value) = data.first() else {
            return;
        };
        if let Some(mask) = data_mask(offset) {
            self.output = (self.output & !mask) | (value & mask);
        }
        match offset {
            DIRECTION => self.direction = value,
            SENSE => self.level = value,
            BOTH_EDGES => self.both_edges = value,
            EVENT => self.rising = value,
            MASK => self.enabled = value,
            CLEAR => self.edges &= !value,
            FUNCTION => self.function = value,
            _ => {}
        }
        self.signal();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[derive(Default)]
    struct Wire(AtomicBool);

    impl IrqLine for Wire {
        fn set_level(&self, high: bool) {
            self.0.store(high, Ordering::Relaxed);
        }
    }

    struct Rig {
        wire: Arc<Wire>,
        gpio: Gpio,
    }

    impl Rig {
        fn new() -> Self {
            let wire = Arc::new(Wire::default());
            let gpio = Gpio::new(Arc::<Wire>::clone(&wire));
            Self { wire, gpio }
        }

        fn read(&mut self, offset: u64) -> u8 {
            let mut data = [0xff];
            self.gpio.read(offset, &mut data);
            data[0]
        }

        fn write(&mut self, offset: u64, value: u8) {
            self.gpio.write(offset, &[value]);
        }

        fn interrupts(&self) -> bool {
            self.wire.0.load(Ordering::Relaxed)
        }
    }

    const PIN: u8 = 1 << Gpio::BUTTON;
    /// The data register of the button alone.
    const DATA: u64 = (PIN as u64) << 2;

    #[test]
    fn a_press_interrupts_once_as_it_comes_and_once_as_it_goes() {
        let mut rig = Rig::new();
        rig.write(BOTH_EDGES, PIN);
        rig.write(MASK, PIN);
        assert!(!rig.interrupts());
        rig.gpio.press();
        assert!(rig.interrupts());
        assert_eq!(rig.read(MASKED_STATUS), PIN);
        rig.write(CLEAR, PIN);
        assert!(!rig.interrupts());
        assert_eq!(rig.read(DATA), PIN);
        assert!(rig.interrupts());
        rig.write(CLEAR, PIN);
        assert_eq!((rig.read(DATA), rig.interrupts()), (0, false));
    }

    #[test]
    fn a_press_before_there_is_a_driver_is_still_there_for_it() {
        let mut rig = Rig::new();
        rig.gpio.press();
        rig.gpio.press();
        assert!(!rig.interrupts());
        // Other pins are not the button.
        assert_eq!(rig.read(u64::from(!PIN) << 2), 0);
        rig.write(MASK, PIN);
        rig.write(BOTH_EDGES, PIN);
        assert_eq!((rig.read(DATA), rig.read(DATA)), (PIN, 0));
    }

    #[test]
    fn a_level_interrupts_as_long_as_it_lasts() {
        let mut rig = Rig::new();
        rig.write(SENSE, PIN);
        rig.write(EVENT, PIN);
        rig.write(MASK, PIN);
        assert!(!rig.interrupts());
        rig.gpio.press();
        rig.write(CLEAR, PIN);
        assert!(rig.interrupts());
        assert_eq!(rig.read(DATA), PIN);
        assert!(!rig.interrupts());
        // Low for a change.
        rig.write(EVENT, 0);
        assert!(rig.interrupts());
    }

    #[test]
    fn a_pin_that_the_guest_drives_does_not_interrupt_and_reads_as_driven() {
        let mut rig = Rig::new();
        rig.write(DIRECTION, 0xff);
        rig.write(BOTH_EDGES, 0xff);
        rig.write(MASK, 0xff);
        rig.write(0b1_0001 << 2, 0xff);
        assert_eq!(rig.read(0x3fc), 0b1_0001);
        rig.gpio.press();
        assert_eq!((rig.read(0x3fc), rig.interrupts()), (0b1_0001, false));
    }

    #[test]
    fn a_driver_finds_the_identification_of_a_pl061() {
        let mut rig = Rig::new();
        let ids: Vec<u8> = (0xfe0..=0xffc).step_by(4).map(|at| rig.read(at)).collect();
        assert_eq!(ids, ID_BYTES);
    }

    #[test]
    fn odd_accesses_are_harmless() {
        let mut rig = Rig::new();
        rig.gpio.write(u64::MAX, &[0xff; 8]);
        rig.gpio.write(0, &[]);
        rig.gpio.read(0, &mut []);
        for offset in [0x424, 0xfe1, 0x1000, u64::MAX] {
            assert_eq!(rig.read(offset), 0, "{offset:#x}");
        }
        let mut wide = [0xff; 8];
        rig.gpio.read(RAW_STATUS, &mut wide);
        assert_eq!(wide, [0; 8]);
    }
}
