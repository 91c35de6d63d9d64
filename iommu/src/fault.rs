//! An access of a device that its IOMMU refused, as the guest's IOMMU reports it.

use crate::addr::Iova;
use crate::request::EndpointId;
use crate::wire::Fault;

/// Why an access was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultReason {
    /// Nobody knows.
    Unknown,
    /// The endpoint is in no domain.
    Domain,
    /// Nothing is mapped at the address, or not for this access.
    Mapping,
}

/// What the device wanted to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultAccess {
    /// Nobody knows.
    Unknown,
    /// Read.
    Read,
    /// Write.
    Write,
}

/// An access that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultEvent {
    /// Why.
    pub reason: FaultReason,
    /// Read or write.
    pub access: FaultAccess,
    /// Whose access.
    pub endpoint: EndpointId,
    /// Where, if that is known.
    pub address: Option<Iova>,
}

impl From<FaultEvent> for Fault {
    fn from(event: FaultEvent) -> Self {
        let access = match event.access {
            FaultAccess::Unknown => 0,
            FaultAccess::Read => Self::READ,
            FaultAccess::Write => Self::WRITE,
        };
        let address = event.address.map_or(0, |_| Self::ADDRESS);
        Self {
            reason: match event.reason {
                FaultReason::Unknown => Self::REASON_UNKNOWN,
                FaultReason::Domain => Self::REASON_DOMAIN,
                FaultReason::Mapping => Self::REASON_MAPPING,
            },
            reserved: [0; 3],
            flags: (access | address).into(),
            endpoint: event.endpoint.0.into(),
            reserved2: 0.into(),
            address: event.address.map_or(0, Iova::raw).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes;

    use super::*;

    #[test]
    fn an_event_without_an_address_says_so() {
        let mut event = FaultEvent {
            reason: FaultReason::Mapping,
            access: FaultAccess::Write,
            endpoint: EndpointId(0x18),
            address: Some(Iova::new(0x1234_5678)),
        };
        let bytes = Fault::from(event);
        let mut expected = [0; 24];
        (expected[0], expected[4], expected[5], expected[8]) = (2, 2, 1, 0x18);
        expected[16..20].copy_from_slice(&0x1234_5678_u32.to_le_bytes());
        assert_eq!(bytes.as_bytes(), expected);
        event.address = None;
        assert_eq!(Fault::from(event).flags.get(), Fault::WRITE);
    }
}
