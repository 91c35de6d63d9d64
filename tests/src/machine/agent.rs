//! Running shell scripts on the emulated host, over a virtio serial port.
//!
//! ```text
//! harness                         agent (a shell loop, PID 1 of the emulated host)
//!   7 BASE64(script)\n    ──▶     decode, run with sh
//!                         ◀──     whatever the script prints, as it prints it
//!                         ◀──     \n@@7 STATUS\n
//! ```

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::{Output, Script};

/// The agent's program: the first process of the emulated host ends in this.
pub(super) const LOOP: &str = r#"
exec 3<>/dev/vport0p1
echo '@@ready' >&3
while read -r id script <&3; do
    echo "$script" | base64 -d >/run/script
    sh /run/script </dev/null >&3 2>&1 3>&-
    printf '\n@@%s %s\n' "$id" "$?" >&3
done
poweroff -f
"#;

const TICK: Duration = Duration::from_millis(200);

/// The harness's end of the port.
#[derive(Debug)]
pub(super) struct Agent {
    port: BufReader<UnixStream>,
    last: u32,
}

impl Agent {
    /// Waits for the agent's greeting.
    pub(super) fn greet(port: UnixStream, limit: Duration) -> anyhow::Result<Self> {
        port.set_read_timeout(Some(TICK))
            .context("cannot set up the agent's port")?;
        let mut agent = Self {
            port: BufReader::new(port),
            last: 0,
        };
        let deadline = Instant::now() + limit;
        while agent
            .line(deadline)
            .context("the emulated host did not start")?
            .trim_end()
            != "@@ready"
        {}
        Ok(agent)
    }

    /// Runs a script and hands over each line that it prints as it comes.
    pub(super) fn run(
        &mut self,
        script: &Script,
        mut on_line: impl FnMut(&str),
    ) -> anyhow::Result<Output> {
        self.last += 1;
        let request = format!("{} {}\n", self.last, base64(script.text.as_bytes()));
        self.port
            .get_mut()
            .write_all(request.as_bytes())
            .context("the emulated host is gone")?;
        let end = format!("@@{} ", self.last);
        let deadline = Instant::now() + script.limit;
        let mut text = String::new();
        loop {
            let line = match self.line(deadline) {
                Ok(line) => line,
                Err(error) => {
                    let printed = format!("the script had printed, last\n{}", last_lines(&text));
                    return Err(error.context(printed));
                }
            };
            if let Some(status) = line.strip_prefix(&end) {
                // The end mark starts a line of its own: one line feed is not the script's.
                text.truncate(text.len().saturating_sub(1));
                let status = status
                    .trim()
                    .parse()
                    .context("the agent gave no exit status")?;
                return Ok(Output { status, text });
            }
            on_line(line.trim_end());
            text.push_str(&line);
        }
    }

    fn line(&mut self, deadline: Instant) -> anyhow::Result<String> {
        let mut line = Vec::new();
        loop {
            match self.port.read_until(b'\n', &mut line) {
                Ok(0) => bail!("the emulated host ended"),
                Ok(_) if line.ends_with(b"\n") => {
                    return Ok(String::from_utf8_lossy(&line).into_owned());
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if Instant::now() > deadline {
                        bail!("the emulated host did not answer in time");
                    }
                }
                Err(error) => return Err(error).context("cannot read the agent's port"),
            }
        }
    }
}

/// The end of a text, where the reason for an end is.
pub(super) fn last_lines(text: &str) -> String {
    const SHOWN: usize = 30;
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(SHOWN)..].join("\n")
}

/// RFC 4648, section 4.
pub(super) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk
            .iter()
            .fold(0u32, |group, byte| (group << 8) | u32::from(*byte));
        let group = group << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let index = usize::try_from((group >> (18 - 6 * digit)) & 63).unwrap_or_default();
            let used = digit <= chunk.len();
            let _ = text.write_char(if used {
                char::from(ALPHABET[index])
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_matches_the_vectors_of_its_rfc() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn a_script_ends_at_its_own_mark_and_keeps_its_output() {
        let (here, there) = UnixStream::pair().unwrap();
        let agent = std::thread::spawn(move || {
            let mut there = BufReader::new(there);
            there.get_mut().write_all(b"noise\n@@ready\n").unwrap();
            let mut request = String::new();
            there.read_line(&mut request).unwrap();
            there
                .get_mut()
                .write_all(b"one\n@@9 0\ntwo\n@@1 3\n")
                .unwrap();
            request
        });
        let mut harness = Agent::greet(here, Duration::from_secs(5)).unwrap();
        let mut lines = Vec::new();
        let output = harness
            .run(&Script::quick("exit 3"), |line| lines.push(line.to_owned()))
            .unwrap();
        assert_eq!(agent.join().unwrap(), "1 ZXhpdCAz\n");
        assert_eq!(output.status, 3);
        assert_eq!(output.text, "one\n@@9 0\ntwo");
        assert_eq!(lines, ["one", "@@9 0", "two"]);
    }

    #[test]
    fn a_host_that_dies_is_noticed_and_its_last_words_are_kept() {
        let (here, mut there) = UnixStream::pair().unwrap();
        there.write_all(b"@@ready\n").unwrap();
        let mut harness = Agent::greet(here, Duration::from_secs(5)).unwrap();
        there.write_all(b"last words\n").unwrap();
        there.shutdown(std::net::Shutdown::Write).unwrap();
        let error = harness.run(&Script::quick("true"), |_| ()).unwrap_err();
        let text = format!("{error:#}");
        assert!(
            text.contains("last words") && text.contains("ended"),
            "{text}"
        );
    }
}
