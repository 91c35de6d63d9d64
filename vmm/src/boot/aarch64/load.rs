//! Copying the boot files into guest memory.

use std::fs::File;
use std::io::{Cursor, Seek};

use iommu::Gpa;
use linux_loader::loader::{KernelLoader, PE};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use super::Placement;
use crate::boot::BootFiles;

/// Why a boot file could not be copied into guest memory.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The kernel.
    #[error("cannot load the kernel at {at}")]
    Kernel {
        /// Where it was to go.
        at: Gpa,
        /// Why not.
        #[source]
        source: linux_loader::loader::Error,
    },
    /// The initial RAM disk.
    #[error("cannot load the initrd at {at}")]
    Initrd {
        /// Where it was to go.
        at: Gpa,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The device tree.
    #[error("cannot load the device tree of {bytes} bytes at {at}")]
    Fdt {
        /// Where it was to go.
        at: Gpa,
        /// Its length.
        bytes: usize,
        /// Why not.
        #[source]
        source: linux_loader::loader::Error,
    },
}

/// Puts the files and the device tree where `placement` says.
///
/// # Errors
/// When a file has shrunk since it was checked, or cannot be read.
pub fn load<M: GuestMemoryBackend>(
    memory: &M,
    files: &mut BootFiles,
    fdt: Vec<u8>,
    placement: Placement,
) -> Result<(), LoadError> {
    let base = placement.kernel_base;
    PE::load(memory, Some(guest(base)), files.kernel.file(), None)
        .map_err(|source| LoadError::Kernel { at: base, source })?;
    if let (Some(at), Some(initrd)) = (placement.initrd, &files.initrd) {
        let read = read_into(memory, at, initrd.file(), initrd.bytes());
        read.map_err(|source| LoadError::Initrd { at, source })?;
    }
    let bytes = fdt.len();
    let at = placement.fdt;
    linux_loader::loader::load_dtb(memory, guest(at), &mut Cursor::new(fdt))
        .map_err(|source| LoadError::Fdt { at, bytes, source })
}

fn read_into<M: GuestMemoryBackend>(
    memory: &M,
    at: Gpa,
    mut file: &File,
    bytes: u64,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    file.rewind()?;
    memory.read_exact_volatile_from(guest(at), &mut file, usize::try_from(bytes)?)?;
    Ok(())
}

fn guest(at: Gpa) -> GuestAddress {
    GuestAddress(at.raw())
}
