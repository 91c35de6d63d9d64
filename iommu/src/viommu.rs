//! The guest's IOMMU: which endpoint is in which domain, and what becomes of its requests.
//!
//! ```text
//!             ATTACH, translated                    ATTACH, bypass
//!   Domain ◄────────────────────── unattached ──────────────────────► Identity
//!      │                        (bypass ? Identity                        │
//!      └──────── DETACH ──────►    : Blocked)    ◄──────── DETACH ────────┘
//! ```

mod domains;

use std::collections::BTreeMap;

use zerocopy::IntoBytes;

use crate::addr::{Gpa, Iova, PAGE_SIZE, PageRange};
use crate::domain::{Binding, DomainId};
use crate::request::{EndpointId, MapTarget, Request};
use crate::reserved::{Reason, Reserved};
use crate::space::{AddressSpace, EditError, RedirectError};
use crate::table::{DmaTable, TableId};
use crate::wire::{Config, ReservedMemory, Status, feature};

/// Domains that the guest may have at a time.
pub const MAX_DOMAINS: usize = 4096;

/// Bytes of properties in a PROBE request: room for 21 reserved windows and a terminator.
pub const PROBE_SIZE: u32 = 512;

/// The guest's IOMMU.
#[derive(Debug, Clone)]
pub struct Viommu {
    input: PageRange<Iova>,
    doorbell: Option<PageRange<Iova>>,
    bypass: bool,
    endpoints: BTreeMap<EndpointId, Endpoint>,
    domains: BTreeMap<DomainId, DomainKind>,
}

#[derive(Debug, Clone)]
struct Endpoint {
    table: TableId,
    reserved: Reserved,
    domain: Option<DomainId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DomainKind {
    Translated,
    Bypass,
}

/// The end of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What the guest is told.
    pub status: Status,
    /// Tables that were quarantined: their devices must be cut off and reset.
    pub quarantined: Vec<TableId>,
}

impl From<Status> for Answer {
    fn from(status: Status) -> Self {
        Self {
            status,
            quarantined: Vec::new(),
        }
    }
}

/// An endpoint cannot be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// There is one of this number.
    #[error("endpoint {:#x} exists already", .0.0)]
    Exists(EndpointId),
    /// Its reserved windows do not fit into a PROBE request.
    #[error("endpoint {:#x} has too many reserved windows", .0.0)]
    TooManyWindows(EndpointId),
}

impl Viommu {
    /// An IOMMU without endpoints that translates these addresses. `input` is what its narrowest
    /// device can use. With `bypass`, endpoints without a domain reach guest memory by its addresses.
    #[must_use]
    pub fn new(input: PageRange<Iova>, bypass: bool) -> Self {
        Self {
            input,
            doorbell: None,
            bypass,
            endpoints: BTreeMap::new(),
            domains: BTreeMap::new(),
        }
    }

    /// Keeps the IOVAs that are the addresses of the guest's interrupt doorbell out of translation.
    ///
    /// The guest programs its devices with the doorbell's own address, and whoever routes interrupts
    /// reads it there: such a write never passes a DMA table. PROBE says so, so the guest maps none.
    #[must_use]
    pub fn with_doorbell(mut self, doorbell: PageRange<Gpa>) -> Self {
        self.doorbell = doorbell.rebased(Iova::new(doorbell.start().raw()));
        self
    }

    /// What the device offers.
    #[must_use]
    pub const fn features() -> u64 {
        feature::INPUT_RANGE
            | feature::DOMAIN_RANGE
            | feature::MAP_UNMAP
            | feature::PROBE
            | feature::MMIO
            | feature::BYPASS_CONFIG
    }

    /// The device configuration, for a host that maps pages of the sizes in `page_size_mask`: 4 KiB must
    /// be among them.
    #[must_use]
    pub fn config(&self, page_size_mask: u64) -> Config {
        Config {
            // Nothing below a page can be converted, so nothing below it can be mapped.
            page_size_mask: (page_size_mask & !(PAGE_SIZE - 1)).into(),
            input_start: self.input.start().raw().into(),
            input_end: self.input.last().raw().into(),
            domain_start: 0.into(),
            domain_end: u32::MAX.into(),
            probe_size: PROBE_SIZE.into(),
            bypass: u8::from(self.bypass),
            reserved: [0; 3],
        }
    }

    /// What a table translates by while its endpoint is in no domain.
    #[must_use]
    pub const fn unattached(&self) -> Binding {
        if self.bypass {
            Binding::Identity
        } else {
            Binding::Blocked
        }
    }

    /// Adds an endpoint whose device is behind `table`, which is bound to [`Viommu::unattached`] and
    /// never maps `reserved`.
    ///
    /// # Errors
    /// When there is one of this number, or too much to tell the guest about it.
    pub fn add(
        &mut self,
        id: EndpointId,
        table: TableId,
        reserved: Reserved,
    ) -> Result<(), EndpointError> {
        if self.endpoints.contains_key(&id) {
            return Err(EndpointError::Exists(id));
        }
        let reserved = match self.doorbell {
            Some(doorbell) => reserved.and(doorbell, Reason::Msi),
            None => reserved,
        };
        let bytes = reserved
            .windows()
            .count()
            .saturating_mul(size_of::<ReservedMemory>());
        if bytes > usize::try_from(PROBE_SIZE).unwrap_or(usize::MAX) {
            return Err(EndpointError::TooManyWindows(id));
        }
        let domain = None;
        self.endpoints.insert(
            id,
            Endpoint {
                table,
                reserved,
                domain,
            },
        );
        Ok(())
    }

