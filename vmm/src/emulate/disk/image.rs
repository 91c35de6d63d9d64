//! The image of a disk, by way of imago.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use devices::virtio::block::{BlockBackend, Geometry, SECTOR, Unmap, Writes};
use imago::file::File as Stored;
use imago::io_buffers::{IoVector, IoVectorMut};
use imago::qcow2::Qcow2;
use imago::raw::Raw;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder as _, StorageOpenOptions};
use rustix::fs::OFlags;
use vm_memory::VolatileSlice;

use super::lock::lock;
use crate::causes::chain;
use crate::config::spec::{BackingSpec, DiskAccess, DiskCache, DiskFormat, DiskSpec};
use crate::diagnostic::{Code, Diagnostic, Place};

/// The bytes that are zeroed by one write, where zeroes are to have storage.
const ZEROES: u64 = 1 << 20;
/// The largest block that is told to a guest.
const MOST_BLOCK: usize = 64 << 10;

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum ImageError {
    #[error("it is neither a file nor a block device")]
    Kind,
    #[error("open failed")]
    Open(#[source] io::Error),
    #[error("the file system does not open it with O_DIRECT")]
    NotDirect,
    #[error("another VM or program has it")]
    InUse,
    #[error("it cannot be locked")]
    Lock(#[source] io::Error),
    #[error("it is not a usable {} image", .0.name())]
    Format(DiskFormat, #[source] io::Error),
    #[error("it refers to another file: {0}")]
    OtherFile(String),
    #[error("it refers to another file in turn: {0}")]
    InTurn(String),
    #[error("it is not written over another image, and one is given")]
    NotOver,
    #[error("cannot use {} under it", .0.display())]
    Backing(PathBuf, #[source] Box<ImageError>),
    #[error("it has not even one sector of 512 bytes")]
    Empty,
}

impl ImageError {
    /// The finding, at the key of the disk that it is about.
    pub(super) fn diagnose(
        &self,
        spec: &DiskSpec,
        place: impl Fn(&'static str) -> Place,
    ) -> Diagnostic {
        if let Self::Backing(_, cause) = self {
            return cause.diagnose_at(spec, self, |_| place("backing"));
        }
        self.diagnose_at(spec, self, place)
    }

    /// The finding about the `whole` error, of which this is the cause.
    fn diagnose_at(
        &self,
        spec: &DiskSpec,
        whole: &Self,
        place: impl Fn(&'static str) -> Place,
    ) -> Diagnostic {
        let (code, key, help) = match self {
            Self::Kind | Self::Open(_) | Self::Lock(_) => (Code::DiskUnreadable, "path", None),
            Self::NotDirect => (
                Code::DiskNotDirect,
                "cache",
                Some("use `cache = \"host\"`, or a file system with direct I/O"),
            ),
            Self::InUse => (
                Code::DiskInUse,
                "path",
                Some(
                    "end what uses it; several VMs can have a disk that all have with `readonly = true`",
                ),
            ),
            Self::Format(..) => (
                Code::DiskDamaged,
                "format",
                Some("`qemu-img info` tells what it is, `qemu-img check` what is wrong with it"),
            ),
            Self::OtherFile(_) => (
                Code::DiskNeedsOtherFile,
                "path",
                Some(
                    "name the one that it is written over as `backing`, or make it whole: `qemu-img convert -O qcow2 OLD NEW`",
                ),
            ),
            Self::InTurn(_) => (
                Code::DiskNeedsOtherFile,
                "path",
                Some("make it whole: `qemu-img convert -O qcow2 OLD NEW`"),
            ),
            Self::NotOver => (Code::DiskNotOver, "backing", Some("leave `backing` out")),
            Self::Backing(_, cause) => return cause.diagnose_at(spec, whole, place),
            Self::Empty => (Code::DiskDamaged, "path", None),
        };
        let path = spec.path.display();
        let message = format!("cannot use the disk {path}: {}", chain(whole));
        let finding = Diagnostic::error(code, message).on(place(key));
        match help {
            Some(help) => finding.with_help(help),
            None => finding,
        }
    }
}

/// A disk's image, open.
pub(super) struct Image {
    /// Written only to take storage away: what else is done uses it meanwhile.
    access: RwLock<FormatAccess<Stored>>,
    geometry: Geometry,
}

impl Image {
    /// Opens and locks the image of `spec`.
    pub(super) fn open(spec: &DiskSpec) -> Result<Self, ImageError> {
        let file = open_file(spec, spec.access)?;
        lock_or_refuse(&file, spec.access)?;
        Self::of_file(file, spec, spec.access, Locks::Taken)
    }

    /// The image in `file`, which has been opened for this access and with the cache of `spec`; the locks
    /// are those of the image under it.
    pub(super) fn of_file(
        file: File,
        spec: &DiskSpec,
        access: DiskAccess,
        locks: Locks,
    ) -> Result<Self, ImageError> {
        let writable = access == DiskAccess::ReadWrite;
        let options = StorageOpenOptions::new()
            .filename(&spec.path)
            .write(writable)
            .direct(spec.cache == DiskCache::Direct);
        let storage = Stored::from_open_file(file, options);
        let storage = storage.map_err(ImageError::Open)?;
        let access = match (spec.format, &spec.backing) {
            (DiskFormat::Raw, None) => open_raw(storage, writable)?,
            (DiskFormat::Raw, Some(_)) => return Err(ImageError::NotOver),
            (DiskFormat::Qcow2, None) => FormatAccess::new(open_whole(storage, writable)?),
            (DiskFormat::Qcow2, Some(backing)) => {
                let under = open_backing(backing, spec.cache, locks);
                let under = under
                    .map_err(|error| ImageError::Backing(backing.path.clone(), Box::new(error)))?;
                FormatAccess::new(open_over(storage, writable, under)?)
            }
        };
        let sectors = access.size() / u64::from(SECTOR);
        if sectors == 0 {
            return Err(ImageError::Empty);
        }
        let block = access.req_align().next_power_of_two().min(MOST_BLOCK);
        Ok(Self {
            geometry: Geometry {
                sectors,
                block_bytes: u32::try_from(block).unwrap_or(SECTOR).max(SECTOR),
                writes: match writable {
                    true => Writes::Taken,
                    false => Writes::Refused,
                },
            },
            access: RwLock::new(access),
        })
    }

    pub(super) const fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn using<T>(&self, act: impl FnOnce(&FormatAccess<Stored>) -> T) -> T {
        act(&self.access.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn changing<T>(&self, act: impl FnOnce(&mut FormatAccess<Stored>) -> T) -> T {
        act(&mut self.access.write().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether files are locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Locks {
    /// They are: a VM is to have them.
    Taken,
    /// They are not: somebody has a look.
    Left,
}

fn lock_or_refuse(file: &File, access: DiskAccess) -> Result<(), ImageError> {
    let locked = lock(file, access).map_err(ImageError::Lock)?;
    locked.map_err(|_| ImageError::InUse)
}

/// Opens the file of a disk.
pub(super) fn open_file(spec: &DiskSpec, access: DiskAccess) -> Result<File, ImageError> {
    open(&spec.path, spec.cache, access)
}

fn open(path: &Path, cache: DiskCache, access: DiskAccess) -> Result<File, ImageError> {
    // Before it is opened: opening a pipe waits for its other end.
    let kind = path.metadata().map_err(ImageError::Open)?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(ImageError::Kind);
    }
    let flags = match cache {
        DiskCache::Direct => OFlags::DIRECT,
        DiskCache::Host => OFlags::empty(),
    };
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(access == DiskAccess::ReadWrite)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or(0));
    options.open(path).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidInput if cache == DiskCache::Direct => ImageError::NotDirect,
        _ => ImageError::Open(error),
    })
}

/// The bytes of a disk, as they are.
fn open_raw(storage: Stored, writable: bool) -> Result<FormatAccess<Stored>, ImageError> {
    let raw = Raw::open_image(storage, writable);
    let raw = raw.map_err(|error| ImageError::Format(DiskFormat::Raw, error))?;
    Ok(FormatAccess::new(raw))
}

/// The image under another one: only read, and whole by itself. Nobody writes it meanwhile.
fn open_backing(
    spec: &BackingSpec,
    cache: DiskCache,
    locks: Locks,
) -> Result<FormatAccess<Stored>, ImageError> {
    let file = open(&spec.path, cache, DiskAccess::ReadOnly)?;
    if locks == Locks::Taken {
        lock_or_refuse(&file, DiskAccess::ReadOnly)?;
    }
    let options = StorageOpenOptions::new()
        .filename(&spec.path)
        .write(false)
        .direct(cache == DiskCache::Direct);
    let storage = Stored::from_open_file(file, options).map_err(ImageError::Open)?;
    let access = match spec.format {
        DiskFormat::Raw => open_raw(storage, false)?,
        DiskFormat::Qcow2 => {
            let whole = open_whole(storage, false);
            FormatAccess::new(whole.map_err(|error| match error {
                ImageError::OtherFile(name) => ImageError::InTurn(name),
                other => other,
            })?)
        }
    };
    Ok(access)
}

/// A qcow2 image that is whole by itself: the name of another file in it may be anything, and is never
/// followed.
fn open_whole(storage: Stored, writable: bool) -> Result<Qcow2<Stored>, ImageError> {
    let qcow2 = open_qcow2(storage, writable, None)?;
    match qcow2.implicit_backing_file() {
        Some(name) => Err(ImageError::OtherFile(name.clone())),
        None => Ok(qcow2),
    }
}

/// A qcow2 image that is written over `under`, whatever name it has for that.
fn open_over(
    storage: Stored,
    writable: bool,
    under: FormatAccess<Stored>,
) -> Result<Qcow2<Stored>, ImageError> {
    let qcow2 = open_qcow2(storage, writable, Some(under))?;
    match qcow2.implicit_backing_file() {
        Some(_) => Ok(qcow2),
        None => Err(ImageError::NotOver),
    }
}

/// A qcow2 image, all of whose data is in it and in what is `under` it.
fn open_qcow2(
    storage: Stored,
    writable: bool,
    under: Option<FormatAccess<Stored>>,
) -> Result<Qcow2<Stored>, ImageError> {
    let qcow2 = Qcow2::<Stored>::builder(storage)
        .write(writable)
        .backing(under)
        .data_file(None)
        .open(DenyImplicitOpenGate::default())
        .map_err(|error| ImageError::Format(DiskFormat::Qcow2, error))?;
    if let Some(name) = qcow2.implicit_external_data_file() {
        return Err(ImageError::OtherFile(name.clone()));
    }
    if qcow2.requires_external_data_file() {
        return Err(ImageError::OtherFile("its data file".to_owned()));
    }
    Ok(qcow2)
}

impl BlockBackend for Image {
    fn read(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        let (vector, _mapped) = IoVectorMut::from_volatile_slice(buffers);
        self.using(|access| access.readv(vector, offset))
    }

    fn write(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        let (vector, _mapped) = IoVector::from_volatile_slice(buffers);
        self.using(|access| access.writev(vector, offset))
    }

    fn flush(&self) -> io::Result<()> {
        self.using(|access| {
            access.flush()?;
            access.sync()
        })
    }

    fn discard(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let discarded = self.changing(|access| access.discard_to_any(offset, bytes));
        discarded.or_else(|error| match error.kind() {
            io::ErrorKind::Unsupported => Ok(()),
            _ => Err(error),
        })
    }

    fn write_zeroes(&self, offset: u64, bytes: u64, unmap: Unmap) -> io::Result<()> {
        match unmap {
            Unmap::Allowed => self.changing(|access| access.discard_to_zero(offset, bytes)),
            Unmap::Forbidden => self.using(|access| write_zeroes(access, offset, bytes)),
        }
    }
}

/// Writes zeroes as data, so that they have storage.
fn write_zeroes(access: &FormatAccess<Stored>, offset: u64, bytes: u64) -> io::Result<()> {
    let zeroes = vec![0; usize::try_from(bytes.min(ZEROES)).unwrap_or(0)];
    let mut done = 0;
    while done < bytes {
        let now = usize::try_from(bytes - done).unwrap_or(usize::MAX);
        let piece = zeroes.get(..now.min(zeroes.len())).unwrap_or_default();
        access.write(piece, offset.saturating_add(done))?;
        done = done.saturating_add(piece.len() as u64);
    }
    Ok(())
}
