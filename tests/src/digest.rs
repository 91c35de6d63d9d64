//! Checksums of what is on this machine.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

/// The SHA-256 of some bytes in hexadecimal, by coreutils.
///
/// # Errors
/// When `sha256sum` cannot be run.
pub(crate) fn sha256(bytes: &[u8]) -> anyhow::Result<String> {
    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start sha256sum")?;
    let mut input = child.stdin.take().context("sha256sum has no input")?;
    // It reads all of its input before it prints, so this cannot block for good.
    input.write_all(bytes).context("cannot feed sha256sum")?;
    drop(input);
    let output = child
        .wait_with_output()
        .context("cannot read from sha256sum")?;
    ensure!(output.status.success(), "sha256sum: {}", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    text.split_whitespace()
        .next()
        .map(str::to_owned)
        .context("sha256sum printed nothing")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_matches_the_standards_vector() {
        let digest = sha256(b"abc").unwrap();
        assert_eq!(
            digest,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
