//! A guest with an operator beside it, who uses `ccvm ctl` while it runs.

use std::time::Duration;

use crate::case::{Guest, Host, Run, within};
use crate::machine::Script;

/// What an operator does.
#[derive(Debug, Clone)]
pub struct Operator<'a> {
    /// A command that starts ccvm, in front of its name.
    pub by: &'a str,
    /// Further options of `ccvm run`.
    pub options: &'a str,
    /// A line of the guest's console that it waits for.
    pub after: &'a str,
    /// A shell script. `ctl` is `ccvm ctl` for this VM, `rounds` the guest's last `round=`, and lines
    /// `@@ key=value` become facts of the run. Its end is a line on the guest's console.
    pub does: &'a str,
    /// How long the guest may take.
    pub seconds: u32,
}

impl<'a> Operator<'a> {
    /// One who does this after that line, beside a guest without further options that may take 200 s.
    #[must_use]
    pub const fn new(after: &'a str, does: &'a str) -> Self {
        Self {
            by: "",
            options: "",
            after,
            does,
            seconds: 200,
        }
    }
}

/// Gives the operator its words.
fn vocabulary(ccvm: &str) -> String {
    format!(
        "ctl() {{ {ccvm} ctl /run/ccvm-ctl \"$@\"; }}\n\
         rounds() {{ sed -n 's/.*@@ round=\\([0-9]*\\).*/\\1/p' /run/ccvm-console | tail -n 1; }}\n"
    )
}

impl Host<'_> {
    /// Boots a guest, does what the operator does, and waits for the guest's end.
    ///
    /// # Errors
    /// When the machine dies or the guest does not end; how it ends is for the test to judge.
    pub fn boot_beside(&mut self, guest: &Guest, operator: &Operator<'_>) -> anyhow::Result<Run> {
        let run = self.run_command(guest)?;
        let Operator { by, options, .. } = operator;
        let run = format!("{by} {run} --control /run/ccvm-ctl {options}");
        self.run_beside(guest, &run, operator)
    }

    /// As [`Self::boot_beside`], where `run` is what runs the guest.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn run_beside(
        &mut self,
        guest: &Guest,
        run: &str,
        operator: &Operator<'_>,
    ) -> anyhow::Result<Run> {
        let Operator {
            after,
            does,
            seconds,
            ..
        } = operator;
        let run = format!("{run} </run/ccvm-keys");
        let run = within(*seconds, &run);
        let text = format!(
            "cd /run; rm -f ccvm-ctl ccvm-keys ccvm-beside ccvm-status\n\
             mkfifo ccvm-keys; exec 3<>ccvm-keys; : >ccvm-console\n{}\
             ( until grep -q '{after}' ccvm-console; do sleep 0.2; done\n{does}\necho >&3 ) \
             >ccvm-beside 2>&1 & operator=$!\n\
             ( ( {run} )\necho $? >ccvm-status ) 2>&1 | tee ccvm-console\n\
             kill $operator 2>/dev/null; cat ccvm-beside; exit $(cat ccvm-status)",
            vocabulary(&self.ccvm)
        );
        let limit = Duration::from_secs(u64::from(seconds + 60));
        self.boot_by(guest, &Script { text, limit })
    }
}
