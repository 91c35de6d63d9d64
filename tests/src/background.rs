//! A guest that runs while a test asks about it by its control socket.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::case::{Guest, Host};
use crate::machine::{Output, Script};

const CONFIG: &str = "/run/ccvm-background.toml";
const SOCKET: &str = "/run/ccvm-background.sock";
const CONSOLE: &str = "/run/ccvm-background.console";
const ERRORS: &str = "/run/ccvm-background.errors";
const PID: &str = "/run/ccvm-background.pid";
const STATUS: &str = "/run/ccvm-background.status";

/// How long a guest may take for what a test waits for, under emulation.
const PATIENCE: Duration = Duration::from_secs(150);

/// Exit status of a VM that its operator has ended.
const STOPPED: i32 = 7;

/// A guest in the background of its host. When this goes it is killed, if it still runs.
#[derive(Debug)]
pub struct Background<'h, 'm> {
    host: &'h mut Host<'m>,
}

impl<'h, 'm> Background<'h, 'm> {
    /// Starts `guest` and waits until its ccvm answers.
    ///
    /// # Errors
    /// When it is refused, or does not answer.
    pub fn start(host: &'h mut Host<'m>, guest: &Guest) -> anyhow::Result<Self> {
        let config = guest.config(host)?;
        host.machine.write(CONFIG, config.as_bytes())?;
        let ccvm = &host.ccvm;
        let script = format!(
            "rm -f {STATUS} {PID}; cd /\n\
             ( {ccvm} run {CONFIG} --control {SOCKET} & echo $! >{PID}; wait $!; echo $? >{STATUS} ) \
             </dev/null >{CONSOLE} 2>{ERRORS} &"
        );
        host.machine.read(&script)?;
        let mut background = Self { host };
        background.wait_for("its ccvm to answer", |guest| {
            Ok(guest.ctl("status")?.status == 0)
        })?;
        Ok(background)
    }

    /// The host that it runs on.
    pub fn host(&mut self) -> &mut Host<'m> {
        self.host
    }

    /// The id of its ccvm's process.
    ///
    /// # Errors
    /// When the machine dies.
    pub fn process(&mut self) -> anyhow::Result<u32> {
        let id = self.host.machine.read(&format!("cat {PID}"))?;
        id.trim().parse().context("no process id")
    }

    /// What `ccvm ctl` prints.
    ///
    /// # Errors
    /// When the machine dies; a refusal is no error.
    pub fn ctl(&mut self, command: &str) -> anyhow::Result<Output> {
        self.host.ccvm(&format!("ctl {SOCKET} {command}"))
    }

    /// The answer to a command that must succeed.
    ///
    /// # Errors
    /// When it does not.
    pub fn ask(&mut self, command: &str) -> anyhow::Result<Value> {
        let output = self.ctl(&format!("{command} --format json"))?;
        ensure!(
            output.status == 0,
            "`{command}` gave {}: {}",
            output.status,
            output.text
        );
        let response: Value = serde_json::from_str(output.text.trim())
            .with_context(|| format!("`{command}` gave no JSON: {}", output.text))?;
        ensure!(response["version"] == 1, "{response}");
        let name = command.split(' ').next().unwrap_or_default();
        Ok(response[name].clone())
    }

    /// What the guest has printed so far, then what ccvm has said.
    ///
    /// # Errors
    /// When the machine dies.
    pub fn console(&mut self) -> anyhow::Result<String> {
        self.host.machine.read(&format!("cat {CONSOLE} {ERRORS}"))
    }

    /// Waits until `reached` says so.
    ///
    /// # Errors
    /// When it does not in time, or the guest ends; `what` and the console are told.
    pub fn wait_for(
        &mut self,
        what: &str,
        mut reached: impl FnMut(&mut Self) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if reached(self)? {
                return Ok(());
            }
            let ended = self.ended()?;
            if ended.is_some() || Instant::now() > deadline {
                bail!("waited for {what}; status {ended:?}:\n{}", self.console()?);
            }
            self.host.machine.read("sleep 0.5")?;
        }
    }

    /// Ends the VM by its control socket.
    ///
    /// # Errors
    /// When it goes on, or says that it has ended in another way.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.ask("stop")?;
        let status = self.finish(None)?;
        ensure!(
            status == STOPPED,
            "ccvm run gave {status}:\n{}",
            self.console()?
        );
        Ok(())
    }

    /// Ends ccvm by a signal, or waits for its end; returns its exit status.
    ///
    /// # Errors
    /// When it goes on.
    pub fn finish(&mut self, signal: Option<&str>) -> anyhow::Result<i32> {
        if let Some(signal) = signal {
            self.host
                .machine
                .read(&format!("kill -{signal} $(cat {PID})"))?;
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            ensure!(
                Instant::now() < deadline,
                "it goes on:\n{}",
                self.console()?
            );
            self.host.machine.read("sleep 0.2")?;
        }
    }

    fn ended(&mut self) -> anyhow::Result<Option<i32>> {
        let text = self
            .host
            .machine
            .read(&format!("cat {STATUS} 2>/dev/null || true"))?;
        match text.trim() {
            "" => Ok(None),
            status => Ok(Some(status.parse().context("no exit status")?)),
        }
    }
}

impl Drop for Background<'_, '_> {
    fn drop(&mut self) {
        // A test that has failed leaves no device behind for the next one to miss.
        let script = format!(
            "[ -s {STATUS} ] || kill -KILL $(cat {PID})\n\
             for _ in $(seq 50); do [ -s {STATUS} ] && break; sleep 0.2; done"
        );
        let _ = self.host.machine.run(&Script::quick(script));
    }
}
