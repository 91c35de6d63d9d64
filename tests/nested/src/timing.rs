//! How long things take.

use std::time::{Duration, Instant};

use anyhow::Context as _;

/// For how long what has a rate is done, to measure that.
pub(crate) const MEASURED: Duration = Duration::from_millis(1500);
/// And for how long before: under emulation the first rounds are spent on translating code.
pub(crate) const WARM_UP: Duration = Duration::from_millis(300);

/// What was done, again and again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    times: u32,
    bytes: usize,
    /// All of it together.
    pub(crate) took: Duration,
}

impl Rate {
    /// What was moved in a second, in KiB.
    pub(crate) fn kib_per_second(&self) -> f64 {
        self.bytes as f64 / 1024.0 / self.took.as_secs_f64()
    }

    /// How long it takes once.
    pub(crate) fn each(&self) -> Duration {
        self.took / self.times.max(1)
    }
}

/// Does `action`, which says how many bytes it has moved, for a while after the warm-up.
pub(crate) fn rate(mut action: impl FnMut() -> anyhow::Result<usize>) -> anyhow::Result<Rate> {
    repeat(WARM_UP, &mut action)?;
    repeat(MEASURED, action)
}

/// Does `action`, which says how many bytes it has moved, for so long.
pub(crate) fn repeat(
    time: Duration,
    mut action: impl FnMut() -> anyhow::Result<usize>,
) -> anyhow::Result<Rate> {
    let start = Instant::now();
    let mut rate = Rate {
        times: 0,
        bytes: 0,
        took: Duration::ZERO,
    };
    while rate.took < time {
        rate.bytes += action()?;
        rate.times += 1;
        rate.took = start.elapsed();
    }
    Ok(rate)
}

/// How long `action` takes.
pub(crate) fn of(action: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Duration> {
    let start = Instant::now();
    action()?;
    Ok(start.elapsed())
}

/// The median of the times that `action` takes.
pub(crate) fn median(
    rounds: usize,
    action: impl Fn() -> anyhow::Result<()>,
) -> anyhow::Result<Duration> {
    let times: anyhow::Result<Vec<_>> = (0..rounds).map(|_| of(&action)).collect();
    median_of(times?)
}

/// The median.
pub(crate) fn median_of(mut times: Vec<Duration>) -> anyhow::Result<Duration> {
    times.sort_unstable();
    let middle = times.len() / 2;
    times.get(middle).copied().context("nothing was measured")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_all_that_was_moved_in_the_time_that_it_took() {
        let mut moved = 0;
        let rate = repeat(Duration::from_millis(5), || {
            moved += 512;
            Ok(512)
        });
        let rate = rate.unwrap();
        assert!(rate.took >= Duration::from_millis(5));
        assert_eq!(rate.bytes, moved);
        let kib = moved as f64 / 1024.0;
        assert!((rate.kib_per_second() * rate.took.as_secs_f64() - kib).abs() < 1e-6 * kib);
        assert_eq!(rate.each(), rate.took / rate.times);
    }

    #[test]
    fn what_fails_has_no_rate() {
        assert!(rate(|| anyhow::bail!("gone")).is_err());
    }
}
