//! One assigned function: its regions, through checked accesses.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use hostcall::gate;
use vfio_ioctls::VfioDevice;
use vm_memory::FileOffset;
use vm_memory::mmap::{MmapRegion, MmapRegionError};

use crate::interrupt::Enabled;
use crate::region::{Region, RegionIndex, Span};

/// Why an access to a region failed.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// It leaves the region.
    #[error("{function}: {bytes} bytes at {offset:#x} are not in {region}")]
    Outside {
        /// The function.
        function: String,
        /// The region.
        region: RegionIndex,
        /// First byte of the access.
        offset: u64,
        /// Its length.
        bytes: u64,
    },
    /// The kernel refused it.
    #[error("{function}: {call} of {bytes} bytes at {offset:#x} of {region}")]
    Call {
        /// The function.
        function: String,
        /// `pread`, `pwrite` or `mmap`.
        call: &'static str,
        /// The region.
        region: RegionIndex,
        /// First byte of the access.
        offset: u64,
        /// Its length.
        bytes: u64,
        /// The reason.
        #[source]
        source: io::Error,
    },
}

/// A PCI function that VFIO has handed to this process.
pub struct Function {
    // Dropped first: the group can leave its container only when no descriptor is open.
    pub(crate) file: Arc<File>,
    pub(crate) device: VfioDevice,
    pub(crate) name: String,
    pub(crate) bars: [Region; 6],
    pub(crate) config: Region,
    pub(crate) enabled: Mutex<Enabled>,
}

impl Function {
    /// The function's address on the host, as sysfs spells it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The region with this index.
    #[must_use]
    pub fn region(&self, index: RegionIndex) -> &Region {
        usize::try_from(index.number())
            .ok()
            .and_then(|number| self.bars.get(number))
            .unwrap_or(&self.config)
    }

    /// Fills `data` from `offset` of a region.
    ///
    /// # Errors
    /// When the access leaves the region, or the function does not answer (memory decoding off).
    pub fn read(
        &self,
        region: RegionIndex,
        offset: u64,
        data: &mut [u8],
    ) -> Result<(), AccessError> {
        let at = self.locate(region, offset, data.len())?;
        let result = gate("pread").and_then(|()| self.file.read_exact_at(data, at));
        result.map_err(|source| self.failed("pread", region, (offset, data.len()), source))
    }

    /// Writes `data` to `offset` of a region.
    ///
    /// # Errors
    /// When the access leaves the region, or the function does not take it.
    pub fn write(&self, region: RegionIndex, offset: u64, data: &[u8]) -> Result<(), AccessError> {
        let at = self.locate(region, offset, data.len())?;
        let result = gate("pwrite").and_then(|()| self.file.write_all_at(data, at));
        result.map_err(|source| self.failed("pwrite", region, (offset, data.len()), source))
    }

    /// Maps `span` of a region into this process, readable and writable, until it is dropped.
    ///
    /// Drop every mapping before the function: a group stays busy while one is left.
    ///
    /// # Errors
    /// When `span` is not in a mappable part, or the kernel refuses (not page-aligned).
    pub fn map(&self, region: RegionIndex, span: Span) -> Result<MmapRegion, AccessError> {
        let bytes = usize::try_from(span.bytes()).unwrap_or(usize::MAX);
        let at = self.locate(region, span.start, bytes)?;
        if !self.region(region).can_map(span) {
            return Err(self.outside(region, span.start, bytes));
        }
        let offset = FileOffset::from_arc(Arc::clone(&self.file), at);
        let mapped = gate("mmap").and_then(|()| {
            MmapRegion::from_file(offset, bytes).map_err(|error| match error {
                MmapRegionError::Mmap(source) => source,
                other => io::Error::other(other),
            })
        });
        mapped.map_err(|source| self.failed("mmap", region, (span.start, bytes), source))
    }

    fn locate(&self, region: RegionIndex, offset: u64, bytes: usize) -> Result<u64, AccessError> {
        self.region(region)
            .file_offset(offset, bytes)
            .ok_or_else(|| self.outside(region, offset, bytes))
    }

    fn outside(&self, region: RegionIndex, offset: u64, bytes: usize) -> AccessError {
        AccessError::Outside {
            function: self.name.clone(),
            region,
            offset,
            bytes: bytes as u64,
        }
    }

    fn failed(
        &self,
        call: &'static str,
        region: RegionIndex,
        (offset, bytes): (u64, usize),
        source: io::Error,
    ) -> AccessError {
        AccessError::Call {
            function: self.name.clone(),
            call,
            region,
            offset,
            bytes: bytes as u64,
            source,
        }
    }
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Function").field(&self.name).finish()
    }
}
