//! Running the tests one after the other, in the testbed or on this machine.
#![expect(clippy::print_stdout, reason = "the results go to standard output")]

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::case::{self, Case, Host, Outcome};
use crate::devices::{Backing, testbed_devices};
use crate::machine::{Machine, Setup, Testbed};
use crate::prepare::Prepared;
use crate::{cases, guest, progress};

/// How to run the tests.
#[derive(Debug, Default)]
pub struct Options {
    /// Only tests whose name contains this.
    pub filter: Option<String>,
    /// Show the guests' consoles.
    pub show_console: bool,
}

/// Runs the tests in the testbed.
///
/// # Errors
/// When the testbed does not come up. Tests that fail are in the results.
pub fn in_testbed(prepared: &Prepared, options: &Options) -> anyhow::Result<Vec<case::Result>> {
    let folder = run_folder()?;
    let mut bed = Bed::boot(prepared, &folder)?;
    let results = run(&mut bed.host(options.show_console), options);
    drop(bed);
    if results
        .iter()
        .any(|result| matches!(result.outcome, Outcome::Failed(_)))
    {
        println!("logs are kept in {}", folder.display());
    } else {
        fs::remove_dir_all(&folder).context("cannot remove the logs")?;
    }
    Ok(results)
}

/// A booted testbed with all devices and the guest's files.
#[derive(Debug)]
pub struct Bed {
    machine: Machine,
    backing: Backing,
}

impl Bed {
    /// Boots it; images and logs go to `folder`.
    ///
    /// # Errors
    /// When the images cannot be made or the host does not come up.
    pub fn boot(prepared: &Prepared, folder: &Path) -> anyhow::Result<Self> {
        let backing = Backing::new(folder);
        create_backing(&backing)?;
        let setup = Setup {
            devices: backing.arguments(),
            files: guest_files(prepared)?,
        };
        let testbed = progress::step("boot the emulated host", || {
            Testbed::boot(prepared, &setup, folder)
        })?;
        Ok(Self {
            machine: Machine::Testbed(testbed),
            backing,
        })
    }

    /// The host as tests use it.
    pub fn host(&mut self, show_console: bool) -> Host<'_> {
        Host {
            machine: &mut self.machine,
            devices: testbed_devices(),
            backing: Some(self.backing.clone()),
            ccvm: "ccvm".to_owned(),
            files: "/ccvm".to_owned(),
            show_console,
        }
    }
}

/// Runs the chosen tests on a host and prints each result.
pub fn run(host: &mut Host<'_>, options: &Options) -> Vec<case::Result> {
    let wanted = |case: &Case| {
        options
            .filter
            .as_deref()
            .is_none_or(|part| case.name.contains(part))
    };
    cases::all()
        .iter()
        .filter(|case| wanted(case))
        .map(|case| {
            let result = case.run_on(host);
            print(&result);
            result
        })
        .collect()
}

fn print(result: &case::Result) {
    let took = result.took.as_secs_f64();
    match &result.outcome {
        Outcome::Passed => println!("PASS  {} ({took:.1} s)", result.name),
        Outcome::Skipped(reason) => println!("SKIP  {}: {reason}", result.name),
        Outcome::Failed(reason) => {
            println!("FAIL  {} ({took:.1} s)", result.name);
            for line in reason.lines() {
                println!("      {line}");
            }
        }
    }
}

/// A fresh folder for one run's images and logs.
fn run_folder() -> anyhow::Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("ccvm-vmtest-{}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder)
}

fn guest_files(prepared: &Prepared) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let kernel = fs::read(&prepared.guest.kernel).context("cannot read the kernel")?;
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed
        .write_all(&kernel)
        .context("cannot pack the kernel")?;
    let packed = packed.finish().context("cannot pack the kernel")?;
    Ok(vec![
        ("/ccvm/Image".to_owned(), kernel),
        ("/ccvm/Image.gz".to_owned(), packed),
        (
            "/ccvm/guest.cpio".to_owned(),
            guest::initrd(&prepared.guest)?,
        ),
    ])
}

/// Disks with 16 MiB, of which the first 4 hold a pattern, and 1 MiB for the guest to fetch.
fn create_backing(backing: &Backing) -> anyhow::Result<()> {
    use crate::devices::Role::{Ahci, Nvme};
    for role in [Ahci, Nvme] {
        let path = backing.disk(role);
        let create = || {
            let mut file = File::create(&path)?;
            file.write_all(&pattern(4 << 20))?;
            file.set_len(16 << 20)
        };
        create().with_context(|| format!("cannot create {}", path.display()))?;
    }
    fs::write(backing.received(), "").context("cannot create the peer's file")?;
    fs::write(backing.offered(), pattern(1 << 20)).context("cannot create the peer's file")
}

/// Bytes that do not repeat within any page or between pages (xorshift64).
fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(length).collect()
}
