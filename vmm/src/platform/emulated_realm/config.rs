//! `RSI_REALM_CONFIG`: what the guest is told about its Realm.

use iommu::Gpa;

use super::rsi::{Arguments, Failure, Reply};
use super::{Realm, RealmMemory};
use crate::measure::HashAlgorithm;
use crate::measure::rim::{Lpa2, RealmParameters};

/// What makes this Realm this Realm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RealmConfig {
    /// Width of the guest-physical space; the top bit tells shared from protected.
    pub ipa_bits: u8,
    /// The algorithm of every measurement.
    pub hash: HashAlgorithm,
    /// The Realm personalization value: whatever the operator likes the guest and its verifier to see.
    pub personalization: [u8; 64],
}

/// Bytes of `RsiRealmConfig`: one granule.
const STRUCTURE: usize = 4096;

/// Where `RsiRealmConfig` has its fields, in bytes.
mod field {
    pub(super) const IPA_WIDTH: usize = 0;
    pub(super) const HASH_ALGORITHM: usize = 8;
    pub(super) const PERSONALIZATION: usize = 0x200;
}

impl RealmConfig {
    /// The Realm that ccvm makes: measured by SHA-256, without a personalization value.
    #[must_use]
    pub const fn new(ipa_bits: u8) -> Self {
        Self {
            ipa_bits,
            hash: HashAlgorithm::Sha256,
            personalization: [0; 64],
        }
    }

    /// What an RMM would have been asked for: its guest sees the host's processors as they are.
    #[must_use]
    pub const fn parameters(&self) -> RealmParameters {
        RealmParameters {
            hash: self.hash,
            ipa_bits: self.ipa_bits,
            lpa2: Lpa2::Off,
            sve_vl: None,
            breakpoints: 0,
            watchpoints: 0,
            pmu_counters: None,
        }
    }

    /// The structure; what has no field reads zero.
    fn to_granule(self) -> [u8; STRUCTURE] {
        let mut granule = [0; STRUCTURE];
        let mut put = |at: usize, bytes: &[u8]| {
            granule[at..at + bytes.len()].copy_from_slice(bytes);
        };
        put(field::IPA_WIDTH, &u64::from(self.ipa_bits).to_le_bytes());
        put(field::HASH_ALGORITHM, &[self.hash as u8]);
        put(field::PERSONALIZATION, &self.personalization);
        granule
    }
}

impl<M: RealmMemory> Realm<M> {
    /// x1: the granule of private memory to fill.
    pub(super) fn realm_config(&self, arguments: &Arguments) -> Reply {
        let granule = Gpa::new(arguments[0]);
        if !granule.is_page_aligned() || !self.is_protected(granule) {
            return Failure::Input.into();
        }
        match self
            .memory
            .write_private(granule, &self.config.to_granule())
        {
            Ok(()) => Reply::success([]),
            Err(_) => Failure::Input.into(),
        }
    }
}
