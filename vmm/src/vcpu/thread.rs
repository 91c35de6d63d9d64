//! The thread of a vCPU.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use kvm::aarch64::Kick;

use super::Processor;
use crate::run::{EndOfRun, Ending};

/// Enough for exits into devices; a vCPU thread has no deep calls.
const STACK_BYTES: usize = 512 << 10;

/// The running vCPUs of a VM. Dropping this stops them, so that nothing which they use can go first.
pub struct VcpuThreads {
    threads: Vec<(JoinHandle<()>, Kick)>,
    end: Arc<EndOfRun>,
}

impl VcpuThreads {
    /// None yet, of a VM that runs until `end`.
    #[must_use]
    pub fn new(end: Arc<EndOfRun>) -> Self {
        Self {
            threads: Vec::new(),
            end,
        }
    }

    /// Starts the next vCPU.
    ///
    /// # Errors
    /// When the thread cannot be had.
    pub fn spawn(&mut self, processor: Processor) -> io::Result<()> {
        let kick = processor.vcpu.kick();
        let end = Arc::clone(&self.end);
        let thread = thread::Builder::new()
            .name(format!("vcpu{}", self.threads.len()))
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let _end_on_panic = EndOnPanic(end);
                processor.run();
            })?;
        self.threads.push((thread, kick));
        Ok(())
    }

    /// Ends the run, if it has not ended, and waits for the threads.
    pub fn stop(&mut self) {
        self.end
            .end(Ending::Failed("ccvm gave the VM up".to_owned()));
        for (thread, kick) in &self.threads {
            kick.kick(thread);
        }
        for (thread, _) in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a vCPU thread has panicked");
            }
        }
    }
}

impl Drop for VcpuThreads {
    fn drop(&mut self) {
        self.stop();
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
