//! What is served.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{Immutable, IntoBytes};

use crate::virtio::feature::{EVENT_IDX, INDIRECT_DESC};
use crate::virtio::net::{self, Config, Identity};

/// Features of a ring, which whoever serves it may have.
const RING: u64 = EVENT_IDX | INDIRECT_DESC;

/// A kind of device, as its driver finds it.
pub trait Kind: Send {
    /// The device configuration.
    type Config: IntoBytes + Immutable;

    /// The device id.
    const ID: u16;

    /// The class code of the PCI function.
    const CLASS: [u8; 3];

    /// The most entries of each ring.
    fn queues(&self) -> Vec<u16>;

    /// How many of the rings, from the first on, the host serves.
    fn served(&self) -> usize {
        self.queues().len()
    }

    /// The features that the device offers, without those of the transport.
    fn features(&self) -> u64;

    /// The configuration.
    fn config(&self) -> Self::Config;
}

/// Sockets between guest and host (virtio 1.2, 5.10).
#[derive(Debug, Clone, Copy)]
pub struct Vsock {
    cid: u32,
    features: u64,
}

impl Vsock {
    /// Sockets that keep the boundaries of messages.
    const SEQPACKET: u64 = 1 << 1;

    /// For a guest of the context id `cid`, by a host that offers `features`.
    #[must_use]
    pub const fn new(cid: u32, features: u64) -> Self {
        let features = features & (RING | Self::SEQPACKET);
        Self { cid, features }
    }
}

impl Kind for Vsock {
    type Config = U64;

    const ID: u16 = 19;
    /// Simple communication controller, other.
    const CLASS: [u8; 3] = [0x07, 0x80, 0x00];

    fn queues(&self) -> Vec<u16> {
        vec![256, 256, 64]
    }

    /// The third ring is for events of a migration, of which there are none.
    fn served(&self) -> usize {
        2
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn config(&self) -> U64 {
        u64::from(self.cid).into()
    }
}

/// A disk (virtio 1.2, 5.2).
#[derive(Debug, Clone, Copy)]
pub struct Block {
    config: [u8; Self::CONFIG_BYTES],
    queues: u16,
    features: u64,
}

impl Block {
    /// Bytes of its configuration, which the host knows.
    pub const CONFIG_BYTES: usize = 60;

    /// Several queues.
    const MQ: u64 = 1 << 12;
    /// `SIZE_MAX`, `SEG_MAX`, `GEOMETRY`, `RO`, `BLK_SIZE`, `FLUSH`, `TOPOLOGY`, `DISCARD` and
    /// `WRITE_ZEROES`. The cache mode is the host's: there is no way to write the configuration.
    const KNOWN: u64 = 0x6676;
    /// Where the configuration says how many queues there are.
    const QUEUES_AT: usize = 34;

    /// A disk with so many queues, by a host that offers `features` and says `config`.
    #[must_use]
    pub fn new(mut config: [u8; Self::CONFIG_BYTES], queues: u16, features: u64) -> Self {
        let several = if queues > 1 { Self::MQ } else { 0 };
        let at = Self::QUEUES_AT..Self::QUEUES_AT + size_of::<u16>();
        if let Some(field) = config.get_mut(at) {
            field.copy_from_slice(&queues.to_le_bytes());
        }
        Self {
            config,
            queues,
            features: features & (RING | Self::KNOWN | several),
        }
    }
}

impl Kind for Block {
    type Config = [u8; Self::CONFIG_BYTES];

    const ID: u16 = 2;
    /// Mass storage controller, other.
    const CLASS: [u8; 3] = [0x01, 0x80, 0x00];

