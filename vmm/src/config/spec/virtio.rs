//! Emulated devices other than disks.

use std::fmt;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::str::FromStr;

use kvm::tap::TapName;

/// The emulated devices of a VM, without its disks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VirtioSpec {
    /// `[[net]]`, in the order of the file.
    pub nets: Vec<NetSpec>,
    /// `[[vhost-user]]`, in the order of the file.
    pub daemons: Vec<DaemonSpec>,
    /// `[vsock]`.
    pub vsock: Option<VsockSpec>,
    /// `[rng]`.
    pub rng: Option<RngSpec>,
    /// `[console] device`.
    pub console: ConsoleChoice,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetSpec {
    /// What of the host is behind it.
    pub source: NetSource,
    /// Its address; `None` for one that is made up at launch.
    pub mac: Option<MacAddress>,
    /// Pairs of queues, each with a thread of the host that serves it.
    pub queues: NonZeroU16,
}

/// What is behind a network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetSource {
    /// The tap interface of this name.
    Tap(TapName),
    /// The queue of a tap interface that ccvm is started with as this file descriptor.
    Descriptor(u16),
}

impl fmt::Display for NetSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tap(name) => write!(f, "{name}"),
            Self::Descriptor(number) => write!(f, "file descriptor {number}"),
        }
    }
}

/// The address of a network interface: one of a single interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MacAddress([u8; 6]);

impl MacAddress {
    /// Not given out by a manufacturer.
    const LOCAL: u8 = 2;
    /// Of many interfaces.
    const GROUP: u8 = 1;

    /// The address with these bytes, made one of a single interface that no manufacturer has given out.
    #[must_use]
    pub const fn local(mut bytes: [u8; 6]) -> Self {
        bytes[0] = bytes[0] & !Self::GROUP | Self::LOCAL;
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn bytes(self) -> [u8; 6] {
        self.0
    }
}

/// Why a text is not the address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadMac {
    /// Not six pairs of digits.
    #[error("is not six pairs of hexadecimal digits with colons between")]
    Form,
    /// No interface has it.
    #[error("is no address of a single interface")]
    NotOne,
}

impl FromStr for MacAddress {
    type Err = BadMac;

    fn from_str(text: &str) -> Result<Self, BadMac> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or(BadMac::Form)?;
            let digits = part.len() == 2 && part.bytes().all(|c| c.is_ascii_hexdigit());
            let value = u8::from_str_radix(part, 16).ok().filter(|_| digits);
            *byte = value.ok_or(BadMac::Form)?;
        }
        match (parts.next(), bytes) {
            (Some(_), _) => Err(BadMac::Form),
            (None, [0, 0, 0, 0, 0, 0]) => Err(BadMac::NotOne),
            (None, [first, ..]) if first & Self::GROUP != 0 => Err(BadMac::NotOne),
            (None, bytes) => Ok(Self(bytes)),
        }
    }
}

/// A device that another process of the host serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonSpec {
    /// The socket that the process listens at.
    pub socket: PathBuf,
    /// What it is to the guest.
    pub kind: DaemonKind,
}

/// What another process serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DaemonKind {
    /// A disk.
    Block {
        /// Its queues.
        queues: NonZeroU16,
    },
    /// A network interface.
    Net {
        /// Its address; `None` for one that is made up at launch.
        mac: Option<MacAddress>,
    },
    /// A file system.
    Fs {
        /// The name that the guest mounts it by.
        tag: FsTag,
    },
}

/// The name that a guest mounts a file system by: 1 to 36 bytes, none of them zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FsTag(String);

impl FsTag {
    /// `text`, if it is one.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let most = devices::virtio::vhost::FileSystem::TAG_BYTES;
        let fits = (1..=most).contains(&text.len()) && !text.contains('\0');
        fits.then(|| Self(text.to_owned()))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Sockets between guest and host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VsockSpec {
    /// The guest's context id.
    pub cid: u32,
}

/// A source of random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RngSpec;

/// Which device ccvm's terminal is connected to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ConsoleChoice {
    /// The serial port.
    #[default]
    Serial,
    /// A virtio console; what the guest sends to the serial port is shown as well.
    Virtio,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_that_of_one_interface() {
        let mac: MacAddress = "52:54:00:Ab:cD:0f".parse().unwrap();
        assert_eq!(mac.bytes(), [0x52, 0x54, 0, 0xab, 0xcd, 0xf]);
        for form in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:56:78",
            "5:54:00:12:34:56",
            "+5:54:00:12:34:56",
        ] {
            assert_eq!(form.parse::<MacAddress>(), Err(BadMac::Form), "{form}");
        }
        for group in [
            "00:00:00:00:00:00",
            "01:00:5e:00:00:01",
            "ff:ff:ff:ff:ff:ff",
        ] {
            assert_eq!(group.parse::<MacAddress>(), Err(BadMac::NotOne), "{group}");
        }
        for byte in 0..=0xff {
            let mac = MacAddress::local([byte, 1, 2, 3, 4, 5]).bytes();
            assert_eq!(mac[0] & 3, 2);
            assert_eq!(mac[1..], [1, 2, 3, 4, 5]);
        }
    }

    #[test]
    fn a_tag_has_room_in_the_configuration() {
        assert_eq!(FsTag::new("share").unwrap().as_str(), "share");
        assert!(FsTag::new(&"x".repeat(36)).is_some());
        for bad in ["", &"x".repeat(37), "a\0b"] {
            assert_eq!(FsTag::new(bad), None);
        }
    }
}
