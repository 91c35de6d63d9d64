//! What a Realm's guest gets, asked by the bare-metal guest.

use crate::case::{Case, Guest, Host, Platform};
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
        run: |host| passes(host, "rsi-errors"),
    },
    Case {
        name: "an_attestation_token_arrives_whole_in_pieces",
        needs: &[],
        run: |host| passes(host, "attestation"),
    },
    Case {
        name: "a_converted_page_loses_its_content_and_its_neighbours_keep_theirs",
        needs: &[],
        run: |host| passes(host, "convert"),
    },
    Case {
        name: "a_private_page_does_not_answer_at_its_shared_alias",
        needs: &[],
        run: |host| passes(host, "alias-of-private"),
    },
    Case {
        name: "a_guest_that_shares_every_second_page_loses_nothing",
        needs: &[],
        run: |host| passes(host, "fragment"),
    },
];

fn passes(host: &mut Host<'_>, test: &'static str) -> anyhow::Result<()> {
    let run = host.boot(&Guest::new(Platform::Realm, Program::Payload(test)))?;
    run.expect("realm", "yes")?;
    run.expect("result", "pass")?;
    run.expect_status(0)
}
