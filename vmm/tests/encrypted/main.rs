//! VMs whose processor encrypts their memory, from their plan to their end, on kernels that no test machine
//! has: every call that `ccvm run` makes, in order.
#![cfg(target_arch = "x86_64")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod igvm;
#[path = "../scripted/mod.rs"]
mod on_script;
mod snp;
mod tdx;

use std::io::Write;
use std::path::Path;

use on_script::{MIB, launch, of_the_vm, planned};
use scripted::{Exit, Kernel};
use tempfile::NamedTempFile;
use vmm::config::spec::BootSpec;
use vmm::plan::VmPlan;
use vmm::run::Ending;
use vmm::stats::Report;

const PAGE: u64 = 4096;
/// `KVM_SYSTEM_EVENT_SHUTDOWN`.
const SHUTDOWN: u32 = 1;

/// What the kernel, behind its setup, and the initial RAM disk below take.
const KERNEL_BYTES: usize = 0x3000;
const INITRD_BYTES: usize = 0x1_2345;
/// Where the kernel would like to be, and is.
const KERNEL: u64 = 0x100_0000;

/// A bzImage of Linux, as far as its loader looks.
fn bzimage() -> Vec<u8> {
    let mut image = vec![0; 2 * 512];
    image[0..2].copy_from_slice(b"MZ");
    image[0x1f1] = 1;
    image[0x1f4..0x1f8].copy_from_slice(&u32::try_from(KERNEL_BYTES / 16).unwrap().to_le_bytes());
    image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x20f_u16.to_le_bytes());
    image[0x211] = 1;
    image[0x22c..0x230].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes());
    image[0x230..0x234].copy_from_slice(&0x20_0000_u32.to_le_bytes());
    image[0x234] = 1;
    image[0x236] = 3;
    image[0x258..0x260].copy_from_slice(&KERNEL.to_le_bytes());
    image[0x260..0x264].copy_from_slice(&0x40_0000_u32.to_le_bytes());
    image.resize(2 * 512 + KERNEL_BYTES, 0x1f);
    image
}

fn file(content: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(content).unwrap();
    file
}

fn boot(kernel: &Path, initrd: Option<&Path>) -> BootSpec {
    BootSpec {
        kernel: kernel.to_owned(),
        initrd: initrd.map(Path::to_owned),
        cmdline: "console=ttyS0".to_owned(),
        firmware: None,
    }
}

/// Runs a VM whose first vCPU does this, and then turns it off.
fn run(kernel: &Kernel, plan: &VmPlan, boot: &BootSpec, exits: &[Exit]) -> (Ending, Report) {
    for exit in exits {
        kernel.exit(0, *exit);
    }
    kernel.exit(0, Exit::SystemEvent(SHUTDOWN));
    launch(plan, boot).unwrap().wait()
}

/// Those of `calls` that name one of these.
fn only(calls: &[String], names: &[&str]) -> Vec<String> {
    let calls = calls.iter();
    let named = calls.filter(|call| names.iter().any(|name| call.contains(name)));
    named.cloned().collect()
}

/// Makes each call of the launch of `plan` fail in turn, on hosts that `host` makes.
fn each_call_fails(host: impl Fn() -> scripted::Host, plan: &VmPlan, boot: &BootSpec) {
    const EIO: i32 = 5;
    let kernel = Kernel::start(host());
    run(&kernel, plan, boot, &[]);
    let calls = kernel.notes();
    drop(kernel);
    let first_run = calls.iter().position(|call| call.contains(" RUN")).unwrap();
    assert!(first_run > 20, "{calls:#?}");
    for (index, call) in calls.iter().enumerate().take(first_run) {
        let kernel = Kernel::start(host());
        kernel.exit(0, Exit::SystemEvent(SHUTDOWN));
        kernel.fail(index + 1, EIO);
        let error = launch(plan, boot).map(drop).unwrap_err();
        let finding = error.diagnose();
        assert!(!finding.message.is_empty(), "{call}");
        assert_eq!(kernel.open_files(), 0, "{call}: {finding}");
    }
}
