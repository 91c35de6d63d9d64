//! Where DRAM may lie so that devices reach it.

use super::span::{Span, Spans};
use crate::host::facts::DeviceFacts;
use crate::platform::SharedAlias;

/// The widest address that any host translates.
pub(super) const WIDEST: u8 = 52;

/// Addresses that exist: `0..2^52`.
pub(super) const ADDRESSES: Span = Span {
    start: 0,
    end: 1 << WIDEST,
};

/// The end of what `bits` address bits reach.
pub(super) fn reach_of(bits: u8) -> u64 {
    1 << bits.min(WIDEST)
}

/// What the IOMMU and the address bits of one device, or of several together, can reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Address bits of the narrowest device; 64 where none counts.
    pub(super) bits: u8,
    /// The end of the smallest IOMMU aperture.
    pub(super) aperture_end: u64,
    /// IOVAs that every IOMMU can map: apertures without reserved regions.
    pub(super) mappable: Spans,
}

impl Bounds {
    /// No device, no bound.
    pub(super) fn unlimited() -> Self {
        Self {
            bits: 64,
            aperture_end: ADDRESSES.end,
            mappable: Spans::union([ADDRESSES]),
        }
    }

    /// What `device` can reach if it drives `bits` address bits.
    pub(super) fn of(device: &DeviceFacts, bits: u8) -> Self {
        let reserved = Spans::union(
            device
                .reserved_regions
                .iter()
                // VFIO and iommufd both hand these to the new owner of the device.
                .filter(|region| region.kind != "direct-relaxable")
                .filter_map(|region| clip(region.start.0, region.end.0)),
        );
        let aperture = match &device.iova_ranges {
            Some(ranges) => Spans::union(ranges.iter().filter_map(|r| clip(r.start.0, r.end.0))),
            None => Spans::union([ADDRESSES]),
        };
        let top = aperture.as_slice().last().map_or(0, |span| span.end);
        // A reserved region that ends the ranges is a hole in the aperture, not its end.
        let above = reserved
            .as_slice()
            .iter()
            .find(|r| r.start <= top && top < r.end);
        let mappable = reserved
            .as_slice()
            .iter()
            .fold(aperture, |rest, hole| rest.without(*hole));
        Self {
            bits,
            aperture_end: above.map_or(top, |region| region.end),
            mappable,
        }
    }

    /// What both reach.
    pub(super) fn and(&self, other: &Self) -> Self {
        Self {
            bits: self.bits.min(other.bits),
            aperture_end: self.aperture_end.min(other.aperture_end),
            mappable: self.mappable.intersection(&other.mappable),
        }
    }

    /// The same, were the devices to drive any address.
    pub(super) fn at_any_width(&self) -> Self {
        Self {
            bits: 64,
            aperture_end: ADDRESSES.end,
            mappable: self.mappable.clone(),
        }
    }

    /// The guest-physical addresses that may be DRAM in a space of `width` bits, in whole granules;
    /// `None` where the rule forbids that width.
    pub(super) fn dram(&self, width: u8, alias: SharedAlias, granule: u64) -> Option<Spans> {
        let space = reach_of(width);
        let window = match alias {
            SharedAlias::TopBit => {
                if width > self.bits || space > self.aperture_end {
                    return None;
                }
                Span::new(space / 2, space)?
            }
            SharedAlias::InPlace => Span::new(0, space.min(reach_of(self.bits)))?,
        };
        Some(self.mappable.seen_from(window).whole(granule))
    }
}

/// The part of the inclusive range that is addressable.
fn clip(first: u64, last: u64) -> Option<Span> {
    Span::new(first, last.min(ADDRESSES.end - 1) + 1)
}
