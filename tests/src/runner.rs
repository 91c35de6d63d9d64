//! Running the tests one after the other, in the testbed or on this machine.
#![expect(clippy::print_stdout, reason = "the results go to standard output")]

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::arch::Arch;
use crate::bed::{Bed, Folder, guest_files};
use crate::case::{self, Case, Host, Outcome};
use crate::cases;
use crate::machine::{HostKernel, Local, Machine};
use crate::on_host::{self, Loan};
use crate::prepare::{Install, Prepared, own_kernel};
use crate::report::{Report, Tally, line};

/// Tests by the kernel that their emulated host boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Group {
    /// One of our own
    Own,
    /// The distribution's, as pKVM
    Pkvm,
    /// The distribution's
    Distribution,
}

/// How to run the tests.
#[derive(Debug, Default)]
pub struct Options {
    /// Only these groups in the testbed; without any, all.
    pub groups: Vec<Group>,
    /// Only tests whose name contains this.
    pub filter: Option<String>,
    /// Show the guests' consoles.
    pub show_console: bool,
    /// Write a report into this folder.
    pub report: Option<PathBuf>,
    /// A test that does not run counts as failed.
    pub skips_fail: bool,
}

/// Runs the tests in the testbed: those that need a kernel of our own as the host's, then the rest.
///
/// # Errors
/// When the testbed does not come up. Tests that fail are in the results.
pub fn in_testbed(
    prepared: &Prepared,
    install: Install,
    options: &Options,
) -> anyhow::Result<Tally> {
    let mut results = Vec::new();
    let of_group = |group, cases| match options.groups.is_empty() || options.groups.contains(&group)
    {
        true => chosen(cases, options).collect(),
        false => Vec::new(),
    };
    let of_own: Vec<Case> = of_group(Group::Own, cases::on_own_kernel(prepared.arch));
    if !of_own.is_empty() {
        match own_kernel(install, prepared.arch, &prepared.guest.version) {
            Ok(kernel) => {
                let kernel = HostKernel::Own(kernel);
                run_in_bed(prepared, &kernel, &of_own, options, &mut results)?;
            }
            Err(error) => results.extend(skip(of_own, &format!("{error:#}"), options)),
        }
    }
    let of_pkvm = of_group(Group::Pkvm, cases::on_pkvm(prepared.arch));
    run_in_bed(
        prepared,
        &HostKernel::Protected,
        &of_pkvm,
        options,
        &mut results,
    )?;
    let rest = cases::on_distribution_kernel(prepared.arch);
    let rest = of_group(Group::Distribution, rest);
    let kernel = HostKernel::Distribution;
    let mut bed = run_in_bed(prepared, &kernel, &rest, options, &mut results)?;
    if let Some(bed) = &mut bed {
        let host = &mut bed.host(false);
        let folder = options
            .report
            .as_ref()
            .map(|folder| folder.join(prepared.arch.name()));
        report(host, "the testbed", prepared, folder.as_deref(), &results)?;
    }
    Ok(Tally::of(&results))
}

/// Runs tests on a testbed whose host boots `kernel`; there is none when there is no test.
fn run_in_bed(
    prepared: &Prepared,
    kernel: &HostKernel,
    cases: &[Case],
    options: &Options,
    results: &mut Vec<case::Result>,
) -> anyhow::Result<Option<Bed>> {
    if cases.is_empty() {
        return Ok(None);
    }
    let boot = || Bed::boot_with(prepared, kernel.clone(), Vec::new());
    let mut bed = boot()?;
    let mut second_tries = 0;
    for case in cases {
        let mut result = run_case(case, &mut bed, options);
        if failed(&result) && second_tries < SECOND_TRIES {
            second_tries += 1;
            tell_first_try(&result, &mut bed);
            bed = boot()?;
            result = run_case(case, &mut bed, options).after(result);
        }
        print!("{}", line(&result));
        let failed = failed(&result);
        results.push(result);
        if failed {
            println!("      logs and images: {}", bed.keep().display());
            if !bed.is_alive() {
                bed = boot()?;
            }
        }
    }
    Ok(Some(bed))
}

/// How many tests of one bed may fail and run a second time, on a host booted anew: nested virtualization in an
/// emulator of many threads loses a guest now and then that nothing here is to blame for. What fails twice in a row
/// has failed, what passes then is told as FLAKY with what it said first, and more of them than this is no accident.
/// With real hardware under the tests nothing runs a second time.
const SECOND_TRIES: u32 = 3;

/// Says how a test failed before it runs again, and how the emulated host came to its end if it did.
fn tell_first_try(result: &case::Result, bed: &mut Bed) {
    print!("NOTE  once more after this: {}", line(result));
    for said in bed.death().iter().flat_map(|death| death.lines()) {
        println!("      {said}");
    }
    println!("      logs and images: {}", bed.keep().display());
}

fn run_case(case: &Case, bed: &mut Bed, options: &Options) -> case::Result {
    judge(case.run_on(&mut bed.host(options.show_console)), options)
}

const fn failed(result: &case::Result) -> bool {
    matches!(result.outcome, Outcome::Failed(_))
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
        let results: Vec<case::Result> = chosen(cases::all(prepared.arch), options)
            .map(|case| run_one(&case, host, options))
            .collect();
        let folder = options.report.as_deref();
        report(host, "this machine", prepared, folder, &results)?;
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
        arch: prepared.arch,
        machine: &mut Machine::Local(Local),
        devices,
        scratch: scratch.to_vec(),
        backing: None,
        ccvm: format!("'{}'", ccvm.display()),
        files: folder.path.display().to_string(),
        show_console: false,
    })
}

/// Whether any test of an architecture is to run.
#[must_use]
pub fn has_tests(arch: Arch, options: &Options) -> bool {
    chosen(cases::all(arch), options).next().is_some()
}

/// Every test of an architecture, not run for one reason.
#[must_use]
pub fn skip_all(arch: Arch, reason: &str, options: &Options) -> Tally {
    Tally::of(&skip(
        chosen(cases::all(arch), options).collect(),
        reason,
        options,
    ))
}

/// Some tests, not run for one reason.
fn skip(cases: Vec<Case>, reason: &str, options: &Options) -> Vec<case::Result> {
    println!("{reason}");
    let reason = reason.lines().next().unwrap_or_default();
    cases
        .into_iter()
        .map(|case| {
            let result = judge(case.skipped(reason), options);
            print!("{}", line(&result));
            result
        })
        .collect()
}

fn report(
    host: &mut Host<'_>,
    name: &'static str,
    prepared: &Prepared,
    folder: Option<&Path>,
    results: &[case::Result],
) -> anyhow::Result<()> {
    let Some(folder) = folder else {
        return Ok(());
    };
    Report::gather(host, name, &prepared.guest.version, results)?.write(folder)?;
    println!("the report is in {}", folder.display());
    Ok(())
}

fn chosen(cases: Vec<Case>, options: &Options) -> impl Iterator<Item = Case> {
    let filter = options.filter.as_deref();
    cases
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
            Arch::Arm64,
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
        let in_ci = skip_all(Arch::Arm64, "no emulator", &options);
        assert_eq!((in_ci.skipped, in_ci.failed), (0, 1));
    }

    #[test]
    fn every_test_has_a_name_of_its_own() {
        for arch in Arch::ALL {
            let mut names: Vec<&str> = cases::all(arch).iter().map(|case| case.name).collect();
            let all = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), all);
        }
    }
}
