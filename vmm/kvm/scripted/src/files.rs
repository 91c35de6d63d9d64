//! The files that this kernel has made.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{IntoRawFd, RawFd};
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::MemfdFlags;

use crate::Errno;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `/dev/kvm`.
    Kvm,
    /// `/dev/sev`.
    SecurityProcessor,
    /// The VM with this number.
    Vm(usize),
    /// A vCPU of the VM, by its index.
    Vcpu(usize, u64),
    /// A device of the VM.
    Device(usize),
    /// Private memory of the VM.
    GuestMemfd(usize),
}

/// A file with what this kernel keeps of it.
struct Made {
    kind: Kind,
    /// Descriptors are used again; inodes of files that are kept open are not.
    inode: u64,
    kept: File,
}

/// The files, by their descriptors in the process.
#[derive(Default)]
pub(crate) struct Files(BTreeMap<RawFd, Made>);

impl Files {
    /// A new file of `bytes` bytes, which the process owns.
    pub(crate) fn make(&mut self, kind: Kind, bytes: u64) -> Result<RawFd, Errno> {
        let file = rustix::fs::memfd_create("scripted", MemfdFlags::CLOEXEC);
        let file = File::from(file.map_err(|_| libc::ENOMEM)?);
        file.set_len(bytes).map_err(|_| libc::EINVAL)?;
        let kept = file.try_clone().map_err(|_| libc::EMFILE)?;
        let inode = kept.metadata().map_err(|_| libc::EIO)?.ino();
        let fd = file.into_raw_fd();
        self.0.insert(fd, Made { kind, inode, kept });
        Ok(fd)
    }

    /// What `fd` is, if it is a file of this kernel.
    pub(crate) fn kind(&self, fd: RawFd) -> Option<Kind> {
        let made = self.0.get(&fd)?;
        let now = std::fs::metadata(format!("/proc/self/fd/{fd}")).ok()?;
        (now.ino() == made.inode).then_some(made.kind)
    }

    /// How long a file is.
    pub(crate) fn length(&self, fd: RawFd) -> Result<u64, Errno> {
        let made = self.0.get(&fd).ok_or(libc::EBADF)?;
        made.kept
            .metadata()
            .map(|of| of.len())
            .map_err(|_| libc::EIO)
    }

    /// How many the process has open.
    pub(crate) fn open(&self) -> usize {
        self.0.keys().filter(|fd| self.kind(**fd).is_some()).count()
    }

    /// Puts `bytes` at `offset` of a file.
    pub(crate) fn write(&self, fd: RawFd, bytes: &[u8], offset: u64) -> Result<(), Errno> {
        let made = self.0.get(&fd).ok_or(libc::EBADF)?;
        made.kept.write_all_at(bytes, offset).map_err(|_| libc::EIO)
    }

    /// Fills `bytes` from `offset` of a file.
    pub(crate) fn read(&self, fd: RawFd, offset: u64, bytes: &mut [u8]) -> Result<(), Errno> {
        let made = self.0.get(&fd).ok_or(libc::EBADF)?;
        made.kept
            .read_exact_at(bytes, offset)
            .map_err(|_| libc::EIO)
    }

    /// The byte at `offset` of a file; `None` in a hole, or beyond its end.
    pub(crate) fn byte(&self, fd: RawFd, offset: u64) -> Option<u8> {
        let made = self.0.get(&fd)?;
        let data = rustix::fs::seek(&made.kept, rustix::fs::SeekFrom::Data(offset)).ok()?;
        let mut byte = [0];
        made.kept.read_exact_at(&mut byte, offset).ok()?;
        (data == offset).then_some(byte[0])
    }
}
