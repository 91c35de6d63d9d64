//! The device table: DMA widths by PCI id, from `widths.tsv`.

use std::sync::LazyLock;

use crate::host::facts::DeviceFacts;

/// What the table says of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: Key,
    /// Bits for streaming DMA.
    pub(super) streaming: u8,
    /// Bits for coherent DMA.
    pub(super) coherent: u8,
    /// Where that stands.
    pub(super) source: &'static str,
}

/// Which devices an entry is about. Ids sort before classes, and win over them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    /// Vendor and device id.
    Id(u16, u16),
    /// Class code.
    Class(u32),
}

impl Entry {
    /// The width that binds a device.
    pub(super) fn bits(&self) -> u8 {
        self.streaming.min(self.coherent)
    }
}

static TABLE: LazyLock<Vec<Entry>> = LazyLock::new(|| lines().filter_map(parse).collect());

fn lines() -> impl Iterator<Item = &'static str> {
    let lines = include_str!("widths.tsv").lines();
    lines.filter(|line| !line.starts_with('#'))
}

/// What the table says of `device`, if it knows it.
pub(super) fn find(device: &DeviceFacts) -> Option<&'static Entry> {
    let id = Key::Id(device.vendor.0, device.device.0);
    let class = Key::Class(device.class.0);
    [id, class].iter().find_map(|key| {
        let at = TABLE.binary_search_by_key(key, |entry| entry.key).ok()?;
        TABLE.get(at)
    })
}

/// Parses `vendor:device` or `class:code`, then bits (`streaming` or `streaming/coherent`), then
/// the source, with a tab between.
fn parse(line: &'static str) -> Option<Entry> {
    let mut fields = line.splitn(3, '\t');
    let (left, right) = fields.next()?.split_once(':')?;
    let key = if left == "class" {
        Key::Class(u32::from_str_radix(right, 16).ok()?)
    } else {
        let hex = |digits| u16::from_str_radix(digits, 16).ok();
        Key::Id(hex(left)?, hex(right)?)
    };
    let bits = fields.next()?;
    let (streaming, coherent) = bits.split_once('/').unwrap_or((bits, bits));
    Some(Entry {
        key,
        streaming: streaming.parse().ok()?,
        coherent: coherent.parse().ok()?,
        source: fields.next().filter(|source| !source.is_empty())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_parses_in_ascending_order_without_duplicates() {
        for line in lines() {
            assert!(parse(line).is_some(), "{line}");
        }
        for pair in TABLE.windows(2) {
            assert!(pair[0].key < pair[1].key, "{:x?} {:x?}", pair[0], pair[1]);
        }
        assert!(TABLE.iter().all(|entry| (24..=64).contains(&entry.bits())));
    }
}
