//! The hot-plug slot of a root port (PCI Express Base, 6.7 and 7.5.3.9 to 7.5.3.11): what is in it, and
//! what its guest is told.
//!
//! ```text
//!            insert            power on
//!   ( Empty ) ────► ( Off ) ─────────────► ( On ) ◄──────────┐
//!       ▲             │ ▲ ◄─────────────── │  │              │ power on
//!       │ remove      │ │    power off        │ ask          │
//!       ├─────────────┘ │                     ▼              │
//!       │               │                ( Leaving ) ──► ( Released )
//!       └───────────────┴── remove, from anywhere    power off  │
//!       ▲                                                       │ remove
//!       └───────────────────────────────────────────────────────┘
//! ```
//! A card has power in `On` and `Leaving`; only then does anything answer behind the port. The guest
//! decides about power: it gives a card up by taking that away. A card that is removed from `On` or
//! `Leaving` is torn out.

/// What is in a slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SlotState {
    /// Nothing.
    #[default]
    Empty,
    /// A card without power: the guest has not taken it, or has turned it off by itself.
    Off,
    /// A card that the guest has.
    On,
    /// A card that the guest has, and is asked to give up.
    Leaving,
    /// A card that the guest has given up, as it was asked to.
    Released,
}

/// What befalls a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SlotEvent {
    /// The host puts a card in.
    Insert,
    /// The guest turns its power on.
    PowerOn,
    /// The guest turns its power off.
    PowerOff,
    /// The host asks for it back: somebody presses the attention button.
    Ask,
    /// The host takes it out.
    Remove,
}

/// Slot status: the attention button was pressed.
pub(super) const BUTTON: u16 = 1 << 0;
/// Slot status: a card has come or gone.
pub(super) const PRESENCE_CHANGED: u16 = 1 << 3;
/// Slot status: there is a card. No event.
pub(super) const PRESENT: u16 = 1 << 6;
/// Slot status: the link has come up or gone down.
pub(super) const LINK_CHANGED: u16 = 1 << 8;
/// The events among the bits of slot status.
pub(super) const EVENTS: u16 = BUTTON | PRESENCE_CHANGED | LINK_CHANGED;

impl SlotState {
    /// The state after `event`, and the events of slot status by which the guest is told; `None` where
    /// the event means nothing.
    ///
    /// A card comes with its button pressed: where a slot has one, guests listen to that and to the link,
    /// and the link of a card without power is down (Linux, drivers/pci/hotplug/pciehp_hpc.c).
    #[must_use]
    pub(super) const fn after(self, event: SlotEvent) -> Option<(Self, u16)> {
        use SlotEvent::{Ask, Insert, PowerOff, PowerOn, Remove};
        use SlotState::{Empty, Leaving, Off, On, Released};
        Some(match (self, event) {
            (Empty, Insert) => (Off, PRESENCE_CHANGED | BUTTON),
            (Off | Released, PowerOn) => (On, LINK_CHANGED),
            (On, PowerOff) => (Off, LINK_CHANGED),
            (Leaving, PowerOff) => (Released, LINK_CHANGED),
            (On | Leaving, Ask) => (Leaving, BUTTON),
            (Off, Ask) => (Released, 0),
            (Off | Released, Remove) => (Empty, PRESENCE_CHANGED),
            (On | Leaving, Remove) => (Empty, PRESENCE_CHANGED | LINK_CHANGED),
            (Empty, PowerOn | PowerOff | Ask | Remove)
            | (Off | On | Leaving | Released, Insert)
            | (Off | Released, PowerOff)
            | (On | Leaving, PowerOn)
            | (Released, Ask) => return None,
        })
    }

    /// Whether a card is there.
    #[must_use]
    pub const fn has_card(self) -> bool {
        !matches!(self, Self::Empty)
    }

    /// Whether a card is there and answers.
    #[must_use]
    pub const fn has_power(self) -> bool {
        matches!(self, Self::On | Self::Leaving)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [SlotEvent; 5] = [
        SlotEvent::Insert,
        SlotEvent::PowerOn,
        SlotEvent::PowerOff,
        SlotEvent::Ask,
        SlotEvent::Remove,
    ];

    #[test]
    fn a_card_comes_is_taken_asked_for_given_up_and_goes() {
        let mut state = SlotState::Empty;
        for (event, after, told) in [
            (SlotEvent::Insert, SlotState::Off, PRESENCE_CHANGED | BUTTON),
            (SlotEvent::PowerOn, SlotState::On, LINK_CHANGED),
            (SlotEvent::Ask, SlotState::Leaving, BUTTON),
            (SlotEvent::PowerOff, SlotState::Released, LINK_CHANGED),
            (SlotEvent::Remove, SlotState::Empty, PRESENCE_CHANGED),
        ] {
            assert_eq!(state.after(event), Some((after, told)), "{event:?}");
            state = after;
        }
    }

    #[test]
    fn a_card_that_the_guest_turns_off_unasked_stays() {
        let (off, _) = SlotState::On.after(SlotEvent::PowerOff).unwrap();
        assert_eq!(off, SlotState::Off);
        assert_eq!(off.after(SlotEvent::PowerOn).unwrap().0, SlotState::On);
    }

    proptest! {
        #[test]
        fn the_guest_is_told_of_every_change_that_it_did_not_make_itself(
            events in prop::collection::vec(prop::sample::select(&ALL[..]), 0..30),
        ) {
            let mut state = SlotState::Empty;
            for event in events {
                let Some((after, told)) = state.after(event) else { continue };
                prop_assert_eq!(told & !EVENTS, 0);
                let came_or_went = state.has_card() != after.has_card();
                prop_assert_eq!(told & PRESENCE_CHANGED != 0, came_or_went);
                let link = state.has_power() != after.has_power();
                prop_assert_eq!(told & LINK_CHANGED != 0, link);
                // Nothing but the guest gives a card power.
                prop_assert!(!after.has_power() || state.has_power() || event == SlotEvent::PowerOn);
                state = after;
            }
        }
    }
}
