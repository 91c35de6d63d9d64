//! Why a VM was not launched, though its plan and its files are good.

use std::io;

use devices::bus::BusOverlap;

use crate::assign::AttachError;
use crate::boot::aarch64::LoadError;
use crate::convert::PagesError;
use crate::diagnostic::{Code, Diagnostic};
use crate::platform::emulated_realm::NotPrivate;
use crate::run::EventLoopError;

/// What went wrong on the way to a running VM.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// KVM refuses something.
    #[error(transparent)]
    Kvm(#[from] kvm::Error),
    /// Guest memory cannot be had.
    #[error(transparent)]
    Pages(#[from] PagesError),
    /// The boot files cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The device tree cannot be written.
    #[error("cannot write the device tree")]
    Fdt(#[source] vm_fdt::Error),
    /// Two devices would answer at one address.
    #[error(transparent)]
    Bus(#[from] BusOverlap),
    /// A device of the host cannot be assigned.
    #[error("{0}")]
    Device(Box<Diagnostic>),
    /// The plan is one for another architecture.
    #[error("the plan has no place for the devices of an arm64 VM")]
    NoMmio,
    /// The kernel gives no randomness, no threads, no files.
    #[error("cannot {operation}")]
    Host {
        /// What for.
        operation: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// What was loaded makes no range of pages: a bug in its placement.
    #[error("a loaded file is not at a page")]
    Measured(#[source] iommu::addr::RangeError),
    /// What was loaded cannot be measured: a bug, too.
    #[error("cannot measure what was loaded")]
    Measure(#[source] NotPrivate),
    /// The event loop cannot be set up.
    #[error(transparent)]
    EventLoop(#[from] EventLoopError),
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
            Self::Pages(_) | Self::Kvm(kvm::Error::Memory { .. }) => (
                Code::NoHostMemory,
                Some("give the VM less memory, or see vm.overcommit_memory and ulimit -v"),
            ),
            Self::Load(_) => (Code::KernelUnreadable, None),
            _ => (Code::KvmRefused, None),
        };
        let causes = std::iter::successors(Some(self as &dyn std::error::Error), |e| e.source());
        let causes: Vec<String> = causes.map(ToString::to_string).collect();
        let finding = Diagnostic::error(code, causes.join(": "));
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

impl From<AttachError> for LaunchError {
    fn from(error: AttachError) -> Self {
        Diagnostic::from(error).into()
    }
}

fn denied(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}
