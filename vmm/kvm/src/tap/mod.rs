//! Tap interfaces of the host: whole Ethernet frames, each behind the header of virtio-net.
//!
//! ```text
//!   Tap::open("tap0", 2) ──► one file for each queue ──► read, write: [ header, 12 bytes | frame ]
//!                                    └─► offloads, and whether the host may use the queue
//! ```
//! It is in this crate because the interface is one of ioctls, as KVM's is, and unsafe code is
//! kept in few places.

mod error;
mod ioctl;
mod name;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bitflags::bitflags;
use hostcall::gate;
use rustix::fs::{Mode, OFlags};

pub use error::TapError;
pub use name::{BadTapName, TapName};

use ioctl::Kind;

/// Where tap interfaces come from.
const TUN: &str = "/dev/net/tun";

/// Bytes of the header in front of each frame: that of virtio-net without a legacy driver (virtio
/// 1.2, 5.1.6).
pub const HEADER_BYTES: usize = 12;

/// The most queues that an interface can have: `MAX_TAP_QUEUES` of the kernel.
pub const MOST_QUEUES: u16 = 256;

bitflags! {
    /// What the host may leave to the reader of its frames: `TUN_F_*`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct Offloads: u32 {
        /// Checksums.
        const CHECKSUM = 1;
        /// Cutting of TCP over IPv4. Needs [`Offloads::CHECKSUM`].
        const TSO4 = 2;
        /// Cutting of TCP over IPv6. Needs [`Offloads::CHECKSUM`].
        const TSO6 = 4;
    }
}

/// Whether the host sends frames by a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueUse {
    /// It may.
    Used,
    /// It does not.
    Unused,
}

/// One queue of a tap interface. Reading and writing never wait.
#[derive(Debug)]
pub struct Tap {
    file: OwnedFd,
    name: TapName,
}

impl Tap {
    /// The queues of the interface `name`, which is made if there is none, and goes with them if it
    /// was.
    ///
    /// # Errors
    /// When there is no `/dev/net/tun`, no permission, somebody else uses the interface, or it is of
    /// another kind.
    pub fn open(name: &TapName, queues: u16) -> Result<Vec<Self>, TapError> {
        let kinds: &[Kind] = match queues {
            // One that can have several will do for one as well.
            1 => &[Kind::Single, Kind::Multi],
            _ => &[Kind::Multi],
        };
        let mut refused = TapError::Kind(name.clone());
        for &kind in kinds {
            match (0..queues).map(|_| Self::queue(name, kind)).collect() {
                Err(error @ TapError::Kind(_)) => refused = error,
                opened => return opened,
            }
        }
        Err(refused)
    }

    fn queue(name: &TapName, kind: Kind) -> Result<Self, TapError> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        gate("open /dev/net/tun").map_err(TapError::Open)?;
        let file = rustix::fs::open(TUN, flags, Mode::empty());
        let file = file.map_err(|errno| TapError::Open(errno.into()))?;
        ioctl::attach(&file, name, kind).map_err(|source| TapError::attach(name, source))?;
        let name = name.clone();
        Self { file, name }.prepared()
    }

    /// The queue that this process was started with as file descriptor `number`, by another
    /// descriptor. That one stays open.
    ///
    /// # Errors
    /// When it is not the file of a tap interface that has headers in front of frames.
    pub fn inherited(number: u16) -> Result<Self, TapError> {
        let not_a_tap = |source| TapError::NotATap { number, source };
        let file = ioctl::duplicate(number.into()).map_err(not_a_tap)?;
        let (name, has_header) = ioctl::identify(&file).map_err(not_a_tap)?;
        if !has_header {
            return Err(TapError::NoHeader { number, name });
        }
        let flags = rustix::fs::fcntl_getfl(&file).map_err(io::Error::from);
        let set = flags.and_then(|flags| {
            rustix::fs::fcntl_setfl(&file, flags | OFlags::NONBLOCK).map_err(io::Error::from)
        });
        set.map_err(not_a_tap)?;
        Self { file, name }.prepared()
    }

    /// With the header that ccvm needs, and no offloads.
    fn prepared(self) -> Result<Self, TapError> {
        let bytes = i32::try_from(HEADER_BYTES).unwrap_or(i32::MAX);
        let setup = ioctl::set_header_bytes(&self.file, bytes)
            .and_then(|()| ioctl::set_little_endian(&self.file))
            .and_then(|()| self.set_offloads(Offloads::empty()));
        match setup {
            Ok(()) => Ok(self),
            Err(source) => Err(TapError::Setup {
                name: self.name,
                source,
            }),
        }
    }

    /// The interface's name.
    #[must_use]
    pub const fn name(&self) -> &TapName {
        &self.name
    }

    /// Sets what the host may leave to the reader. It is the same for all queues of an interface.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_offloads(&self, offloads: Offloads) -> io::Result<()> {
        ioctl::set_offloads(&self.file, offloads.bits())
    }

    /// Sets whether the host sends frames by this queue, which must be one of an interface with
    /// several.
    ///
    /// # Errors
    /// When the kernel refuses, also because it is so already.
    pub fn set_use(&self, queue: QueueUse) -> io::Result<()> {
        ioctl::set_queue(&self.file, queue)
    }

    /// Takes the next frame that the host sends, with its header, and returns how many bytes that is.
    /// What does not fit into `frame` is lost.
    ///
    /// # Errors
    /// `WouldBlock` when there is none.
    pub fn receive(&self, frame: &mut [u8]) -> io::Result<usize> {
        gate("read of a tap")?;
        Ok(rustix::io::read(&self.file, frame)?)
    }

    /// Gives the host a frame, with its header in front.
    ///
    /// # Errors
    /// `WouldBlock` when the host has no room now; others when it does not take the frame, for
    /// instance because the interface is down.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        gate("write to a tap")?;
        rustix::io::write(&self.file, frame)?;
        Ok(())
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_that_is_no_tap_is_refused_by_its_number() {
        let closed = Tap::inherited(u16::MAX).unwrap_err();
        let TapError::NotATap { number, .. } = closed else {
            panic!("{closed:?}");
        };
        assert_eq!(number, u16::MAX);
        let stdin = Tap::inherited(0).unwrap_err();
        assert_eq!(
            stdin.to_string(),
            "file descriptor 0 is not that of a tap interface"
        );
    }

    #[test]
    fn offloads_have_the_kernels_values() {
        for (offload, value) in [
            (Offloads::CHECKSUM, libc::TUN_F_CSUM),
            (Offloads::TSO4, libc::TUN_F_TSO4),
            (Offloads::TSO6, libc::TUN_F_TSO6),
        ] {
            assert_eq!(offload.bits(), value);
        }
    }
}
