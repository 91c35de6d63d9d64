//! A console of one port (virtio 1.2, 5.3).
//!
//! ```text
//!   ring 0  ◄── receive()  ◄── the host's keyboard, as fast as the driver gives buffers
//!   ring 1  ──► ConsoleHost::output, by the vCPU that notifies
//! ```
//! As with a serial port, a guest that sends faster than the host takes waits.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{Immutable, IntoBytes};

use super::device::VirtioDevice;
use super::memory::DeviceMemory;
use super::virtqueue::Virtqueue;

/// The ring of buffers for input.
pub const INPUT: usize = 0;
/// The ring of output.
pub const OUTPUT: usize = 1;

/// Feature bits of the device (virtio 1.2, 5.3.3).
pub mod feature {
    /// A byte can be written without a ring, by a driver that has none yet.
    pub const EMERG_WRITE: u64 = 1 << 2;
}

/// Where [`Config::emergency`] is.
const EMERGENCY: usize = 8;

/// The most bytes of output in one chain; a driver of consoles sends no more than a page.
const MOST_BYTES: usize = 16 << 10;

/// The other end of the console.
pub trait ConsoleHost: Send {
    /// Shows what the guest sends. It may wait.
    fn output(&mut self, bytes: &[u8]);

    /// The guest has given buffers for input, or is ready to: what waits may be received now.
    fn wants_input(&mut self);
}

/// The device configuration (virtio 1.2, 5.3.4).
#[derive(Debug, Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
pub struct Config {
    columns: U16,
    rows: U16,
    ports: U32,
    emergency: U32,
}

/// The device.
pub struct VirtioConsole<H> {
    host: H,
}

impl<H: ConsoleHost> VirtioConsole<H> {
    /// A console of which `host` is the other end.
    pub const fn new(host: H) -> Self {
        Self { host }
    }
}

/// Hands input to the guest by its ring of input buffers; returns how many bytes of it were taken. For
/// the rest [`ConsoleHost::wants_input`] is called when there are buffers. While nothing waits for them the
/// driver is asked not to notify.
pub fn receive<M: DeviceMemory>(ring: &Virtqueue<M>, input: &[u8]) -> usize {
    let mut rest = input;
    let mut turn = || {
        ring.turn(|turn| {
            while !rest.is_empty() {
                let Some(chain) = turn.take()? else {
                    return turn.listen();
                };
                let room = usize::try_from(chain.writable_bytes()).unwrap_or(usize::MAX);
                let (now, later) = rest.split_at(rest.len().min(room));
                turn.complete(chain, now)?;
                rest = later;
            }
            turn.silence()?;
            Ok(false)
        })
    };
    if turn() == Some(true) {
        // There are buffers from before the driver could know that it is to notify. For all that come from
        // here on it does.
        turn();
    }
    input.len() - rest.len()
}

/// Takes what the ring holds: of each chain at most [`MOST_BYTES`].
fn take_output<M: DeviceMemory>(ring: &Virtqueue<M>) -> Option<Vec<u8>> {
    ring.turn(|turn| {
        let mut output = Vec::new();
        while let Some(chain) = turn.take()? {
            let start = output.len();
            let bytes = usize::try_from(chain.readable_bytes()).unwrap_or(usize::MAX);
            let bytes = bytes.min(MOST_BYTES);
            output.resize(start.saturating_add(bytes), 0);
            let read = turn.read(&chain, 0, output.get_mut(start..).unwrap_or_default());
            output.truncate(start.saturating_add(read));
            turn.complete(chain, &[])?;
        }
        Ok(output)
    })
}

impl<H: ConsoleHost> VirtioDevice for VirtioConsole<H> {
    type Config = Config;

    const ID: u16 = 3;
    /// Simple communication controller, other.
    const CLASS: [u8; 3] = [0x07, 0x80, 0x00];

    fn queues(&self) -> Vec<u16> {
        vec![64, 64]
    }

    fn features(&self) -> u64 {
        feature::EMERG_WRITE
    }

    fn config(&self) -> Config {
        Config {
            columns: U16::ZERO,
            rows: U16::ZERO,
            ports: U32::new(1),
            emergency: U32::ZERO,
        }
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) {
        if let (EMERGENCY, [byte, ..]) = (offset, data) {
            self.host.output(&[*byte]);
        }
    }

    fn activate(&mut self, _: u64) {}

    fn notified<M: DeviceMemory>(&mut self, queue: usize, ring: &Virtqueue<M>) {
        if queue == INPUT {
            self.host.wants_input();
            return;
        }
        // Memory is not held still while a slow terminal takes its time.
        if let Some(output) = take_output(ring) {
            self.host.output(&output);
        }
    }

    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests;
