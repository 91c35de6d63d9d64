//! Any memory and any register accesses for the virtio IOMMU: `cargo +nightly fuzz run virtio`.
//!
//! The input is what lies in guest memory from 0x1000 on, and then accesses of 8 bytes each: offset in
//! the BAR (2), how many bytes and whether to write (1), a byte of padding, the bytes (4).
#![no_main]

mod vectors;

use std::sync::Arc;

use devices::pci::{BarIndex, Bdf, PciFunction};
use devices::virtio::iommu::{FaultQueue, IommuBackend, VirtioIommu};
use devices::virtio::{DmaAccess, VirtioPci, VirtioWiring};
use iommu::request::{EndpointId, Request};
use iommu::wire::{Config, Status};
use iommu::{Iova, PageRange};
use libfuzzer_sys::fuzz_target;
use vectors::Vectors;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Two rings' worth of memory; accesses come after it.
const MEMORY: usize = 0x400;

/// Agrees to everything.
struct Backend;

impl IommuBackend for Backend {
    fn config(&self) -> Config {
        let input = PageRange::new(Iova::new(0), 1 << 32).unwrap();
        iommu::viommu::Viommu::new(input, false).config(!0)
    }
    fn probe(&self, endpoint: EndpointId) -> Option<Vec<u8>> {
        (endpoint.0 < 8).then(|| vec![1; 24])
    }
    fn apply(&mut self, _: Request) -> Status {
        Status::Ok
    }
    fn set_bypass(&mut self, _: bool) {}
    fn reset(&mut self) {}
}

fuzz_target!(|input: &[u8]| {
    let Some((rings, accesses)) = input.split_at_checked(MEMORY) else {
        return;
    };
    let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap();
    memory.write_slice(rings, GuestAddress(0x1000)).unwrap();
    let wiring = VirtioWiring {
        bdf: Bdf::new(0, 1, 0).unwrap(),
        controller: Arc::new(Vectors),
        memory,
        access: DmaAccess::Platform,
        doorbells: Vec::new(),
    };
    let device = VirtioIommu::new(Backend, FaultQueue::default());
    let mut function = VirtioPci::new(device, wiring).unwrap();
    let bar = BarIndex::ALL[0];
    let mut write = |at, data: &[u8]| function.bar_write(bar, at, data);
    // As far as a driver gets without a mistake: features, one ring of 16 entries, ready.
    write(20, &[3]);
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
    function.bar_write(bar, 0x2000, &[0, 0]);
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
    }
});
