//! How much memory a VM costs beyond its own.

use std::ops::Range;

use kvm::ram::GuestRam;

/// Resident bytes of this process that are not guest memory, or `None` when the kernel does not tell.
/// The kernel walks every mapping of the process for it.
pub(crate) fn own_memory(ram: &GuestRam) -> Option<u64> {
    let guest = ram.slots().into_iter();
    let guest = guest.map(|slot| slot.host..slot.host.saturating_add(slot.bytes));
    own_memory_outside(&guest.collect::<Vec<_>>())
}

fn own_memory_outside(guest: &[Range<u64>]) -> Option<u64> {
    let maps = std::fs::read_to_string("/proc/self/smaps").ok()?;
    Some(resident_outside(&maps, guest))
}

fn resident_outside(maps: &str, guest: &[Range<u64>]) -> u64 {
    let mut own = true;
    let mut kilobytes: u64 = 0;
    for line in maps.lines() {
        if let Some(start) = start_of_mapping(line) {
            own = !guest.iter().any(|range| range.contains(&start));
        } else if own && let Some(value) = line.strip_prefix("Rss:") {
            let value = value.trim().trim_end_matches(" kB").parse().unwrap_or(0);
            kilobytes = kilobytes.saturating_add(value);
        }
    }
    kilobytes.saturating_mul(1024)
}

/// The start in a line like `7f00-7f01 rw-p ...`; `None` for the lines of figures below it.
fn start_of_mapping(line: &str) -> Option<u64> {
    let (start, _) = line.split_once(' ')?.0.split_once('-')?;
    u64::from_str_radix(start, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_memory_does_not_count() {
        let maps = "\
400000-500000 r-xp 00000000 00:00 1 /ccvm
Rss:                 100 kB
Pss:                 100 kB
7f0000000000-7f0040000000 rw-p 00000000 00:00 0
Rss:             1048576 kB
7fff00000000-7fff00021000 rw-p 00000000 00:00 0 [stack]
Rss:                   8 kB
";
        let guest = 0x7f00_0000_0000..0x7f00_4000_0000;
        assert_eq!(
            resident_outside(maps, std::slice::from_ref(&guest)),
            108 << 10
        );
        assert!(own_memory_outside(&[]).unwrap() > 0);
    }
}
