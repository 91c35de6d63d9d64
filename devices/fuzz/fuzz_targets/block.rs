//! Any memory and any register accesses for a virtio disk: `cargo +nightly fuzz run block`.
//!
//! The input is what lies in guest memory from 0x1000 on: a ring of 16 entries, and buffers. Then come
//! accesses of 8 bytes each: offset in the BAR (2), how many bytes and whether to write (1), a byte of
//! padding, the bytes (4). The queue is served after each.
#![no_main]

mod vectors;

use std::io;
use std::sync::{Arc, Mutex};

use devices::pci::{BarIndex, Bdf, PciFunction};
use devices::virtio::block::{BlockBackend, Geometry, Unmap, VirtioBlock, Writes};
use devices::virtio::{DmaAccess, VirtioPci, VirtioWiring};
use libfuzzer_sys::fuzz_target;
use vectors::Vectors;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap, VolatileSlice};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// A ring and what it points at; accesses come after it.
const MEMORY: usize = 0x600;
const SECTORS: u64 = 64;

/// A disk in memory that panics when a request leaves it.
struct Disk(Mutex<Vec<u8>>);

impl Disk {
    fn range(&self, offset: u64, bytes: u64, act: impl FnOnce(&mut [u8])) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap();
        let end = start + usize::try_from(bytes).unwrap();
        assert!(offset.is_multiple_of(512) && bytes.is_multiple_of(512));
        act(&mut self.0.lock().unwrap()[start..end]);
        Ok(())
    }
}

fn length(buffers: &[VolatileSlice<'_>]) -> u64 {
    buffers.iter().map(|buffer| buffer.len() as u64).sum()
}

impl BlockBackend for Disk {
    fn read(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        self.range(offset, length(buffers), |mut disk| {
            for buffer in buffers {
                let (now, rest) = disk.split_at_mut(buffer.len());
                buffer.copy_from(now);
                disk = rest;
            }
        })
    }

    fn write(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        self.range(offset, length(buffers), |mut disk| {
            for buffer in buffers {
                let (now, rest) = disk.split_at_mut(buffer.len());
                buffer.copy_to(now);
                disk = rest;
            }
        })
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn discard(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.range(offset, bytes, |disk| disk.fill(1))
    }

    fn write_zeroes(&self, offset: u64, bytes: u64, _: Unmap) -> io::Result<()> {
        self.range(offset, bytes, |disk| disk.fill(0))
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((content, accesses)) = input.split_at_checked(MEMORY) else {
        return;
    };
    let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap();
    memory.write_slice(content, GuestAddress(0x1000)).unwrap();
    let geometry = Geometry {
        sectors: SECTORS,
        block_bytes: 512,
        writes: Writes::Taken,
    };
    let doorbell = EventFd::new(EFD_NONBLOCK).unwrap();
    let device = VirtioBlock::new(geometry, vec![doorbell.try_clone().unwrap()]);
    let disk = Disk(Mutex::new(vec![0; SECTORS as usize * 512]));
    let queue = device.queue(Arc::new(disk), "fuzz");
    let wiring = VirtioWiring {
        bdf: Bdf::new(0, 1, 0).unwrap(),
        controller: Arc::new(Vectors),
        memory,
        access: DmaAccess::Platform,
        doorbells: Vec::new(),
    };
    let mut function = VirtioPci::new(device, wiring).unwrap();
    let ring = function.rings().remove(0);
    let bar = BarIndex::ALL[0];
    let mut write = |at, data: &[u8]| function.bar_write(bar, at, data);
    // As far as a driver gets without a mistake: all features, one ring of 16 entries, ready.
    write(20, &[3]);
    write(12, &0x3000_6e46_u32.to_le_bytes());
    write(8, &[1, 0, 0, 0]);
    write(12, &[3, 0, 0, 0]);
    write(20, &[11]);
    write(24, &[16, 0]);
    for (register, address) in [(32, 0x1000_u32), (40, 0x1100), (48, 0x1200)] {
        write(register, &address.to_le_bytes());
    }
    write(28, &[1, 0]);
    write(20, &[15]);
    function.config_write(4, &[6, 0]);
    queue.serve(&ring, || {});
    for access in accesses.chunks_exact(8) {
        let &[low, high, kind, _, ref data @ ..] = access else {
            return;
        };
        let offset = u64::from(u16::from_le_bytes([low, high]));
        let data = &data[..usize::from(kind % 4) + 1];
        match kind & 0x80 {
            0 => function.bar_write(bar, offset, data),
            _ => function.bar_read(bar, offset, &mut data.to_vec()),
        }
        if doorbell.read().is_ok() {
            queue.serve(&ring, || {});
        }
    }
});