    fn queues(&self) -> Vec<u16> {
        vec![256; self.queues.into()]
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn config(&self) -> Self::Config {
        self.config
    }
}

/// A network interface (virtio 1.2, 5.1), of one pair of rings.
#[derive(Debug, Clone, Copy)]
pub struct Net {
    identity: Identity,
    features: u64,
}

impl Net {
    /// An interface with this address, by a host that offers `features`.
    #[must_use]
    pub const fn new(mac: [u8; 6], features: u64) -> Self {
        use net::feature;
        let known = feature::CSUM
            | feature::GUEST_CSUM
            | feature::GUEST_TSO4
            | feature::GUEST_TSO6
            | feature::HOST_TSO4
            | feature::HOST_TSO6
            | feature::MRG_RXBUF;
        Self {
            identity: Identity {
                mac,
                pairs: 1,
                mtu: None,
            },
            features: features & (RING | known) | feature::MAC | feature::STATUS,
        }
    }
}

impl Kind for Net {
    type Config = Config;

    const ID: u16 = 1;
    /// Network controller, Ethernet.
    const CLASS: [u8; 3] = [0x02, 0x00, 0x00];

    fn queues(&self) -> Vec<u16> {
        vec![256; 2]
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn config(&self) -> Config {
        self.identity.config()
    }
}

/// A file system of the host (virtio 1.2, 5.11).
#[derive(Debug, Clone, Copy)]
pub struct FileSystem {
    tag: [u8; Self::TAG_BYTES],
    features: u64,
}

impl FileSystem {
    /// The most bytes of its tag.
    pub const TAG_BYTES: usize = 36;

    /// The file system that the guest mounts as `tag`, of which the first [`Self::TAG_BYTES`] bytes
    /// count, by a host that offers `features`.
    #[must_use]
    pub fn new(tag: &str, features: u64) -> Self {
        let mut bytes = [0; Self::TAG_BYTES];
        for (to, from) in bytes.iter_mut().zip(tag.bytes()) {
            *to = from;
        }
        Self {
            tag: bytes,
            features: features & RING,
        }
    }
}

/// The configuration of a [`FileSystem`] (virtio 1.2, 5.11.4).
#[derive(Debug, Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
pub struct FileSystemConfig {
    tag: [u8; FileSystem::TAG_BYTES],
    request_queues: U32,
}

impl Kind for FileSystem {
    type Config = FileSystemConfig;

    const ID: u16 = 26;
    /// Mass storage controller, other.
    const CLASS: [u8; 3] = [0x01, 0x80, 0x00];

    /// One for requests that cannot wait, and one for the others.
    fn queues(&self) -> Vec<u16> {
        vec![128, 1024]
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn config(&self) -> FileSystemConfig {
        FileSystemConfig {
            tag: self.tag,
            request_queues: U32::new(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_offers_only_what_this_device_can_pass_on() {
        assert_eq!(Vsock::new(3, !0).features(), RING | 2);
        assert_eq!(Vsock::new(3, 0).features(), 0);
        let disk = Block::new([0xff; Block::CONFIG_BYTES], 1, !0);
        assert_eq!(disk.features(), RING | 0x6676);
        assert_eq!(disk.config()[32..37], [0xff, 0xff, 1, 0, 0xff]);
        let disk = Block::new([0; Block::CONFIG_BYTES], 4, !0);
        assert_eq!(disk.features(), RING | 0x7676);
        assert_eq!(disk.queues().len(), 4);
        let net = Net::new([2, 0, 0, 0, 0, 9], 0);
        assert_eq!(net.features(), net::feature::MAC | net::feature::STATUS);
        assert_eq!(net.config().as_bytes()[..8], [2, 0, 0, 0, 0, 9, 1, 0]);
        assert_eq!(Net::new([0; 6], !0).features() & net::feature::MQ, 0);
    }

    #[test]
    fn a_file_system_has_its_tag_in_front() {
        let config = FileSystem::new("share", !0).config();
        let bytes = config.as_bytes();
        assert_eq!(bytes[..7], *b"share\0\0");
        assert_eq!(bytes[36..], [1, 0, 0, 0]);
        let long = FileSystem::new(&"x".repeat(40), 0).config();
        assert_eq!(long.as_bytes()[..37], [&[b'x'; 36][..], &[1]].concat());
    }
}
