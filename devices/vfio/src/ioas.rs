//! I/O address spaces of iommufd: what a function reaches is the one that it is attached to.
//!
//! ```text
//! /dev/iommu ──┬── Ioas T0 ◄── attached ── function ── replaced ──► Ioas T1
//!              └── Ioas T1                                  (where that is one step: `Motion`)
//! ```
#![expect(unsafe_code, reason = "iommufd-ioctls lacks the ranges of an IOAS")]

use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;

use hostcall::gate;
use iommu::{Access, Iova, PageRange};
use iommufd_bindings::iommufd::{
    IOMMUFD_CMD_IOAS_ALLOW_IOVAS, IOMMUFD_CMD_IOAS_IOVA_RANGES, IOMMUFD_TYPE, iommu_hw_info,
    iommu_ioas_allow_iovas, iommu_ioas_iova_ranges, iommu_ioas_map, iommu_ioas_unmap,
    iommu_iova_range, iommufd_ioas_map_flags_IOMMU_IOAS_MAP_FIXED_IOVA as FIXED,
    iommufd_ioas_map_flags_IOMMU_IOAS_MAP_READABLE as READABLE,
    iommufd_ioas_map_flags_IOMMU_IOAS_MAP_WRITEABLE as WRITEABLE,
};
use iommufd_ioctls::{IommuFd, IommufdError, IommufdIoas};
use vfio_ioctls::{VfioError, VfioIommufd};
use vmm_sys_util::ioctl::{ioctl_with_mut_ref, ioctl_with_ref};
use vmm_sys_util::ioctl_io_nr;

ioctl_io_nr!(
    ALLOW_IOVAS,
    IOMMUFD_TYPE.into(),
    IOMMUFD_CMD_IOAS_ALLOW_IOVAS
);
ioctl_io_nr!(
    IOVA_RANGES,
    IOMMUFD_TYPE.into(),
    IOMMUFD_CMD_IOAS_IOVA_RANGES
);

pub(crate) const MAP: &str = "IOMMU_IOAS_MAP";
pub(crate) const UNMAP: &str = "IOMMU_IOAS_UNMAP";
const ALLOC: &str = "IOMMU_IOAS_ALLOC";
const ALLOW: &str = "IOMMU_IOAS_ALLOW_IOVAS";
const RANGES: &str = "IOMMU_IOAS_IOVA_RANGES";

/// More ranges than any IOMMU leaves; an answer that claims more is not believed.
const RANGES_MAX: usize = 4096;

/// An open `/dev/iommu`: the address spaces and devices of one VM.
#[derive(Clone)]
pub struct Iommufd(Arc<IommuFd>);

/// Why iommufd cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IommufdOpenError {
    /// The kernel has no iommufd, or its module is not loaded.
    #[error("/dev/iommu does not exist")]
    Missing,
    /// The node may not be opened.
    #[error("no permission to open /dev/iommu")]
    Permission,
    /// The node cannot be opened for another reason.
    #[error("cannot open /dev/iommu")]
    Open(#[source] io::Error),
}

/// A call about an address space failed.
#[derive(Debug, thiserror::Error)]
#[error("{call} failed")]
pub struct IoasError {
    call: &'static str,
    #[source]
    source: io::Error,
}

impl Iommufd {
    /// Opens `/dev/iommu`.
    ///
    /// # Errors
    /// When there is none, or it may not be opened.
    pub fn open() -> Result<Self, IommufdOpenError> {
        let opened = gate("open /dev/iommu").map_err(IommufdError::OpenIommufd);
        match opened.and_then(|()| IommuFd::new()) {
            Ok(iommufd) => Ok(Self(Arc::new(iommufd))),
            Err(IommufdError::OpenIommufd(error)) => Err(match error.kind() {
                io::ErrorKind::NotFound => IommufdOpenError::Missing,
                io::ErrorKind::PermissionDenied => IommufdOpenError::Permission,
                _ => IommufdOpenError::Open(error),
            }),
            Err(other) => Err(IommufdOpenError::Open(io::Error::other(other))),
        }
    }

