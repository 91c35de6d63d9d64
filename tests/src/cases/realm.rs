//! What a Realm's guest gets, asked by the bare-metal guest.

use anyhow::ensure;

use crate::case::{Case, Guest, Host, Platform, Run};
use crate::guest::Program;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a_plain_vm_is_no_realm",
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
        needs: &[],
        run: |host| passes(host, "rsi-errors").map(drop),
    },
    Case {
        name: "an_attestation_token_arrives_whole_in_pieces",
        needs: &[],
        run: |host| passes(host, "attestation").map(drop),
    },
    Case {
        name: "a_converted_page_loses_its_content_and_its_neighbours_keep_theirs",
        needs: &[],
        run: converts,
    },
    Case {
        name: "a_private_page_does_not_answer_at_its_shared_alias",
        needs: &[],
        run: |host| passes(host, "alias-of-private").map(drop),
    },
    Case {
        name: "a_guest_that_shares_every_second_page_loses_nothing",
        needs: &[],
        run: fragments,
    },
];

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
