//! One assigned function: its regions, through checked accesses.
#![expect(unsafe_code, reason = "borrows the descriptor that vfio-ioctls owns")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use vfio_ioctls::{VfioDevice, VfioError};
use vm_memory::FileOffset;
use vm_memory::mmap::{MmapRegion, MmapRegionError};

use crate::container::Container;
use crate::interrupt::Enabled;
use crate::region::{Region, RegionIndex, Span};
use crate::sysfs::{Member, Sysfs, is_vfio};

/// Why a function could not be opened. Nothing of the host has changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no such function.
    #[error("{0}: this host has no such function")]
    Missing(String),
    /// It is in no IOMMU group.
    #[error("{0}: in no IOMMU group, so its DMA cannot be confined")]
    NoGroup(String),
    /// A host driver has it.
    #[error("{function}: device still bound to host driver {driver}")]
    HostDriver {
        /// The function.
        function: String,
        /// The driver.
        driver: String,
    },
    /// No driver has it, so that VFIO does not either.
    #[error("{0}: device not bound to vfio-pci")]
    Unbound(String),
    /// Another function that it cannot be told apart from belongs to the host.
    #[error("{function}: shares IOMMU group {group} with {}", list(members))]
    ForeignMembers {
        /// The function.
        function: String,
        /// The group.
        group: String,
        /// Who holds the group.
        members: Vec<Member>,
    },
    /// The group's node may not be opened.
    #[error("{function}: no permission to open /dev/vfio/{group}")]
    Permission {
        /// The function.
        function: String,
        /// The group.
        group: String,
    },
    /// Another process has the group.
    #[error("{function}: /dev/vfio/{group} is in use by another process")]
    Busy {
        /// The function.
        function: String,
        /// The group.
        group: String,
    },
    /// A call failed for another reason.
    #[error("{function}: cannot be opened through VFIO")]
    Vfio {
        /// The function.
        function: String,
        /// What failed.
        #[source]
        source: Box<VfioError>,
    },
    /// VFIO describes the function in a way that cannot be used.
    #[error("{function}: VFIO reports {what}")]
    Malformed {
        /// The function.
        function: String,
        /// What is wrong.
        what: &'static str,
    },
    /// The descriptor could not be duplicated.
    #[error("{function}: no descriptor for its regions")]
    Descriptor {
        /// The function.
        function: String,
        /// The reason.
        #[source]
        source: io::Error,
    },
}

fn list(members: &[Member]) -> String {
    let names: Vec<String> = members.iter().map(Member::to_string).collect();
    names.join(", ")
}

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
        /// `read`, `write` or `mmap`.
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
    file: Arc<File>,
    pub(crate) device: VfioDevice,
    name: String,
    bars: [Region; 6],
    config: Region,
    pub(crate) enabled: Mutex<Enabled>,
}

impl Function {
    /// Opens the function at `sysfs` into `container`.
    ///
    /// # Errors
    /// When it is not free to be assigned, or VFIO fails; the host is then as it was.
    pub fn open(container: &Container, sysfs: &Sysfs) -> Result<Self, OpenError> {
        let group = Self::check(sysfs)?;
        let function = sysfs.name();
        let device = VfioDevice::new(sysfs.path(), container.inner().clone(), false)
            .map_err(|error| open_error(&function, &group, error))?;
        // SAFETY: `device` owns the descriptor and outlives this borrow.
        let borrowed = unsafe { BorrowedFd::borrow_raw(device.as_raw_fd()) };
        let file = borrowed.try_clone_to_owned();
        let file = file.map_err(|source| OpenError::Descriptor {
            function: function.clone(),
            source,
        })?;
        let config = Region::read_from(&device, RegionIndex::CONFIG);
        // vfio-ioctls skips a region that it cannot query, which would shift all later ones.
        if !matches!(config.size(), 256 | 4096) || !config.is_writable() {
            let what = "a configuration space of neither 256 nor 4096 bytes";
            return Err(OpenError::Malformed { function, what });
        }
        let bars = RegionIndex::BARS.map(|index| Region::read_from(&device, index));
        Ok(Self {
            file: Arc::new(file.into()),
            device,
            name: function,
            bars,
            config,
            enabled: Mutex::default(),
        })
    }

    /// Whether the function at `sysfs` is free to be assigned, by what sysfs says; the name of its
    /// group. Opens and changes nothing.
    ///
    /// # Errors
    /// When it is missing, or it or its group is held by a host driver.
    pub fn check(sysfs: &Sysfs) -> Result<String, OpenError> {
        let function = sysfs.name();
        if !sysfs.exists() {
            return Err(OpenError::Missing(function));
        }
        let Some(group) = sysfs.group() else {
            return Err(OpenError::NoGroup(function));
        };
        match sysfs.driver() {
            None => return Err(OpenError::Unbound(function)),
            Some(driver) if !is_vfio(&driver) => {
                return Err(OpenError::HostDriver { function, driver });
            }
            Some(_) => {}
        }
        let members = sysfs.foreign_members();
        if !members.is_empty() {
            return Err(OpenError::ForeignMembers {
                function,
                group,
                members,
            });
        }
        Ok(group)
    }

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
        let result = self.file.read_exact_at(data, at);
        result.map_err(|source| self.failed("read", region, (offset, data.len()), source))
    }

    /// Writes `data` to `offset` of a region.
    ///
    /// # Errors
    /// When the access leaves the region, or the function does not take it.
    pub fn write(&self, region: RegionIndex, offset: u64, data: &[u8]) -> Result<(), AccessError> {
        let at = self.locate(region, offset, data.len())?;
        let result = self.file.write_all_at(data, at);
        result.map_err(|source| self.failed("write", region, (offset, data.len()), source))
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
        MmapRegion::from_file(offset, bytes).map_err(|error| {
            let source = match error {
                MmapRegionError::Mmap(source) => source,
                other => io::Error::other(other),
            };
            self.failed("mmap", region, (span.start, bytes), source)
        })
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

/// Tells apart the failures that an operator can do something about.
fn open_error(function: &str, group: &str, error: VfioError) -> OpenError {
    let (function, group) = (function.to_owned(), group.to_owned());
    if let VfioError::OpenGroup(source, _) = &error {
        match source.kind() {
            io::ErrorKind::PermissionDenied => return OpenError::Permission { function, group },
            io::ErrorKind::ResourceBusy => return OpenError::Busy { function, group },
            _ => {}
        }
    }
    OpenError::Vfio {
        function,
        source: Box::new(error),
    }
}
