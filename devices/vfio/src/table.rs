//! What the functions of a container reach, edited one mapping at a time.
#![expect(
    unsafe_code,
    reason = "the kernel is told host addresses of guest memory"
)]

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use iommu::{Access, DmaTable, Gpa, Holdings, HostError, Iova, PageRange};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use crate::container::Container;
use crate::{ioas, type1};

/// The DMA table of a container. Every mapping pins the guest pages behind it.
///
/// `M` says where the host keeps guest pages. Like every `vm-memory` backend it must tell the truth:
/// the addresses that it gives stay mapped, and hold guest memory and nothing else, while it or a
/// clone of it lives.
pub struct PinnedTable<M> {
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

impl<M: GuestMemoryBackend> PinnedTable<M> {
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

impl Container {
    const fn map_call(&self) -> &'static str {
        match self {
            Self::Type1(_) => type1::MAP,
            Self::Iommufd(_) => ioas::MAP,
        }
    }

    const fn unmap_call(&self) -> &'static str {
        match self {
            Self::Type1(_) => type1::UNMAP,
            Self::Iommufd(_) => ioas::UNMAP,
        }
    }

    fn unmap(&self, iova: PageRange<Iova>) -> io::Result<()> {
        match self {
            Self::Type1(container) => type1::unmap(container, iova),
            Self::Iommufd(ioas) => ioas.unmap(iova),
        }
    }
}

impl<M: GuestMemoryBackend> DmaTable for PinnedTable<M> {
    fn map(&mut self, iova: PageRange<Iova>, gpa: Gpa, access: Access) -> Result<(), HostError> {
        let call = self.container.map_call();
        let bytes = iova.bytes();
        let Some(host) = self.host_address(gpa, bytes) else {
            let refused = Refused::NotMemory { gpa, bytes };
            return Err(HostError::without_effect(call, refused));
        };
        let result = match &self.container {
            // SAFETY: the whole range is guest memory (checked by `host_address`), which nobody holds
            // references into, and which `self.memory` keeps mapped until `drop` has unmapped it here.
            Container::Type1(container) => unsafe { type1::map(container, iova, host, access) },
            // SAFETY: as above.
            Container::Iommufd(ioas) => unsafe { ioas.map(iova, host, access) },
        };
        match result {
            Ok(()) => {
                self.mapped.insert(iova.start(), iova);
                Ok(())
            }
            // The kernel takes back what it has mapped of a range when it fails half-way.
            Err(source) => {
                let refused = Refused::Call { iova, source };
                Err(HostError::without_effect(call, refused))
            }
        }
    }

    fn unmap(&mut self, iova: PageRange<Iova>) -> Result<(), HostError> {
        let within = self.mapped.range(iova.start()..iova.end());
        let gone: Vec<Iova> = within.map(|(&start, _)| start).collect();
        // What the kernel has refused to map is not there to be unmapped: iommufd calls that an error.
        if gone.is_empty() {
            return Ok(());
        }
        match self.container.unmap(iova) {
            Ok(()) => {
                for start in gone {
                    self.mapped.remove(&start);
                }
                Ok(())
            }
            Err(source) => {
                let refused = Refused::Call { iova, source };
                let call = self.container.unmap_call();
                Err(HostError::with_unknown_effect(call, refused))
            }
        }
    }

    fn holdings(&self) -> Option<Holdings> {
        let left = self.container.entries_left();
        Some(Holdings {
            mapped: self.mapped.values().copied().collect(),
            entries_left: left.and_then(|left| usize::try_from(left).ok()),
        })
    }
}

impl<M> Drop for PinnedTable<M> {
    fn drop(&mut self) {
        // Before `memory` goes. When this fails, memory that a device reaches must not be reused:
        // the kernel holds its pages until the container is closed.
        for (_, iova) in std::mem::take(&mut self.mapped) {
            if let Err(error) = self.container.unmap(iova) {
                let call = self.container.unmap_call();
                tracing::error!("{call} of {iova} failed: {error}");
            }
        }
    }
}

impl<M> std::fmt::Debug for PinnedTable<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PinnedTable")
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
