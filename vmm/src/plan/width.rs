//! How many address bits a device drives: six sources, the most trusted first.
//!
//! VFIO reports no width, and sysfs shows what the last host driver asked for: 32 there may mean
//! that there never was one. So 32 from sysfs counts as unknown, and unknown as 32.

use super::outcome::{DmaWidth, WidthSource};
use super::table;
use crate::config::spec::DeviceSpec;
use crate::host::facts::DeviceFacts;

/// What sysfs shows of a function that never had a driver.
const INITIAL_MASK_BITS: u8 = 32;

/// A source names a width that no device has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ImpossibleWidth {
    pub(super) source: WidthSource,
    pub(super) bits: u8,
}

/// The width of the device, by the most trusted source that knows.
pub(super) fn width(spec: &DeviceSpec, facts: &DeviceFacts) -> Result<DmaWidth, ImpossibleWidth> {
    let entry = table::find(facts);
    let known = [
        (WidthSource::Override, spec.dma_bits),
        (WidthSource::Tdisp, facts.tdisp_dma_bits),
        (WidthSource::Table, entry.map(table::Entry::bits)),
        (WidthSource::Register, facts.register_dma_bits),
        (WidthSource::Sysfs, sysfs(facts)),
    ];
    let mut known = known
        .into_iter()
        .filter_map(|(source, bits)| bits.map(|bits| (source, bits)));
    if let Some((source, bits)) = known.clone().find(|(_, bits)| !(1..=64).contains(bits)) {
        return Err(ImpossibleWidth { source, bits });
    }
    Ok(match known.next() {
        Some((source, bits)) => DmaWidth {
            bits,
            source,
            origin: entry
                .filter(|_| source == WidthSource::Table)
                .map(|e| e.source),
            others: known.collect(),
        },
        None => DmaWidth::assumed(),
    })
}

/// The smaller mask: coherent DMA fails where only the streaming mask is wide. Two masks of 32 are
/// what every function starts with; 32 beside another width is a driver's word.
fn sysfs(facts: &DeviceFacts) -> Option<u8> {
    let masks = [facts.dma_mask_bits, facts.coherent_dma_mask_bits];
    let told = masks
        .into_iter()
        .flatten()
        .any(|bits| bits != INITIAL_MASK_BITS);
    masks.into_iter().flatten().min().filter(|_| told)
}
