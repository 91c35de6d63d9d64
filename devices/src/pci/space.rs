//! A function's configuration space as the guest sees it: bytes of ours among bytes of the device.
//!
//! Every byte has one source. A byte that nobody has said anything about is ours, zero and
//! read-only: what is not known to be safe is not there.

use std::ops::Range;

/// Bytes of configuration space of a PCI Express function.
pub const CONFIG_BYTES: u16 = 4096;
const BYTES: usize = CONFIG_BYTES as usize;

/// Where a byte comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Byte {
    /// From here; the guest can change the bits in `writable`.
    Emulated { value: u8, writable: u8 },
    /// From the device, both ways.
    Physical,
}

/// The bytes of a function's configuration space.
#[derive(Clone)]
pub struct ConfigSpace {
    bytes: Box<[Byte; BYTES]>,
}

impl Default for ConfigSpace {
    fn default() -> Self {
        Self {
            bytes: Box::new(
                [Byte::Emulated {
                    value: 0,
                    writable: 0,
                }; BYTES],
            ),
        }
    }
}

impl ConfigSpace {
    /// Makes the bytes from `register` on ours: `value`, of which the guest can change the bits in
    /// `writable`. Bytes beyond the end are dropped.
    pub fn emulate<const N: usize>(&mut self, register: u16, value: [u8; N], writable: [u8; N]) {
        let from = usize::from(register);
        let pairs = value.into_iter().zip(writable);
        for (byte, (value, writable)) in self.bytes.iter_mut().skip(from).zip(pairs) {
            *byte = Byte::Emulated { value, writable };
        }
    }

    /// Lets the device answer for these bytes.
    pub fn pass_through(&mut self, registers: Range<u16>) {
        let range = usize::from(registers.start)..usize::from(registers.end.min(CONFIG_BYTES));
        if let Some(bytes) = self.bytes.get_mut(range) {
            bytes.fill(Byte::Physical);
        }
    }

    /// Sets the value of a byte of ours, whether or not the guest can; a byte of the device, and
    /// one beyond the end, is left alone.
    pub fn set<const N: usize>(&mut self, register: u16, new: [u8; N]) {
        for (byte, new) in self.bytes.iter_mut().skip(usize::from(register)).zip(new) {
            if let Byte::Emulated { value, .. } = byte {
                *value = new;
            }
        }
    }

    /// Four bytes of ours as a little-endian number; bytes of the device count as zero.
    #[must_use]
    pub fn u32(&self, register: u16) -> u32 {
        u32::from_le_bytes(self.own(register))
    }

    /// Two bytes of ours as a little-endian number; bytes of the device count as zero.
    #[must_use]
    pub fn u16(&self, register: u16) -> u16 {
        u16::from_le_bytes(self.own(register))
    }

    fn own<const N: usize>(&self, register: u16) -> [u8; N] {
        let mut own = [0; N];
        for (byte, own) in self.bytes.iter().skip(usize::from(register)).zip(&mut own) {
            if let Byte::Emulated { value, .. } = byte {
                *own = *value;
            }
        }
        own
    }

    /// Fills `data` with what the guest reads from `register` on. `physical` reads from the device;
    /// each run of bytes of the device is one call. Beyond the end there is nothing: ones.
    pub fn read(&self, register: u16, data: &mut [u8], mut physical: impl FnMut(u16, &mut [u8])) {
        data.fill(0xff);
        for (register, run) in self.runs(register, data.len()) {
            let Some(data) = data.get_mut(run.clone()) else {
                return;
            };
            match self.bytes.get(usize::from(register)) {
                Some(Byte::Physical) => physical(register, data),
                _ => {
                    let bytes = self.bytes.iter().skip(usize::from(register));
                    for (byte, data) in bytes.zip(data) {
                        if let Byte::Emulated { value, .. } = byte {
                            *data = *value;
                        }
                    }
                }
            }
        }
    }

    /// Takes what the guest writes from `register` on. `physical` writes to the device; each run of
    /// bytes of the device is one call. Beyond the end, and where the guest can change nothing, it
    /// has no effect.
    pub fn write(&mut self, register: u16, data: &[u8], mut physical: impl FnMut(u16, &[u8])) {
        for (register, run) in self.runs(register, data.len()) {
            let Some(data) = data.get(run) else {
                return;
            };
            if self.bytes.get(usize::from(register)) == Some(&Byte::Physical) {
                physical(register, data);
                continue;
            }
            let bytes = self.bytes.iter_mut().skip(usize::from(register));
            for (byte, new) in bytes.zip(data) {
                if let Byte::Emulated { value, writable } = byte {
                    *value = (*value & !*writable) | (new & *writable);
                }
            }
        }
    }

    /// Cuts an access into runs of bytes with the same kind of source: the first register of each,
    /// and which bytes of the access it is.
    fn runs(&self, register: u16, length: usize) -> Vec<(u16, Range<usize>)> {
        let from = usize::from(register).min(BYTES);
        let to = from.saturating_add(length).min(BYTES);
        let bytes = self.bytes.get(from..to).unwrap_or_default();
        let mut runs = Vec::new();
        let mut done: usize = 0;
        let same = |a: &Byte, b: &Byte| (*a == Byte::Physical) == (*b == Byte::Physical);
        for run in bytes.chunk_by(same) {
            let start = u16::try_from(from.saturating_add(done)).unwrap_or(CONFIG_BYTES);
            let end = done.saturating_add(run.len());
            runs.push((start, done..end));
            done = end;
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_access_is_split_where_the_source_changes() {
        let mut space = ConfigSpace::default();
        space.emulate(0x40, [0x11, 0x22], [0xff, 0x0f]);
        space.pass_through(0x42..0x48);
        let mut data = [0; 8];
        let mut calls = Vec::new();
        space.read(0x40, &mut data, |register, bytes| {
            calls.push((register, bytes.len()));
            bytes.fill(0xaa);
        });
        assert_eq!(data, [0x11, 0x22, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa]);
        assert_eq!(calls, [(0x42, 6)]);

        let mut written = Vec::new();
        space.write(0x40, &[0xff, 0xff, 1, 2], |register, bytes| {
            written.push((register, bytes.to_vec()));
        });
        assert_eq!(written, [(0x42, vec![1, 2])]);
        assert_eq!(space.u16(0x40), 0x2fff);
    }

    #[test]
    fn beyond_the_end_there_are_ones_and_writes_vanish() {
        let mut space = ConfigSpace::default();
        let mut data = [0; 4];
        space.read(0xffe, &mut data, |_, _| {});
        assert_eq!(data, [0, 0, 0xff, 0xff]);
        space.read(u16::MAX, &mut data, |_, _| {});
        assert_eq!(data, [0xff; 4]);
        space.write(0xffe, &[1; 8], |_, _| {});
        space.write(u16::MAX, &[1; 8], |_, _| {});
        assert_eq!(space.u16(0xffe), 0);
    }

    proptest! {
        #[test]
        fn a_read_only_bit_never_changes(
            value: [u8; 16],
            writable: [u8; 16],
            writes in prop::collection::vec((0x3f_u16..0x52, prop::collection::vec(any::<u8>(), 0..9)), 0..20),
        ) {
            let mut space = ConfigSpace::default();
            space.emulate(0x40, value, writable);
            for (register, data) in &writes {
                space.write(*register, data, |_, _| {});
            }
            let mut read = [0; 16];
            space.read(0x40, &mut read, |_, _| {});
            for index in 0..16 {
                prop_assert_eq!(read[index] & !writable[index], value[index] & !writable[index]);
            }
            prop_assert_eq!(space.u32(0x50), 0);
        }
    }
}
