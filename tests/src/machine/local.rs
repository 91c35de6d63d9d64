//! This machine as the host.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::{Output, Script};

/// This machine.
#[derive(Debug)]
pub struct Local;

impl Local {
    pub(super) fn run(
        &self,
        script: &Script,
        mut on_line: impl FnMut(&str),
    ) -> anyhow::Result<Output> {
        let mut child = Guard(start(&script.text)?);
        let pipe = child.0.stdout.take().context("the shell has no output")?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                if sender
                    .send(String::from_utf8_lossy(&line).into_owned())
                    .is_err()
                {
                    return;
                }
            }
        });
        let deadline = Instant::now() + script.limit;
        let mut text = String::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match lines.recv_timeout(left) {
                Ok(line) => {
                    on_line(&line);
                    text.push_str(&line);
                    text.push('\n');
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => bail!("no end in time of\n{text}"),
            }
        }
        let status = child.0.wait().context("cannot wait for the shell")?;
        Ok(Output {
            status: status.code().unwrap_or(-1),
            text,
        })
    }
}

fn start(text: &str) -> anyhow::Result<Child> {
    Command::new("sh")
        .arg("-c")
        .arg(format!("exec 2>&1\n{text}"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // A group of its own, so that giving up ends the script's programs, too.
        .process_group(0)
        .spawn()
        .context("cannot start sh")
}

/// Ends the shell and what it started when a test gives up on it.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(Some(_))) {
            return;
        }
        let group = format!("-{}", self.0.id());
        // ccvm gets the chance to give its devices back. If kill cannot run, the shell still ends.
        let _ = Command::new("kill").args(["-TERM", "--", &group]).status();
        std::thread::sleep(Duration::from_secs(1));
        let _ = Command::new("kill")
            .args(["-KILL", "--", &group])
            .stderr(Stdio::null())
            .status();
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;

    #[test]
    fn output_and_errors_and_the_exit_status_come_back() {
        let output = Local
            .run(&Script::quick("echo one; echo two >&2; exit 5"), |_| ())
            .unwrap();
        assert_eq!((output.status, output.text.as_str()), (5, "one\ntwo\n"));
    }

    #[test]
    fn a_script_that_hangs_is_given_up() {
        let script = Script {
            text: "echo started; exec sleep 60".into(),
            limit: Duration::from_millis(300),
        };
        let error = Local.run(&script, |_| ()).unwrap_err();
        assert!(error.to_string().contains("started"));
    }

    #[test]
    fn a_file_is_written_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let content = b"line\n'quoted' \0 \xff";
        Machine::Local(Local)
            .write(path.to_str().unwrap(), content)
            .unwrap();
        assert_eq!(std::fs::read(path).unwrap(), content);
    }
}
