//! The guest's IOMMU: which endpoint is in which domain, and what becomes of its requests.
//!
//! ```text
//!             ATTACH, translated                    ATTACH, bypass
//!   Domain ◄────────────────────── unattached ──────────────────────► Identity
//!      │                        (bypass ? Identity                        │
//!      └──────── DETACH ──────►    : Blocked)    ◄──────── DETACH ────────┘
//! ```

use std::collections::BTreeMap;

use zerocopy::IntoBytes;

use crate::addr::{Iova, Ipa, PAGE_SIZE, PageRange};
use crate::domain::{Binding, DomainId, Translation};
use crate::mapping::Access;
use crate::request::{EndpointId, Request};
use crate::reserved::{Reason, Reserved};
use crate::space::{AddressSpace, EditError, MapError, RedirectError, UnmapError};
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
            bypass,
            endpoints: BTreeMap::new(),
            domains: BTreeMap::new(),
        }
    }

    /// What the device offers.
    #[must_use]
    pub const fn features() -> u64 {
        feature::INPUT_RANGE
            | feature::DOMAIN_RANGE
            | feature::MAP_UNMAP
            | feature::PROBE
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
            } => {
                let range = self.input_range(virt_start, virt_end);
                self.map(space, domain, (range, phys_start, access))
            }
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

    fn attach<T: DmaTable>(
        &mut self,
        space: &mut AddressSpace<T>,
        id: EndpointId,
        (domain, kind): (DomainId, DomainKind),
    ) -> Answer {
        let Some(endpoint) = self.endpoints.get(&id) else {
            return Status::NoEntry.into();
        };
        let (table, old) = (endpoint.table, endpoint.domain);
        let mut neighbours = self.endpoints.iter().filter(|(other, at)| {
            at.table == table && **other != id && at.domain.is_some_and(|other| other != domain)
        });
        if neighbours.next().is_some() {
            return Status::Unsupported.into();
        }
        match self.domains.get(&domain) {
            Some(existing) if *existing != kind => return Status::Invalid.into(),
            Some(_) => {}
            None if self.domains.len() >= MAX_DOMAINS => return Status::NoMemory.into(),
            None => {
                if kind == DomainKind::Translated && space.create_domain(domain).is_err() {
                    return Status::DeviceError.into();
                }
                self.domains.insert(domain, kind);
            }
        }
        let binding = match kind {
            DomainKind::Translated => Binding::Domain(domain),
            DomainKind::Bypass => Binding::Identity,
        };
        let bound = space.bind(table, binding);
        if let (Ok(()), Some(endpoint)) = (&bound, self.endpoints.get_mut(&id)) {
            endpoint.domain = Some(domain);
        }
        // One of the two has lost its endpoint, or never had it.
        let left = if bound.is_ok() { old } else { Some(domain) };
        self.leave(space, left);
        bound.map_or_else(|error| Answer::from(&error), |()| Status::Ok.into())
    }

    fn detach<T: DmaTable>(
        &mut self,
        space: &mut AddressSpace<T>,
        id: EndpointId,
        domain: DomainId,
    ) -> Answer {
        let unattached = self.unattached();
        let Some(endpoint) = self.endpoints.get(&id) else {
            return Status::NoEntry.into();
        };
        if endpoint.domain != Some(domain) {
            return Status::Invalid.into();
        }
        let table = endpoint.table;
        let shared = self
            .endpoints
            .iter()
            .any(|(other, at)| at.table == table && *other != id && at.domain.is_some());
        let bound = if shared {
            Ok(())
        } else {
            space.bind(table, unattached)
        };
        if let Err(error) = bound {
            return Answer::from(&error);
        }
        if let Some(endpoint) = self.endpoints.get_mut(&id) {
            endpoint.domain = None;
        }
        self.leave(space, Some(domain));
        Status::Ok.into()
    }

    /// Forgets a domain that has no endpoint any more.
    fn leave<T: DmaTable>(&mut self, space: &mut AddressSpace<T>, domain: Option<DomainId>) {
        let Some(id) = domain else { return };
        if self
            .endpoints
            .values()
            .any(|endpoint| endpoint.domain == domain)
        {
            return;
        }
        if self.domains.remove(&id) == Some(DomainKind::Translated) {
            let removed = space.remove_domain(id);
            debug_assert!(removed.is_ok(), "{removed:?}");
        }
    }

    /// The pages from one address to another, inclusive, where they can be translated.
    fn input_range(&self, start: u64, last: u64) -> Option<PageRange<Iova>> {
        let end = last.checked_add(1)?;
        let range = PageRange::from_bounds(Iova::new(start), Iova::new(end)).ok()?;
        self.input.covers(range).then_some(range)
    }

    fn map<T: DmaTable>(
        &self,
        space: &mut AddressSpace<T>,
        domain: DomainId,
        (range, phys, access): (Option<PageRange<Iova>>, u64, Access),
    ) -> Answer {
        if let Err(status) = self.translated(domain) {
            return status.into();
        }
        let name = Ipa::new(phys);
        let Some(iova) = range.filter(|_| name.is_page_aligned()) else {
            return Status::Range.into();
        };
        match space.map(domain, Translation { iova, name, access }) {
            Ok(()) => Status::Ok.into(),
            Err(MapError::Host(error)) => error.into(),
            Err(MapError::NoDomain(_)) => Status::NoEntry.into(),
            Err(MapError::Overlap(_)) => Status::Invalid.into(),
            Err(MapError::NotDram(_)) => Status::Fault.into(),
            Err(MapError::Unsuitable { .. }) => Status::Invalid.into(),
            Err(MapError::TooMany) => Status::NoMemory.into(),
        }
    }

    fn unmap<T: DmaTable>(
        &self,
        space: &mut AddressSpace<T>,
        domain: DomainId,
        (start, last): (u64, u64),
    ) -> Answer {
        if let Err(status) = self.translated(domain) {
            return status.into();
        }
        // The very last page is never mapped, so a range may as well end before it.
        let highest = PageRange::<Iova>::everything().last().raw();
        let end = last.min(highest).checked_add(1);
        let range =
            end.and_then(|end| PageRange::from_bounds(Iova::new(start), Iova::new(end)).ok());
        let Some(range) = range else {
            return Status::Range.into();
        };
        match space.unmap(domain, range) {
            Ok(_) => Status::Ok.into(),
            Err(UnmapError::NoDomain(_)) => Status::NoEntry.into(),
            Err(UnmapError::Splits(_)) => Status::Range.into(),
            Err(UnmapError::Host(error)) => error.into(),
        }
    }

    /// Whether a domain can be mapped in.
    fn translated(&self, domain: DomainId) -> Result<(), Status> {
        match self.domains.get(&domain) {
            None => Err(Status::NoEntry),
            Some(DomainKind::Bypass) => Err(Status::Invalid),
            Some(DomainKind::Translated) => Ok(()),
        }
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
