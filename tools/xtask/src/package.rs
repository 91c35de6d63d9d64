//! `cargo xtask package`: the Debian package, without root and without a network.
//!
//! ```text
//! cargo build ─► ccvm ─► man pages, completions ┐
//! docs, unit, example, copyright ───────────────┼─► tree ─► dpkg-deb ─► .deb ─► looked into
//! cargo tree ─► crates.txt ─────────────────────┘
//! ```
//!
//! Programs are linked statically: the package depends on nothing, and fits every release.

mod inspect;
mod metadata;
mod tree;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::progress::{run, skip, step};
use tree::Tree;

/// Where trees and packages go.
const FOLDER: &str = "target/package";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// For machines of this architecture; this machine's, if it is left out
    #[arg(long, value_enum)]
    arch: Option<Arch>,
    /// Build ccvm with this profile of Cargo
    #[arg(long, value_name = "NAME", default_value = "release")]
    profile: String,
}

/// An architecture, by Debian's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Arch {
    /// x86-64
    Amd64,
    /// 64-bit Arm
    Arm64,
}

impl Arch {
    /// This machine's.
    pub(crate) const fn here() -> Self {
        match cfg!(target_arch = "aarch64") {
            true => Self::Arm64,
            false => Self::Amd64,
        }
    }

    const fn debian(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    const fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// What the names of its binutils begin with.
    const fn tools(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-linux-gnu",
            Self::Arm64 => "aarch64-linux-gnu",
        }
    }
}

/// The `ccvm` programs that make a package: one that goes into it, and one that runs here.
pub(crate) struct Programs {
    pub(crate) shipped: PathBuf,
    pub(crate) local: PathBuf,
}

pub(crate) fn main(args: &Args) -> anyhow::Result<()> {
    let arch = args.arch.unwrap_or(Arch::here());
    let local = step("build ccvm", || build(Arch::here(), &args.profile))?;
    let shipped = match arch == Arch::here() {
        true => local.clone(),
        false => step(&format!("build ccvm for {}", arch.debian()), || {
            build(arch, &args.profile)
        })?,
    };
    let package = pack(arch, &Programs { shipped, local }, Path::new(FOLDER))?;
    println!("{}", package.display());
    Ok(())
}

/// Makes a package of a program that was built for tests, to see that one can be made.
///
/// # Errors
/// When it cannot.
pub(crate) fn rehearse() -> anyhow::Result<()> {
    let dpkg = Command::new("dpkg-deb").arg("--version").output();
    if !dpkg.is_ok_and(|out| out.status.success()) {
        skip("Debian package", "dpkg-deb is not installed");
        return Ok(());
    }
    run(Command::new("cargo").args(["build", "--quiet", "--package", "ccvm"]))?;
    let built = PathBuf::from("target/debug/ccvm");
    let programs = Programs {
        shipped: built.clone(),
        local: built,
    };
    pack(
        Arch::here(),
        &programs,
        &Path::new(FOLDER).join("rehearsal"),
    )
    .map(drop)
}

/// Makes the package of `programs` in `folder`, and looks into it.
///
/// # Errors
/// When a tool is missing or fails, or the package is not what it should be.
pub(crate) fn pack(arch: Arch, programs: &Programs, folder: &Path) -> anyhow::Result<PathBuf> {
    let name = format!("ccvm_{}_{}", metadata::version(), arch.debian());
    let package = folder.join(format!("{name}.deb"));
    step("Debian package", || {
        let mut tree = Tree::new(folder.join(name))?;
        fill(&mut tree, arch, programs)?;
        let control = metadata::control(arch, tree.kib()?);
        tree.write("DEBIAN/control", &control)?;
        tree.write("DEBIAN/md5sums", &tree.md5sums()?)?;
        let mut dpkg = Command::new("dpkg-deb");
        dpkg.args(["--build", "--root-owner-group"]);
        dpkg.env("SOURCE_DATE_EPOCH", metadata::epoch()?.to_string());
        run(dpkg.arg(tree.root()).arg(&package))
    })?;
    step("look into the package", || inspect::check(&package, arch))?;
    Ok(package)
}

fn fill(tree: &mut Tree, arch: Arch, programs: &Programs) -> anyhow::Result<()> {
    tree.program("usr/bin/ccvm", &programs.shipped)?;
    strip(arch, &tree.path("usr/bin/ccvm"))?;
    for (shell, path) in [
        ("bash", "usr/share/bash-completion/completions/ccvm"),
        ("fish", "usr/share/fish/vendor_completions.d/ccvm.fish"),
        ("zsh", "usr/share/zsh/vendor-completions/_ccvm"),
    ] {
        let script = output(Command::new(&programs.local).args(["completions", shell]))?;
        tree.write(path, &script)?;
    }
    let pages = tree.folder("usr/share/man/man1")?;
    run(Command::new(&programs.local).arg("man").arg(&pages))?;
    tree.compress("usr/share/man/man1")?;
    let unit = include_str!("../package/ccvm@.service");
    tree.write("usr/lib/systemd/system/ccvm@.service", unit)?;
    tree.folder("etc/ccvm")?;
    let doc = "usr/share/doc/ccvm";
    tree.copy_texts(Path::new("docs"), &format!("{doc}/docs"))?;
    let example = include_str!("../package/example.toml");
    tree.write(&format!("{doc}/examples/vm.toml"), example)?;
    let copyright = include_str!("../package/copyright");
    tree.write(&format!("{doc}/copyright"), copyright)?;
    tree.write(&format!("{doc}/crates.txt"), &metadata::crates(arch)?)?;
    tree.write(&format!("{doc}/changelog"), &metadata::changelog()?)?;
    tree.compress_file(&format!("{doc}/changelog"))
}

/// Builds ccvm; returns the program.
fn build(arch: Arch, profile: &str) -> anyhow::Result<PathBuf> {
    let target = arch.target();
    // The tests of VMs build the same program in the same place.
    let folder = match arch == Arch::here() {
        true => "target",
        false => "target/cross",
    };
    let variable = target.to_uppercase().replace('-', "_");
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--quiet", "--package", "ccvm"]);
    cargo.args(["--target", target, "--profile", profile]);
    cargo.env("CARGO_TARGET_DIR", folder).env(
        format!("CARGO_TARGET_{variable}_RUSTFLAGS"),
        "-Ctarget-feature=+crt-static",
    );
    if arch != Arch::here() {
        let linker = format!("{}-gcc", arch.tools());
        cargo.env(format!("CARGO_TARGET_{variable}_LINKER"), linker);
    }
    run(&mut cargo)?;
    let profile = match profile {
        "dev" => "debug",
        other => other,
    };
    Ok(Path::new(folder).join(target).join(profile).join("ccvm"))
}

fn strip(arch: Arch, program: &Path) -> anyhow::Result<()> {
    let tool = match arch == Arch::here() {
        true => "strip".to_owned(),
        false => format!("{}-strip", arch.tools()),
    };
    run(Command::new(tool).arg("--strip-all").arg(program))
}

/// What a command prints.
///
/// # Errors
/// When it cannot be started or does not succeed, or prints no text.
fn output(command: &mut Command) -> anyhow::Result<String> {
    let shown = format!("{command:?}");
    let output = command
        .output()
        .with_context(|| format!("cannot start {shown}"))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("{shown}: {}\n{complaint}", output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("{shown} prints no text"))
}
