//! From the bytes of a virtio-iommu request to a [`Request`].
//!
//! A request is what the guest alleges: its shape is checked here, and whether it can be done is the
//! business of [`Viommu`](crate::viommu::Viommu).

use zerocopy::FromBytes;

use crate::domain::DomainId;
use crate::mapping::Access;
use crate::wire::{self, Status, feature, kind};

/// Names an endpoint of the guest's IOMMU; for PCI its requester id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(pub u32);

/// What the guest asks of its IOMMU. Addresses are as it wrote them; ends are inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the specification's")]
pub enum Request {
    /// Put an endpoint into a domain.
    Attach {
        domain: DomainId,
        endpoint: EndpointId,
        bypass: bool,
    },
    /// Take an endpoint out of its domain.
    Detach {
        domain: DomainId,
        endpoint: EndpointId,
    },
    /// Add a mapping to a domain.
    Map {
        domain: DomainId,
        virt_start: u64,
        virt_end: u64,
        phys_start: u64,
        access: Access,
        target: MapTarget,
    },
    /// Remove the mappings in a range.
    Unmap {
        domain: DomainId,
        virt_start: u64,
        virt_end: u64,
    },
    /// Tell the properties of an endpoint.
    Probe { endpoint: EndpointId },
}

/// What the guest says is at the addresses that it maps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapTarget {
    /// Memory.
    Memory,
    /// Registers of a device.
    Device,
}

/// Why bytes are no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It is of an unknown type or too short for its type: the buffer goes back unwritten.
    #[error("not a request")]
    Unrecognised,
    /// It is answered with this status.
    #[error("a request with fields that are not allowed")]
    Answer(Status),
}

impl Request {
    /// Bytes of the longest request: PROBE, whose end is padding.
    pub const LONGEST: usize = 4 + size_of::<wire::Probe>();

    /// Parses the device-readable part of a request. What lies beyond its structure is ignored; flags of
    /// features that the driver has not accepted are not allowed.
    ///
    /// # Errors
    /// See [`Malformed`].
    pub fn parse(bytes: &[u8], features: u64) -> Result<Self, Malformed> {
        let (head, body) = bytes
            .split_first_chunk::<4>()
            .ok_or(Malformed::Unrecognised)?;
        let [kind, ..] = *head;
        match kind {
            kind::ATTACH => Self::attach(body, features),
            kind::DETACH => read::<wire::Detach>(body).map(|detach| Self::Detach {
                domain: DomainId::new(detach.domain.get()),
                endpoint: EndpointId(detach.endpoint.get()),
            }),
            kind::MAP => Self::map(body, features),
            kind::UNMAP => Self::unmap(body),
            kind::PROBE => read::<wire::Probe>(body).map(|probe| Self::Probe {
                endpoint: EndpointId(probe.endpoint.get()),
            }),
            _ => Err(Malformed::Unrecognised),
        }
    }

    fn attach(body: &[u8], features: u64) -> Result<Self, Malformed> {
        let attach: wire::Attach = read(body)?;
        let flags = attach.flags.get();
        let known = match features & feature::BYPASS_CONFIG {
            0 => 0,
            _ => wire::ATTACH_BYPASS,
        };
        if attach.reserved.get() != 0 || flags & !known != 0 {
            return Err(Malformed::Answer(Status::Invalid));
        }
        Ok(Self::Attach {
            domain: DomainId::new(attach.domain.get()),
            endpoint: EndpointId(attach.endpoint.get()),
            bypass: flags != 0,
        })
    }

    fn map(body: &[u8], features: u64) -> Result<Self, Malformed> {
        let map: wire::Map = read(body)?;
        let flags = map.flags.get();
        let target = match flags & wire::MAP_MMIO {
            0 => MapTarget::Memory,
            _ if features & feature::MMIO == 0 => return Err(Malformed::Answer(Status::Invalid)),
            _ => MapTarget::Device,
        };
        let access = match flags & !wire::MAP_MMIO {
            wire::MAP_READ => Access::Read,
            wire::MAP_WRITE => Access::Write,
            flags if flags == wire::MAP_READ | wire::MAP_WRITE => Access::ReadWrite,
            _ => return Err(Malformed::Answer(Status::Invalid)),
        };
        Ok(Self::Map {
            domain: DomainId::new(map.domain.get()),
            virt_start: map.virt_start.get(),
            virt_end: map.virt_end.get(),
            phys_start: map.phys_start.get(),
            access,
            target,
        })
    }

