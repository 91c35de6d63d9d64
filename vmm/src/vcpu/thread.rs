//! The thread of a vCPU.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use kvm::aarch64::Kick;

use super::Processor;
use crate::run::{EndOfRun, Ending};

/// Enough for exits into devices; a vCPU thread has no deep calls.
const STACK_BYTES: usize = 512 << 10;

/// A running vCPU.
pub struct VcpuThread {
    thread: JoinHandle<()>,
    kick: Kick,
}

impl VcpuThread {
    /// Starts `processor`, the vCPU number `index`.
    ///
    /// # Errors
    /// When the thread cannot be had.
    pub fn spawn(index: usize, processor: Processor) -> io::Result<Self> {
        let kick = processor.vcpu.kick();
        let end = Arc::clone(&processor.world.end);
        let thread = thread::Builder::new()
            .name(format!("vcpu{index}"))
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let _end_of_panic = EndOnPanic(end);
                processor.run();
            })?;
        Ok(Self { thread, kick })
    }

    /// Waits for the thread, of which the run has ended already.
    pub fn stop(self) {
        self.kick.kick(&self.thread);
        if self.thread.join().is_err() {
            tracing::error!("a vCPU thread has panicked");
        }
    }
}

/// A bug in one vCPU's thread ends the run, rather than leave a VM that hangs.
struct EndOnPanic(Arc<EndOfRun>);

impl Drop for EndOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0
                .end(Ending::Failed("a vCPU thread has panicked".to_owned()));
        }
    }
}
