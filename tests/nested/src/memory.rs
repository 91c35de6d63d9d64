//! Memory that the guest's kernel gives in one piece: huge pages, where it has them.

use std::fs::File;
use std::sync::Arc;

use rustix::fs::MemfdFlags;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

/// Two huge pages.
const BYTES: usize = 4 << 20;

/// Memory by offset from its start.
pub(crate) struct Memory(Arc<GuestMemoryMmap>);

impl Memory {
    /// Contiguous pages, so that the kernel can map many of them by one request.
    ///
    /// # Errors
    /// When there is no memory.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let flags = MemfdFlags::CLOEXEC;
        let huge = rustix::fs::memfd_create("nested", flags | MemfdFlags::HUGETLB);
        println!("huge_pages={}", if huge.is_ok() { "yes" } else { "no" });
        let file = huge.or_else(|_| rustix::fs::memfd_create("nested", flags))?;
        let file = File::from(file);
        file.set_len(BYTES as u64)?;
        let start = GuestAddress(0);
        let range = (start, BYTES, Some(FileOffset::new(file, 0)));
        let memory = GuestMemoryMmap::from_ranges_with_files([range])?;
        memory.write_slice(&vec![1; BYTES], start)?;
        Ok(Self(Arc::new(memory)))
    }

    /// For mapping it.
    pub(crate) const fn backend(&self) -> &Arc<GuestMemoryMmap> {
        &self.0
    }

    /// Fills bytes by their index, modulo 256.
    pub(crate) fn fill(&self, at: u64, bytes: u16, value: impl Fn(u8) -> u8) -> anyhow::Result<()> {
        let data: Vec<u8> = (0..bytes)
            .map(|index| value(index.to_le_bytes()[0]))
            .collect();
        Ok(self.0.write_slice(&data, GuestAddress(at))?)
    }

    /// Some of it.
    pub(crate) fn bytes(&self, at: u64, bytes: u16) -> anyhow::Result<Vec<u8>> {
        let mut data = vec![0; usize::from(bytes)];
        self.0.read_slice(&mut data, GuestAddress(at))?;
        Ok(data)
    }
}
