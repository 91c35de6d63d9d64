//! What was loaded before the guest ran, and what it has added since, as digests.

use iommu::{Gpa, PageRange};
use sha2::{Digest, Sha256, Sha512};

use super::config::{HashAlgorithm, RealmConfig};
use super::rsi::{self, Arguments, Failure, Reply};
use super::{NotPrivate, Realm, RealmMemory};

/// How many measurements a guest can extend.
pub(super) const EXTENSIBLE: usize = 4;

/// How many bytes of guest memory are digested at a time.
const CHUNK: usize = 16 << 10;

/// A digest: 32 or 64 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Measurement {
    bytes: [u8; 64],
    length: usize,
}

impl Measurement {
    fn new(digest: &[u8]) -> Self {
        let mut bytes = [0; 64];
        for (byte, value) in bytes.iter_mut().zip(digest) {
            *byte = *value;
        }
        Self {
            bytes,
            length: digest.len(),
        }
    }

    fn zero(hash: HashAlgorithm) -> Self {
        match hash {
            HashAlgorithm::Sha256 => Self::new(&[0; 32]),
            HashAlgorithm::Sha512 => Self::new(&[0; 64]),
        }
    }

    /// The digest itself.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or(&self.bytes)
    }
}

impl HashAlgorithm {
    /// The digest of all parts, one after the other.
    fn digest(self, parts: &[&[u8]]) -> Measurement {
        let mut hasher = Hasher::new(self);
        for part in parts {
            hasher.update(part);
        }
        hasher.finish()
    }
}

/// A digest in the making.
enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    fn new(hash: HashAlgorithm) -> Self {
        match hash {
            HashAlgorithm::Sha256 => Self::Sha256(Sha256::new()),
            HashAlgorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    fn finish(self) -> Measurement {
        match self {
            Self::Sha256(hasher) => Measurement::new(&hasher.finalize()),
            Self::Sha512(hasher) => Measurement::new(&hasher.finalize()),
        }
    }
}

/// The initial measurement and the extensible ones.
///
/// The initial one is a chain: it starts as the digest of the Realm's configuration, and each loaded
/// region replaces it by the digest of (old value, first address, length, digest of the content). An
/// RMM chains granule by granule over its own descriptors, so the value is not one that it would have.
#[derive(Debug, Clone)]
pub(super) struct Measurements {
    hash: HashAlgorithm,
    initial: Measurement,
    extensible: [Measurement; EXTENSIBLE],
}

impl Measurements {
    pub(super) fn new(config: &RealmConfig) -> Self {
        let hash = config.hash;
        let parts: [&[u8]; 2] = [&[config.ipa_bits, hash as u8], &config.personalization];
        Self {
            hash,
            initial: hash.digest(&parts),
            extensible: [Measurement::zero(hash); EXTENSIBLE],
        }
    }

    /// Adds a loaded region, whose content has this digest, to the initial measurement.
    fn load(&mut self, range: PageRange<Gpa>, content: &Measurement) {
        self.initial = self.hash.digest(&[
            self.initial.as_bytes(),
            &range.start().raw().to_le_bytes(),
            &range.bytes().to_le_bytes(),
            content.as_bytes(),
        ]);
    }

    pub(super) fn initial(&self) -> &Measurement {
        &self.initial
    }

    pub(super) fn extensible(&self) -> &[Measurement; EXTENSIBLE] {
        &self.extensible
    }

    /// The measurement with this index: 0 is the initial one.
    fn at(&self, index: u64) -> Option<&Measurement> {
        match usize::try_from(index).ok()?.checked_sub(1) {
            None => Some(&self.initial),
            Some(extensible) => self.extensible.get(extensible),
        }
    }

    /// Replaces an extensible measurement by the digest of its old value and `value`.
    fn extend(&mut self, index: u64, value: &[u8]) -> Option<()> {
        let index = usize::try_from(index).ok()?.checked_sub(1)?;
        let old = self.extensible.get_mut(index)?;
        *old = self.hash.digest(&[old.as_bytes(), value]);
        Some(())
    }
}

impl<M: RealmMemory> Realm<M> {
    /// Measures what was loaded into `range`, before the first vCPU runs.
    ///
    /// # Errors
    /// When it is not all private memory.
    pub fn measure(&self, range: PageRange<Gpa>) -> Result<(), NotPrivate> {
        let mut content = Hasher::new(self.config.hash);
        let mut chunk = [0; CHUNK];
        let mut at = range.start();
        while let Some(rest) = range.end().offset_from(at).filter(|&rest| rest != 0) {
            let length = usize::try_from(rest).map_or(CHUNK, |rest| rest.min(CHUNK));
            let part = chunk.get_mut(..length).ok_or(NotPrivate)?;
            self.memory.read_private(at, part)?;
            content.update(part);
            at = at.checked_add(length as u64).ok_or(NotPrivate)?;
        }
        self.measurements().load(range, &content.finish());
        Ok(())
    }

    /// Measures `content` as what was loaded into `range`.
    pub fn measure_content(&self, range: PageRange<Gpa>, content: &[u8]) {
        let digest = self.config.hash.digest(&[content]);
        self.measurements().load(range, &digest);
    }

    /// x1: the index; returns the digest in x1 to x8.
    pub(super) fn measurement_read(&self, arguments: &Arguments) -> Reply {
        match self.measurements().at(arguments[0]) {
            Some(measurement) => Reply::success(rsi::registers_of::<8>(&measurement.bytes)),
            None => Failure::Input.into(),
        }
    }

    /// x1: the index, 1 to 4; x2: how many bytes; x3 to x10: the bytes.
    pub(super) fn measurement_extend(&self, arguments: &Arguments) -> Reply {
        let [index, size, ref value @ ..] = *arguments;
        let value: [u8; 64] = rsi::bytes_of(value);
        let value = usize::try_from(size)
            .ok()
            .and_then(|size| value.get(..size));
        match value.and_then(|value| self.measurements().extend(index, value)) {
            Some(()) => Reply::success([]),
            None => Failure::Input.into(),
        }
    }
}
