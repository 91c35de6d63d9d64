//! The driver's side of a virtio function, for tests.

use std::io;
use std::sync::{Arc, Mutex};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::device::VirtioDevice;
use super::function::VirtioPci;
use super::wiring::{DmaAccess, VirtioWiring};
use crate::irq::{MsiController, MsiMessage, MsiVector};
use crate::pci::{Bdf, PciFunction};

/// Bytes of guest memory, from address 0.
pub(super) const MEMORY: u64 = 0x10_0000;
/// Where the rings are: 0x1000 bytes for each queue.
const RINGS: u64 = 0x1000;
/// Where buffers begin.
pub(super) const BUFFERS: u64 = 0x8000;
/// Entries of each ring.
pub(super) const SIZE: u16 = 16;

const COMMON: u64 = 0;
const NOTIFY: u64 = 0x2000;
const MSIX_TABLE: u64 = 0x3000;

/// A descriptor: address, bytes, flags, next.
pub(super) type Descriptor = (u64, u32, u16, u16);
pub(super) const NEXT: u16 = 1;
pub(super) const WRITE: u16 = 2;
pub(super) const INDIRECT: u16 = 4;

/// A vector's event, and where it goes now.
type Route = (EventFd, Option<MsiMessage>);

/// Vectors handed out.
#[derive(Clone, Default)]
pub(super) struct Vectors(Arc<Mutex<Vec<Route>>>);

struct Vector(usize, EventFd, Vectors);

impl MsiController for Vectors {
    fn vector(&self, _: Bdf) -> io::Result<Box<dyn MsiVector>> {
        let event = EventFd::new(EFD_NONBLOCK)?;
        let mut vectors = self.0.lock().unwrap();
        vectors.push((event.try_clone()?, None));
        Ok(Box::new(Vector(vectors.len() - 1, event, self.clone())))
    }
}

impl MsiVector for Vector {
    fn event(&self) -> &EventFd {
        &self.1
    }

    fn route(&mut self, message: Option<MsiMessage>) -> io::Result<()> {
        self.2.0.lock().unwrap()[self.0].1 = message;
        Ok(())
    }

    fn is_pending(&self) -> bool {
        let pending = self.1.read().is_ok();
        if pending {
            self.1.write(1).unwrap();
        }
        pending
    }
}

impl Vectors {
    /// How often a vector was signalled since the last call.
    pub(super) fn signalled(&self, vector: usize) -> u64 {
        self.0.lock().unwrap()[vector].0.read().unwrap_or(0)
    }

    /// Where a vector goes.
    pub(super) fn message(&self, vector: usize) -> Option<MsiMessage> {
        self.0.lock().unwrap()[vector].1
    }
}

/// A function, and the driver's half of its rings.
pub(super) struct Driver<D> {
    pub(super) function: VirtioPci<D, GuestMemoryMmap>,
    pub(super) memory: GuestMemoryMmap,
    pub(super) vectors: Vectors,
    available: [u16; 7],
}

