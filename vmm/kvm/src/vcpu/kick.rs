//! Getting a vCPU out of the guest from another thread, without a race.
//!
//! ```text
//! kicker:  immediate_exit = 1 ──► signal
//! vCPU:    ... KVM_RUN ...
//! ```
//! The signal ends a `KVM_RUN` that has begun; the flag ends one that had not begun when the signal
//! came (`Documentation/virt/kvm/api.rst`, `immediate_exit`).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use super::run_page::RunPage;
use crate::Error;
use crate::error::ioctl;

/// Asks one vCPU to return [`Exit::Interrupted`](super::Exit::Interrupted).
#[derive(Clone)]
pub struct Kick(Arc<RunPage>);

impl Kick {
    pub(super) fn new(page: Arc<RunPage>) -> Result<Self, Error> {
        // Without a handler the signal would end the process.
        ioctl(
            "sigaction",
            "handle the signal that interrupts vCPUs",
            || register_signal_handler(SIGRTMIN(), ignore),
        )?;
        Ok(Self(page))
    }

    /// Interrupts the vCPU that `thread` runs: now, or the next time it runs.
    pub fn kick<T>(&self, thread: &JoinHandle<T>) {
        self.0.immediate_exit().store(1, Ordering::Release);
        // It fails only for a thread that has ended, which is what the kick was for.
        let _ = thread.kill(SIGRTMIN());
    }

    /// Forgets a kick that has had its effect.
    pub(super) fn clear(&self) {
        self.0.immediate_exit().store(0, Ordering::Release);
    }
}

extern "C" fn ignore(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
