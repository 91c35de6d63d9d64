//! What an arm64 guest starts from: its segments, and how its boot processor is entered.
//!
//! All of it follows from the plan and the boot files, so that a launch measurement can be foretold
//! without a host.

use devices::pci::Bdf;
use iommu::addr::RangeError;
use iommu::{Gpa, PageRange};

use super::fdt::{self, Board, Chosen, PsciConduit, SEED_BYTES};
use super::placement::FDT_BYTES;
use super::{Image, Placement};
use crate::boot::BootFiles;
use crate::boot::initrd::Initrd;
use crate::boot::segment::{Segment, SegmentKind};
use crate::plan::{self, VmPlan};
use crate::platform::Platform;

/// Why there is no device tree.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The plan is one for another architecture.
    #[error("the plan has no place for the devices of an arm64 VM")]
    OtherMachine,
    /// A string cannot be written.
    #[error("cannot write the device tree")]
    Write(#[source] vm_fdt::Error),
    /// It is larger than a kernel takes it.
    #[error("the device tree has {bytes} bytes, and a kernel takes {FDT_BYTES} at most")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
}

/// Randomness for the guest, from its host.
#[derive(Debug, Clone, Copy)]
pub enum Seed<'a> {
    /// None: what is measured can be foretold.
    None,
    /// Some, which nobody can foretell.
    Random(&'a [u8; SEED_BYTES]),
}

/// How the boot processor is entered; the others wait for PSCI `CPU_ON`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its program counter.
    pub pc: Gpa,
    /// What x0 holds, the address of the device tree; x1 to x7 hold zero.
    pub x0: Gpa,
}

/// A plan with files that fit it.
#[derive(Debug, Clone, Copy)]
pub struct Program<'a> {
    plan: &'a VmPlan,
    files: &'a BootFiles<Image>,
    placement: Placement,
}

impl<'a> Program<'a> {
    /// The files of `placement`, in the VM of `plan`.
    #[must_use]
    pub const fn new(plan: &'a VmPlan, files: &'a BootFiles<Image>, placement: Placement) -> Self {
        Self {
            plan,
            files,
            placement,
        }
    }

    /// The guest's memory, ascending and disjoint.
    #[must_use]
    pub fn dram(&self) -> &'a [PageRange<Gpa>] {
        self.plan.dram()
    }

    /// How the boot processor is entered.
    #[must_use]
    pub const fn entry(&self) -> Entry {
        Entry {
            pc: self.placement.kernel,
            x0: self.placement.fdt,
        }
    }

    /// The device tree.
    ///
    /// # Errors
    /// When the plan is for another architecture, or the tree is too large.
    pub fn device_tree(&self, seed: Seed<'_>) -> Result<Vec<u8>, TreeError> {
        let affinities: Vec<u64> = (0..self.plan.vcpus()).map(affinity).collect();
        let devices = self.plan.devices().iter();
        let endpoints: Vec<Bdf> = devices.map(|device| device.guest).collect();
        let iommu = self.plan.iommu().map(|iommu| fdt::Iommu {
            function: iommu.guest,
            endpoints: &endpoints,
        });
        let plan::Board::Arm(mmio) = self.plan.board() else {
            return Err(TreeError::OtherMachine);
        };
        let board = Board {
            dram: self.plan.dram(),
            mmio,
            pci_windows: self.plan.pci_windows(),
            affinities: &affinities,
            iommu,
            psci: conduit(self.plan.platform()),
        };
        let initrd = self.files.initrd.as_ref().map(Initrd::bytes);
        let chosen = Chosen {
            cmdline: &self.files.cmdline,
            initrd: self.placement.initrd.zip(initrd),
            seed: match seed {
                Seed::None => None,
                Seed::Random(seed) => Some(seed),
            },
        };
        let tree = fdt::write(&board, &chosen).map_err(TreeError::Write)?;
        match tree.len() {
            bytes if bytes as u64 > FDT_BYTES => Err(TreeError::TooLarge { bytes }),
            _ => Ok(tree),
        }
    }

    /// Everything that is in the guest's memory when it starts, by ascending addresses.
    ///
    /// # Errors
    /// When a segment reaches beyond the last address: a bug in its placement.
    pub fn segments(&self, tree: &'a [u8]) -> Result<Vec<Segment<'a>>, RangeError> {
        let kernel = &self.files.kernel;
        let mut segments = vec![
            Segment::of_file(
                SegmentKind::Kernel,
                self.placement.kernel,
                kernel.file(),
                kernel.file_bytes(),
            )?,
            Segment::of_bytes(SegmentKind::DeviceTree, self.placement.fdt, tree)?,
        ];
        if let (Some(at), Some(initrd)) = (self.placement.initrd, &self.files.initrd) {
            let (file, bytes) = (initrd.file(), initrd.bytes());
            segments.push(Segment::of_file(SegmentKind::Initrd, at, file, bytes)?);
        }
        segments.sort_by_key(Segment::start);
        Ok(segments)
    }
}

/// The affinity bits of `MPIDR_EL1` that KVM gives the vCPU with this index: sixteen to a cluster
/// (`reset_mpidr` in `arch/arm64/kvm/sys_regs.c` of Linux).
#[must_use]
pub fn affinity(index: u32) -> u64 {
    let index = u64::from(index);
    (index & 0xf) | (index >> 4 & 0xff) << 8 | (index >> 12 & 0xff) << 16
}

/// A kernel looks for the RMM of a Realm only where it reaches PSCI by `smc`.
fn conduit(platform: Platform) -> PsciConduit {
    match platform {
        Platform::EmulatedRealm | Platform::Cca => PsciConduit::Smc,
        Platform::None | Platform::Pkvm | Platform::SwProtected | Platform::Snp | Platform::Tdx => {
            PsciConduit::Hvc
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_processors_make_a_cluster() {
        let affinities = [0, 1, 15, 16, 17, 255, 256, 4096].map(affinity);
        let expected = [0, 1, 0xf, 0x100, 0x101, 0xf0f, 0x1000, 0x1_0000];
        assert_eq!(affinities, expected);
    }
}
