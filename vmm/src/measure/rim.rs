//! The Realm initial measurement (RIM) of an RMM: a chain of digests over descriptors.
//!
//! ```text
//! REALM_CREATE ─► RTT_INIT_RIPAS ... ─► DATA_CREATE ... ─► REC_CREATE ─► the RIM
//! rim = H(RmiRealmParams)               rim = H(descriptor with the rim before)
//! ```
//!
//! Layouts are those of RMM 1.0 (Arm DEN0137, "Realm initial measurement"), checked against TF-RMM
//! v0.5.0, `lib/measurement/src/rim.c`. RMM 2.0 measures the same without `RTT_INIT_RIPAS`
//! (`app/attestation/rmm_stub/src/rim.c`, July 2026). The personalization value is in no descriptor.

use iommu::{Gpa, PAGE_SIZE, PageRange};

use super::digest::{Digest, HashAlgorithm};
use crate::boot::aarch64::Entry;
use crate::boot::segment::Page;

/// Bytes of a descriptor, whatever its kind.
const DESCRIPTOR: usize = 0x100;

/// `RmiRealmFlags`, `RmiRecCreateFlags` and `RmiDataFlags`.
mod flag {
    pub(super) const LPA2: u64 = 1;
    pub(super) const SVE: u64 = 1 << 1;
    pub(super) const PMU: u64 = 1 << 2;
    pub(super) const RUNNABLE: u64 = 1;
    pub(super) const MEASURE: u64 = 1;
}

/// Whether addresses have more than 48 bits (`FEAT_LPA2`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lpa2 {
    /// They have not.
    Off,
    /// They may.
    On,
}

/// What of `RmiRealmParams` is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RealmParameters {
    /// The algorithm of every measurement.
    pub hash: HashAlgorithm,
    /// Width of the guest-physical space.
    pub ipa_bits: u8,
    /// Whether addresses have more than 48 bits.
    pub lpa2: Lpa2,
    /// The vector length in quadwords less one, of a Realm with SVE.
    pub sve_vl: Option<u8>,
    /// `ID_AA64DFR0_EL1.BRPs`: how many breakpoints, less one.
    pub breakpoints: u8,
    /// `ID_AA64DFR0_EL1.WRPs`: how many watchpoints, less one.
    pub watchpoints: u8,
    /// How many counters, of a Realm with a PMU.
    pub pmu_counters: Option<u8>,
}

impl RealmParameters {
    fn flags(&self) -> u64 {
        let lpa2 = match self.lpa2 {
            Lpa2::Off => 0,
            Lpa2::On => flag::LPA2,
        };
        let sve = self.sve_vl.map_or(0, |_| flag::SVE);
        let pmu = self.pmu_counters.map_or(0, |_| flag::PMU);
        lpa2 | sve | pmu
    }

    /// The page, zero where nothing is measured.
    fn to_page(self) -> Page {
        let mut page = [0; 4096];
        put(&mut page, 0, &self.flags().to_le_bytes());
        put(&mut page, 0x08, &[self.ipa_bits]);
        put(&mut page, 0x10, &[self.sve_vl.unwrap_or(0)]);
        put(&mut page, 0x18, &[self.breakpoints]);
        put(&mut page, 0x20, &[self.watchpoints]);
        put(&mut page, 0x28, &[self.pmu_counters.unwrap_or(0)]);
        put(&mut page, 0x30, &[self.hash as u8]);
        page
    }

    /// The sizes of translation table entries, the largest first: as Linux builds tables, with as few
    /// levels as 16 concatenated tables at the first of them allow.
    fn entry_bytes(&self) -> impl Iterator<Item = u64> + use<> {
        const PAGE_BITS: u32 = PAGE_SIZE.ilog2();
        const LEVEL_BITS: u32 = PAGE_BITS - 3;
        const CONCATENATED_BITS: u32 = 4;
        let index_bits = u32::from(self.ipa_bits).saturating_sub(PAGE_BITS);
        let beyond_first = index_bits.saturating_sub(CONCATENATED_BITS);
        let levels = beyond_first.div_ceil(LEVEL_BITS).clamp(1, 4);
        (0..levels)
            .rev()
            .map(|level| PAGE_SIZE << (LEVEL_BITS * level))
    }
}

