//! The machine that plays the host: where ccvm, KVM and the devices are.

mod agent;
mod local;
mod qemu;
mod testbed;

use std::time::Duration;

use anyhow::ensure;

pub use local::Local;
pub use testbed::{HostKernel, Setup, Testbed};

/// A host for ccvm.
#[derive(Debug)]
pub enum Machine {
    /// Emulated.
    Testbed(Testbed),
    /// This machine.
    Local(Local),
}

impl Machine {
    /// Runs a script, handing over each line as it is printed.
    ///
    /// # Errors
    /// When the machine dies or the script takes too long; a script that fails is no error.
    pub fn watch(&mut self, script: &Script, on_line: impl FnMut(&str)) -> anyhow::Result<Output> {
        match self {
            Self::Testbed(testbed) => testbed.run(script, on_line),
            Self::Local(local) => local.run(script, on_line),
        }
    }

    /// How the machine came to its end, if it is emulated and has.
    pub fn death(&mut self) -> Option<String> {
        match self {
            Self::Testbed(testbed) => testbed.death(),
            Self::Local(_) => None,
        }
    }

    /// Runs a script.
    ///
    /// # Errors
    /// As [`Self::watch`].
    pub fn run(&mut self, script: &Script) -> anyhow::Result<Output> {
        self.watch(script, |_| ())
    }

    /// Runs a script that must succeed and returns what it printed, without the final line feed.
    ///
    /// # Errors
    /// As [`Self::watch`], and when the script's exit status is not 0.
    pub fn read(&mut self, text: &str) -> anyhow::Result<String> {
        let output = self.run(&Script::quick(text))?;
        ensure!(
            output.status == 0,
            "`{text}` gave {}: {}",
            output.status,
            output.text.trim()
        );
        Ok(output.text.trim_end().to_owned())
    }

    /// Writes a small file.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn write(&mut self, path: &str, content: &[u8]) -> anyhow::Result<()> {
        let encoded = agent::base64(content);
        self.read(&format!("echo {encoded} | base64 -d >'{path}'"))
            .map(drop)
    }
}

/// What a script on the machine printed, and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// Its exit status.
    pub status: i32,
    /// Standard output and standard error, as they came.
    pub text: String,
}

/// A shell script for the machine.
#[derive(Debug, Clone)]
pub struct Script {
    /// The text, for `sh`.
    pub text: String,
    /// How long it may take.
    pub limit: Duration,
}

impl Script {
    /// A script that takes seconds at most, and longer only where emulation starves.
    #[must_use]
    pub fn quick(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            limit: Duration::from_secs(120),
        }
    }

    /// A script that boots a guest.
    #[must_use]
    pub fn boot(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            limit: Duration::from_secs(300),
        }
    }
}
