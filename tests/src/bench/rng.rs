//! How fast a guest gets random numbers of its host, beside QEMU's.

use crate::bench::peer;
use crate::bench::turns::{self, Figure};
use crate::case::{Host, Platform};
use crate::guest::Step;

const STEPS: [Step; 1] = [Step::RngRate];

const FIGURES: [Figure; 1] = [Figure {
    name: "KiB/s, read from `/dev/hwrng` 4 KiB at a time",
    fact: "random_kib_s",
}];

/// Prints it.
pub(super) fn figures(host: &mut Host<'_>) -> anyhow::Result<()> {
    let contenders = peer::both(
        |host| peer::by_ccvm(host, Platform::None, &STEPS, "[rng]"),
        |host| peer::by_qemu(host, &STEPS, "-device virtio-rng-pci"),
    );
    turns::table(host, "random numbers of the host", &FIGURES, &contenders)
}
