//! The testbed with all devices and the guests' files: what the tests, the demo and the figures use.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::arch::Arch;
use crate::case::Host;
use crate::devices::Role::{Ahci, ApartNvme, Nvme};
use crate::devices::{Backing, testbed_devices};
use crate::guest::{self, Kernel};
use crate::image;
use crate::machine::{HostKernel, Machine, Script, Setup, Testbed};
use crate::prepare::Prepared;
use crate::progress;

/// A booted testbed; dropping it ends it and removes its files, unless they are kept.
#[derive(Debug)]
pub struct Bed {
    arch: Arch,
    machine: Machine,
    backing: Backing,
    folder: Folder,
}

impl Bed {
    /// Boots it.
    ///
    /// # Errors
    /// When the images cannot be made or the host does not come up.
    pub fn boot(prepared: &Prepared) -> anyhow::Result<Self> {
        Self::boot_with(prepared, HostKernel::Distribution, Vec::new())
    }

    /// Boots it with another kernel for the host, and further files in the folder of the guests', by name.
    ///
    /// # Errors
    /// As [`Self::boot`].
    pub fn boot_with(
        prepared: &Prepared,
        kernel: HostKernel,
        further: Vec<(String, Vec<u8>)>,
    ) -> anyhow::Result<Self> {
        let mut folder = Folder::create()?;
        let backing = Backing::new(&folder.path);
        create_backing(&backing)?;
        let own = guest_files(prepared)?.into_iter();
        let files = own
            .map(|(name, content)| (name.to_owned(), content))
            .chain(further)
            .map(|(name, content)| (format!("{FILES}/{name}"), content))
            .collect();
        let setup = Setup {
            kernel,
            devices: backing.arguments(),
            files,
        };
        let what = format!("boot the emulated {} host", prepared.arch);
        let boot = || Testbed::boot(prepared, &setup, &folder.path);
        let testbed = progress::step(&what, boot).inspect_err(|_| folder.keep = true)?;
        Ok(Self {
            arch: prepared.arch,
            machine: Machine::Testbed(testbed),
            backing,
            folder,
        })
    }

    /// The host as tests use it.
    pub fn host(&mut self, show_console: bool) -> Host<'_> {
        let devices = testbed_devices();
        Host {
            arch: self.arch,
            machine: &mut self.machine,
            scratch: devices
                .iter()
                .map(|device| device.address.clone())
                .collect(),
            devices,
            backing: Some(self.backing.clone()),
            ccvm: "ccvm".to_owned(),
            files: FILES.to_owned(),
            show_console,
        }
    }

    /// Whether the host still answers: a script that ran too long keeps it busy for good.
    pub fn is_alive(&mut self) -> bool {
        let hello = Script {
            text: "true".to_owned(),
            limit: Duration::from_secs(10),
        };
        self.machine.run(&hello).is_ok()
    }

    /// How the emulated host came to its end, if it has.
    pub fn death(&mut self) -> Option<String> {
        self.machine.death()
    }

    /// Keeps the logs and images, and says where they are.
    pub fn keep(&mut self) -> &Path {
        self.folder.keep = true;
        &self.folder.path
    }
}

/// Where the guests' files are on the emulated host.
const FILES: &str = "/ccvm";

/// The files that guests boot from, by name.
///
/// # Errors
/// When the kernel or its modules cannot be read.
pub fn guest_files(prepared: &Prepared) -> anyhow::Result<Vec<(&'static str, Vec<u8>)>> {
    let kernel = fs::read(&prepared.guest.kernel).context("cannot read the kernel")?;
    let other = match prepared.arch {
        Arch::Arm64 => packed(&kernel)?,
        Arch::X86_64 => image::unpack(&kernel)?,
    };
    let initrd = guest::initrd(prepared)?;
    let payload = fs::read(&prepared.binaries.payload).context("cannot read the payload")?;
    let mut files = vec![
        (Kernel::Packaged.file(), kernel),
        (Kernel::Converted.file(), other),
        ("guest.cpio", initrd),
        ("payload", payload),
    ];
    if let Some(floor) = &prepared.binaries.floor {
        let floor = fs::read(floor).context("cannot read the bare loop of host calls")?;
        files.push(("floor", floor));
    }
    Ok(files)
}

fn packed(kernel: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(kernel).context("cannot pack the kernel")?;
    packed.finish().context("cannot pack the kernel")
}

/// A folder for one run's images and logs.
#[derive(Debug)]
pub struct Folder {
    /// Where it is.
    pub path: PathBuf,
    /// Whether it stays.
    pub keep: bool,
}

impl Folder {
    /// Creates it among the machine's temporary files.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn create() -> anyhow::Result<Self> {
        static FOLDERS: AtomicU32 = AtomicU32::new(0);
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let name = format!("ccvm-vmtest-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self { path, keep: false })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.keep {
            // What is left over is in the temporary folder.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Disks of 16 MiB, of which the first 4 hold a pattern, and 1 MiB for the guest to fetch.
fn create_backing(backing: &Backing) -> anyhow::Result<()> {
    for role in [Ahci, Nvme, ApartNvme] {
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
