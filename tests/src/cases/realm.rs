//! What a Realm's guest gets, asked by the bare-metal guest.

use anyhow::ensure;

use crate::arch::{ARM64, EVERY};
use crate::case::{Case, Guest, Host, Platform, Run};
use crate::devices::Role;
use crate::guest::Program;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a_plain_vm_is_no_realm",
        on: EVERY,
        needs: &[],
        run: |host| {
            let run = host.boot(&Guest::new(Platform::None, Program::Payload("facts")))?;
            run.expect_status(0)?;
            run.expect("realm", "no")?;
            run.expect("result", "pass")
        },
    },
    Case {
        name: "rsi_answers_bad_arguments_as_the_rmm_does",
        on: ARM64,
        needs: &[],
        run: |host| passes(host, "rsi-errors").map(drop),
    },
    Case {
        name: "an_attestation_token_arrives_whole_in_pieces",
        on: ARM64,
        needs: &[],
        run: |host| passes(host, "attestation").map(drop),
    },
    Case {
        name: "the_initial_measurement_of_a_realm_is_foretold",
        on: ARM64,
        needs: &[],
        run: foretold,
    },
    Case {
        name: "the_initial_measurement_of_a_realm_with_a_device_is_foretold",
        on: ARM64,
        needs: &[Role::WideEdu],
        run: foretold_with_device,
    },
    Case {
        name: "a_converted_page_loses_its_content_and_its_neighbours_keep_theirs",
        on: ARM64,
        needs: &[],
        run: converts,
    },
    Case {
        name: "a_private_page_does_not_answer_at_its_shared_alias",
        on: ARM64,
        needs: &[],
        run: |host| passes(host, "alias-of-private").map(drop),
    },
    Case {
        name: "a_guest_that_shares_every_second_page_loses_nothing",
        on: ARM64,
        needs: &[],
        run: fragments,
    },
];

/// One processor and two, and memory that ends within a large entry of a translation table.
fn foretold(host: &mut Host<'_>) -> anyhow::Result<()> {
    let guest = Guest::new(Platform::Realm, Program::Payload("measurement"));
    let larger = Guest {
        vcpus: 2,
        memory: "514 MiB".to_owned(),
        ..guest.clone()
    };
    let digest = is_foretold(host, &guest)?;
    ensure!(
        digest != is_foretold(host, &larger)?,
        "two different VMs have one measurement"
    );
    Ok(())
}

/// ccvm adds to the command line of such a guest.
fn foretold_with_device(host: &mut Host<'_>) -> anyhow::Result<()> {
    host.bind(&[Role::WideEdu])?;
    let guest = Guest {
        devices: vec![(Role::WideEdu, Some(36))],
        ..Guest::new(Platform::Realm, Program::Payload("measurement"))
    };
    is_foretold(host, &guest).map(drop)
}

/// Boots a guest that reports its initial measurement; returns it if it is the foretold one.
fn is_foretold(host: &mut Host<'_>, guest: &Guest) -> anyhow::Result<String> {
    let expected = host.foretell(guest)?;
    let run = host.boot(guest)?;
    run.expect("result", "pass")?;
    run.expect("initial_measurement", &expected)?;
    run.expect_status(0)?;
    Ok(expected)
}

fn converts(host: &mut Host<'_>) -> anyhow::Result<()> {
    let run = passes(host, "convert")?;
    // One page there and back, and then its block of 2 MiB.
    for kind in ["shared", "private"] {
        let pages = run.converted(&format!("{kind}_pages"))?;
        ensure!(pages == 1 + 512, "ccvm counts {pages} {kind} pages");
    }
    Ok(())
}

/// It takes a free block of 256 MiB at a boundary of that size.
fn fragments(host: &mut Host<'_>) -> anyhow::Result<()> {
    let run = host.boot(&Guest {
        memory: "1024 MiB".to_owned(),
        ..Guest::new(Platform::Realm, Program::Payload("fragment"))
    })?;
    run.expect("result", "pass")?;
    ensure!(run.number("shared_pages")? > 0, "no page was shared");
    run.expect_status(0)
}

fn passes(host: &mut Host<'_>, test: &'static str) -> anyhow::Result<Run> {
    let run = host.boot(&Guest::new(Platform::Realm, Program::Payload(test)))?;
    run.expect("realm", "yes")?;
    run.expect("result", "pass")?;
    run.expect_status(0)?;
    Ok(run)
}
