//! Any sequence of events and failures, beside the oracle: `cargo +nightly fuzz run events`.
#![no_main]

use iommu::model::Driver;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Err(mismatch) = Driver::replay(input) {
        panic!("{mismatch}");
    }
});
