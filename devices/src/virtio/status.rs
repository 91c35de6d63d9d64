//! The device status register: how far the driver has come (virtio 1.2, 2.1 and 3.1).
//!
//! ```text
//!  Reset ──ACKNOWLEDGE──► Found ──DRIVER──► Driver ──FEATURES_OK──► Negotiated ──DRIVER_OK──► Live
//!    ▲                                        │  ▲                                             │
//!    │                                        └──┘ features are not right:                     │ a ring
//!    │                                             the bit does not stick                      ▼ is bad
//!    └──── 0, from anywhere ──────────────────────────────────────────────────────── NeedsReset, Failed
//! ```
//! A bit counts only after those to the left of it. A driver that takes a bit back, other than by
//! writing 0, has no effect.

/// The driver has seen the device.
pub const ACKNOWLEDGE: u8 = 1;
/// The driver knows how to drive it.
pub const DRIVER: u8 = 2;
/// The driver is ready.
pub const DRIVER_OK: u8 = 4;
/// The features are agreed.
pub const FEATURES_OK: u8 = 8;
/// Set by the device: nothing works until it is reset.
pub const NEEDS_RESET: u8 = 64;
/// The driver has given up.
pub const FAILED: u8 = 128;

/// Bits of the driver, each with those that must be there before it.
const STEPS: [(u8, u8); 5] = [
    (ACKNOWLEDGE, 0),
    (DRIVER, ACKNOWLEDGE),
    (FEATURES_OK, ACKNOWLEDGE | DRIVER),
    (DRIVER_OK, ACKNOWLEDGE | DRIVER | FEATURES_OK),
    (FAILED, 0),
];

/// What the register says, at the furthest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Nothing has happened since the last reset.
    Reset,
    /// The driver has seen the device.
    Found,
    /// Features can be chosen.
    Driver,
    /// Queues can be set up.
    Negotiated,
    /// Queues are served.
    Live,
    /// Only a reset helps.
    NeedsReset,
    /// The driver has given up.
    Failed,
}

/// What has to happen because of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// Nothing.
    None,
    /// The device goes back to where it began.
    Reset,
    /// From now on queues are served.
    GoLive,
}

/// The register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeviceStatus(u8);

impl DeviceStatus {
    /// As the driver reads it.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// How far the driver has come.
    #[must_use]
    pub const fn phase(self) -> Phase {
        match self.0 {
            bits if bits & FAILED != 0 => Phase::Failed,
            bits if bits & NEEDS_RESET != 0 => Phase::NeedsReset,
            bits if bits & DRIVER_OK != 0 => Phase::Live,
            bits if bits & FEATURES_OK != 0 => Phase::Negotiated,
            bits if bits & DRIVER != 0 => Phase::Driver,
            bits if bits & ACKNOWLEDGE != 0 => Phase::Found,
            _ => Phase::Reset,
        }
    }

    /// Takes what the driver writes. `features_are_right` is asked when it wants to go on with those
    /// that it has chosen.
    #[must_use]
    pub fn write(&mut self, value: u8, features_are_right: impl Fn() -> bool) -> Transition {
        if value == 0 {
            *self = Self::default();
            return Transition::Reset;
        }
        let (before, driver) = (self.phase(), self.0 & !NEEDS_RESET);
        if value & driver != driver {
            return Transition::None;
        }
        for (bit, needed) in STEPS {
            let new = value & bit != 0 && self.0 & bit == 0 && self.0 & needed == needed;
            if new && (bit != FEATURES_OK || features_are_right()) {
                self.0 |= bit;
            }
        }
        if before < Phase::Live && self.phase() == Phase::Live {
            Transition::GoLive
        } else {
            Transition::None
        }
    }

    /// Tells the driver that nothing works any more.
    pub fn need_reset(&mut self) {
        self.0 |= NEEDS_RESET;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(writes: &[u8]) -> DeviceStatus {
        let mut status = DeviceStatus::default();
        for &value in writes {
            let _ = status.write(value, || true);
        }
        status
    }

    #[test]
    fn the_phases_follow_the_handshake() {
        let writes = [1, 3, 11, 15];
        let phases = [Phase::Found, Phase::Driver, Phase::Negotiated, Phase::Live];
        for (count, phase) in (1..).zip(phases) {
            assert_eq!(status(&writes[..count]).phase(), phase);
        }
        let mut negotiated = status(&[1, 3, 11]);
        assert_eq!(negotiated.write(15, || true), Transition::GoLive);
        assert_eq!(negotiated.write(15, || true), Transition::None);
    }

    #[test]
    fn several_steps_can_be_taken_by_one_write() {
        assert_eq!(status(&[15]).bits(), 15);
    }

    #[test]
    fn a_step_that_is_left_out_is_not_taken_later() {
        assert_eq!(status(&[1, 5]).bits(), 1);
        assert_eq!(status(&[8]).bits(), 0);
        assert_eq!(status(&[1, 3, 7]).bits(), 3);
    }

    #[test]
    fn features_that_are_not_right_do_not_stick() {
        let mut status = status(&[3]);
        assert_eq!(status.write(11, || false), Transition::None);
        assert_eq!(status.phase(), Phase::Driver);
    }

    #[test]
    fn bits_are_only_taken_back_all_at_once() {
        let mut status = status(&[15]);
        assert_eq!(status.write(3, || true), Transition::None);
        assert_eq!(status.bits(), 15);
        assert_eq!(status.write(0, || true), Transition::Reset);
        assert_eq!(status.bits(), 0);
    }

    #[test]
    fn a_device_that_needs_a_reset_shows_it_until_then() {
        let mut status = status(&[15]);
        status.need_reset();
        assert_eq!(status.write(15, || true), Transition::None);
        assert_eq!(status.bits(), 79);
        assert_eq!(status.phase(), Phase::NeedsReset);
        assert_eq!(status.write(143, || true), Transition::None);
        assert_eq!(status.phase(), Phase::Failed);
        let _ = status.write(0, || true);
        assert_eq!(status.phase(), Phase::Reset);
    }
}
