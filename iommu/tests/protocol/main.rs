//! The conversion protocol, explored exhaustively at the grain of host calls.
//!
//! The guest's vCPUs ask for conversions, mappings, accepts and stops; each request runs the product's
//! own code under one lock, with every host call made to fail in turn. The calls that it makes are then
//! played out one by one, and between any two of them the devices may begin and end DMA: a device that
//! has had its address translated reaches the page later, unless the unmap waits for it.
#![expect(
    clippy::unwrap_used,
    reason = "a model whose own parts do not fit has nothing to say"
)]

mod host;
mod model;

use stateright::{Checker, Model};

use model::{Guest, Protocol};

#[test]
fn no_interleaving_with_dma_breaks_a_promise() {
    let checker = Protocol::sound().checker().threads(2).spawn_bfs().join();
    checker.assert_properties();
    println!("{} states", checker.unique_state_count());
    assert!(checker.unique_state_count() > 10_000);
}

#[test]
fn the_model_finds_out_an_unmap_that_does_not_wait_for_dma() {
    let protocol = Protocol {
        unmap_waits: false,
        ..Protocol::sound()
    };
    let checker = protocol.checker().threads(2).spawn_bfs().join();
    assert!(
        checker
            .discovery("a T0 device never reaches a private page")
            .is_some()
    );
}

/// Known, and told in the documentation of `Edits`: what is left of a mapping that is cut is out of
/// reach for a moment.
#[test]
fn the_model_finds_the_gap_when_a_guest_takes_back_a_part_of_what_it_shared_at_once() {
    let protocol = Protocol {
        guest: Guest::ConvertsAnyRange,
        ..Protocol::sound()
    };
    let checker = protocol.checker().threads(2).spawn_bfs().join();
    assert!(
        checker
            .discovery("an accepted device never loses a shared page")
            .is_some()
    );
    assert!(
        checker
            .discovery("a T0 device never reaches a private page")
            .is_none()
    );
}
