//! The kinds of VM, and where each of them puts shared memory.

pub mod cca;
pub mod emulated_realm;
#[cfg(target_arch = "x86_64")]
pub mod encrypted_pages;
mod faults;
pub mod map_gpa_range;
mod page_exits;
#[cfg(target_arch = "x86_64")]
pub mod snp;
pub mod sw_protected;
#[cfg(target_arch = "x86_64")]
pub mod tdx;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use page_exits::{LastFault, PageExitError, PageExits};

/// The kind of VM. Closed set: one entry here, one file in `platform/` for each that can run.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Platform {
    /// A plain VM.
    None,
    /// An ordinary arm64 VM that looks like a Realm to a CCA-aware kernel; no confidentiality.
    EmulatedRealm,
    /// An Arm CCA Realm.
    Cca,
    /// A protected VM of pKVM.
    Pkvm,
    /// KVM's software-protected VM (x86, for development).
    SwProtected,
    /// AMD SEV-SNP.
    Snp,
    /// Intel TDX.
    Tdx,
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::EmulatedRealm => "emulated-realm",
            Self::Cca => "cca",
            Self::Pkvm => "pkvm",
            Self::SwProtected => "sw-protected",
            Self::Snp => "snp",
            Self::Tdx => "tdx",
        })
    }
}

/// How a shared page is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedAlias {
    /// By its guest-physical address with the top bit of the IPA space set.
    TopBit,
    /// By its guest-physical address.
    InPlace,
}

impl Platform {
    /// How this platform names a shared page for DMA of an untrusted (T=0) device.
    #[must_use]
    pub const fn shared_alias(self) -> SharedAlias {
        match self {
            Self::EmulatedRealm | Self::Cca => SharedAlias::TopBit,
            Self::None | Self::Pkvm | Self::SwProtected | Self::Snp | Self::Tdx => {
                SharedAlias::InPlace
            }
        }
    }

    /// How this platform names a shared page for DMA of an accepted (T=1) device, where there is such a name
    /// at all (SNP: none without a vTOM).
    #[must_use]
    pub const fn accepted_alias(self) -> SharedAlias {
        match self {
            Self::EmulatedRealm | Self::Cca | Self::Tdx => SharedAlias::TopBit,
            Self::None | Self::Pkvm | Self::SwProtected | Self::Snp => SharedAlias::InPlace,
        }
    }

    /// Where KVM is told of devices, and tells of accesses to them.
    #[must_use]
    pub const fn device_alias(self) -> SharedAlias {
        match self {
            // KVM knows a Realm, and takes the bit off first.
            Self::Cca => SharedAlias::InPlace,
            _ => self.shared_alias(),
        }
    }

    /// Whether the guest expects its memory to be protected from the host.
    #[must_use]
    pub const fn is_confidential(self) -> bool {
        !matches!(self, Self::None)
    }
}
