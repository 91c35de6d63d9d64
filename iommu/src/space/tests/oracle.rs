//! Random interleavings of everything, with random host calls failing, beside a naive oracle.

use proptest::prelude::*;

use crate::model::{Driver, Event};
use crate::page_state::Visibility;

/// About a million events in all.
const CASES: u32 = 4000;
const EVENTS: usize = 256;

fn run(
    shared_half: bool,
    initial: Visibility,
    events: &[[u8; Event::BYTES]],
) -> Result<(), TestCaseError> {
    let mut driver = Driver::new(shared_half, initial).unwrap();
    for (number, bytes) in events.iter().enumerate() {
        let event = Event::decode(*bytes);
        let result = driver.step(event);
        result.map_err(|mismatch| {
            TestCaseError::fail(format!("after event {number}, {event:?}: {mismatch}"))
        })?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: CASES,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_interleaving_of_events_and_failures_leaves_every_table_right(
        shared_half: bool,
        shared: bool,
        events in prop::collection::vec(any::<[u8; Event::BYTES]>(), 1..=2 * EVENTS),
    ) {
        let initial = if shared { Visibility::Shared } else { Visibility::Private };
        run(shared_half, initial, &events)?;
    }
}
