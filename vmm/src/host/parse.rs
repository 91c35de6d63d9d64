//! The text forms of the kernel's attributes.

use super::checked;
use super::facts::{BarFacts, BarKind, Hex, ReservedRegion};

/// `IORESOURCE_*` flags, `include/linux/ioport.h`.
mod flags {
    pub(super) const IO: u64 = 0x100;
    pub(super) const MEM: u64 = 0x200;
    pub(super) const PREFETCH: u64 = 0x2000;
    pub(super) const MEM_64: u64 = 0x10_0000;
}

/// A number as `vendor` and `class` show it: `0x8086`.
pub(super) fn hex(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x")?;
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    plain
        .then(|| u64::from_str_radix(digits, 16).ok())
        .flatten()
}

/// A width in bits as `dma_mask_bits` shows it; 0 stands for a function without a mask.
pub(super) fn bits(text: &str) -> Option<u8> {
    text.parse().ok().filter(|bits| (1..=64).contains(bits))
}

/// The BARs in the six first lines of `resource`, `START END FLAGS` each; unused ones are zero.
///
/// # Errors
/// What is wrong with the first line that no function can have.
pub(super) fn bars(text: &str) -> Result<Vec<BarFacts>, String> {
    let mut bars = Vec::new();
    for (index, line) in (0_u8..6).zip(text.lines()) {
        bars.extend(bar(index, line).ok_or_else(|| format!("line '{line}' is not a resource"))?);
    }
    checked::check_bars(&bars)?;
    Ok(bars)
}

/// One line of `resource`: `None` when it is not one, `Some(None)` when the register is unused.
fn bar(index: u8, line: &str) -> Option<Option<BarFacts>> {
    let mut words = line.split_ascii_whitespace().map(hex);
    let (start, end, flags) = (words.next()??, words.next()??, words.next()??);
    if words.next().is_some() {
        return None;
    }
    let kind = if flags & flags::IO != 0 {
        BarKind::Io
    } else if flags & flags::MEM == 0 {
        return Some(None);
    } else if flags & flags::MEM_64 == 0 {
        BarKind::Mem32
    } else if flags & flags::PREFETCH == 0 {
        BarKind::Mem64
    } else {
        BarKind::Mem64Prefetchable
    };
    let size = end.checked_sub(start)?.checked_add(1)?;
    Some(Some(BarFacts { index, size, kind }))
}

/// `reserved_regions` of an IOMMU group: `START END KIND` on each line, bounds inclusive.
///
/// # Errors
/// The first line that is not a region.
pub(super) fn reserved_regions(text: &str) -> Result<Vec<ReservedRegion>, String> {
    text.lines()
        .map(|line| {
            reserved_region(line).ok_or_else(|| format!("line '{line}' is not a reserved region"))
        })
        .collect()
}

fn reserved_region(line: &str) -> Option<ReservedRegion> {
    let mut words = line.split_ascii_whitespace();
    let start = hex(words.next()?)?;
    let end = hex(words.next()?)?;
    let kind = words.next()?.to_owned();
    (start <= end && words.next().is_none()).then_some(ReservedRegion {
        start: Hex(start),
        end: Hex(end),
        kind,
    })
}

/// Who has made the processor, by `/proc/cpuinfo` of x86: `vendor_id : GenuineIntel`.
pub(super) fn vendor(cpuinfo: &str) -> Option<&str> {
    field(cpuinfo, "vendor_id")
}

/// Whether the processor has a feature, by `/proc/cpuinfo` of x86: `flags : fpu vme ...`.
pub(super) fn has_flag(cpuinfo: &str, flag: &str) -> bool {
    let flags = field(cpuinfo, "flags").unwrap_or_default();
    flags.split_ascii_whitespace().any(|word| word == flag)
}

/// The first line of this name: those of the first processor.
fn field<'a>(cpuinfo: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    let found = fields.find(|(key, _)| key.trim() == name);
    found.map(|(_, value)| value.trim())
}

