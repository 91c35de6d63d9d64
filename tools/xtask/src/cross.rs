//! How code for arm64 is linted and tested on another machine: by rustup's compiler where it has the target,
//! else by Debian's, which brings the arm64 standard library as a package.

use std::process::Command;

/// The target that `ccvm run` is for.
pub(crate) const TARGET: &str = "aarch64-unknown-linux-gnu";

const LINKER: &str = "aarch64-linux-gnu-gcc";

/// A compiler, the linter that was built with it, and the package of that linter.
struct Toolchain {
    rustc: &'static str,
    clippy: &'static str,
    package: &'static str,
}

const TOOLCHAINS: [Toolchain; 2] = [
    Toolchain {
        rustc: "rustc",
        clippy: "cargo-clippy",
        package: "rustup component clippy",
    },
    Toolchain {
        rustc: "/usr/bin/rustc",
        clippy: "/usr/bin/cargo-clippy",
        package: "rust-web-clippy",
    },
];

/// How arm64 code can be checked here.
pub(crate) enum Lint {
    /// With clippy.
    Clippy(Command),
    /// By the compiler alone, with the package that would bring clippy.
    Check(Command, &'static str),
    /// Not at all, and why.
    Unavailable(&'static str),
}

/// The command that lints for arm64, ready for the arguments after its name.
pub(crate) fn lint() -> Lint {
    if cfg!(target_arch = "aarch64") {
        return Lint::Unavailable("the lint of this machine, which is arm64, covers it");
    }
    let Some(toolchain) = TOOLCHAINS.iter().find(|toolchain| toolchain.has_target()) else {
        return Lint::Unavailable("no compiler for arm64; 'cargo xtask images' installs one");
    };
    if answers(Command::new(toolchain.clippy).arg("--version")) {
        let mut command = toolchain.cargo(toolchain.clippy);
        command.arg("clippy");
        return Lint::Clippy(command);
    }
    let mut command = toolchain.cargo("cargo");
    command.arg("check");
    Lint::Check(command, toolchain.package)
}

fn answers(command: &mut Command) -> bool {
    command.output().is_ok_and(|out| out.status.success())
}

/// What runs programs for arm64 on another machine: Debian's `qemu-user-static`.
const EMULATOR: &str = "qemu-aarch64-static";

/// The command that tests arm64 code on another machine, ready for the arguments after `test`; or why
/// there is none.
pub(crate) fn test() -> Result<Command, &'static str> {
    if cfg!(target_arch = "aarch64") {
        return Err("they are among the tests of this machine, which is arm64");
    }
    let mut toolchains = TOOLCHAINS.iter();
    let Some(toolchain) = toolchains.find(|toolchain| toolchain.has_target()) else {
        return Err("no compiler for arm64; 'cargo xtask images' installs one");
    };
    if !answers(Command::new(LINKER).arg("--version")) {
        return Err("no linker for arm64; 'cargo xtask images' installs one");
    }
    if !answers(Command::new(EMULATOR).arg("--version")) {
        return Err("no emulator of arm64 programs; 'cargo xtask images' installs one");
    }
    let mut command = toolchain.cargo("cargo");
    command
        .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", EMULATOR)
        .args(["test", "--target", TARGET]);
    Ok(command)
}

impl Toolchain {
    fn has_target(&self) -> bool {
        let directory = Command::new(self.rustc)
            .args(["--print", "target-libdir", "--target", TARGET])
            .output();
        directory.is_ok_and(|out| {
            // rustup leaves the directory behind when a download fails.
            let path = String::from_utf8_lossy(&out.stdout).into_owned();
            let mut files = std::fs::read_dir(path.trim())
                .into_iter()
                .flatten()
                .flatten();
            files.any(|file| file.file_name().to_string_lossy().starts_with("libstd-"))
        })
    }

    /// A command with which cargo, or a tool that stands for it, works for arm64.
    fn cargo(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        // Another compiler than the host's: in one target directory each undoes the other's work.
        command
            .env("RUSTC", self.rustc)
            .env("CARGO_TARGET_DIR", "target/cross")
            .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", LINKER)
            .env(
                "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
                "-Ctarget-feature=+crt-static",
            );
        command
    }
}
