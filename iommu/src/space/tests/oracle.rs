//! Random interleavings of everything, with random host calls failing, beside a naive oracle.

use proptest::prelude::*;

use crate::model::{Driver, Event};

/// About a million events in all.
const CASES: u32 = 4000;
const EVENTS: usize = 256;

proptest! {
    #![proptest_config(ProptestConfig {
        cases: CASES,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_interleaving_of_events_and_failures_leaves_every_table_right(
        kind: u8,
        events in prop::collection::vec(any::<[u8; Event::BYTES]>(), 1..=2 * EVENTS),
    ) {
        let mut input = vec![kind];
        input.extend(events.into_iter().flatten());
        let result = Driver::replay(&input);
        prop_assert!(result.is_ok(), "{:?}", result);
    }
}

#[test]
fn what_the_fuzzer_has_found_worth_keeping_still_runs() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/events");
    let inputs: Vec<_> = std::fs::read_dir(corpus)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert!(inputs.len() >= 10, "the corpus is gone");
    for input in inputs {
        let result = Driver::replay(&std::fs::read(input.path()).unwrap());
        assert!(result.is_ok(), "{}: {result:?}", input.path().display());
    }
}
