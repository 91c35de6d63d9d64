//! How much room the assigned devices' base address registers need.
//!
//! A Linux guest places BARs itself: the largest first, each at a multiple of its size. A window
//! whose base is a multiple of the largest BAR then holds them without a gap.

use crate::host::facts::{BarFacts, BarKind};

/// The end of what a 32-bit BAR can hold.
pub(super) const FOUR_GIB: u64 = 1 << 32;

/// What no space holds: the size at which sums of BARs stop counting.
const TOO_BIG: u64 = 1 << 53;

/// The smallest BAR that the guest sees: a page, so that no two share one.
const SMALLEST_BAR: u64 = 4096;

/// Room for BARs: so many bytes at a multiple of `align`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) size: u64,
    pub(super) align: u64,
}

/// What the BARs of the assigned devices need.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct BarRooms {
    /// Whether there is an I/O BAR.
    pub(super) io: bool,
    /// For BARs of 32 bits.
    pub(super) mem32: Option<Room>,
    /// For BARs of 64 bits.
    pub(super) mem64: Option<Room>,
    /// Root ports with a slot: each takes a bus.
    pub(super) ports: u8,
}

/// The unit of a bridge's memory window (PCI Express Base, 7.5.1.3.8).
const BRIDGE_UNIT: u64 = 1 << 20;

impl BarRooms {
    pub(super) fn of<'a>(bars: impl IntoIterator<Item = &'a BarFacts>) -> Self {
        let mut rooms = Self::default();
        for bar in bars {
            match bar.kind {
                BarKind::Io => rooms.io = true,
                BarKind::Mem32 => add(&mut rooms.mem32, bar.size),
                BarKind::Mem64 | BarKind::Mem64Prefetchable => add(&mut rooms.mem64, bar.size),
            }
        }
        rooms
    }

    /// The same with `ports` bridges, each of which has a window of `window` bytes for BARs of any kind.
    pub(super) fn with_ports(self, ports: u8, window: u64) -> Self {
        let size = window.saturating_mul(ports.into());
        let old = self.mem32.unwrap_or(Room { size: 0, align: 1 });
        let mem32 = (ports > 0).then(|| Room {
            size: old.size.saturating_add(size).min(TOO_BIG),
            align: old.align.max(BRIDGE_UNIT),
        });
        Self {
            mem32: mem32.or(self.mem32),
            ports,
            ..self
        }
    }

    /// The smallest window of a bridge that holds the memory BARs, in bytes: it begins at any multiple of
    /// its unit, so that a larger BAR may find its first place well behind the beginning.
    pub(super) fn behind_a_bridge(&self) -> u64 {
        self.memory().map_or(0, |room| {
            room.size
                .saturating_add(room.align.saturating_sub(BRIDGE_UNIT))
        })
    }

    /// Room for both kinds of memory BAR in one window.
    pub(super) fn memory(&self) -> Option<Room> {
        match (self.mem32, self.mem64) {
            (Some(a), Some(b)) => Some(Room {
                size: (a.size + b.size).min(TOO_BIG),
                align: a.align.max(b.align),
            }),
            (one, other) => one.or(other),
        }
    }
}

fn add(room: &mut Option<Room>, size: u64) {
    let size = size.max(SMALLEST_BAR).checked_next_power_of_two();
    let size = size.unwrap_or(TOO_BIG).min(TOO_BIG);
    let old = room.unwrap_or(Room { size: 0, align: 1 });
    *room = Some(Room {
        size: (old.size + size).min(TOO_BIG),
        align: old.align.max(size),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(size: u64, kind: BarKind) -> BarFacts {
        BarFacts {
            index: 0,
            size,
            kind,
        }
    }

    #[test]
    fn bars_pack_by_their_sizes_and_small_ones_take_a_page() {
        let rooms = BarRooms::of(&[
            bar(256, BarKind::Mem32),
            bar(0x2_0000, BarKind::Mem32),
            bar(32, BarKind::Io),
            bar(1 << 34, BarKind::Mem64Prefetchable),
        ]);
        assert!(rooms.io);
        assert_eq!(
            rooms.mem32,
            Some(Room {
                size: 0x2_1000,
                align: 0x2_0000
            })
        );
        assert_eq!(
            rooms.memory(),
            Some(Room {
                size: (1 << 34) + 0x2_1000,
                align: 1 << 34
            })
        );
    }

    #[test]
    fn ports_take_their_windows_from_what_is_below_4_gib() {
        let rooms = BarRooms::of(&[bar(0x4000, BarKind::Mem64)]).with_ports(3, 6 << 20);
        let expected = Room {
            size: 18 << 20,
            align: 1 << 20,
        };
        assert_eq!((rooms.mem32, rooms.ports), (Some(expected), 3));
        assert_eq!(rooms.mem64.map(|room| room.size), Some(0x4000));
        let none = BarRooms::default().with_ports(0, 6 << 20);
        assert_eq!(none, BarRooms::default());
    }

    #[test]
    fn a_window_behind_a_bridge_has_slack_for_bars_beyond_its_unit() {
        let window = |sizes: &[u64]| {
            let bars: Vec<_> = sizes
                .iter()
                .map(|size| bar(*size, BarKind::Mem64))
                .collect();
            BarRooms::of(&bars).behind_a_bridge()
        };
        assert_eq!(window(&[]), 0);
        assert_eq!(window(&[0x4000, 0x1000]), 0x5000);
        assert_eq!(window(&[1 << 20, 1 << 20]), 2 << 20);
        assert_eq!(window(&[16 << 20, 0x1000]), (31 << 20) + 0x1000);
    }

    #[test]
    fn absurd_bars_saturate() {
        let bars = [bar(u64::MAX, BarKind::Mem64); 300];
        assert_eq!(
            BarRooms::of(&bars).mem64,
            Some(Room {
                size: TOO_BIG,
                align: TOO_BIG
            })
        );
    }
}
