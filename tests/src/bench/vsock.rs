//! What a socket between a guest and its host carries, beside QEMU's. The host's kernel does most of it for both.

use crate::bench::peer;
use crate::bench::serving::{self, FIGURES, VSOCK};
use crate::bench::turns;
use crate::case::{Host, Platform};
use crate::guest::Step;

const STEPS: [Step; 1] = [Step::VsockRate];

/// Prints them.
pub(super) fn figures(host: &mut Host<'_>) -> anyhow::Result<()> {
    let contenders = peer::both(
        |host| peer::by_ccvm(host, Platform::None, &STEPS, "[vsock]\ncid = 42"),
        |host| peer::by_qemu(host, &STEPS, "-device vhost-vsock-pci,guest-cid=42"),
    );
    let what = "a socket to the host, vhost-vsock";
    serving::at(host, VSOCK, |host| {
        turns::table(host, what, &FIGURES, &contenders)
    })
}
