//! What the values of a host facts document may be, checked while they are read.

use serde::{Deserialize, Deserializer, de::Error as _};

use super::facts::{AddressRange, BarFacts, BarKind, DeviceFacts, Hex, PciAddress, ReservedRegion};

/// The widest register set of a type 0 header: six 32-bit registers.
const BARS: u8 = 6;

/// Accepts a width of 1 to 64 address bits.
pub(super) fn bits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u8>, D::Error> {
    let bits = Option::<u8>::deserialize(deserializer)?;
    match bits {
        Some(wrong @ (0 | 65..)) => Err(D::Error::custom(format!(
            "a width of {wrong} bits is not between 1 and 64"
        ))),
        right => Ok(right),
    }
}

/// Accepts a class code of 24 bits.
pub(super) fn class<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Hex<u32>, D::Error> {
    let class = Hex::<u32>::deserialize(deserializer)?;
    if class.0 > 0xff_ffff {
        return Err(D::Error::custom(format!(
            "class {:#x} has more than 24 bits",
            class.0
        )));
    }
    Ok(class)
}

/// Accepts devices of which no two sit at one address.
pub(super) fn devices<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<DeviceFacts>, D::Error> {
    deserializer.deserialize_seq(DistinctDevices)
}

/// Reads one device at a time, so that the error stands where the second of a pair does.
struct DistinctDevices;

impl<'de> serde::de::Visitor<'de> for DistinctDevices {
    type Value = Vec<DeviceFacts>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list of devices")
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(
        self,
        mut elements: A,
    ) -> Result<Self::Value, A::Error> {
        let mut seen = std::collections::BTreeSet::<PciAddress>::new();
        let mut devices = Vec::new();
        while let Some(device) = elements.next_element::<DeviceFacts>()? {
            if !seen.insert(device.pci) {
                return Err(A::Error::custom(format!(
                    "device {} is listed twice",
                    device.pci
                )));
            }
            devices.push(device);
        }
        Ok(devices)
    }
}

/// Accepts the BARs that one function can have.
pub(super) fn bars<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<BarFacts>, D::Error> {
    let bars = Vec::<BarFacts>::deserialize(deserializer)?;
    check_bars(&bars).map_err(D::Error::custom)?;
    Ok(bars)
}

/// Whether these can be the BARs of one function: sizes that a BAR can have, no register used twice.
pub(super) fn check_bars(bars: &[BarFacts]) -> Result<(), String> {
    let mut used = [false; BARS as usize];
    for bar in bars {
        bar_size(bar)?;
        for register in bar_registers(bar) {
            match used.get_mut(usize::from(register)) {
                None => {
                    return Err(format!(
                        "BAR {} does not fit in the six registers 0 to 5",
                        bar.index
                    ));
                }
                Some(true) => return Err(format!("BAR register {register} is used twice")),
                Some(free) => *free = true,
            }
        }
    }
    Ok(())
}

fn bar_registers(bar: &BarFacts) -> std::ops::RangeInclusive<u8> {
    let upper_half = match bar.kind {
        BarKind::Mem64 | BarKind::Mem64Prefetchable => 1,
        BarKind::Mem32 | BarKind::Io => 0,
    };
    bar.index..=bar.index.saturating_add(upper_half)
}

fn bar_size(bar: &BarFacts) -> Result<(), String> {
    let (least, most) = match bar.kind {
        BarKind::Io => (4, 1 << 16),
        BarKind::Mem32 => (16, 1 << 31),
        BarKind::Mem64 | BarKind::Mem64Prefetchable => (16, 1 << 63),
    };
    if !bar.size.is_power_of_two() {
        return Err(format!(
            "BAR {} has a size of {} bytes, which is not a power of two",
            bar.index, bar.size
        ));
    }
    if !(least..=most).contains(&bar.size) {
        return Err(format!(
            "BAR {} has a size of {} bytes, not between {least} and {most}",
            bar.index, bar.size
        ));
    }
    Ok(())
}

/// The ends of a range are the wrong way round.
#[derive(Debug, thiserror::Error)]
#[error("range ends at {end:#x}, before its start {start:#x}")]
pub(super) struct Reversed {
    start: u64,
    end: u64,
}

fn ordered(start: Hex<u64>, end: Hex<u64>) -> Result<(), Reversed> {
    if end < start {
        return Err(Reversed {
            start: start.0,
            end: end.0,
        });
    }
    Ok(())
}

/// An [`AddressRange`] as it was written.
#[derive(Deserialize)]
pub(super) struct RawAddressRange {
    start: Hex<u64>,
    end: Hex<u64>,
}

impl TryFrom<RawAddressRange> for AddressRange {
    type Error = Reversed;

    fn try_from(raw: RawAddressRange) -> Result<Self, Self::Error> {
        let RawAddressRange { start, end } = raw;
        ordered(start, end)?;
        Ok(Self { start, end })
    }
}

/// A [`ReservedRegion`] as it was written.
#[derive(Deserialize)]
pub(super) struct RawReservedRegion {
    start: Hex<u64>,
    end: Hex<u64>,
    kind: String,
}

impl TryFrom<RawReservedRegion> for ReservedRegion {
    type Error = Reversed;

    fn try_from(raw: RawReservedRegion) -> Result<Self, Self::Error> {
        let RawReservedRegion { start, end, kind } = raw;
        ordered(start, end)?;
        Ok(Self { start, end, kind })
    }
}