impl<D: VirtioDevice> Driver<D> {
    /// Finds the function, lets its BAR answer at 0x1000_0000 and turns MSI-X on.
    pub(super) fn new(device: D, access: DmaAccess) -> Self {
        let bytes = usize::try_from(MEMORY).unwrap();
        let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), bytes)]).unwrap();
        let vectors = Vectors::default();
        let wiring = VirtioWiring {
            bdf: Bdf::new(0, 1, 0).unwrap(),
            controller: Arc::new(vectors.clone()),
            memory: memory.clone(),
            access,
            doorbells: Vec::new(),
        };
        let mut function = VirtioPci::new(device, wiring).unwrap();
        function.config_write(0x10, &0x1000_0000_u32.to_le_bytes());
        function.config_write(0x04, &6_u16.to_le_bytes());
        function.config_write(0x42, &0x8000_u16.to_le_bytes());
        let available = [0; 7];
        Self {
            function,
            memory,
            vectors,
            available,
        }
    }

    /// As [`Driver::new`], and goes through the whole handshake with these features of the device.
    pub(super) fn ready(device: D, features: u64) -> Self {
        let mut driver = Self::new(device, DmaAccess::Platform);
        driver.restart(features);
        driver
    }

    /// Goes through the handshake from the reset on.
    pub(super) fn restart(&mut self, features: u64) {
        self.write8(20, 0);
        assert_eq!(self.negotiate(features | 3 << 32) & 8, 8);
        for queue in 0..self.read16(18) {
            self.put(ring(queue), &[0; 0x1000]);
            self.set_up(queue);
        }
        self.available = [0; 7];
        self.write8(20, 15);
        assert_eq!(self.read8(20), 15);
    }

    /// Chooses features, and returns the status afterwards.
    pub(super) fn negotiate(&mut self, features: u64) -> u8 {
        self.write8(20, 1);
        self.write8(20, 3);
        for (select, shift) in [(0, 0), (1, 32)] {
            self.write32(8, select);
            self.write32(12, u32::try_from(features >> shift & 0xffff_ffff).unwrap());
        }
        self.write8(20, 11);
        self.read8(20)
    }

    /// Enables a ring of [`SIZE`] entries, with vector `queue + 1`, which is unmasked.
    pub(super) fn set_up(&mut self, queue: u16) {
        let entry = MSIX_TABLE + 16 * u64::from(queue + 1);
        self.bar_write(entry, &0x0808_0040_u64.to_le_bytes());
        self.bar_write(entry + 8, &(100 + u32::from(queue)).to_le_bytes());
        self.bar_write(entry + 12, &0_u32.to_le_bytes());
        self.write16(22, queue);
        self.write16(24, SIZE);
        self.write16(26, queue + 1);
        for (register, address) in [(32, 0), (40, 0x400), (48, 0x800)] {
            let address = ring(queue) + address;
            self.write32(register, u32::try_from(address).unwrap());
            self.write32(register + 4, 0);
        }
        self.write16(28, 1);
    }

    /// Puts descriptors into the table, from the first on.
    pub(super) fn describe(&self, queue: u16, descriptors: &[Descriptor]) {
        self.describe_at(ring(queue), descriptors);
    }

    pub(super) fn describe_at(&self, table: u64, descriptors: &[Descriptor]) {
        for (at, &(address, bytes, flags, next)) in (table..).step_by(16).zip(descriptors) {
            self.put(at, &address.to_le_bytes());
            self.put(at + 8, &bytes.to_le_bytes());
            self.put(at + 12, &flags.to_le_bytes());
            self.put(at + 14, &next.to_le_bytes());
        }
    }

    /// Makes the chain that begins at a descriptor available, without a notification.
    pub(super) fn offer(&mut self, queue: u16, head: u16) {
        let index = &mut self.available[usize::from(queue)];
        let entry = ring(queue) + 0x404 + 2 * u64::from(*index % SIZE);
        *index = index.wrapping_add(1);
        let index = *index;
        self.put(entry, &head.to_le_bytes());
        self.put(ring(queue) + 0x402, &index.to_le_bytes());
    }

    /// Sets the index of the available ring, honest or not.
    pub(super) fn set_available(&mut self, queue: u16, index: u16) {
        self.available[usize::from(queue)] = index;
        self.put(ring(queue) + 0x402, &index.to_le_bytes());
    }

    /// Tells the driver's wish for interrupts.
    pub(super) fn set_available_flags(&self, queue: u16, flags: u16) {
        self.put(ring(queue) + 0x400, &flags.to_le_bytes());
    }

    /// Sets the used index from which on the driver wants interrupts, with `EVENT_IDX`.
    pub(super) fn set_used_event(&self, queue: u16, index: u16) {
        let at = ring(queue) + 0x404 + 2 * u64::from(SIZE);
        self.put(at, &index.to_le_bytes());
    }

    /// The available index from which on the device wants notifications, with `EVENT_IDX`.
    pub(super) fn available_event(&self, queue: u16) -> u16 {
        let at = ring(queue) + 0x804 + 8 * u64::from(SIZE);
        self.memory.read_obj(GuestAddress(at)).unwrap()
    }

    /// Whether the device wants notifications, without `EVENT_IDX`.
    pub(super) fn is_to_notify(&self, queue: u16) -> bool {
        let flags: u16 = self
            .memory
            .read_obj(GuestAddress(ring(queue) + 0x800))
            .unwrap();
        flags & 1 == 0
    }

    pub(super) fn notify(&mut self, queue: u16) {
        let at = NOTIFY + 4 * u64::from(queue);
        self.bar_write(at, &queue.to_le_bytes());
    }

    /// How many chains have come back.
    pub(super) fn used_index(&self, queue: u16) -> u16 {
        self.memory
            .read_obj(GuestAddress(ring(queue) + 0x802))
            .unwrap()
    }

    /// Descriptor and length of the last chain that has come back.
    pub(super) fn last_used(&self, queue: u16) -> (u32, u32) {
        let index = self.used_index(queue).wrapping_sub(1) % SIZE;
        let at = ring(queue) + 0x804 + 8 * u64::from(index);
        let word = |at| self.memory.read_obj(GuestAddress(at)).unwrap();
        (word(at), word(at + 4))
    }

    pub(super) fn put(&self, at: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(at)).unwrap();
    }

    pub(super) fn get(&self, at: u64, bytes: usize) -> Vec<u8> {
        let mut data = vec![0; bytes];
        self.memory.read_slice(&mut data, GuestAddress(at)).unwrap();
        data
    }

    pub(super) fn bar_write(&mut self, offset: u64, data: &[u8]) {
        let bytes = data.len() as u64;
        let space = crate::pci::AddressSpace::Memory;
        let at = 0x1000_0000 + offset;
        let (bar, offset) = self.function.claims(space, at, bytes).unwrap();
        self.function.bar_write(bar, offset, data);
    }

    pub(super) fn bar_read<const N: usize>(&mut self, offset: u64) -> [u8; N] {
        let mut data = [0; N];
        let bar = crate::pci::BarIndex::ALL[0];
        self.function.bar_read(bar, offset, &mut data);
        data
    }

    pub(super) fn write8(&mut self, register: u64, value: u8) {
        self.bar_write(COMMON + register, &[value]);
    }

    pub(super) fn write16(&mut self, register: u64, value: u16) {
        self.bar_write(COMMON + register, &value.to_le_bytes());
    }

    pub(super) fn write32(&mut self, register: u64, value: u32) {
        self.bar_write(COMMON + register, &value.to_le_bytes());
    }

    pub(super) fn read8(&mut self, register: u64) -> u8 {
        let [value] = self.bar_read(COMMON + register);
        value
    }

    pub(super) fn read16(&mut self, register: u64) -> u16 {
        u16::from_le_bytes(self.bar_read(COMMON + register))
    }

    pub(super) fn read32(&mut self, register: u64) -> u32 {
        u32::from_le_bytes(self.bar_read(COMMON + register))
    }
}

const fn ring(queue: u16) -> u64 {
    RINGS + 0x1000 * queue as u64
}