    /// An address space that maps nothing, and that no function is in.
    ///
    /// # Errors
    /// When the kernel has no memory for it.
    pub fn ioas(&self) -> Result<Ioas, IoasError> {
        let failed = |source| IoasError {
            call: ALLOC,
            source,
        };
        gate(ALLOC).map_err(failed)?;
        let ioas = IommufdIoas::new(Arc::clone(&self.0));
        let ioas = Arc::new(ioas.map_err(|error| failed(io_error(error)))?);
        let space = VfioIommufd::new(Arc::clone(&self.0), Some(ioas), None);
        let space = space.map_err(|error: VfioError| failed(io::Error::other(error)))?;
        Ok(Ioas {
            iommufd: self.clone(),
            space: Arc::new(space),
        })
    }
}

/// An I/O address space. Clones are handles to the same one; it goes when the last of them does.
#[derive(Clone)]
pub struct Ioas {
    iommufd: Iommufd,
    space: Arc<VfioIommufd>,
}

impl Ioas {
    /// Another address space of the same iommufd, which the functions of this one can be moved to.
    ///
    /// # Errors
    /// As [`Iommufd::ioas`].
    pub fn sibling(&self) -> Result<Self, IoasError> {
        self.iommufd.ioas()
    }

    /// The kind of the IOMMU in front of a function that is bound to this iommufd: `iommu_hw_info_type`
    /// of `include/uapi/linux/iommufd.h`.
    pub(crate) fn iommu_kind(&self, function: u32) -> io::Result<u32> {
        let mut info = iommu_hw_info {
            size: size::<iommu_hw_info>()?,
            dev_id: function,
            ..Default::default()
        };
        self.iommufd.0.get_hw_info(&mut info).map_err(io_error)?;
        // SAFETY: both fields of the union are the same number, which the kernel has written.
        Ok(unsafe { info.__bindgen_anon_1.out_data_type })
    }

