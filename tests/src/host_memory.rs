//! The host's memory: what is pinned of it, and what the host finds where a guest's memory is.

use anyhow::{Context as _, ensure};

use crate::case::Host;

/// A stretch of a process's address space (`/proc/PID/maps`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mapping<'a> {
    start: u64,
    end: u64,
    writable: bool,
    /// Where in its file it begins.
    offset: u64,
    file: &'a str,
}

impl<'a> Mapping<'a> {
    fn of(line: &'a str) -> Option<Self> {
        let hex = |text| u64::from_str_radix(text, 16).ok();
        let mut words = line.split_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let protection = words.next()?;
        let offset = words.next()?;
        Some(Self {
            start: hex(start)?,
            end: hex(end)?,
            writable: protection.starts_with("rw"),
            offset: hex(offset)?,
            file: words.nth(2).unwrap_or_default(),
        })
    }
}

/// Where the host has a guest's memory, as far as it is shared: `offset` bytes from its beginning, of
/// `bytes` in all. That is a file of shared pages where there is one, else memory of the guest's size.
fn place_of(maps: &str, offset: u64, bytes: u64) -> Option<u64> {
    const SHARED: &str = "/memfd:guest-shared";
    let mappings = || {
        maps.lines()
            .filter_map(Mapping::of)
            .filter(|mapping| mapping.writable)
    };
    let of_file = mappings().find_map(|mapping| {
        let inside = offset.checked_sub(mapping.offset)?;
        let place = mapping.start.checked_add(inside)?;
        (mapping.file == SHARED && place < mapping.end).then_some(place)
    });
    let whole = || {
        let whole = mappings().find(|mapping| mapping.end - mapping.start == bytes)?;
        whole.start.checked_add(offset)
    };
    of_file.or_else(whole)
}

impl Host<'_> {
    /// How many pages are pinned for others than processors, all of the host's together.
    ///
    /// # Errors
    /// When the host does not count them.
    pub fn pinned_pages(&mut self) -> anyhow::Result<i64> {
        // The counters are kept for each processor, and written anew now.
        let text = self.machine.read(
            "cat /proc/sys/vm/stat_refresh; \
             awk '/^nr_foll_pin_acquired/ { n += $2 } /^nr_foll_pin_released/ { n -= $2 } END { print n + 0 }' \
             /proc/vmstat",
        )?;
        text.trim().parse().context("no count of pinned pages")
    }

    /// Where the host has the place that is `offset` bytes from the beginning of the shared memory of a
    /// guest, which has `bytes` bytes in one piece: an address in the process of its ccvm. `None` when
    /// there is no shared memory there.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn guest_memory(
        &mut self,
        process: u32,
        offset: u64,
        bytes: u64,
    ) -> anyhow::Result<Option<u64>> {
        let maps = self.machine.read(&format!("cat /proc/{process}/maps"))?;
        Ok(place_of(&maps, offset, bytes))
    }

    /// Reads 8 bytes of a process, or says that the host's kernel does not.
    ///
    /// # Errors
    /// When the machine dies.
    pub fn peek(&mut self, process: u32, address: u64) -> anyhow::Result<Option<u64>> {
        let read = format!(
            "dd if=/proc/{process}/mem bs=8 skip={} count=1 2>/dev/null | od -An -v -tx1",
            address / 8
        );
        let text = self.machine.read(&read)?;
        let bytes = text
            .split_whitespace()
            .map(|byte| u8::from_str_radix(byte, 16));
        let bytes: Vec<u8> = bytes
            .collect::<Result<_, _>>()
            .context("these are no bytes")?;
        Ok(bytes.try_into().ok().map(u64::from_le_bytes))
    }

    /// Writes 8 bytes of a process.
    ///
    /// # Errors
    /// When the host's kernel does not.
    pub fn poke(&mut self, process: u32, address: u64, value: u64) -> anyhow::Result<()> {
        let bytes: String = value
            .to_le_bytes()
            .iter()
            .map(|byte| format!("\\{byte:03o}"))
            .collect();
        let write = format!(
            "printf '{bytes}' | dd of=/proc/{process}/mem bs=8 seek={} count=1 conv=notrunc",
            address / 8
        );
        let output = self.machine.run(&crate::machine::Script::quick(write))?;
        ensure!(
            output.status == 0,
            "cannot write guest memory: {}",
            output.text
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
400000-500000 r-xp 00000000 00:02 7 /bin/ccvm\n\
7f0000000000-7f0000200000 rw-p 00000000 00:00 0\n\
7f0000200000-7f0000400000 ---p 00000000 00:00 0\n\
7f0000400000-7f0000401000 rw-s 00003000 00:01 9 /memfd:guest-shared (deleted)\n";

    #[test]
    fn memory_is_found_by_its_size_and_shared_pages_by_their_file() {
        assert_eq!(place_of(MAPS, 0x3008, 0x20_0000), Some(0x7f00_0040_0008));
        assert_eq!(place_of(MAPS, 0x5000, 0x20_0000), Some(0x7f00_0000_5000));
        assert_eq!(place_of(MAPS, 0x5000, 0x30_0000), None);
    }
}
