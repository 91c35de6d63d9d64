//! How a shared page is named, by the guest and on the bus.

use crate::addr::{Gpa, Ipa, PAGE_SIZE, PageRange};
use crate::page_state::Visibility;

/// Where the shared name of a page lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alias {
    /// At the page's guest-physical address: a page has one name, whatever its state.
    InPlace,
    /// At the page's guest-physical address with this bit set; the address without it names the
    /// private page.
    SharedBit(SharedBit),
}

/// The address bit that tells a shared name from a private one: 12 to 62.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedBit(u64);

impl SharedBit {
    /// The bit with this number, or `None` when it is below the page size or above bit 62.
    #[must_use]
    pub const fn new(bit: u8) -> Option<Self> {
        if bit < 12 || bit > 62 {
            return None;
        }
        Some(Self(1 << bit))
    }

    /// The address with only this bit set: the first byte of the shared half.
    #[must_use]
    pub const fn mask(self) -> u64 {
        self.0
    }
}

/// Which states a name reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Half {
    /// The page in either state: sharing is in place.
    Both,
    /// The private page.
    Private,
    /// The shared page.
    Shared,
}

impl Half {
    /// The name in this half of a page.
    pub(crate) fn name(self, alias: Alias, gpa: Gpa) -> Ipa {
        match self {
            Self::Both | Self::Private => alias.private(gpa),
            Self::Shared => alias.shared(gpa),
        }
    }
}

impl Alias {
    /// The name of a page's shared form.
    #[must_use]
    pub fn shared(self, gpa: Gpa) -> Ipa {
        match self {
            Self::InPlace => Ipa::new(gpa.raw()),
            Self::SharedBit(bit) => Ipa::new(gpa.raw() | bit.mask()),
        }
    }

    /// The address without the shared bit of the byte whose shared form has this name; `None` when the
    /// name is not that of a shared form.
    #[must_use]
    pub fn shared_page_at(self, name: u64) -> Option<Gpa> {
        match self {
            Self::InPlace => Some(Gpa::new(name)),
            Self::SharedBit(bit) => {
                let page = name.checked_sub(bit.mask())?;
                (page < bit.mask()).then_some(Gpa::new(page))
            }
        }
    }

    /// The name of a page's private form.
    #[must_use]
    pub fn private(self, gpa: Gpa) -> Ipa {
        Ipa::new(gpa.raw())
    }

    /// Whether a page range can be told from its alias.
    #[must_use]
    pub fn admits(self, range: PageRange<Gpa>) -> bool {
        match self {
            Self::InPlace => true,
            Self::SharedBit(bit) => range.end().raw() <= bit.mask(),
        }
    }

    /// The names of a page range in one of its forms, or `None` when it is not [admitted](Self::admits).
    pub(crate) fn names(self, range: PageRange<Gpa>, form: Visibility) -> Option<PageRange<Ipa>> {
        range.rebased(match form {
            Visibility::Private => self.private(range.start()),
            Visibility::Shared => self.shared(range.start()),
        })
    }

    /// The pages that a range of names stands for, by half, lowest first.
    pub(crate) fn pages(
        self,
        names: PageRange<Ipa>,
    ) -> impl Iterator<Item = (Half, PageRange<Gpa>)> {
        let cut = |start: u64, end: u64| {
            PageRange::from_bounds(Ipa::new(start), Ipa::new(end))
                .ok()?
                .intersection(names)
        };
        let whole = || Some(names);
        let (low, high, base) = match self {
            Self::InPlace => ((Half::Both, whole()), (Half::Shared, None), 0),
            Self::SharedBit(bit) => {
                let split = bit.mask();
                // Bit 62 at most, so doubling cannot overflow; a saturated end would only cut less.
                let top = split.saturating_mul(2).min(u64::MAX - (PAGE_SIZE - 1));
                (
                    (Half::Private, cut(0, split)),
                    (Half::Shared, cut(split, top)),
                    split,
                )
            }
        };
        [(low, 0), (high, base)]
            .into_iter()
            .filter_map(|((half, names), base)| {
                let names = names?;
                let gpa = Gpa::new(names.start().raw().checked_sub(base)?);
                Some((half, names.rebased(gpa)?))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_pages_are_inverse() {
        let range = PageRange::new(Gpa::new(0x8000), 0x4000).unwrap();
        for alias in [
            Alias::InPlace,
            Alias::SharedBit(SharedBit::new(31).unwrap()),
            Alias::SharedBit(SharedBit::new(62).unwrap()),
        ] {
            for form in [Visibility::Private, Visibility::Shared] {
                let name = alias.names(range, form).unwrap();
                let pages: Vec<_> = alias.pages(name).collect();
                assert_eq!(pages.len(), 1);
                assert_eq!(pages[0].1, range);
            }
        }
    }

    #[test]
    fn names_beyond_the_shared_half_stand_for_nothing() {
        let alias = Alias::SharedBit(SharedBit::new(31).unwrap());
        let beyond = PageRange::new(Ipa::new(1 << 32), 0x1000).unwrap();
        assert_eq!(alias.pages(beyond).count(), 0);
        let across = PageRange::new(Ipa::new((1 << 31) - 0x1000), 0x2000).unwrap();
        let pages: Vec<_> = alias.pages(across).collect();
        assert_eq!(pages[0].0, Half::Private);
        assert_eq!(pages[0].1.start(), Gpa::new((1 << 31) - 0x1000));
        assert_eq!(
            pages[1],
            (Half::Shared, PageRange::new(Gpa::new(0), 0x1000).unwrap())
        );
    }
}
