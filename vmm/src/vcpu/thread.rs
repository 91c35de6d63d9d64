//! The thread of a vCPU.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use kvm::Kick;
use rustix::thread::CpuSet;

use super::Processor;
use crate::run::{EndOfRun, EndOnPanic, Ending, Gate, Pause};

/// Enough for exits into devices; a vCPU thread has no deep calls.
const STACK_BYTES: usize = 512 << 10;

/// The running vCPUs of a VM. Dropping this stops them, so that nothing which they use can go first.
pub struct VcpuThreads {
    threads: Threads,
    gate: Arc<Gate>,
    end: Arc<EndOfRun>,
}

/// Threads that can be kicked; whoever pauses the VM has them as well.
type Threads = Arc<Mutex<Vec<(JoinHandle<()>, Kick)>>>;

impl VcpuThreads {
    /// None yet, of a VM whose vCPUs pass `gate` and run until `end`.
    #[must_use]
    pub fn new(gate: Arc<Gate>, end: Arc<EndOfRun>) -> Self {
        Self {
            threads: Threads::default(),
            gate,
            end,
        }
    }

    /// Starts the next vCPU, on one CPU of the host where one is given.
    ///
    /// # Errors
    /// When the thread cannot be had.
    pub fn spawn(&mut self, processor: Processor, cpu: Option<u32>) -> io::Result<()> {
        let kick = processor.vcpu.kick();
        let end = Arc::clone(&self.end);
        let mut threads = lock(&self.threads);
        let thread = thread::Builder::new()
            .name(format!("vcpu{}", threads.len()))
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let _end_on_panic = EndOnPanic::new(Arc::clone(&end), "a vCPU thread");
                match cpu.map_or(Ok(()), pin) {
                    Ok(()) => processor.run(),
                    Err(why) => end.end(Ending::Failed(why)),
                }
            })?;
        threads.push((thread, kick));
        Ok(())
    }

    /// What holds the vCPUs that have been started.
    #[must_use]
    pub fn pause(&self) -> Pause {
        let threads = Arc::clone(&self.threads);
        let vcpus = lock(&threads).len();
        let kick = move || {
            for (thread, kick) in lock(&threads).iter() {
                kick.kick(thread);
            }
        };
        Pause::new(Arc::clone(&self.gate), vcpus, Box::new(kick))
    }

    /// Ends the run, if it has not ended, and waits for the threads.
    pub fn stop(&mut self) {
        self.end
            .end(Ending::Failed("ccvm gave the VM up".to_owned()));
        self.gate.abandon();
        let threads = std::mem::take(&mut *lock(&self.threads));
        for (thread, kick) in &threads {
            kick.kick(thread);
        }
        for (thread, _) in threads {
            if thread.join().is_err() {
                tracing::error!("a vCPU thread has panicked");
            }
        }
    }
}

/// Has this thread run on one CPU only.
fn pin(cpu: u32) -> Result<(), String> {
    let mut cpus = CpuSet::new();
    if let Ok(cpu) = usize::try_from(cpu) {
        cpus.set(cpu);
    }
    rustix::thread::sched_setaffinity(None, &cpus)
        .map_err(|error| format!("cannot pin a vCPU to CPU {cpu}: {error}"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for VcpuThreads {
    fn drop(&mut self) {
        self.stop();
    }
}