/// `RmiRecParams` of a vCPU that runs at once, zero where nothing is measured.
fn rec_parameters(entry: Entry) -> Page {
    let mut page = [0; 4096];
    put(&mut page, 0, &flag::RUNNABLE.to_le_bytes());
    put(&mut page, 0x200, &entry.pc.raw().to_le_bytes());
    put(&mut page, 0x300, &entry.x0.raw().to_le_bytes());
    page
}

/// What the content of a page adds to the measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// The digest of the page.
    Measured(Digest),
    /// That there is a page, whatever is in it.
    Unmeasured,
}

/// A RIM in the making.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rim {
    parameters: RealmParameters,
    rim: Digest,
}

impl Rim {
    /// `RMI_REALM_CREATE`.
    #[must_use]
    pub fn new(parameters: RealmParameters) -> Self {
        Self {
            rim: parameters.hash.digest(&[&parameters.to_page()]),
            parameters,
        }
    }

    /// The measurement, as far as it has come.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.rim
    }

    /// `RMI_RTT_INIT_RIPAS` until all of `range` is RAM: a descriptor for each entry of the
    /// translation table, each as large as its alignment and the end of the range allow. RMM 1.0 only.
    pub fn init_ripas(&mut self, range: PageRange<Gpa>) {
        let mut base = range.start();
        while let Some(rest) = range.end().offset_from(base).filter(|&rest| rest != 0) {
            let fits = |&bytes: &u64| bytes <= rest && base.raw().is_multiple_of(bytes);
            let bytes = self.parameters.entry_bytes().find(fits);
            let Some(top) = base.checked_add(bytes.unwrap_or(PAGE_SIZE)) else {
                return;
            };
            self.extend(2, |descriptor| {
                put(descriptor, 0x50, &base.raw().to_le_bytes());
                put(descriptor, 0x58, &top.raw().to_le_bytes());
            });
            base = top;
        }
    }

    /// `RMI_DATA_CREATE` of the page at `ipa`.
    pub fn data_create(&mut self, ipa: Gpa, content: Content) {
        self.extend(0, |descriptor| {
            put(descriptor, 0x50, &ipa.raw().to_le_bytes());
            if let Content::Measured(digest) = content {
                put(descriptor, 0x58, &flag::MEASURE.to_le_bytes());
                put(descriptor, 0x60, digest.padded());
            }
        });
    }

    /// `RMI_REC_CREATE` of a vCPU that runs at once. One that waits for another's `CPU_ON` is not
    /// measured.
    pub fn rec_create(&mut self, entry: Entry) {
        let content = self.parameters.hash.digest(&[&rec_parameters(entry)]);
        self.extend(1, |descriptor| put(descriptor, 0x50, content.padded()));
    }

    /// Replaces the measurement by the digest of a descriptor that holds it.
    fn extend(&mut self, kind: u8, fill: impl FnOnce(&mut [u8; DESCRIPTOR])) {
        let mut descriptor = [0; DESCRIPTOR];
        put(&mut descriptor, 0, &[kind]);
        put(&mut descriptor, 0x08, &(DESCRIPTOR as u64).to_le_bytes());
        put(&mut descriptor, 0x10, self.rim.padded());
        fill(&mut descriptor);
        self.rim = self.parameters.hash.digest(&[&descriptor]);
    }
}

fn put(into: &mut [u8], at: usize, bytes: &[u8]) {
    for (byte, value) in into.iter_mut().skip(at).zip(bytes) {
        *byte = *value;
    }
}

#[cfg(test)]
mod tests;
