//! Running the tests one after the other, in the testbed or on this machine.
#![expect(clippy::print_stdout, reason = "the results go to standard output")]

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, bail};

use crate::bed::{Bed, Folder, guest_files};
use crate::case::{self, Case, Host, Outcome};
use crate::cases;
use crate::machine::{Local, Machine};
use crate::on_host::{self, Loan};
use crate::prepare::Prepared;
use crate::report::{Report, Tally, line};

/// How to run the tests.
#[derive(Debug, Default)]
pub struct Options {
    /// Only tests whose name contains this.
    pub filter: Option<String>,
    /// Show the guests' consoles.
    pub show_console: bool,
    /// Write a report into this folder.
    pub report: Option<PathBuf>,
    /// A test that does not run counts as failed.
    pub skips_fail: bool,
}

/// Runs the tests in the testbed.
///
/// # Errors
/// When the testbed does not come up. Tests that fail are in the results.
pub fn in_testbed(prepared: &Prepared, options: &Options) -> anyhow::Result<Tally> {
    let mut bed = Bed::boot(prepared)?;
    let mut results = Vec::new();
    for case in chosen(options) {
        let mut host = bed.host(options.show_console);
        let result = run_one(&case, &mut host, options);
        let failed = matches!(result.outcome, Outcome::Failed(_));
        results.push(result);
        if failed {
            println!("      logs and images: {}", bed.keep().display());
            if !bed.is_alive() {
                bed = Bed::boot(prepared)?;
            }
        }
    }
    report(
        &mut bed.host(false),
        "the testbed",
        prepared,
        options,
        &results,
    )?;
    Ok(Tally::of(&results))
}

/// Runs the tests with this machine as the host.
///
/// # Errors
/// When this machine cannot play the host, or a named device cannot be used.
pub fn on_this_machine(
    prepared: &Prepared,
    options: &Options,
    addresses: &[String],
    scratch: &[String],
) -> anyhow::Result<Tally> {
    with_this_machine(prepared, addresses, scratch, |host| {
        host.show_console = options.show_console;
        let results: Vec<case::Result> = chosen(options)
            .map(|case| run_one(&case, host, options))
            .collect();
        report(host, "this machine", prepared, options, &results)?;
        Ok(Tally::of(&results))
    })
}

/// Lets this machine play the host: takes the named devices, and gives them back.
///
/// # Errors
/// When this machine cannot play the host, or a named device cannot be used.
pub fn with_this_machine<T>(
    prepared: &Prepared,
    addresses: &[String],
    scratch: &[String],
    work: impl FnOnce(&mut Host<'_>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    if let Some(address) = scratch.iter().find(|address| !addresses.contains(address)) {
        bail!("--scratch {address} needs --device {address}, too");
    }
    let devices = on_host::devices(addresses)?;
    let folder = Folder::create()?;
    for (name, content) in guest_files(prepared)? {
        fs::write(folder.path.join(name), content).context("cannot write the guests' files")?;
    }
    // A copy that an ordinary user can run, too: one test does.
    let ccvm = folder.path.join("ccvm");
    fs::copy(&prepared.binaries.ccvm, &ccvm).context("cannot copy ccvm")?;
    let _loan = Loan::take(&prepared.binaries.ccvm, addresses, scratch)?;
    work(&mut Host {
        machine: &mut Machine::Local(Local),
        devices,
        scratch: scratch.to_vec(),
        backing: None,
        ccvm: format!("'{}'", ccvm.display()),
        files: folder.path.display().to_string(),
        show_console: false,
    })
}

/// Every test, not run for one reason.
#[must_use]
pub fn skip_all(reason: &str, options: &Options) -> Tally {
    println!("{reason}");
    let reason = reason.lines().next().unwrap_or_default();
    let results: Vec<case::Result> = chosen(options)
        .map(|case| {
            let result = judge(case.skipped(reason), options);
            print!("{}", line(&result));
            result
        })
        .collect();
    Tally::of(&results)
}

fn report(
    host: &mut Host<'_>,
    name: &'static str,
    prepared: &Prepared,
    options: &Options,
    results: &[case::Result],
) -> anyhow::Result<()> {
    let Some(folder) = &options.report else {
        return Ok(());
    };
    Report::gather(host, name, &prepared.guest.version, results)?.write(folder)?;
    println!("the report is in {}", folder.display());
    Ok(())
}

fn chosen(options: &Options) -> impl Iterator<Item = Case> {
    let filter = options.filter.as_deref();
    cases::all()
        .into_iter()
        .filter(move |case| filter.is_none_or(|part| case.name.contains(part)))
}

/// Runs a test and prints its result.
fn run_one(case: &Case, host: &mut Host<'_>, options: &Options) -> case::Result {
    let result = judge(case.run_on(host), options);
    print!("{}", line(&result));
    result
}

/// Where every test must run, one that did not has failed.
fn judge(mut result: case::Result, options: &Options) -> case::Result {
    if let (true, Outcome::Skipped(reason)) = (options.skips_fail, &result.outcome) {
        result.outcome = Outcome::Failed(format!("SKIP is a failure here: {reason}"));
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skip_fails_where_every_test_must_run() {
        let filter = Some("the_host_offers".to_owned());
        let here = skip_all(
            "no emulator",
            &Options {
                filter: filter.clone(),
                ..Options::default()
            },
        );
        assert_eq!((here.skipped, here.failed), (1, 0));
        let options = Options {
            filter,
            skips_fail: true,
            ..Options::default()
        };
        let in_ci = skip_all("no emulator", &options);
        assert_eq!((in_ci.skipped, in_ci.failed), (0, 1));
    }

    #[test]
    fn every_test_has_a_name_of_its_own() {
        let mut names: Vec<&str> = cases::all().iter().map(|case| case.name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
