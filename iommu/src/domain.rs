//! Which guest-physical address a device reaches at each IOVA, as the guest has laid it down.

mod guest_map;

use std::fmt;

use crate::addr::{Iova, Ipa, PageRange};
use crate::mapping::Access;

pub use guest_map::{GuestMap, Splits};

/// Names a domain of the guest's IOMMU; the guest picks the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainId(u32);

impl DomainId {
    /// The domain with this number.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for DomainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "domain {}", self.0)
    }
}

/// What a table translates by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Binding {
    /// Every IOVA is the guest-physical address of the same number: no guest IOMMU, or its bypass.
    Identity,
    /// Nothing is translated: the guest has not attached the device to a domain.
    Blocked,
    /// As the guest has mapped this domain.
    Domain(DomainId),
}

/// The guest's translation from IOVA to guest-physical names.
///
/// It says nothing about page states: a translation to a page that is private stays, and has its
/// effect again once the page is shared.
#[derive(Debug, Clone, Copy)]
pub enum Domain<'a> {
    /// Every IOVA is the guest-physical address of the same number.
    Identity,
    /// Nothing is translated.
    Blocked,
    /// What the guest has mapped.
    Translated(&'a GuestMap),
}

/// A stretch of a domain that translates contiguous IOVAs to contiguous names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Translation {
    /// The addresses that the device uses.
    pub iova: PageRange<Iova>,
    /// The guest-physical name that the first of them translates to.
    pub name: Ipa,
    /// What the device may do there.
    pub access: Access,
}

impl Translation {
    /// The names that the IOVAs translate to, or `None` when they leave 64 bits.
    #[must_use]
    pub fn names(self) -> Option<PageRange<Ipa>> {
        self.iova.rebased(self.name)
    }

    /// The IOVA that translates to `name`, which is one of its names.
    pub(crate) fn iova_of(self, name: Ipa) -> Option<Iova> {
        self.iova.start().checked_add(name.offset_from(self.name)?)
    }

    /// The part of it in `window`.
    fn cut(self, window: PageRange<Iova>) -> Option<Self> {
        let iova = self.iova.intersection(window)?;
        let skipped = iova.start().offset_from(self.iova.start())?;
        let name = self.name.checked_add(skipped)?;
        Some(Self { iova, name, ..self })
    }
}

impl<'a> Domain<'a> {
    /// Calls `each` with the translations in `window`, cut to it, in order.
    pub(crate) fn visit(self, window: PageRange<Iova>, mut each: impl FnMut(Translation)) {
        match self {
            Self::Blocked => {}
            Self::Identity => each(Translation {
                iova: window,
                name: Ipa::new(window.start().raw()),
                access: Access::ReadWrite,
            }),
            Self::Translated(map) => map
                .overlapping(window)
                .filter_map(|translation| translation.cut(window))
                .for_each(each),
        }
    }

    /// The IOVAs that translate to a page of `names`.
    pub(crate) fn iovas(
        self,
        names: PageRange<Ipa>,
    ) -> impl Iterator<Item = PageRange<Iova>> + use<'a> {
        let identity = matches!(self, Self::Identity)
            .then(|| names.rebased(Iova::new(names.start().raw())))
            .flatten();
        let mapped = match self {
            Self::Translated(map) => Some(map.naming(names)),
            Self::Identity | Self::Blocked => None,
        };
        identity.into_iter().chain(mapped.into_iter().flatten())
    }
}