    /// The IOVAs that can be mapped, ascending: everything, as far as the functions that are attached
    /// allow.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn iova_ranges(&self) -> Result<Vec<RangeInclusive<u64>>, IoasError> {
        Ok(self.ask_ranges()?.0)
    }

    /// The sizes of pages that can be mapped, a bit each: the kernel tells the least.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn page_sizes(&self) -> Result<u64, IoasError> {
        let (_, least) = self.ask_ranges()?;
        Ok(u64::MAX << least.max(1).ilog2())
    }

    fn ask_ranges(&self) -> Result<(Vec<RangeInclusive<u64>>, u64), IoasError> {
        let call = RANGES;
        self.try_ask().map_err(|source| IoasError { call, source })
    }

    /// The ranges that can be mapped, and the alignment of mappings.
    fn try_ask(&self) -> io::Result<(Vec<RangeInclusive<u64>>, u64)> {
        let mut room = 16;
        loop {
            gate(RANGES)?;
            let mut ranges = vec![iommu_iova_range::default(); room];
            let mut argument = iommu_ioas_iova_ranges {
                size: size::<iommu_ioas_iova_ranges>()?,
                ioas_id: self.id(),
                num_iovas: u32::try_from(room).map_err(io::Error::other)?,
                allowed_iovas: ranges.as_mut_ptr().expose_provenance() as u64,
                ..Default::default()
            };
            let fd = self.iommufd.0.as_ref();
            // SAFETY: the kernel writes the structure and at most `num_iovas` ranges, for which
            // `ranges` has room.
            let result = unsafe { ioctl_with_mut_ref(fd, IOVA_RANGES(), &mut argument) };
            let told = usize::try_from(argument.num_iovas).map_err(io::Error::other)?;
            if result == 0 {
                ranges.truncate(told);
                let ranges = ranges.iter().map(|range| range.start..=range.last);
                return Ok((ranges.collect(), argument.out_iova_alignment));
            }
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::EMSGSIZE) || told <= room || told > RANGES_MAX {
                return Err(error);
            }
            room = told;
        }
    }

    /// Has the kernel promise that `ranges` stay mappable: it will refuse every function that would
    /// make them less.
    ///
    /// # Errors
    /// When they are not all mappable now.
    pub fn allow(&self, ranges: &[PageRange<Iova>]) -> Result<(), IoasError> {
        self.set_allowed(ranges).map_err(|source| IoasError {
            call: ALLOW,
            source,
        })
    }

    fn set_allowed(&self, ranges: &[PageRange<Iova>]) -> io::Result<()> {
        gate(ALLOW)?;
        let bounds = ranges.iter().map(|range| iommu_iova_range {
            start: range.start().raw(),
            last: range.last().raw(),
        });
        let bounds: Vec<_> = bounds.collect();
        let argument = iommu_ioas_allow_iovas {
            size: size::<iommu_ioas_allow_iovas>()?,
            ioas_id: self.id(),
            num_iovas: u32::try_from(bounds.len()).map_err(io::Error::other)?,
            allowed_iovas: bounds.as_ptr().expose_provenance() as u64,
            ..Default::default()
        };
        let fd = self.iommufd.0.as_ref();
        // SAFETY: the kernel reads the structure and `num_iovas` ranges, which outlive the call.
        let result = unsafe { ioctl_with_ref(fd, ALLOW_IOVAS(), &argument) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Maps the bytes from `host` on, an address of this process.
    ///
    /// # Safety
    /// The bytes stay mapped in this process until they are unmapped here, and nothing holds
    /// references into them.
    pub(crate) unsafe fn map(
        &self,
        iova: PageRange<Iova>,
        host: *mut u8,
        access: Access,
    ) -> io::Result<()> {
        gate(MAP)?;
        let access = match access {
            Access::Read => READABLE,
            Access::Write => WRITEABLE,
            Access::ReadWrite => READABLE | WRITEABLE,
        };
        let argument = iommu_ioas_map {
            size: size::<iommu_ioas_map>()?,
            flags: FIXED | access,
            ioas_id: self.id(),
            user_va: host.expose_provenance() as u64,
            length: iova.bytes(),
            iova: iova.start().raw(),
            ..Default::default()
        };
        self.iommufd.0.map_iommu_ioas(&argument).map_err(io_error)
    }

    /// Takes away every mapping within `iova`, which cuts none; the IOMMU has forgotten them when this
    /// returns. It is an error when there is none.
    pub(crate) fn unmap(&self, iova: PageRange<Iova>) -> io::Result<()> {
        gate(UNMAP)?;
        let mut argument = iommu_ioas_unmap {
            size: size::<iommu_ioas_unmap>()?,
            ioas_id: self.id(),
            iova: iova.start().raw(),
            length: iova.bytes(),
        };
        let unmapped = self.iommufd.0.unmap_iommu_ioas(&mut argument);
        unmapped.map_err(io_error)
    }

    /// The number by which functions are attached to it.
    pub(crate) fn id(&self) -> u32 {
        self.space.ioas().id()
    }

    /// What vfio-ioctls opens functions with.
    pub(crate) fn inner(&self) -> &Arc<VfioIommufd> {
        &self.space
    }
}

/// The size that each structure of iommufd begins with.
fn size<T>() -> io::Result<u32> {
    u32::try_from(size_of::<T>()).map_err(io::Error::other)
}

/// What the kernel said, without the words of iommufd-ioctls.
fn io_error(error: IommufdError) -> io::Error {
    match error {
        IommufdError::IommuIoasAlloc(errno)
        | IommufdError::IommuIoasMap(errno)
        | IommufdError::IommuIoasUnmap(errno) => errno.into(),
        other => io::Error::other(other),
    }
}

impl std::fmt::Debug for Iommufd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Iommufd")
    }
}

impl std::fmt::Debug for Ioas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Ioas").field(&self.id()).finish()
    }
}
