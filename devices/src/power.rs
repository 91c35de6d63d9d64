//! How a guest turns its machine off or starts it over: the registers of hardware-reduced ACPI (ACPI
//! 6.5, 4.8.3.6 and 4.8.3.7), and the keyboard controller, which came first.

use crate::bus::MmioDevice;

/// What the guest asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerRequest {
    /// To be turned off.
    Off,
    /// To start over.
    Reset,
}

/// Told what the guest asks for.
type OnRequest = Box<dyn FnMut(PowerRequest) + Send>;

/// Sleep control, sleep status and reset, one byte each.
pub struct PowerRegisters {
    on_request: OnRequest,
}

impl PowerRegisters {
    /// How many there are.
    pub const COUNT: u16 = 3;
    /// Where sleep is asked for.
    pub const SLEEP_CONTROL: u16 = 0;
    /// Where a guest that woke up would see that it did; it never does.
    pub const SLEEP_STATUS: u16 = 1;
    /// Where a reset is asked for.
    pub const RESET: u16 = 2;
    /// The type of sleep that means off.
    pub const SOFT_OFF: u8 = 5;
    /// What a reset is asked for with.
    pub const RESET_VALUE: u8 = 1;

    const SLEEP_ENABLE: u8 = 1 << 5;
    const SLEEP_TYPE_SHIFT: u32 = 2;
    const SLEEP_TYPE_MASK: u8 = 7;

    /// Registers that call `on_request`.
    #[must_use]
    pub fn new(on_request: impl FnMut(PowerRequest) + Send + 'static) -> Self {
        Self {
            on_request: Box::new(on_request),
        }
    }
}

impl MmioDevice for PowerRegisters {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let (Ok(register), &[value]) = (u16::try_from(offset), data) else {
            return;
        };
        match register {
            Self::SLEEP_CONTROL => {
                let kind = value >> Self::SLEEP_TYPE_SHIFT & Self::SLEEP_TYPE_MASK;
                if value & Self::SLEEP_ENABLE != 0 && kind == Self::SOFT_OFF {
                    (self.on_request)(PowerRequest::Off);
                }
            }
            Self::RESET if value == Self::RESET_VALUE => (self.on_request)(PowerRequest::Reset),
            _ => {}
        }
    }
}

/// The command port of a keyboard controller without a keyboard: its pulse on the reset line.
pub struct KeyboardController {
    on_request: OnRequest,
}

impl KeyboardController {
    /// Pulses no line but the one of reset.
    const PULSE_RESET: u8 = 0xfe;

    /// A controller that calls `on_request`.
    #[must_use]
    pub fn new(on_request: impl FnMut(PowerRequest) + Send + 'static) -> Self {
        Self {
            on_request: Box::new(on_request),
        }
    }
}

impl MmioDevice for KeyboardController {
    /// Ready for a command, nothing to read.
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let (0, [Self::PULSE_RESET]) = (offset, data) {
            (self.on_request)(PowerRequest::Reset);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    type Requests = Arc<Mutex<Vec<PowerRequest>>>;

    fn noted(requests: &Requests) -> impl FnMut(PowerRequest) + Send + 'static {
        let requests = Arc::clone(requests);
        move |request| requests.lock().unwrap().push(request)
    }

    #[test]
    fn only_soft_off_turns_off_and_only_the_value_resets() {
        let requests = Requests::default();
        let mut registers = PowerRegisters::new(noted(&requests));
        for (offset, value) in [(0, 5 << 2), (0, 1 << 5 | 3 << 2), (1, 0x80), (2, 0), (3, 1)] {
            registers.write(offset, &[value]);
        }
        registers.write(0, &[1 << 5 | 5 << 2, 0]);
        assert_eq!(*requests.lock().unwrap(), []);
        registers.write(0, &[1 << 5 | 5 << 2]);
        registers.write(2, &[1]);
        let all = [PowerRequest::Off, PowerRequest::Reset];
        assert_eq!(*requests.lock().unwrap(), all);
    }

    #[test]
    fn the_keyboard_controller_is_ready_and_resets() {
        let requests = Requests::default();
        let mut controller = KeyboardController::new(noted(&requests));
        let mut status = [0xff];
        controller.read(0, &mut status);
        assert_eq!(status, [0]);
        controller.write(0, &[0xaa]);
        assert_eq!(*requests.lock().unwrap(), []);
        controller.write(0, &[0xfe]);
        assert_eq!(*requests.lock().unwrap(), [PowerRequest::Reset]);
    }
}
