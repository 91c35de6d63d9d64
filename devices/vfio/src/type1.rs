//! The type1 IOMMU of a VFIO container: its mappings, by ioctl.
#![expect(unsafe_code, reason = "vfio-ioctls maps for reading and writing only")]

use std::io;

use hostcall::gate;
use iommu::{Access, Iova, PageRange};
use vfio_bindings::bindings::vfio::{
    VFIO_BASE, VFIO_DMA_MAP_FLAG_READ, VFIO_DMA_MAP_FLAG_WRITE, VFIO_TYPE, vfio_iommu_type1_dma_map,
};
use vfio_ioctls::{VfioContainer, VfioError};
use vmm_sys_util::ioctl::ioctl_with_ref;
use vmm_sys_util::ioctl_io_nr;

ioctl_io_nr!(MAP_DMA, VFIO_TYPE.into(), VFIO_BASE + 13);

pub(crate) const MAP: &str = "VFIO_IOMMU_MAP_DMA";
pub(crate) const UNMAP: &str = "VFIO_IOMMU_UNMAP_DMA";

/// Maps the bytes from `host` on, an address of this process.
///
/// # Safety
/// The bytes stay mapped in this process until they are unmapped here, and nothing holds references
/// into them.
pub(crate) unsafe fn map(
    container: &VfioContainer,
    iova: PageRange<Iova>,
    host: *mut u8,
    access: Access,
) -> io::Result<()> {
    gate(MAP)?;
    let flags = match access {
        Access::Read => VFIO_DMA_MAP_FLAG_READ,
        Access::Write => VFIO_DMA_MAP_FLAG_WRITE,
        Access::ReadWrite => VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
    };
    let argument = vfio_iommu_type1_dma_map {
        argsz: u32::try_from(size_of::<vfio_iommu_type1_dma_map>()).map_err(io::Error::other)?,
        flags,
        vaddr: host.expose_provenance() as u64,
        iova: iova.start().raw(),
        size: iova.bytes(),
    };
    // SAFETY: the kernel reads one structure of the size in `argsz`; the caller vouches for the
    // memory that it names.
    let result = unsafe { ioctl_with_ref(container, MAP_DMA(), &argument) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Takes away every mapping within `iova`; the IOMMU has forgotten them when this returns.
pub(crate) fn unmap(container: &VfioContainer, iova: PageRange<Iova>) -> io::Result<()> {
    gate(UNMAP)?;
    let size = usize::try_from(iova.bytes()).map_err(io::Error::other)?;
    match container.vfio_dma_unmap(iova.start().raw(), size) {
        // The range had holes: fewer bytes were mapped, and all of them are gone.
        Ok(()) | Err(VfioError::InvalidDmaUnmapSize) => Ok(()),
        Err(VfioError::IommuDmaUnmap(errno)) => Err(errno.into()),
        Err(other) => Err(io::Error::other(other)),
    }
}
