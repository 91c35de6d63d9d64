//! Requests that concern domains: who is in one, and what it maps.

use super::{Answer, DomainKind, MAX_DOMAINS, Viommu};
use crate::addr::{Iova, Ipa, PageRange};
use crate::domain::{Binding, DomainId, Translation};
use crate::mapping::Access;
use crate::request::EndpointId;
use crate::space::{AddressSpace, MapError, UnmapError};
use crate::table::DmaTable;
use crate::wire::Status;

impl Viommu {
    pub(super) fn attach<T: DmaTable>(
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

    pub(super) fn detach<T: DmaTable>(
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
    pub(super) fn leave<T: DmaTable>(
        &mut self,
        space: &mut AddressSpace<T>,
        domain: Option<DomainId>,
    ) {
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
    pub(super) fn input_range(&self, start: u64, last: u64) -> Option<PageRange<Iova>> {
        let end = last.checked_add(1)?;
        let range = PageRange::from_bounds(Iova::new(start), Iova::new(end)).ok()?;
        self.input.covers(range).then_some(range)
    }

    pub(super) fn map<T: DmaTable>(
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
        if self
            .doorbell
            .is_some_and(|doorbell| doorbell.overlaps(iova))
        {
            return Status::Invalid.into();
        }
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

    /// No device reaches the registers of another one, and interrupts need no mapping: a success would
    /// not be one.
    pub(super) fn map_device(
        &self,
        domain: DomainId,
        (start, last): (u64, u64),
        phys: u64,
    ) -> Status {
        if let Err(status) = self.translated(domain) {
            return status;
        }
        if self.input_range(start, last).is_none() || !Ipa::new(phys).is_page_aligned() {
            return Status::Range;
        }
        Status::Fault
    }

    pub(super) fn unmap<T: DmaTable>(
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
