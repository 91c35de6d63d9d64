//! The kinds of VM that are tested, and where.

use crate::arch::Arch;

/// The kinds of VM under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Platform {
    /// A plain VM.
    None,
    /// An emulated Realm.
    Realm,
    /// A protected VM of pKVM.
    Protected,
    /// A software-protected VM.
    SwProtected,
    /// A Realm of Arm CCA.
    Cca,
    /// A guest of AMD SEV-SNP.
    Snp,
    /// A trust domain of Intel TDX.
    Tdx,
}

impl Platform {
    /// Those of which a test of every emulated device is made on an architecture: plain, and one that keeps
    /// pages private where there is one.
    #[must_use]
    pub const fn of(arch: Arch) -> &'static [Self] {
        match arch {
            Arch::Arm64 => &[Self::None, Self::Realm],
            Arch::X86_64 => &[Self::None],
        }
    }

    /// The one that asks most of ccvm on an architecture.
    #[must_use]
    pub const fn hardest(arch: Arch) -> Self {
        match arch {
            Arch::Arm64 => Self::Realm,
            Arch::X86_64 => Self::None,
        }
    }

    /// The one with pages that change their state: on x86_64, only on a host of our own kernel.
    #[must_use]
    pub const fn converting(arch: Arch) -> Self {
        match arch {
            Arch::Arm64 => Self::Realm,
            Arch::X86_64 => Self::SwProtected,
        }
    }

    /// The name in a config.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Realm => "emulated-realm",
            Self::Protected => "pkvm",
            Self::SwProtected => "sw-protected",
            Self::Cca => "cca",
            Self::Snp => "snp",
            Self::Tdx => "tdx",
        }
    }
}
