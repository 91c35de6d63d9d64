//! A driver of several rings, whose memory and accesses are the fuzzer's.
//!
//! The input is what lies in guest memory from 0x1000 on, [`RING`] bytes for each ring of 16 entries, and
//! then accesses of 8 bytes each: offset in the BAR (2), how many bytes and whether to write (1), which
//! ring to serve (1), the bytes (4).

use std::sync::Arc;

use devices::pci::{BarIndex, Bdf, PciFunction};
use devices::virtio::{DmaAccess, VirtioDevice, VirtioPci, VirtioWiring, Virtqueue};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::vectors::Vectors;

/// Bytes of memory for a ring.
const RING: usize = 0x400;

pub type Ring = Virtqueue<GuestMemoryMmap>;

/// Lets a driver that has accepted `features` do what `input` says; `serve` has a turn after each access.
pub fn drive<D: VirtioDevice>(
    device: D,
    features: u64,
    input: &[u8],
    mut serve: impl FnMut(&[Ring], u8),
) {
    let count = device.queues().len();
    let Some((content, accesses)) = input.split_at_checked(RING * count) else {
        return;
    };
    let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap();
    memory.write_slice(content, GuestAddress(0x1000)).unwrap();
    let wiring = VirtioWiring {
        bdf: Bdf::new(0, 1, 0).unwrap(),
        controller: Arc::new(Vectors),
        memory,
        access: DmaAccess::Platform,
        doorbells: Vec::new(),
    };
    let mut function = VirtioPci::new(device, wiring).unwrap();
    let rings = function.rings();
    let bar = BarIndex::ALL[0];
    let mut write = |at, data: &[u8]| function.bar_write(bar, at, data);
    // As far as a driver gets without a mistake.
    write(20, &[3]);
    for (select, shift) in [(0, 0), (1, 32)] {
        write(8, &[select, 0, 0, 0]);
        let word = (features | 3 << 32) >> shift & 0xffff_ffff;
        write(12, &word.to_le_bytes()[..4]);
    }
    write(20, &[11]);
    for queue in 0..u16::try_from(count).unwrap() {
        let ring = 0x1000 + RING as u32 * u32::from(queue);
        write(22, &queue.to_le_bytes());
        write(24, &[16, 0]);
        for (register, address) in [(32, ring), (40, ring + 0x100), (48, ring + 0x200)] {
            write(register, &address.to_le_bytes());
        }
        write(28, &[1, 0]);
    }
    write(20, &[15]);
    function.config_write(4, &[6, 0]);
    serve(&rings, 0);
    for access in accesses.chunks_exact(8) {
        let &[low, high, kind, turn, ref data @ ..] = access else {
            return;
        };
        let offset = u64::from(u16::from_le_bytes([low, high]));
        let data = &data[..usize::from(kind % 4) + 1];
        match kind & 0x80 {
            0 => function.bar_write(bar, offset, data),
            _ => function.bar_read(bar, offset, &mut data.to_vec()),
        }
        serve(&rings, turn);
    }
}
