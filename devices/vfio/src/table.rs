//! What the functions of a container reach, edited one mapping at a time.
#![expect(
    unsafe_code,
    reason = "the kernel is told host addresses of guest memory"
)]

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use iommu::{Access, DmaTable, Gpa, HostError, Iova, PageRange};
use vfio_ioctls::{VfioContainer, VfioError};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use crate::container::Container;

const MAP: &str = "VFIO_IOMMU_MAP_DMA";
const UNMAP: &str = "VFIO_IOMMU_UNMAP_DMA";

/// The DMA table of a type1 container. Every mapping pins the guest pages behind it.
///
/// `M` says where the host keeps guest pages. Like every `vm-memory` backend it must tell the truth:
/// the addresses that it gives stay mapped, and hold guest memory and nothing else, while it or a
/// clone of it lives.
pub struct Type1Table<M> {
    container: Container,
    memory: Arc<M>,
    /// Ranges that may be mapped, by their start: what [`Drop`] takes away.
    mapped: BTreeMap<Iova, PageRange<Iova>>,
}

/// Why the kernel refused to change a mapping.
#[derive(Debug, thiserror::Error)]
enum Refused {
    /// The guest pages are not within one piece of guest memory.
    #[error("{bytes:#x} bytes at {gpa} are not in one range of guest memory")]
    NotMemory { gpa: Gpa, bytes: u64 },
    /// vfio-ioctls maps for reading and writing only.
    #[error("{iova}: a mapping that is not both readable and writable is not supported")]
    Access { iova: PageRange<Iova> },
    /// The call failed.
    #[error("{iova}{}", hint(source))]
    Call {
        iova: PageRange<Iova>,
        #[source]
        source: io::Error,
    },
}

/// What an operator can do about a refusal.
fn hint(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOMEM) => locked_memory_hint(),
        Some(libc::ENOSPC) => ": all mappings of the container are in use (raise the parameter \
             dma_entry_limit of the module vfio_iommu_type1)"
            .to_owned(),
        Some(libc::EINVAL) => ": outside of what the IOMMU can map, or in a window that it \
             reserves for message interrupts"
            .to_owned(),
        Some(libc::EEXIST) => ": overlaps a mapping".to_owned(),
        _ => String::new(),
    }
}

fn locked_memory_hint() -> String {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock).current;
    match limit {
        Some(bytes) => format!(
            ": assigned devices need guest memory locked, and this process may lock {bytes} bytes \
             (RLIMIT_MEMLOCK; raise it with ulimit -l or LimitMEMLOCK=)"
        ),
        None => ": the host has no memory left to lock".to_owned(),
    }
}

impl<M: GuestMemoryBackend> Type1Table<M> {
    /// The table of `container`, which maps nothing yet. A container has one table.
    #[must_use]
    pub fn new(container: Container, memory: Arc<M>) -> Self {
        Self {
            container,
            memory,
            mapped: BTreeMap::new(),
        }
    }

    /// Where the host keeps the pages of a mapping.
    fn host_address(&self, gpa: Gpa, bytes: u64) -> Option<*mut u8> {
        let start = GuestAddress(gpa.raw());
        let region = self.memory.find_region(start)?;
        let within = region.to_region_addr(start)?;
        let end = within.0.checked_add(bytes)?;
        if end > region.len() {
            return None;
        }
        region.get_host_address(within).ok()
    }
}

impl<M> Type1Table<M> {
    fn container(&self) -> &VfioContainer {
        self.container.inner()
    }
}

impl<M: GuestMemoryBackend> DmaTable for Type1Table<M> {
    fn map(&mut self, iova: PageRange<Iova>, gpa: Gpa, access: Access) -> Result<(), HostError> {
        if access != Access::ReadWrite {
            return Err(HostError::without_effect(MAP, Refused::Access { iova }));
        }
        let bytes = iova.bytes();
        let located = self.host_address(gpa, bytes);
        let (Some(host), Ok(size)) = (located, usize::try_from(bytes)) else {
            return Err(HostError::without_effect(
                MAP,
                Refused::NotMemory { gpa, bytes },
            ));
        };
        // SAFETY: the whole range is guest memory (checked by `host_address`), which nobody holds
        // references into, and which `self.memory` keeps mapped until `drop` has unmapped it here.
        let result = unsafe {
            self.container()
                .vfio_dma_map(iova.start().raw(), size, host)
        };
        match result {
            Ok(()) => {
                self.mapped.insert(iova.start(), iova);
                Ok(())
            }
            // The kernel takes back what it has mapped of a range when it fails half-way.
            Err(error) => {
                let source = io_error(error);
                Err(HostError::without_effect(
                    MAP,
                    Refused::Call { iova, source },
                ))
            }
        }
    }

    fn unmap(&mut self, iova: PageRange<Iova>) -> Result<(), HostError> {
        match unmap(self.container(), iova) {
            Ok(()) => {
                let within = self.mapped.range(iova.start()..iova.end());
                let gone: Vec<Iova> = within.map(|(&start, _)| start).collect();
                for start in gone {
                    self.mapped.remove(&start);
                }
                Ok(())
            }
            Err(source) => {
                let refused = Refused::Call { iova, source };
                Err(HostError::with_unknown_effect(UNMAP, refused))
            }
        }
    }
}

/// Takes away every mapping within `iova`; the IOMMU has forgotten them when this returns.
fn unmap(container: &VfioContainer, iova: PageRange<Iova>) -> io::Result<()> {
    let size = usize::try_from(iova.bytes()).map_err(io::Error::other)?;
    match container.vfio_dma_unmap(iova.start().raw(), size) {
        // The range had holes: fewer bytes were mapped, and all of them are gone.
        Ok(()) | Err(VfioError::InvalidDmaUnmapSize) => Ok(()),
        Err(error) => Err(io_error(error)),
    }
}

fn io_error(error: VfioError) -> io::Error {
    match error {
        VfioError::IommuDmaMap(errno) | VfioError::IommuDmaUnmap(errno) => errno.into(),
        other => io::Error::other(other),
    }
}

impl<M> Drop for Type1Table<M> {
    fn drop(&mut self) {
        // Before `memory` goes. When this fails, memory that a device reaches must not be reused:
        // the kernel holds its pages until the container is closed.
        for (_, iova) in std::mem::take(&mut self.mapped) {
            if let Err(error) = unmap(self.container(), iova) {
                tracing::error!("{UNMAP} of {iova} failed: {error}");
            }
        }
    }
}

impl<M> std::fmt::Debug for Type1Table<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Type1Table")
            .field("mapped", &self.mapped)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_range_and_what_an_operator_can_do() {
        let iova = PageRange::new(Iova::new(0x8000_0000), 0x1000).unwrap();
        let told = |errno| {
            let source = io::Error::from_raw_os_error(errno);
            Refused::Call { iova, source }.to_string()
        };
        assert!(told(libc::ENOSPC).starts_with("0x80000000..0x80001000: all mappings"));
        assert!(told(libc::ENOSPC).contains("dma_entry_limit"));
        assert!(told(libc::ENOMEM).contains("lock"));
        assert_eq!(told(libc::EIO), "0x80000000..0x80001000");
    }
}
