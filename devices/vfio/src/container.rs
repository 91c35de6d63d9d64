//! One IOMMU address space that functions are opened into.

use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;

use hostcall::gate;
use vfio_ioctls::{VfioContainer, VfioError};

use crate::ioas::{Ioas, IoasError, Iommufd, IommufdOpenError};
use crate::iova;

/// How the host's kernel is asked for address spaces.
#[derive(Debug, Clone)]
pub enum Backend {
    /// A VFIO container with the type1 IOMMU, by way of the group's node.
    Type1,
    /// An address space of iommufd, by way of the device's node.
    Iommufd(Iommufd),
}

/// Which [`Backend`], before anything is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendKind {
    /// Containers of VFIO.
    Type1,
    /// Address spaces of iommufd.
    Iommufd,
}

impl BackendKind {
    /// As in configs and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Type1 => "type1",
            Self::Iommufd => "iommufd",
        }
    }
}

/// One address space: every function opened into it reaches the same memory at the same IOVAs.
/// Clones are handles to the same one.
///
/// KVM is not told of the functions: that matters only to x86 hosts with devices that bypass the
/// processor's caches.
#[derive(Clone)]
pub enum Container {
    /// Its mappings change in place.
    Type1(Arc<VfioContainer>),
    /// Its mappings change in place, too, and its functions can be moved to another one.
    Iommufd(Ioas),
}

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
    /// iommufd cannot be used.
    #[error(transparent)]
    Iommufd(#[from] IommufdOpenError),
    /// iommufd gives no address space.
    #[error("iommufd gives no address space")]
    Ioas(#[source] IoasError),
}

impl Backend {
    /// Gets ready to make containers of this kind.
    ///
    /// # Errors
    /// When iommufd is absent or forbidden; type1 tells when the first container is made.
    pub fn open(kind: BackendKind) -> Result<Self, ContainerError> {
        match kind {
            BackendKind::Type1 => Ok(Self::Type1),
            BackendKind::Iommufd => Ok(Self::Iommufd(Iommufd::open()?)),
        }
    }

    /// Which kind it is.
    #[must_use]
    pub const fn kind(&self) -> BackendKind {
        match self {
            Self::Type1 => BackendKind::Type1,
            Self::Iommufd(_) => BackendKind::Iommufd,
        }
    }

    /// An empty container.
    ///
    /// # Errors
    /// When the kernel's interface is absent, forbidden or of another kind.
    pub fn container(&self) -> Result<Container, ContainerError> {
        match self {
            Self::Type1 => type1(),
            Self::Iommufd(iommufd) => {
                let ioas = iommufd.ioas().map_err(ContainerError::Ioas)?;
                Ok(Container::Iommufd(ioas))
            }
        }
    }
}

fn type1() -> Result<Container, ContainerError> {
    let opened = gate("open /dev/vfio/vfio").map_err(VfioError::OpenContainer);
    match opened.and_then(|()| VfioContainer::new(None)) {
        Ok(container) => Ok(Container::Type1(Arc::new(container))),
        Err(VfioError::OpenContainer(error)) => Err(match error.kind() {
            io::ErrorKind::NotFound => ContainerError::Missing,
            io::ErrorKind::PermissionDenied => ContainerError::Permission,
            _ => ContainerError::Open(error),
        }),
        Err(error) => Err(ContainerError::Unsupported(Box::new(error))),
    }
}

impl Container {
    /// The IOVAs that the functions opened so far can all be made to reach, ascending; `None` when
    /// the kernel does not tell, or no function is open yet (type1).
    #[must_use]
    pub fn iova_ranges(&self) -> Option<Vec<RangeInclusive<u64>>> {
        match self {
            Self::Type1(container) => {
                iova::parse_ranges(&iova::type1_info(container.as_ref()).ok()?)
            }
            Self::Iommufd(ioas) => ioas.iova_ranges().ok(),
        }
    }

    /// Whose it is.
    #[must_use]
    pub const fn kind(&self) -> BackendKind {
        match self {
            Self::Type1(_) => BackendKind::Type1,
            Self::Iommufd(_) => BackendKind::Iommufd,
        }
    }

    /// The sizes of pages that the IOMMUs of the functions opened so far all map, a bit each; `None` when
    /// the kernel does not tell.
    #[must_use]
    pub fn page_sizes(&self) -> Option<u64> {
        match self {
            Self::Type1(container) => {
                iova::parse_page_sizes(&iova::type1_info(container.as_ref()).ok()?)
            }
            Self::Iommufd(ioas) => ioas.page_sizes().ok(),
        }
    }

    /// How many more mappings the container takes, where there is a bound and the kernel tells.
    #[must_use]
    pub fn entries_left(&self) -> Option<u32> {
        match self {
            Self::Type1(container) => {
                iova::parse_entries_left(&iova::type1_info(container.as_ref()).ok()?)
            }
            Self::Iommufd(_) => None,
        }
    }
}

impl std::fmt::Debug for Container {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Type1(_) => f.write_str("Container(type1)"),
            Self::Iommufd(ioas) => f.debug_tuple("Container").field(ioas).finish(),
        }
    }
}
