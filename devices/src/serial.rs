//! The 16550A serial port: the guest's console.

use std::convert::Infallible;
use std::io::Write;
use std::sync::Arc;

use vm_superio::Trigger;
use vm_superio::serial::{Error, SerialEvents};
use vmm_sys_util::eventfd::EventFd;

use crate::bus::MmioDevice;
use crate::irq::IrqLine;
use crate::rate_limit::RateLimit;

/// What the port's registers are wired to.
type Uart = vm_superio::Serial<Edge, Drained, Box<dyn Write + Send>>;

static LOST_OUTPUT: RateLimit = RateLimit::per_second(1);

/// A 16550A with byte-wide registers, one byte apart.
///
/// Its interrupt is an edge: the device tree must say so.
pub struct Serial {
    uart: Uart,
}

impl Serial {
    /// A port that writes what the guest sends to `output` (byte by byte, so `output` had better
    /// collect) and signals `wants_input` whenever the guest has taken all of the input that it had.
    #[must_use]
    pub fn new(
        line: Arc<dyn IrqLine>,
        output: Box<dyn Write + Send>,
        wants_input: EventFd,
    ) -> Self {
        let uart = Uart::with_events(Edge(line), Drained(wants_input), output);
        Self { uart }
    }

    /// How many bytes of input the port can take now.
    #[must_use]
    pub fn room(&self) -> usize {
        self.uart.fifo_capacity()
    }

    /// Hands input to the guest; returns how many bytes of it were taken.
    pub fn receive(&mut self, input: &[u8]) -> usize {
        match self.uart.enqueue_raw_bytes(input) {
            Ok(taken) => taken,
            Err(Error::FullFifo | Error::IOError(_)) => 0,
            Err(Error::Trigger(never)) => match never {},
        }
    }
}

impl MmioDevice for Serial {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let (Ok(register), Some(value)) = (u8::try_from(offset), data.first_mut()) {
            *value = self.uart.read(register);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let (Ok(register), Some(&value)) = (u8::try_from(offset), data.first()) else {
            return;
        };
        match self.uart.write(register, value) {
            Ok(()) | Err(Error::FullFifo) => {}
            Err(Error::IOError(error)) => {
                if let Some(skipped) = LOST_OUTPUT.permit() {
                    tracing::warn!(%error, skipped, "console output is lost");
                }
            }
            Err(Error::Trigger(never)) => match never {},
        }
    }
}

/// The port raises its interrupt as an edge, once for each new reason.
struct Edge(Arc<dyn IrqLine>);

impl Trigger for Edge {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        self.0.pulse();
        Ok(())
    }
}

/// Told when the guest has read all of its input.
struct Drained(EventFd);

impl SerialEvents for Drained {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}
    fn in_buffer_empty(&self) {
        // An eventfd refuses only when its count is at the limit: then it is signalled anyway.
        let _ = self.0.write(1);
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, Ordering};

    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    use super::*;

    const DATA: u64 = 0;
    const INTERRUPT_ENABLE: u64 = 1;
    const LINE_STATUS: u64 = 5;
    const RECEIVED: u8 = 1;

    #[derive(Default)]
    struct Edges(AtomicU32);

    impl IrqLine for Edges {
        fn set_level(&self, high: bool) {
            self.0.fetch_add(u32::from(high), Ordering::Relaxed);
        }
    }

    #[derive(Clone, Default)]
    struct Terminal(Arc<Mutex<Vec<u8>>>);

    impl Write for Terminal {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn serial() -> (Serial, Arc<Edges>, Terminal, EventFd) {
        let line = Arc::new(Edges::default());
        let terminal = Terminal::default();
        let wants_input = EventFd::new(EFD_NONBLOCK).unwrap();
        let serial = Serial::new(
            Arc::clone(&line) as Arc<dyn IrqLine>,
            Box::new(terminal.clone()),
            wants_input.try_clone().unwrap(),
        );
        (serial, line, terminal, wants_input)
    }

    fn read(serial: &mut Serial, register: u64) -> u8 {
        let mut data = [0xff; 4];
        serial.read(register, &mut data);
        assert_eq!(data[1..], [0; 3]);
        data[0]
    }

    #[test]
    fn what_the_guest_sends_reaches_the_terminal() {
        let (mut serial, _, terminal, _) = serial();
        for byte in *b"hello" {
            serial.write(DATA, &[byte]);
        }
        assert_eq!(*terminal.0.lock().unwrap(), b"hello");
    }

    #[test]
    fn input_interrupts_once_and_more_is_wanted_when_it_has_been_read() {
        let (mut serial, line, _, wants_input) = serial();
        serial.write(INTERRUPT_ENABLE, &[RECEIVED]);
        assert_eq!(serial.receive(b"ab"), 2);
        assert_eq!(line.0.load(Ordering::Relaxed), 1);
        assert_eq!(read(&mut serial, DATA), b'a');
        assert!(wants_input.read().is_err());
        assert_eq!(read(&mut serial, LINE_STATUS) & 1, 1);
        assert_eq!(read(&mut serial, DATA), b'b');
        assert_eq!(wants_input.read().unwrap(), 1);
        assert_eq!(read(&mut serial, LINE_STATUS) & 1, 0);
    }

    #[test]
    fn input_beyond_the_fifo_is_left_to_the_caller() {
        let (mut serial, _, _, _) = serial();
        let room = serial.room();
        assert_eq!(serial.receive(&vec![b'x'; room + 10]), room);
        assert_eq!(serial.room(), 0);
        assert_eq!(serial.receive(b"y"), 0);
    }

    #[test]
    fn registers_that_do_not_exist_read_as_zero() {
        let (mut serial, _, terminal, _) = serial();
        assert_eq!(read(&mut serial, 0x100), 0);
        serial.write(0x100, b"x");
        serial.write(DATA, &[]);
        serial.read(DATA, &mut []);
        assert!(terminal.0.lock().unwrap().is_empty());
    }
}
