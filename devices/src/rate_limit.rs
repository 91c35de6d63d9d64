//! A bound on how often something is logged, for lines that a guest can provoke.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets a burst of events through in each interval, and counts the others.
///
/// ```
/// # use devices::rate_limit::RateLimit;
/// static UNCLAIMED: RateLimit = RateLimit::per_second(5);
/// if let Some(skipped) = UNCLAIMED.permit() {
///     tracing::warn!(skipped, "nothing answers there");
/// }
/// ```
#[derive(Debug)]
pub struct RateLimit {
    burst: u32,
    interval: Duration,
    window: Mutex<Window>,
}

#[derive(Debug)]
struct Window {
    since: Option<Instant>,
    passed: u32,
    skipped: u64,
}

impl RateLimit {
    /// At most `burst` events in each second.
    #[must_use]
    pub const fn per_second(burst: u32) -> Self {
        Self {
            burst,
            interval: Duration::from_secs(1),
            window: Mutex::new(Window {
                since: None,
                passed: 0,
                skipped: 0,
            }),
        }
    }

    /// Whether this event may be logged; if so, how many were skipped since the last one that was.
    #[must_use]
    pub fn permit(&self) -> Option<u64> {
        self.permit_at(Instant::now())
    }

    fn permit_at(&self, now: Instant) -> Option<u64> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let over = window
            .since
            .is_none_or(|since| now.saturating_duration_since(since) >= self.interval);
        if over {
            window.since = Some(now);
            window.passed = 0;
        }
        if window.passed >= self.burst {
            window.skipped = window.skipped.saturating_add(1);
            return None;
        }
        window.passed = window.passed.saturating_add(1);
        Some(std::mem::take(&mut window.skipped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_the_next_interval_tells_what_was_skipped() {
        let limit = RateLimit::per_second(2);
        let start = Instant::now();
        assert_eq!(limit.permit_at(start), Some(0));
        assert_eq!(limit.permit_at(start), Some(0));
        assert_eq!(limit.permit_at(start), None);
        assert_eq!(limit.permit_at(start + Duration::from_millis(999)), None);
        assert_eq!(limit.permit_at(start + Duration::from_secs(1)), Some(2));
        assert_eq!(limit.permit_at(start + Duration::from_secs(1)), Some(0));
    }
}