/// Physical address bits in `/proc/cpuinfo` of x86: `address sizes : 46 bits physical, ...`.
pub(super) fn physical_bits(cpuinfo: &str) -> Option<u8> {
    let line = cpuinfo
        .lines()
        .find(|line| line.starts_with("address sizes"))?;
    let (_, sizes) = line.split_once(':')?;
    bits(sizes.split_once("bits physical")?.0.trim())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bars_of_an_nvme_drive_and_a_network_card_are_read() {
        let nvme = "0x0000004000100000 0x0000004000103fff 0x0000000000140204\n\
                    0x0000000000000000 0x0000000000000000 0x0000000000000000\n";
        assert_eq!(
            bars(nvme).unwrap(),
            [BarFacts {
                index: 0,
                size: 0x4000,
                kind: BarKind::Mem64
            }]
        );
        let e1000 = "0x0000000010000000 0x000000001001ffff 0x0000000000040200\n\
                     0x0000000000001000 0x000000000000103f 0x0000000000040101\n";
        assert_eq!(
            bars(e1000).unwrap(),
            [
                BarFacts {
                    index: 0,
                    size: 0x2_0000,
                    kind: BarKind::Mem32
                },
                BarFacts {
                    index: 1,
                    size: 64,
                    kind: BarKind::Io
                }
            ]
        );
    }

    #[test]
    fn a_prefetchable_64_bit_bar_is_told_from_a_plain_one() {
        let gpu = "0x0000006000000000 0x00000067ffffffff 0x000000000014220c";
        assert_eq!(bars(gpu).unwrap()[0].kind, BarKind::Mem64Prefetchable);
        assert_eq!(bars(gpu).unwrap()[0].size, 32 << 30);
    }

    #[test]
    fn the_rom_and_the_windows_of_a_bridge_are_not_bars() {
        let unused = "0x0000000000000000 0x0000000000000000 0x0000000000000000\n";
        let window = "0x0000000010000000 0x00000000101fffff 0x0000000000000200\n";
        let text = unused.repeat(6) + window;
        assert_eq!(bars(&text).unwrap(), []);
    }

    #[test]
    fn odd_resources_are_refused() {
        for odd in [
            "0x1000 0x1fff",
            "0x1000 0x1fff 0x200 0x0",
            "0x1fff 0x1000 0x200",
            "0x0 0xffffffffffffffff 0x200",
            "0x0 0x2fff 0x200",
            "1000 1fff 200",
            "0x1000 0x1fff 0x-200",
        ] {
            assert!(bars(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn the_reserved_regions_of_an_smmu_are_read() {
        let text = "0x0000000008000000 0x00000000080fffff msi\n";
        let regions = reserved_regions(text).unwrap();
        assert_eq!(regions.len(), 1);
        assert_eq!(
            (regions[0].start.0, regions[0].end.0),
            (0x800_0000, 0x80f_ffff)
        );
        assert_eq!(regions[0].kind, "msi");
        assert!(reserved_regions("0x2 0x1 msi").is_err());
        assert!(reserved_regions("0x1 0x2").is_err());
        assert_eq!(reserved_regions("").unwrap(), []);
    }

    #[test]
    fn physical_bits_are_those_of_the_first_processor() {
        let cpuinfo = "processor\t: 0\naddress sizes\t: 46 bits physical, 48 bits virtual\n";
        assert_eq!(physical_bits(cpuinfo), Some(46));
        assert_eq!(physical_bits("address sizes : many bits physical"), None);
        assert_eq!(physical_bits("processor : 0"), None);
    }

    #[test]
    fn a_mask_of_zero_bits_is_no_mask() {
        assert_eq!(bits("64"), Some(64));
        for odd in ["0", "65", "", "-1", "0x20", "256"] {
            assert_eq!(bits(odd), None, "{odd}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in "[0-9a-fx \n:]{0,200}") {
            let _ = (bars(&text), reserved_regions(&text), physical_bits(&text), hex(&text));
        }
    }
}
