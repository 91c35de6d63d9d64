//! `vmtest`: what `cargo xtask` starts for images, VM tests, the demo and the figures.
#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a task reports to the person or the CI job that started it"
)]

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum as _};
use vmtest::arch::Arch;
use vmtest::bench::{Figures, Peer};
use vmtest::machine::HostKernel;
use vmtest::prepare::{
    HostKind, Install, Profile, Refresh, cache, own_kernel, peer_for_arm64, require,
    require_user_emulator,
};
use vmtest::report::Tally;
use vmtest::{on_host, runner, vm};

#[derive(Parser)]
#[command(bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    task: Task,
    /// Name what is missing on this machine and do not install it
    #[arg(long, global = true)]
    no_install: bool,
}

#[derive(Subcommand)]
enum Task {
    /// Prepare what the VM tests need: packages, kernel, cross-built ccvm
    Images {
        /// Look for a newer kernel
        #[arg(long)]
        refresh: bool,
        /// For this architecture only
        #[arg(long)]
        arch: Option<Arch>,
    },
    /// Run the VM tests
    Test(TestArgs),
    /// Boot an unmodified Debian kernel as a Realm with an assigned device
    Demo {
        /// On an arm64 machine with KVM and VFIO: use this PCI device of it, a disk or a network
        /// card, in place of the testbed's
        #[arg(long, value_name = "ADDRESS")]
        device: Option<String>,
    },
    /// Print the figures that the project promises
    Bench {
        /// Only these; all of them otherwise
        #[arg(value_enum)]
        figures: Vec<Figures>,
        /// In this architecture's testbed only; x86_64 has figures of starts and conversions
        #[arg(long)]
        arch: Option<Arch>,
        /// Only what a start costs on x86_64, beside another VMM: cloud-hypervisor, firecracker or
        /// kvmtool, and its program, which must need no shared libraries
        #[arg(long, value_name = "NAME=FILE", conflicts_with_all = ["figures", "arch"])]
        peer: Vec<Peer>,
    },
    /// Boot the testbed with this tree's ccvm and run a command in it, or each line of standard input
    Vm(VmArgs),
}

