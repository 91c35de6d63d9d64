//! The rule against a model that looks at every address of a small space.
//!
//! A space of any width is made small by a large granule: at most sixteen granules of four units
//! each. Device facts have bounds at half units, so that a granule can be cut anywhere.

use proptest::prelude::*;

use super::*;
use crate::host::facts::{AddressRange, Arch, DeviceFacts, Hex, PciAddress, ReservedRegion};
use crate::plan::pack::tests::{GRANULE, LARGEST, bits, most};
use crate::plan::windows::BarRooms;

/// Half units of a space with `2^w` addresses, twice the lower half's for the alias above it.
const HALF_UNITS: u64 = 4 * LARGEST;

#[derive(Debug, Clone)]
struct Device {
    bits: u8,
    /// In half units, exclusive ends.
    iovas: Option<Vec<(u64, u64)>>,
    reserved: Vec<(u64, u64)>,
}

#[derive(Debug, Clone)]
struct Case {
    alias: SharedAlias,
    width: u8,
    devices: Vec<Device>,
    /// In units.
    platform: Block,
    windows: Vec<(Option<Block>, Option<Block>)>,
    granules: u64,
}

impl Case {
    /// Addresses in a unit: there are 64 units in what the widest space has for a layout.
    fn unit(&self) -> u64 {
        match self.alias {
            SharedAlias::TopBit => 1 << (self.width - 7),
            SharedAlias::InPlace => 1 << (self.width - 6),
        }
    }

    fn widths(&self) -> Vec<u8> {
        (self.width - 3..=self.width).collect()
    }

    /// Units below which everything of a space of `width` bits lies.
    fn end(&self, width: u8) -> u64 {
        LARGEST >> (self.width - width)
    }

    /// The units of a space of `width` bits that may be DRAM, by looking at each.
    fn usable(&self, width: u8) -> u64 {
        let good = |unit: &u64| {
            self.devices
                .iter()
                .all(|device| self.reaches(device, width, *unit))
        };
        (0..self.end(width))
            .step_by(4)
            .filter(|granule| (*granule..granule + GRANULE).all(|unit| good(&unit)))
            .fold(0, |set, granule| set | bits(granule, GRANULE))
    }

    fn reaches(&self, device: &Device, width: u8, unit: u64) -> bool {
        let top = self.end(width);
        let alias = match self.alias {
            SharedAlias::TopBit => {
                let aperture = device.iovas.as_ref().map_or(u64::MAX, |iovas| {
                    let end = iovas.iter().map(|(_, end)| *end).max().unwrap_or(0);
                    (end..=HALF_UNITS)
                        .find(|half| !device.reserves(*half))
                        .unwrap_or(u64::MAX)
                });
                if width > device.bits || 4 * top > aperture {
                    return false;
                }
                unit + top
            }
            SharedAlias::InPlace => unit,
        };
        let address_bits = u128::from(self.unit()) * u128::from(alias + 1);
        address_bits <= 1 << device.bits
            && [2 * alias, 2 * alias + 1].iter().all(|half| {
                let iovas = device.iovas.as_deref().unwrap_or(&[(0, u64::MAX)]);
                let mapped = iovas.iter().any(|(start, end)| start <= half && half < end);
                mapped && !device.reserves(*half)
            })
    }

    /// The most DRAM in units, at a width.
    fn most(&self, width: u8) -> u64 {
        let usable = self.usable(width);
        let sets = self.windows.iter().map(|(mem32, mem64)| {
            let blocks: Vec<Block> = [Some(self.platform), *mem32, *mem64]
                .into_iter()
                .flatten()
                .collect();
            most(&blocks, self.end(width), usable, 0).unwrap_or(0)
        });
        sets.max().unwrap_or(0).into()
    }

    fn machine(&self) -> Machine {
        let scaled = |block: Block| Block {
            size: block.size * self.unit(),
            align: block.align * self.unit(),
            lowest: block.lowest * self.unit(),
            end: block.end * self.unit(),
        };
        let mut machine = Machine::new(Arch::Aarch64, 1, &BarRooms::default());
        machine.platform = scaled(self.platform);
        machine.roomy = None;
        machine.windows = self
            .windows
            .iter()
            .map(|(mem32, mem64)| WindowSet {
                mem32: mem32.map(scaled),
                mem64: mem64.map(scaled),
            })
            .collect();
        machine
    }

    fn bounds(&self) -> Bounds {
        let devices = self
            .devices
            .iter()
            .map(|device| device.bounds(self.unit() / 2));
        devices.fold(Bounds::unlimited(), |all, one| all.and(&one))
    }
}

impl Device {
    fn reserves(&self, half: u64) -> bool {
        self.reserved
            .iter()
            .any(|(start, end)| *start <= half && half < *end)
    }