    /// Forgets an endpoint; its table has been detached.
    pub fn remove<T: DmaTable>(&mut self, space: &mut AddressSpace<T>, id: EndpointId) {
        if let Some(endpoint) = self.endpoints.remove(&id) {
            self.leave(space, endpoint.domain);
        }
    }

    /// The endpoint's domain: for reporting a fault of its device.
    #[must_use]
    pub fn domain_of(&self, id: EndpointId) -> Option<DomainId> {
        self.endpoints.get(&id)?.domain
    }

    /// Does what the guest asks. PROBE is answered by [`Viommu::probe`] as well.
    #[must_use = "the guest waits for the status"]
    pub fn apply<T: DmaTable>(&mut self, space: &mut AddressSpace<T>, request: Request) -> Answer {
        match request {
            Request::Attach {
                domain,
                endpoint,
                bypass,
            } => {
                let kind = if bypass {
                    DomainKind::Bypass
                } else {
                    DomainKind::Translated
                };
                self.attach(space, endpoint, (domain, kind))
            }
            Request::Detach { domain, endpoint } => self.detach(space, endpoint, domain),
            Request::Map {
                domain,
                virt_start,
                virt_end,
                phys_start,
                access,
                target: MapTarget::Memory,
            } => {
                let range = self.input_range(virt_start, virt_end);
                self.map(space, domain, (range, phys_start, access))
            }
            Request::Map {
                domain,
                virt_start,
                virt_end,
                phys_start,
                target: MapTarget::Device,
                ..
            } => self
                .map_device(domain, (virt_start, virt_end), phys_start)
                .into(),
            Request::Unmap {
                domain,
                virt_start,
                virt_end,
            } => self.unmap(space, domain, (virt_start, virt_end)),
            Request::Probe { endpoint } => match self.endpoints.contains_key(&endpoint) {
                true => Status::Ok.into(),
                false => Status::NoEntry.into(),
            },
        }
    }

    /// The properties of an endpoint, to be padded with zeroes to [`PROBE_SIZE`].
    #[must_use]
    pub fn probe(&self, id: EndpointId) -> Option<Vec<u8>> {
        let mut properties = Vec::new();
        for (window, reason) in self.endpoints.get(&id)?.reserved.windows() {
            let property = ReservedMemory {
                kind: ReservedMemory::KIND.into(),
                length: ReservedMemory::LENGTH.into(),
                subtype: match reason {
                    Reason::Msi => ReservedMemory::MSI,
                    Reason::Host => ReservedMemory::RESERVED,
                },
                reserved: [0; 3],
                start: window.start().raw().into(),
                end: window.last().raw().into(),
            };
            properties.extend_from_slice(property.as_bytes());
        }
        Some(properties)
    }

    /// Takes every endpoint out of its domain, as a reset of the device does. Returns the tables that
    /// did not follow: their devices must be cut off.
    #[must_use]
    pub fn reset<T: DmaTable>(&mut self, space: &mut AddressSpace<T>) -> Vec<TableId> {
        let attached = self
            .endpoints
            .iter()
            .filter_map(|(id, at)| Some((*id, at.domain?)));
        let mut failed = Vec::new();
        for (id, domain) in attached.collect::<Vec<_>>() {
            if self.detach(space, id, domain).status != Status::Ok {
                failed.extend(self.endpoints.get(&id).map(|endpoint| endpoint.table));
            }
        }
        failed
    }

    /// Sets whether endpoints without a domain are in bypass mode. Returns the tables that did not
    /// follow: their devices must be cut off.
    #[must_use]
    pub fn set_bypass<T: DmaTable>(
        &mut self,
        space: &mut AddressSpace<T>,
        bypass: bool,
    ) -> Vec<TableId> {
        self.bypass = bypass;
        let binding = self.unattached();
        let unattached = self
            .endpoints
            .values()
            .filter(|endpoint| endpoint.domain.is_none());
        let tables = unattached.map(|endpoint| endpoint.table);
        tables
            .filter(|table| space.bind(*table, binding).is_err())
            .collect()
    }
}

impl From<&RedirectError> for Answer {
    fn from(error: &RedirectError) -> Self {
        match error {
            RedirectError::Unsuitable { .. } => Status::Unsupported.into(),
            RedirectError::Damaged { table, .. } => Self {
                status: Status::DeviceError,
                quarantined: vec![*table],
            },
            RedirectError::NoTable(_)
            | RedirectError::NoDomain(_)
            | RedirectError::Quarantined(_)
            | RedirectError::Refused { .. } => Status::DeviceError.into(),
        }
    }
}

impl From<EditError> for Answer {
    fn from(error: EditError) -> Self {
        let status = if error.is_for_want_of_room() {
            Status::NoMemory
        } else {
            Status::DeviceError
        };
        Self {
            status,
            quarantined: error.quarantined,
        }
    }
}

#[cfg(test)]
mod tests;
