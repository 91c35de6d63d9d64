//! Building ccvm for the host of the tests, natively or across.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use super::packages::{install_packages, is_present};
use super::{Install, output_of};
use crate::arch::Arch;
use crate::progress;

/// The compiler's flag for programs that need no library where they run.
const STATIC: &str = "-Ctarget-feature=+crt-static";
/// The oldest compiler that builds the workspace, as in its `rust-version`.
const OLDEST_RUST: &str = env!("CARGO_PKG_RUST_VERSION");

/// The programs under test, static.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// The `ccvm` command.
    pub ccvm: PathBuf,
    /// The bare-metal guest: a flat kernel image for arm64, an ELF file with a PVH note for x86_64.
    pub payload: PathBuf,
    /// The guest's program that uses VFIO, without symbols.
    pub nested: PathBuf,
    /// The bare loop of host calls that conversions are compared with: for figures only.
    pub floor: Option<PathBuf>,
}

/// The repository's root.
#[must_use]
pub fn repository() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// How the programs under test are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Optimised, with all assertions: for tests.
    Testbed,
    /// As users run it: for figures.
    Release,
}

impl Profile {
    const fn name(self) -> &'static str {
        match self {
            Self::Testbed => "testbed",
            Self::Release => "release",
        }
    }
}

/// A compiler that has the standard library for an architecture.
#[derive(Debug)]
pub(super) struct Toolchain {
    arch: Arch,
    rustc: PathBuf,
}

impl Toolchain {
    /// Builds the programs under test.
    pub(super) fn build(&self, profile: Profile) -> anyhow::Result<Binaries> {
        let built = self.target_dir().join(self.arch.target());
        let programs = built.join(profile.name());
        let nested = programs.join("nested.stripped");
        progress::step(&format!("build ccvm for {}", self.arch), || {
            let mut cargo = self.cargo();
            cargo.args(["build", "--quiet", "--target", self.arch.target()]);
            cargo.args(["--package", "ccvm", "--package", "nested"]);
            cargo.args(["--profile", profile.name()]);
            output_of(&mut cargo)?;
            let mut strip = self.objcopy();
            strip.arg("--strip-all");
            strip.arg(programs.join("nested")).arg(&nested);
            output_of(&mut strip).map(drop)
        })?;
        let payload = self.build_payload(&built)?;
        let floor = match profile {
            Profile::Testbed => None,
            Profile::Release => Some(self.build_floor(&programs)?),
        };
        Ok(Binaries {
            ccvm: programs.join("ccvm"),
            payload,
            nested,
            floor,
        })
    }

    /// Builds the bare-metal guest.
    fn build_payload(&self, built: &Path) -> anyhow::Result<PathBuf> {
        let (form, name): (&[&str], _) = match self.arch {
            Arch::Arm64 => (&["-O", "binary"], "guest.bin"),
            Arch::X86_64 => (&["--strip-all"], "guest.elf"),
        };
        let payload = built.join("release").join(name);
        progress::step("build the bare-metal guest", || {
            let mut cargo = self.cargo();
            cargo.args(["build", "--quiet", "--release"]);
            cargo.args(["--target", self.arch.target()]);
            cargo.args(["--manifest-path", "tests/guest/Cargo.toml"]);
            if self.arch == Arch::X86_64 {
                // The loader puts it where it is linked.
                let flags = format!("{STATIC} -Crelocation-model=static");
                cargo.env(self.setting("RUSTFLAGS"), flags);
            }
            output_of(&mut cargo)?;
            let mut convert = self.objcopy();
            convert.args(form).arg(built.join("release/guest"));
            output_of(convert.arg(&payload)).map(drop)
        })?;
        Ok(payload)
    }

    /// Comes with the linker.
    fn objcopy(&self) -> Command {
        Command::new(format!("{}objcopy", self.arch.cross_prefix()))
    }

    /// Builds what figures are compared with.
    fn build_floor(&self, programs: &Path) -> anyhow::Result<PathBuf> {
        progress::step("build the bare loop of host calls", || {
            let mut cargo = self.cargo();
            cargo.args(["build", "--quiet", "--release"]);
            cargo.args(["--target", self.arch.target()]);
            cargo.args(["--package", "vfio", "--example", "floor"]);
            output_of(&mut cargo).map(drop)
        })?;
        Ok(programs.join("examples/floor"))
    }

    /// Finds a compiler, or installs one.
    pub(super) fn find(arch: Arch, install: Install) -> anyhow::Result<Self> {
        if let Some(toolchain) = Self::present(arch) {
            return Ok(toolchain);
        }
        let target = arch.target();
        if install == Install::Allowed && is_present("rustup") && add_target(target).is_ok() {
            return Self::present(arch)
                .context("rustup added the target, but rustc does not have it");
        }
        let library = format!("libstd-rust-web-dev:{}", arch.debian());
        install_packages(
            install,
            &["rustc-web", &library],
            &[&["dpkg", "--add-architecture", arch.debian()]],
        )
        .with_context(|| {
            format!("no Rust {OLDEST_RUST} with the target {target}; `rustup target add {target}` gives it, too")
        })?;
        Self::present(arch).context("the installed rustc lacks the target")
    }

    fn present(arch: Arch) -> Option<Self> {
        ["rustc", "/usr/bin/rustc"]
            .into_iter()
            .filter(|rustc| has_target(rustc, arch.target()).unwrap_or(false))
            .map(|rustc| Self {
                arch,
                rustc: rustc.into(),
            })
            .next()
    }

    /// A build of its own next to the workspace's, since another compiler may be at work.
    fn target_dir(&self) -> PathBuf {
        let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
        target
            .unwrap_or_else(|| repository().join("target"))
            .join("cross")
    }

    /// The environment variable by which cargo is told something about the target.
    fn setting(&self, name: &str) -> String {
        let target = self.arch.target().to_uppercase().replace('-', "_");
        format!("CARGO_TARGET_{target}_{name}")
    }

    fn cargo(&self) -> Command {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            .current_dir(repository())
            .env("RUSTC", &self.rustc)
            .env("CARGO_TARGET_DIR", self.target_dir())
            .env(self.setting("RUSTFLAGS"), STATIC);
        if !self.arch.is_here() {
            let linker = format!("{}gcc", self.arch.cross_prefix());
            cargo.env(self.setting("LINKER"), linker);
        }
        cargo
    }
}

fn add_target(target: &str) -> anyhow::Result<()> {
    progress::step(&format!("rustup target add {target}"), || {
        output_of(Command::new("rustup").args(["target", "add", target])).map(drop)
    })
}

/// Whether a compiler is there, is new enough, and has the standard library for a target.
fn has_target(rustc: &str, target: &str) -> anyhow::Result<bool> {
    let version = output_of(Command::new(rustc).arg("--version"))?;
    let Some(version) = version.split_whitespace().nth(1) else {
        bail!("{rustc} does not say its version");
    };
    let mut ask = Command::new(rustc);
    let libraries = output_of(ask.args(["--print", "target-libdir", "--target", target]))?;
    let has_std = Path::new(libraries.trim()).read_dir().is_ok_and(|entries| {
        entries
            .filter_map(Result::ok)
            .any(|entry| entry.file_name().to_string_lossy().starts_with("libstd-"))
    });
    Ok(has_std && numbers(version) >= numbers(OLDEST_RUST))
}

fn numbers(version: &str) -> Vec<u32> {
    version
        .split('.')
        .map_while(|part| part.parse().ok())
        .collect()
}
