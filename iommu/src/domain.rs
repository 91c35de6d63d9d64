//! Which guest-physical address a device reaches at each IOVA, as the guest has laid it down.

use crate::addr::{Iova, Ipa, PageRange};
use crate::mapping::Access;

/// The guest's translation from IOVA to guest-physical names.
///
/// It says nothing about page states: a translation to a page that is private stays, and has its
/// effect again once the page is shared.
#[derive(Debug, Clone)]
pub enum Domain {
    /// Every IOVA is the guest-physical address of the same number: no guest IOMMU, or its bypass.
    Identity,
}

/// A stretch of a domain: the IOVAs, the name that the first of them translates to, and the access.
pub(crate) type Translation = (PageRange<Iova>, Ipa, Access);

impl Domain {
    /// The translations in `window`, cut to it, in order.
    pub(crate) fn within(&self, window: PageRange<Iova>) -> impl Iterator<Item = Translation> {
        match self {
            Self::Identity => {
                let name = Ipa::new(window.start().raw());
                std::iter::once((window, name, Access::ReadWrite))
            }
        }
    }

    /// The IOVAs that translate to a page of `names`.
    pub(crate) fn iovas(&self, names: PageRange<Ipa>) -> impl Iterator<Item = PageRange<Iova>> {
        match self {
            Self::Identity => names.rebased(Iova::new(names.start().raw())).into_iter(),
        }
    }
}
