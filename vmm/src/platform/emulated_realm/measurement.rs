//! What was loaded before the guest ran, and what it has added since, as digests.

use std::io;

use super::config::RealmConfig;
use super::rsi::{self, Arguments, Failure, Reply};
use super::{NotPrivate, Realm, RealmMemory};
use crate::boot::segment::SegmentKind;
use crate::measure::{Digest, HashAlgorithm, InitialContent};

/// How many measurements a guest can extend.
pub(super) const EXTENSIBLE: usize = 4;

/// Why what was loaded cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// It is not where it should be.
    #[error(transparent)]
    NotPrivate(#[from] NotPrivate),
    /// The segment itself cannot be read.
    #[error("cannot read a segment")]
    Segment(#[from] io::Error),
}

/// The initial measurement and the extensible ones.
#[derive(Debug, Clone)]
pub(super) struct Measurements {
    hash: HashAlgorithm,
    initial: Digest,
    extensible: [Digest; EXTENSIBLE],
}

impl Measurements {
    /// Those of a Realm that nothing was loaded into.
    pub(super) fn new(config: &RealmConfig) -> Self {
        let hash = config.hash;
        Self {
            hash,
            initial: hash.zero(),
            extensible: [hash.zero(); EXTENSIBLE],
        }
    }

    pub(super) fn initial(&self) -> &Digest {
        &self.initial
    }

    pub(super) fn extensible(&self) -> &[Digest; EXTENSIBLE] {
        &self.extensible
    }

    /// The measurement with this index: 0 is the initial one.
    fn at(&self, index: u64) -> Option<&Digest> {
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
    /// Measures what was loaded, as an RMM of version 1.0 does, before the first vCPU runs.
    ///
    /// The kernel and the initial RAM disk are measured as they are in memory. The device tree is
    /// measured as `content` has it: the one in memory has random numbers that nobody could foretell.
    ///
    /// # Errors
    /// When a page of it is not private memory, or the device tree cannot be read.
    pub fn measure(&self, content: &InitialContent<'_>) -> Result<(), MeasureError> {
        let parameters = self.config.parameters();
        let initial = content.realm_initial_measurement(parameters, |segment, at, page| {
            match segment.kind() {
                SegmentKind::DeviceTree => segment.read_page(at, page)?,
                SegmentKind::Kernel
                | SegmentKind::Initrd
                | SegmentKind::Igvm
                | SegmentKind::Firmware
                | SegmentKind::CommandLine
                | SegmentKind::BootData => self.memory.read_private(at, page)?,
            }
            Ok::<_, MeasureError>(())
        })?;
        self.measurements().initial = initial;
        Ok(())
    }

    /// x1: the index; returns the digest in x1 to x8.
    pub(super) fn measurement_read(&self, arguments: &Arguments) -> Reply {
        match self.measurements().at(arguments[0]) {
            Some(measurement) => Reply::success(rsi::registers_of::<8>(measurement.padded())),
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
