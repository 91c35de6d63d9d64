//! Why there is no tap interface.

use std::io;

use super::TapName;

/// Why a tap interface cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The host has no tap interfaces, or does not let this process have any.
    #[error("cannot open /dev/net/tun")]
    Open(#[source] io::Error),
    /// The interface may not be made, or belongs to somebody else.
    #[error("no permission to use the tap interface {0}")]
    Permission(TapName),
    /// Somebody has it open.
    #[error("the tap interface {0} is in use")]
    Busy(TapName),
    /// There is an interface of this name, of another kind or with another number of queues.
    #[error("the interface {0} is not a tap interface with enough queues")]
    Kind(TapName),
    /// The kernel refuses for another reason.
    #[error("cannot use the tap interface {name}: TUNSETIFF failed")]
    Attach {
        /// Which.
        name: TapName,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The kernel does not take the form of header that ccvm needs.
    #[error("cannot set up the tap interface {name}")]
    Setup {
        /// Which.
        name: TapName,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The descriptor that was handed over is none of a tap interface.
    #[error("file descriptor {number} is not that of a tap interface")]
    NotATap {
        /// Which.
        number: u16,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The interface was made without headers in front of frames.
    #[error("the tap interface {name} of file descriptor {number} has no virtio-net header")]
    NoHeader {
        /// Which.
        number: u16,
        /// The interface.
        name: TapName,
    },
}

impl TapError {
    /// The kernel's answer to `TUNSETIFF`.
    pub(super) fn attach(name: &TapName, source: io::Error) -> Self {
        let name = name.clone();
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::Permission(name),
            io::ErrorKind::ResourceBusy => Self::Busy(name),
            io::ErrorKind::InvalidInput | io::ErrorKind::ArgumentListTooLong => Self::Kind(name),
            _ => Self::Attach { name, source },
        }
    }
}
