//! Why a VM was not launched, though its plan and its files are good.

use std::io;

use devices::bus::BusOverlap;
use devices::ports::PortOverlap;
use kvm::ram::{PopulateError, RamError};

use crate::assign::AttachError;
use crate::boot::aarch64::TreeError;
use crate::causes::chain;
use crate::control::ControlError;
use crate::convert::PagesError;
use crate::diagnostic::{Code, Diagnostic};
use crate::emulate::EmulateError;
use crate::platform::cca;
use crate::platform::emulated_realm::MeasureError;
use crate::run::EventLoopError;

use super::arch::LoadError;

/// What went wrong on the way to a running VM.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// KVM refuses something.
    #[error(transparent)]
    Kvm(#[from] kvm::Error),
    /// The host makes no Realms, or none any more.
    #[error("the host makes no Realms: {0}")]
    Realm(#[from] kvm::cca::RealmLack),
    /// KVM or the RMM refuse a Realm something.
    #[error(transparent)]
    RealmRefused(#[from] cca::Refused),
    /// Guest memory cannot be had.
    #[error(transparent)]
    Pages(#[from] PagesError),
    /// Guest memory cannot be filled in advance.
    #[error("guest memory cannot be filled in advance")]
    Populate(#[from] PopulateError),
    /// Memory cannot come from the nodes that it is to come from.
    #[error("memory cannot come from the NUMA nodes of the config: set_mempolicy failed")]
    Nodes(#[source] io::Error),
    /// The boot files cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// There is no device tree.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// Two devices would answer at one address.
    #[error(transparent)]
    Bus(#[from] BusOverlap),
    /// Two devices would answer at one I/O port.
    #[error(transparent)]
    Ports(#[from] PortOverlap),
    /// A device of the host cannot be assigned.
    #[error("{0}")]
    Device(Box<Diagnostic>),
    /// The plan is one for another architecture.
    #[error("the plan is for a machine of another architecture")]
    OtherMachine,
    /// A boot file was placed as one of another kind: a bug.
    #[error("a boot file is placed as one of another kind")]
    Misplaced,
    /// The kernel gives no randomness, no threads, no files.
    #[error("cannot {operation}")]
    Host {
        /// What for.
        operation: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// What is to be loaded has no addresses: a bug in its placement.
    #[error("a boot file is nowhere in guest memory")]
    Segment(#[source] iommu::addr::RangeError),
    /// What was loaded is not what an SNP guest can be made of: a bug, too.
    #[cfg(target_arch = "x86_64")]
    #[error(transparent)]
    Layout(#[from] crate::platform::snp::LayoutError),
    /// The firmware does not fit any more: a bug in what was checked before.
    #[error("the firmware {0}")]
    Firmware(#[from] crate::boot::firmware::fit::Misfit),
    /// The processors are more than a guest can be told of.
    #[cfg(target_arch = "x86_64")]
    #[error(transparent)]
    CpuidPage(#[from] kvm::snp::TooManyLeaves),
    /// What was loaded cannot be measured: a bug, too.
    #[error("cannot measure what was loaded")]
    Measure(#[source] MeasureError),
    /// KVM names a processor otherwise than Linux has so far.
    #[error("KVM gives vCPU {index} the affinity {found:#x}, which the device tree does not name")]
    Affinity {
        /// The vCPU.
        index: u32,
        /// What KVM gives it.
        found: u64,
    },
    /// The event loop cannot be set up.
    #[error(transparent)]
    EventLoop(#[from] EventLoopError),
    /// Nobody would answer at the control socket.
    #[error(transparent)]
    Control(#[from] ControlError),
}

impl LaunchError {
    /// For `map_err`: the host did not let us do `operation`.
    pub(crate) fn host(operation: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Host { operation, source }
    }

    /// The finding for the operator.
    #[must_use]
    pub fn diagnose(&self) -> Diagnostic {
        if let Self::Device(finding) = self {
            return (**finding).clone();
        }
        let (code, help) = match self {
            Self::Kvm(kvm::Error::Open(error)) if denied(error) => (
                Code::KvmDenied,
                Some("run as root, or as a member of the group that owns /dev/kvm"),
            ),
            Self::Kvm(kvm::Error::SecurityProcessor(error)) if denied(error) => (
                Code::KvmDenied,
                Some("run as root, or as a member of the group that owns /dev/sev"),
            ),
            Self::Kvm(kvm::Error::SecurityProcessor(_)) => (
                Code::KvmRefused,
                Some(
                    "load the ccp module, and see the kernel's log for why the security processor is not there",
                ),
            ),
            Self::Pages(PagesError::Ram(RamError::Pool { .. })) => (
                Code::HugePagesMissing,
                Some("as root, write more to nr_hugepages below /sys/kernel/mm/hugepages"),
            ),
            Self::Populate(PopulateError::Unknown(_)) => (
                Code::NotPrefaulted,
                Some("it takes Linux 5.14: leave out `prefault` and `huge-pages`"),
            ),
            Self::Populate(_) => (
                Code::NotPrefaulted,
                Some("give the VM less memory, other NUMA nodes, or a control group with more"),
            ),
            Self::Nodes(_) => (
                Code::NumaNodeAbsent,
                Some("name nodes with memory that the control group of ccvm allows"),
            ),
            Self::Pages(_) | Self::Kvm(kvm::Error::Memory { .. }) => (
                Code::NoHostMemory,
                Some("give the VM less memory, or see vm.overcommit_memory and ulimit -v"),
            ),
            Self::Load(_) => (Code::KernelUnreadable, None),
            Self::Realm(kvm::cca::RealmLack::Width(_)) => (
                Code::KvmRefused,
                Some("give the VM less memory, or another width: --override-ipa-bits"),
            ),
            Self::RealmRefused(_) => (
                Code::KvmRefused,
                Some(
                    "the kernel's log says what the RMM refused; Linux is known to start in a Realm of \
                     40 address bits: --override-ipa-bits 40",
                ),
            ),
            _ => (Code::KvmRefused, None),
        };
        let finding = Diagnostic::error(code, chain(self));
        match help {
            Some(help) => finding.with_help(help),
            None => finding,
        }
    }
}

impl From<Diagnostic> for LaunchError {
    fn from(finding: Diagnostic) -> Self {
        Self::Device(Box::new(finding))
    }
}

impl From<EmulateError> for LaunchError {
    fn from(error: EmulateError) -> Self {
        Diagnostic::from(error).into()
    }
}

impl From<AttachError> for LaunchError {
    fn from(error: AttachError) -> Self {
        Diagnostic::from(error).into()
    }
}

fn denied(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}
