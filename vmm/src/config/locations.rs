//! Where in the file each thing of a [`VmSpec`](super::VmSpec) stands.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::diagnostic::{Diagnostic, Place};

/// Where in the file each thing of a spec stands, for findings that are made later.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Locations {
    places: BTreeMap<Place, Range<usize>>,
    vm: Option<Range<usize>>,
    boot: Option<Range<usize>>,
    resources: Option<Range<usize>>,
}

impl Locations {
    pub(super) fn record(&mut self, place: Place, span: Range<usize>) {
        self.places.insert(place, span);
    }

    pub(super) fn record_vm(&mut self, header: Range<usize>) {
        self.vm = Some(header);
    }

    pub(super) fn record_boot(&mut self, header: Range<usize>) {
        self.boot = Some(header);
    }

    pub(super) fn record_resources(&mut self, header: Range<usize>) {
        self.resources = Some(header);
    }

    /// The same things in another text; those that it does not have are nowhere.
    pub(super) fn translate(&mut self, to: impl Fn(&Range<usize>) -> Option<Range<usize>>) {
        let places = std::mem::take(&mut self.places).into_iter();
        self.places = places
            .filter_map(|(place, span)| Some((place, to(&span)?)))
            .collect();
        self.vm = self.vm.as_ref().and_then(&to);
        self.boot = self.boot.as_ref().and_then(&to);
        self.resources = self.resources.as_ref().and_then(&to);
    }

    /// The bytes of the file to show for `place`: the value of its key, or what holds the key when
    /// the file leaves it to its default.
    #[must_use]
    pub fn span(&self, place: Place) -> Option<Range<usize>> {
        let holder = || match place {
            Place::Vm(_) => self.vm.as_ref(),
            Place::Boot(_) => self.boot.as_ref(),
            Place::Resources(_) => self.resources.as_ref(),
            Place::Device(index, _) => self.places.get(&Place::Device(index, None)),
            Place::Disk(index, _) => self.places.get(&Place::Disk(index, None)),
            Place::Net(index, _) => self.places.get(&Place::Net(index, None)),
            Place::VhostUser(_) | Place::Vsock | Place::Rng | Place::Console => None,
        };
        self.places.get(&place).or_else(holder).cloned()
    }

    /// Fills in the span of each finding that has a place but no span yet.
    pub fn resolve(&self, diagnostics: &mut [Diagnostic]) {
        for diagnostic in diagnostics {
            if diagnostic.span.is_none() {
                diagnostic.span = diagnostic.place.and_then(|place| self.span(place));
            }
        }
    }
}