    fn unmap(body: &[u8]) -> Result<Self, Malformed> {
        let unmap: wire::Unmap = read(body)?;
        if unmap.reserved.get() != 0 {
            return Err(Malformed::Answer(Status::Invalid));
        }
        Ok(Self::Unmap {
            domain: DomainId::new(unmap.domain.get()),
            virt_start: unmap.virt_start.get(),
            virt_end: unmap.virt_end.get(),
        })
    }
}

fn read<T: FromBytes>(body: &[u8]) -> Result<T, Malformed> {
    let (value, _) = T::read_from_prefix(body).map_err(|_| Malformed::Unrecognised)?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes;

    use super::*;

    const ALL: u64 = feature::MMIO | feature::BYPASS_CONFIG;

    fn request(kind: u8, body: &[u8]) -> Result<Request, Malformed> {
        request_with(ALL, kind, body)
    }

    fn request_with(features: u64, kind: u8, body: &[u8]) -> Result<Request, Malformed> {
        Request::parse(&[&[kind, 0xff, 0xff, 0xff], body].concat(), features)
    }

    #[test]
    fn the_structures_have_the_sizes_of_the_specification() {
        assert_eq!(size_of::<wire::Attach>(), 16);
        assert_eq!(size_of::<wire::Detach>(), 16);
        assert_eq!(size_of::<wire::Map>(), 32);
        assert_eq!(size_of::<wire::Unmap>(), 24);
        assert_eq!(size_of::<wire::Probe>(), 68);
        assert_eq!(size_of::<wire::Config>(), 40);
        assert_eq!(size_of::<wire::Fault>(), 24);
        assert_eq!(size_of::<wire::ReservedMemory>(), 24);
    }

    #[test]
    fn a_map_request_is_read_field_by_field() {
        let map = wire::Map {
            domain: 3.into(),
            virt_start: 0x1000.into(),
            virt_end: 0x1fff.into(),
            phys_start: 0xa000.into(),
            flags: wire::MAP_READ.into(),
        };
        let expected = Request::Map {
            domain: DomainId::new(3),
            virt_start: 0x1000,
            virt_end: 0x1fff,
            phys_start: 0xa000,
            access: Access::Read,
            target: MapTarget::Memory,
        };
        assert_eq!(request(kind::MAP, map.as_bytes()), Ok(expected));
    }

    #[test]
    fn a_request_that_is_cut_short_or_unknown_gets_no_answer() {
        let unrecognised = Err(Malformed::Unrecognised);
        assert_eq!(Request::parse(&[], ALL), unrecognised);
        assert_eq!(Request::parse(&[kind::MAP, 0, 0], ALL), unrecognised);
        assert_eq!(request(kind::MAP, &[0; 31]), unrecognised);
        assert_eq!(request(0, &[0; 64]), unrecognised);
        assert_eq!(request(6, &[0; 64]), unrecognised);
    }

    #[test]
    fn flags_of_features_that_were_not_accepted_are_invalid() {
        let mut attach = [0; 16];
        attach[8] = 1;
        let mut map = [0; 32];
        map[28] = 7;
        let invalid = Err(Malformed::Answer(Status::Invalid));
        assert!(request(kind::ATTACH, &attach).is_ok());
        assert!(request(kind::MAP, &map).is_ok());
        assert_eq!(request_with(feature::MMIO, kind::ATTACH, &attach), invalid);
        let bypass = feature::BYPASS_CONFIG;
        assert_eq!(request_with(bypass, kind::MAP, &map), invalid);
    }

    #[test]
    fn unknown_flags_and_reserved_bytes_are_invalid() {
        let invalid = Err(Malformed::Answer(Status::Invalid));
        let mut attach = [0; 16];
        attach[8] = 2;
        assert_eq!(request(kind::ATTACH, &attach), invalid);
        attach[8] = 0;
        attach[15] = 1;
        assert_eq!(request(kind::ATTACH, &attach), invalid);
        // No access at all, and flags that nobody knows.
        for flags in [0, 4, 8, 15] {
            let mut map = [0; 32];
            map[28] = flags;
            assert_eq!(request(kind::MAP, &map), invalid);
        }
        let mut unmap = [0; 24];
        unmap[20] = 1;
        assert_eq!(request(kind::UNMAP, &unmap), invalid);
        assert!(request(kind::DETACH, &[0xff; 16]).is_ok());
    }
}
