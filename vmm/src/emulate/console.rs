//! A virtio console, connected to what ccvm's terminal is.

use devices::virtio::Virtqueue;
use devices::virtio::console::{ConsoleHost, receive};
use vmm_sys_util::eventfd::EventFd;

use crate::convert::SharedMemory;
use crate::run::{InputPort, OutputWriter};

/// The way out, and who is told that there is room for input.
pub struct Terminal {
    /// Where output goes.
    pub output: OutputWriter,
    /// Signalled when the guest may take more input.
    pub drained: EventFd,
}

impl ConsoleHost for Terminal {
    fn output(&mut self, bytes: &[u8]) {
        // Where nobody reads it, the writer drops it by itself.
        let _ = std::io::Write::write_all(&mut self.output, bytes);
    }

    fn wants_input(&mut self) {
        // An eventfd refuses only when its count is at the limit: then it is signalled anyway.
        let _ = self.drained.write(1);
    }
}

/// The ring that takes input.
pub(super) struct ConsoleRing(pub(super) Virtqueue<SharedMemory>);

impl InputPort for ConsoleRing {
    fn receive(&mut self, input: &[u8]) -> usize {
        receive(&self.0, input)
    }
}