#[derive(clap::Args)]
struct VmArgs {
    /// The architecture of the emulated host
    #[arg(long, default_value = "arm64")]
    arch: Arch,
    /// Boot the host's kernel that this project builds, in place of the distribution's
    #[arg(long)]
    own_kernel: bool,
    /// Let the host run as pKVM (arm64)
    #[arg(long, conflicts_with = "own_kernel")]
    pkvm: bool,
    /// Have a copy of this file in the host's folder /ccvm
    #[arg(long, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// How long a command may take, in seconds
    #[arg(long, default_value_t = 300)]
    seconds: u64,
    /// Build ccvm as users run it, without the assertions
    #[arg(long)]
    release: bool,
    /// The command, for the host's shell
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

#[derive(clap::Args)]
struct TestArgs {
    /// Run the tests of this architecture's testbed only
    #[arg(long, conflicts_with = "on_host")]
    arch: Option<Arch>,
    /// Run the tests of emulated hosts with this kernel only; may be given several times
    #[arg(long, conflicts_with_all = ["on_host", "report"])]
    host_kernel: Vec<runner::Group>,
    /// Run only the tests whose name contains this
    #[arg(long)]
    filter: Option<String>,
    /// Show the guests' consoles
    #[arg(long)]
    show_console: bool,
    /// Write a report as text and JSON into this folder
    #[arg(long)]
    report: Option<PathBuf>,
    /// Let this machine be the host
    #[arg(long)]
    on_host: bool,
    /// With --on-host: a PCI device that the tests may take from its driver
    #[arg(long, requires = "on_host")]
    device: Vec<String>,
    /// With --on-host: a disk among the devices whose content the tests may destroy
    #[arg(long, requires = "on_host")]
    scratch: Vec<String>,
}

fn main() -> ExitCode {
    let Cli { task, no_install } = Cli::parse();
    let install = if no_install {
        Install::Forbidden
    } else {
        Install::Allowed
    };
    let outcome = match task {
        Task::Images { refresh, arch } => images(install, refresh, arch),
        Task::Test(args) => test(install, &args),
        Task::Demo { device } => demo(install, device.as_deref()),
        Task::Bench { peer, .. } if !peer.is_empty() => peers(install, &peer),
        Task::Bench { figures, arch, .. } => bench(install, &figures, &architectures(arch)),
        Task::Vm(args) => in_vm(install, &args),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// One architecture, or all.
fn architectures(chosen: Option<Arch>) -> Vec<Arch> {
    chosen.map_or_else(|| Arch::ALL.to_vec(), |arch| vec![arch])
}

fn images(install: Install, refresh: bool, arch: Option<Arch>) -> anyhow::Result<ExitCode> {
    let refresh = if refresh {
        Refresh::Always
    } else {
        Refresh::WhenMissing
    };
    for arch in architectures(arch) {
        if arch == Arch::Arm64 {
            require_user_emulator(install)?;
        }
        let required = require(HostKind::Testbed, arch, install, refresh)?;
        let prepared = required.build(Profile::Testbed)?;
        let own = own_kernel(install, arch, &prepared.guest.version)?;
        println!("{arch}");
        println!("kernel   {}", prepared.guest.kernel.display());
        println!("modules  {}", prepared.guest.modules.display());
        println!("busybox  {}", prepared.guest.busybox.display());
        println!("own      {}", own.display());
        println!("ccvm     {}", prepared.binaries.ccvm.display());
    }
    Ok(ExitCode::SUCCESS)
}

fn in_vm(install: Install, args: &VmArgs) -> anyhow::Result<ExitCode> {
    let required = require(HostKind::Testbed, args.arch, install, Refresh::WhenMissing)?;
    let prepared = required.build(if args.release {
        Profile::Release
    } else {
        Profile::Testbed
    })?;
    let kernel = if args.own_kernel {
        HostKernel::Own(own_kernel(install, args.arch, &prepared.guest.version)?)
    } else if args.pkvm {
        HostKernel::Protected
    } else {
        HostKernel::Distribution
    };
    let session = vm::Session {
        kernel,
        files: &args.file,
        script: (!args.command.is_empty()).then(|| args.command.join(" ")),
        limit: Duration::from_secs(args.seconds),
    };
    let status = vm::run(&prepared, session)?;
    Ok(u8::try_from(status).map_or(ExitCode::FAILURE, ExitCode::from))
}

fn demo(install: Install, device: Option<&str>) -> anyhow::Result<ExitCode> {
    let kind = if device.is_some() {
        HostKind::Local
    } else {
        HostKind::Testbed
    };
    if device.is_none() && cfg!(target_arch = "aarch64") && Path::new("/dev/kvm").exists() {
        eprintln!("--device ADDRESS runs the demo on this machine, with that device");
    }
    if kind == HostKind::Local {
        on_host::require(Arch::Arm64)?;
    }
    let required = require(kind, Arch::Arm64, install, Refresh::WhenMissing)?;
    let prepared = required.build(Profile::Testbed)?;
    match device {
        Some(address) => vmtest::demo::on_this_machine(&prepared, address)?,
        None => vmtest::demo::in_testbed(&prepared)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn bench(install: Install, chosen: &[Figures], on: &[Arch]) -> anyhow::Result<ExitCode> {
    let chosen = match chosen {
        [] => Figures::value_variants(),
        some => some,
    };
    if chosen.contains(&Figures::Plan) {
        vmtest::bench::of_this_machine()?;
    }
    let of_testbed = chosen.iter().any(|figures| figures.are_of_testbed());
    if of_testbed && on.contains(&Arch::Arm64) {
        let required = require(
            HostKind::Testbed,
            Arch::Arm64,
            install,
            Refresh::WhenMissing,
        )?;
        let mut prepared = required.build(Profile::Release)?;
        if chosen.iter().any(|figures| figures.have_a_peer()) {
            let peer = peer_for_arm64(&cache()?)?;
            prepared.programs = prepared.programs.with(&peer);
        }
        vmtest::bench::in_testbed(&prepared, chosen)?;
    }
    let arch = Arch::X86_64;
    if chosen.iter().any(|figures| figures.are_of_platforms()) && on.contains(&arch) {
        let required = require(HostKind::Testbed, arch, install, Refresh::WhenMissing)?;
        let prepared = required.build(Profile::Release)?;
        let kernel = own_kernel(install, arch, &prepared.guest.version)?;
        vmtest::bench::on_x86_64(&prepared, HostKernel::Own(kernel), chosen)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn peers(install: Install, peers: &[Peer]) -> anyhow::Result<ExitCode> {
    let arch = Arch::X86_64;
    let required = require(HostKind::Testbed, arch, install, Refresh::WhenMissing)?;
    vmtest::bench::peers(&required.build(Profile::Release)?, peers)?;
    Ok(ExitCode::SUCCESS)
}

fn test(install: Install, args: &TestArgs) -> anyhow::Result<ExitCode> {
    let by_default = || args.on_host.then(|| PathBuf::from("ccvm-report"));
    let options = runner::Options {
        groups: args.host_kernel.clone(),
        filter: args.filter.clone(),
        show_console: args.show_console,
        report: args.report.clone().or_else(by_default),
        skips_fail: env::var("CI").is_ok_and(|ci| ci == "true"),
    };
    let tally = if args.on_host {
        let arch = Arch::of_this_machine().context("there are no tests for this machine")?;
        on_host::require(arch)?;
        tests_of(arch, HostKind::Local, install, args, &options)?
    } else {
        let mut tally = Tally::default();
        for arch in architectures(args.arch) {
            if runner::has_tests(arch, &options) {
                println!("==> VM tests on {arch}");
                tally += tests_of(arch, HostKind::Testbed, install, args, &options)?;
            }
        }
        tally
    };
    println!("{tally}");
    Ok(if tally.failed > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn tests_of(
    arch: Arch,
    kind: HostKind,
    install: Install,
    args: &TestArgs,
    options: &runner::Options,
) -> anyhow::Result<Tally> {
    let required = match require(kind, arch, install, Refresh::WhenMissing) {
        Ok(required) => required,
        Err(error) => return Ok(runner::skip_all(arch, &format!("{error:#}"), options)),
    };
    let prepared = required.build(Profile::Testbed)?;
    match kind {
        HostKind::Testbed => runner::in_testbed(&prepared, install, options),
        HostKind::Local => runner::on_this_machine(&prepared, options, &args.device, &args.scratch),
    }
}
