//! VFIO's containers (type1), one for each device.

use std::ffi::c_void;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;

use libc::c_ulong;
use vfio_bindings::bindings::vfio::{
    VFIO_DMA_MAP_FLAG_READ, VFIO_DMA_MAP_FLAG_WRITE, VFIO_TYPE1v2_IOMMU, vfio_iommu_type1_dma_map,
    vfio_iommu_type1_dma_unmap,
};

use crate::calls::{ioctl, ioctl_with};

/// Numbers of ioctls (`include/uapi/linux/vfio.h`).
const VFIO_SET_IOMMU: c_ulong = 0x3b66;
const VFIO_GROUP_SET_CONTAINER: c_ulong = 0x3b68;
const VFIO_IOMMU_MAP_DMA: c_ulong = 0x3b71;
const VFIO_IOMMU_UNMAP_DMA: c_ulong = 0x3b72;

/// The containers of some groups.
pub(crate) struct Containers {
    containers: Vec<File>,
    // Leave their containers after those are gone.
    _groups: Vec<File>,
}

impl Containers {
    pub(crate) fn open(groups: &[String]) -> io::Result<Self> {
        let open = |path: String| OpenOptions::new().read(true).write(true).open(path);
        let mut opened = Self {
            containers: Vec::new(),
            _groups: Vec::new(),
        };
        for group in groups {
            let container = open("/dev/vfio/vfio".to_owned())?;
            let group = open(format!("/dev/vfio/{group}"))?;
            ioctl_with(
                group.as_raw_fd(),
                VFIO_GROUP_SET_CONTAINER,
                container.as_raw_fd(),
            )?;
            ioctl(
                container.as_raw_fd(),
                VFIO_SET_IOMMU,
                VFIO_TYPE1v2_IOMMU.into(),
            )?;
            opened.containers.push(container);
            opened._groups.push(group);
        }
        Ok(opened)
    }

    /// Lets every device reach the memory at `host` by `iova`.
    pub(crate) fn map(&self, host: *mut c_void, iova: u64, bytes: usize) -> io::Result<()> {
        for container in &self.containers {
            let map = vfio_iommu_type1_dma_map {
                argsz: u32::try_from(size_of::<vfio_iommu_type1_dma_map>()).unwrap_or(0),
                flags: VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
                vaddr: host.expose_provenance() as u64,
                iova,
                size: bytes as u64,
            };
            ioctl_with(container.as_raw_fd(), VFIO_IOMMU_MAP_DMA, map)?;
        }
        Ok(())
    }

    /// Takes it away again.
    pub(crate) fn unmap(&self, iova: u64, bytes: usize) -> io::Result<()> {
        for container in &self.containers {
            let unmap = vfio_iommu_type1_dma_unmap {
                argsz: u32::try_from(size_of::<vfio_iommu_type1_dma_unmap>()).unwrap_or(0),
                iova,
                size: bytes as u64,
                ..Default::default()
            };
            ioctl_with(container.as_raw_fd(), VFIO_IOMMU_UNMAP_DMA, unmap)?;
        }
        Ok(())
    }
}