    fn bounds(&self, half_unit: u64) -> Bounds {
        let inclusive = |(start, end): &(u64, u64)| AddressRange {
            start: Hex(start * half_unit),
            end: Hex(end * half_unit - 1),
        };
        let facts = DeviceFacts {
            pci: PciAddress {
                segment: 0,
                bus: 0,
                device: 1,
                function: 0,
            },
            vendor: Hex(0),
            device: Hex(0),
            class: Hex(0),
            group: None,
            driver: None,
            own_node: None,
            dma_mask_bits: None,
            coherent_dma_mask_bits: None,
            register_dma_bits: None,
            tdisp_dma_bits: None,
            bars: Vec::new(),
            reserved_regions: self
                .reserved
                .iter()
                .map(inclusive)
                .map(|AddressRange { start, end }| ReservedRegion {
                    start,
                    end,
                    kind: "reserved".into(),
                })
                .collect(),
            iova_ranges: self
                .iovas
                .as_ref()
                .map(|iovas| iovas.iter().map(inclusive).collect()),
        };
        Bounds::of(&facts, self.bits)
    }
}

fn ranges(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<(u64, u64)>> {
    prop::collection::vec((0..HALF_UNITS, 1..40_u64), count).prop_map(|ranges| {
        ranges
            .into_iter()
            .map(|(start, bytes)| (start, start + bytes))
            .collect()
    })
}

fn device(width: u8) -> impl Strategy<Value = Device> {
    let apertures = prop_oneof![
        2 => Just(None),
        2 => (1..=HALF_UNITS).prop_map(|end| Some(vec![(0, end)])),
        1 => Just(Some(vec![(0, HALF_UNITS)])),
        1 => ranges(0..3).prop_map(Some),
    ];
    let top_hole = prop::option::weighted(0.3, 1..80_u64);
    (width - 4..=width + 1, apertures, ranges(0..3), top_hole).prop_map(
        |(bits, mut iovas, mut reserved, top_hole)| {
            // Often enough, a reserved range ends the aperture.
            if let (Some(bytes), Some((_, end))) =
                (top_hole, iovas.as_mut().and_then(|i| i.last_mut()))
            {
                *end = (*end).max(bytes + 1) - bytes;
                reserved.push((*end, *end + bytes));
            }
            iovas
                .iter_mut()
                .for_each(|iovas| iovas.retain(|(start, end)| start < end));
            Device {
                bits,
                iovas,
                reserved,
            }
        },
    )
}

fn block(lowest: u64, end: u64) -> impl Strategy<Value = Block> {
    (1..12_u64, 0..5_u32).prop_map(move |(size, shift)| Block {
        size,
        align: 1 << shift,
        lowest,
        end,
    })
}

prop_compose! {
    fn any_case()(width in 32..=52_u8)(
        top_bit in any::<bool>(),
        devices in prop::collection::vec(device(width), 0..3),
        platform in block(0, LARGEST),
        mem32 in prop::option::of(block(1, 32)),
        mem64 in prop::option::of(block(32, LARGEST)),
        all in block(1, 32),
        granules in 1..=16_u64,
        width in Just(width),
    ) -> Case {
        let alias = if top_bit { SharedAlias::TopBit } else { SharedAlias::InPlace };
        let windows = match mem64 {
            None => vec![(mem32, None)],
            Some(_) => vec![(Some(all), None), (mem32, mem64)],
        };
        Case { alias, width, devices, platform, windows, granules }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_placement_is_found_exactly_when_there_is_one(case in any_case()) {
        let (machine, bounds, widths) = (case.machine(), case.bounds(), case.widths());
        let problem = Problem {
            machine: &machine,
            alias: case.alias,
            accepted: case.alias,
            granule: GRANULE * case.unit(),
            widths: &widths,
            bounds: &bounds,
            bounce_below: u64::MAX,
        };
        let most: Vec<u64> = widths.iter().map(|width| case.most(*width)).collect();
        prop_assert_eq!(problem.max_memory(), most.iter().max().unwrap() * case.unit());

        let units = case.granules * GRANULE;
        let smallest = widths.iter().zip(&most).find(|(_, most)| **most >= units);
        let layout = problem.solve(units * case.unit());
        prop_assert_eq!(layout.as_ref().map(|l| l.width), smallest.map(|(width, _)| *width));

        let Some(layout) = layout else { return Ok(()) };
        prop_assert_eq!(layout.dram.iter().map(|s| s.bytes()).sum::<u64>(), units * case.unit());
        let usable = case.usable(layout.width);
        let mut taken = 0;
        for span in &layout.dram {
            let set = bits(span.start / case.unit(), span.bytes() / case.unit());
            prop_assert_eq!((set & !usable, set & taken), (0, 0));
            taken |= set;
        }
        let platform = Span::new(layout.platform, layout.platform + machine.platform.size);
        for span in [platform, layout.mem32, layout.mem64].into_iter().flatten() {
            let set = bits(span.start / case.unit(), span.bytes() / case.unit());
            prop_assert_eq!(set & taken, 0);
            prop_assert!(span.end <= case.end(layout.width) * case.unit());
            taken |= set;
        }
    }
}
