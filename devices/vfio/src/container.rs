//! One IOMMU address space that functions are opened into.

use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;

use vfio_ioctls::{VfioContainer, VfioError};

use crate::iova;

/// A type1 container: every function opened into it reaches the same memory at the same IOVAs.
///
/// KVM is not told of the groups: that matters only to x86 hosts with devices that bypass the
/// processor's caches.
#[derive(Clone)]
pub struct Container(Arc<VfioContainer>);

/// Why there is no container.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// The device node does not exist: the kernel modules are not loaded.
    #[error("/dev/vfio/vfio does not exist")]
    Missing,
    /// The node may not be opened.
    #[error("no permission to open /dev/vfio/vfio")]
    Permission,
    /// The node cannot be opened for another reason.
    #[error("cannot open /dev/vfio/vfio")]
    Open(#[source] io::Error),
    /// The kernel's VFIO lacks version 0 of the interface or the type1v2 IOMMU.
    #[error("this kernel's VFIO has no type1v2 IOMMU")]
    Unsupported(#[source] Box<VfioError>),
}

impl Container {
    /// Opens an empty container.
    ///
    /// # Errors
    /// When VFIO is absent, forbidden or of another kind.
    pub fn open() -> Result<Self, ContainerError> {
        match VfioContainer::new(None) {
            Ok(container) => Ok(Self(Arc::new(container))),
            Err(VfioError::OpenContainer(error)) => Err(match error.kind() {
                io::ErrorKind::NotFound => ContainerError::Missing,
                io::ErrorKind::PermissionDenied => ContainerError::Permission,
                _ => ContainerError::Open(error),
            }),
            Err(error) => Err(ContainerError::Unsupported(Box::new(error))),
        }
    }

    /// The IOVAs that the functions opened so far can all be made to reach, ascending; `None` when
    /// the kernel does not tell, or no function is open yet.
    #[must_use]
    pub fn iova_ranges(&self) -> Option<Vec<RangeInclusive<u64>>> {
        iova::parse_ranges(&iova::type1_info(self.0.as_ref()).ok()?)
    }

    /// How many more mappings the container takes, where the kernel tells.
    #[must_use]
    pub fn entries_left(&self) -> Option<u32> {
        iova::parse_entries_left(&iova::type1_info(self.0.as_ref()).ok()?)
    }

    pub(crate) fn inner(&self) -> &Arc<VfioContainer> {
        &self.0
    }
}

impl std::fmt::Debug for Container {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Container")
    }
}
