//! The other end of connections that a guest measures.

use anyhow::Context as _;

use crate::bench::turns::{Facts, Figure};
use crate::case::Host;
use crate::guest::Program;

/// What is measured of connections of every kind.
pub(super) const FIGURES: [Figure; 3] = [
    Figure {
        name: "sends, KiB/s",
        fact: "sent_kib_s",
    },
    Figure {
        name: "receives, KiB/s",
        fact: "received_kib_s",
    },
    Figure {
        name: "a byte there and back, µs",
        fact: "echo_us",
    },
];

/// By TCP, whatever is between.
pub(super) const TCP: &str = "tcp:4003";
/// By a socket between a guest and its host.
pub(super) const VSOCK: &str = "vsock:5001";

/// Does `what` while the host serves whoever connects to `place`.
pub(super) fn at(
    host: &mut Host<'_>,
    place: &str,
    what: impl FnOnce(&mut Host<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let start = format!("nested peer {place} >/run/peer.log 2>&1 & echo $!");
    let process: u32 = host.machine.read(&start)?.parse().context("no process")?;
    let outcome = what(host);
    host.machine.read(&format!("kill {process}; true"))?;
    outcome
}

/// The host to itself, by TCP.
pub(super) fn by_loopback(host: &mut Host<'_>) -> anyhow::Result<Facts> {
    let script = "ifconfig lo 127.0.0.1 up; echo \"@@ $(nested measure-peer tcp:127.0.0.1:4003)\"";
    let text = host.machine.read(script)?;
    Ok(Program::debian(&[]).facts(&text))
}
