//! Holding vCPUs outside of the guest, and letting them go.
//!
//! ```text
//!   pause:   gate closes ─► every vCPU is kicked ─► each waits at the gate ─► all are there: paused
//!   resume:  gate opens  ─► they go on
//! ```
//! Only processors are held. Devices that were told to do DMA go on with it, and time goes on: a guest
//! that wakes up finds its clocks later than it thought.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long vCPUs may take to come to the gate: as long as an access to a device, which may reset it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where vCPUs pass between two entries into the guest.
#[derive(Debug, Default)]
pub struct Gate {
    /// Whether to look at `state`: nearly always not.
    closed: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    /// The run is over: nobody is held any more.
    abandoned: bool,
    /// vCPUs that wait.
    waiting: usize,
}

/// vCPUs that did not come to the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("of the vCPUs, {missing} did not leave the guest or a device within {PATIENCE:?}")]
pub struct Stuck {
    /// How many.
    pub missing: usize,
}

impl Gate {
    /// Waits while the gate is closed.
    pub fn pass(&self) {
        if !self.closed.load(Ordering::Acquire) {
            return;
        }
        let mut state = self.state();
        state.waiting = state.waiting.saturating_add(1);
        self.changed.notify_all();
        while state.closed && !state.abandoned {
            let waited = self.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting = state.waiting.saturating_sub(1);
    }

    /// Opens the gate for good: the run is over.
    pub fn abandon(&self) {
        self.state().abandoned = true;
        self.changed.notify_all();
    }

    fn set(&self, closed: bool) {
        self.state().closed = closed;
        self.closed.store(closed, Ordering::Release);
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Brings all vCPUs of a VM to its gate, and lets them go.
pub struct Pause {
    gate: Arc<Gate>,
    vcpus: usize,
    /// Gets every vCPU out of the guest.
    kick: Box<dyn Fn() + Send>,
}

impl Pause {
    /// Of a VM whose `vcpus` vCPUs pass `gate` after `kick`.
    #[must_use]
    pub fn new(gate: Arc<Gate>, vcpus: usize, kick: Box<dyn Fn() + Send>) -> Self {
        Self { gate, vcpus, kick }
    }

    /// Holds the vCPUs; all of them are outside of the guest when this returns.
    ///
    /// # Errors
    /// When one does not come. They all go on.
    pub fn pause(&self) -> Result<(), Stuck> {
        self.gate.set(true);
        (self.kick)();
        let until = Instant::now() + PATIENCE;
        let mut state = self.gate.state();
        while state.waiting < self.vcpus && !state.abandoned {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let missing = self.vcpus.saturating_sub(state.waiting);
                drop(state);
                self.resume();
                return Err(Stuck { missing });
            }
            let waited = self.gate.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// Lets the vCPUs go on.
    pub fn resume(&self) {
        self.gate.set(false);
    }

    /// Whether the vCPUs are held.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.gate.state().closed
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::thread;

    use super::*;

    /// Two threads that count while they may.
    struct Counters {
        gate: Arc<Gate>,
        count: Arc<AtomicU64>,
        end: Arc<AtomicBool>,
    }

    impl Counters {
        fn start() -> (Self, Vec<thread::JoinHandle<()>>) {
            let counters = Self {
                gate: Arc::default(),
                count: Arc::default(),
                end: Arc::default(),
            };
            let run = |_| {
                let gate = Arc::clone(&counters.gate);
                let count = Arc::clone(&counters.count);
                let end = Arc::clone(&counters.end);
                thread::spawn(move || {
                    while !end.load(Ordering::Acquire) {
                        gate.pass();
                        count.fetch_add(1, Ordering::AcqRel);
                    }
                })
            };
            let threads = (0..2).map(run).collect();
            (counters, threads)
        }

        fn wait_for_progress(&self) {
            let before = self.count.load(Ordering::Acquire);
            while self.count.load(Ordering::Acquire) == before {
                thread::yield_now();
            }
        }
    }

    #[test]
    fn nothing_proceeds_between_pause_and_resume() {
        let (counters, threads) = Counters::start();
        let pause = Pause::new(Arc::clone(&counters.gate), 2, Box::new(|| {}));
        for _ in 0..20 {
            pause.pause().unwrap();
            assert!(pause.is_paused());
            let held = counters.count.load(Ordering::Acquire);
            thread::sleep(Duration::from_millis(1));
            assert_eq!(counters.count.load(Ordering::Acquire), held);
            pause.resume();
            counters.wait_for_progress();
        }
        counters.end.store(true, Ordering::Release);
        for thread in threads {
            thread.join().unwrap();
        }
    }

    #[test]
    fn the_end_of_the_run_frees_those_who_are_held() {
        let (counters, threads) = Counters::start();
        let pause = Pause::new(Arc::clone(&counters.gate), 2, Box::new(|| {}));
        pause.pause().unwrap();
        counters.end.store(true, Ordering::Release);
        counters.gate.abandon();
        for thread in threads {
            thread.join().unwrap();
        }
    }
}
