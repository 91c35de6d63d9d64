//! VMs from their plan to their end, on kernels that no test machine has: every call that `ccvm run`
//! makes, in order.
//!
//! Structures of arm64 calls are made by arm64 code only: elsewhere `qemu-aarch64-static` runs these tests.
#![cfg(target_arch = "aarch64")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../scripted/mod.rs"]
mod on_script;
mod protected;
mod realm;

use std::io::Write;

use on_script::{MIB, of_the_vm};
use tempfile::NamedTempFile;
use vmm::config::spec::BootSpec;
use vmm::launch::{LaunchError, Running};
use vmm::plan::{PlanOptions, VmPlan};

/// Where the planner puts DRAM.
const RAM: u64 = 0x4000_0000;
/// What the kernel and the initial RAM disk below take.
const KERNEL_BYTES: u64 = 3 * MIB + 0x1000;
const INITRD_BYTES: usize = 0x1_2345;

/// The boot files of a VM.
struct Files {
    kernel: NamedTempFile,
    initrd: NamedTempFile,
}

impl Files {
    fn new() -> Self {
        let mut image = vec![0x1f; 4096];
        image[..56].fill(0);
        image[16..24].copy_from_slice(&KERNEL_BYTES.to_le_bytes());
        image[56..60].copy_from_slice(b"ARM\x64");
        image[60..64].copy_from_slice(&64_u32.to_le_bytes());
        let (mut kernel, mut initrd) = (file(), file());
        kernel.write_all(&image).unwrap();
        initrd.write_all(&[0x77; INITRD_BYTES]).unwrap();
        Self { kernel, initrd }
    }

    fn boot(&self) -> BootSpec {
        BootSpec {
            kernel: self.kernel.path().to_owned(),
            initrd: Some(self.initrd.path().to_owned()),
            cmdline: "console=ttyS0".to_owned(),
            firmware: None,
        }
    }
}

fn file() -> NamedTempFile {
    NamedTempFile::new().unwrap()
}

fn planned(facts: &str, vcpus: u32, override_ipa_bits: Option<u8>) -> VmPlan {
    on_script::planned(facts, vcpus, PlanOptions { override_ipa_bits })
}

fn launch(plan: &VmPlan) -> Result<Running, LaunchError> {
    on_script::launch(plan, &Files::new().boot())
}
