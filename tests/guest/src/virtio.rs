//! A virtio device on PCI (virtio 1.2, sections 2.7 and 4.1), polled, and its split rings.

use crate::machine::Machine;
use crate::memory::Shared;
use crate::pci::Function;
use crate::{mmio, time};

const VENDOR: u16 = 0x1af4;
const FIRST_DEVICE: u16 = 0x1040;

/// Features of the transport.
pub const VERSION_1: u64 = 1 << 32;
/// Addresses are the platform's: shared ones in a Realm.
pub const ACCESS_PLATFORM: u64 = 1 << 33;

/// Bits of the device status.
pub mod status {
    pub const ACKNOWLEDGE: u8 = 1;
    pub const DRIVER: u8 = 2;
    pub const DRIVER_OK: u8 = 4;
    pub const FEATURES_OK: u8 = 8;
    pub const NEEDS_RESET: u8 = 64;
}

/// Registers of the common configuration.
mod common {
    pub(super) const DEVICE_FEATURE_SELECT: u64 = 0;
    pub(super) const DEVICE_FEATURE: u64 = 4;
    pub(super) const DRIVER_FEATURE_SELECT: u64 = 8;
    pub(super) const DRIVER_FEATURE: u64 = 0xc;
    pub(super) const DEVICE_STATUS: u64 = 0x14;
    pub(super) const QUEUE_SELECT: u64 = 0x16;
    pub(super) const QUEUE_SIZE: u64 = 0x18;
    pub(super) const QUEUE_ENABLE: u64 = 0x1c;
    pub(super) const QUEUE_NOTIFY_OFFSET: u64 = 0x1e;
    pub(super) const QUEUE_DESCRIPTORS: u64 = 0x20;
    pub(super) const QUEUE_AVAILABLE: u64 = 0x28;
    pub(super) const QUEUE_USED: u64 = 0x30;
}

/// A device.
pub struct Virtio {
    common: u64,
    notify: u64,
    notify_multiplier: u64,
    device: u64,
}

impl Virtio {
    /// The first device of this type, as it was found.
    pub fn find(machine: &Machine<'_>, kind: u16) -> Result<Self, &'static str> {
        const VENDOR_SPECIFIC: u8 = 9;
        const COMMON: u8 = 1;
        const NOTIFY: u8 = 2;
        const DEVICE: u8 = 4;
        let function = Function::find(machine, VENDOR, FIRST_DEVICE + kind)
            .ok_or("there is no such virtio device")?;
        let mut bars = [None; 6];
        let mut found = [None; 5];
        let mut notify_multiplier = 0;
        for capability in function.capabilities(VENDOR_SPECIFIC) {
            let [.., kind] = function.read(capability).to_le_bytes();
            let [bar, ..] = function.read(capability + 4).to_le_bytes();
            let offset = u64::from(function.read(capability + 8));
            let (bar, Some(place)) = (usize::from(bar), found.get_mut(usize::from(kind))) else {
                continue;
            };
            let base = match bars.get(bar).copied().flatten() {
                Some(base) => base,
                None => {
                    let place = function.place(machine, bar as u64);
                    let base = place.ok_or("virtio has no place for its registers")?.start;
                    bars[bar] = Some(base);
                    base
                }
            };
            *place = place.or(Some(machine.shared(base + offset)));
            if kind == NOTIFY {
                notify_multiplier = u64::from(function.read(capability + 16));
            }
        }
        function.switch_on();
        let at = |kind: u8| found[usize::from(kind)].ok_or("virtio lacks a capability");
        Ok(Self {
            common: at(COMMON)?,
            notify: at(NOTIFY)?,
            notify_multiplier,
            device: at(DEVICE)?,
        })
    }

    /// Brings the device back to where it began.
    pub fn reset(&self) -> Result<(), &'static str> {
        self.set_status(0);
        match time::wait(10, || self.status() == 0) {
            true => Ok(()),
            false => Err("virtio does not reset"),
        }
    }

    /// The device status.
    pub fn status(&self) -> u8 {
        mmio::read8(self.common + common::DEVICE_STATUS)
    }

    /// Writes the device status.
    pub fn set_status(&self, status: u8) {
        mmio::write8(self.common + common::DEVICE_STATUS, status);
    }

    /// What the device offers.
    pub fn features(&self) -> u64 {
        let half = |select| {
            mmio::write32(self.common + common::DEVICE_FEATURE_SELECT, select);
            u64::from(mmio::read32(self.common + common::DEVICE_FEATURE))
        };
        half(0) | half(1) << 32
    }

    /// Resets the device and agrees on features; returns whether it takes them.
    pub fn negotiate(&self, features: u64) -> Result<bool, &'static str> {
        self.reset()?;
        let known = status::ACKNOWLEDGE | status::DRIVER;
        self.set_status(status::ACKNOWLEDGE);
        self.set_status(known);
        for (select, half) in [(0, features as u32), (1, (features >> 32) as u32)] {
            mmio::write32(self.common + common::DRIVER_FEATURE_SELECT, select);
            mmio::write32(self.common + common::DRIVER_FEATURE, half);
        }
        self.set_status(known | status::FEATURES_OK);
        Ok(self.status() & status::FEATURES_OK != 0)
    }

    /// From now on the rings are served.
    pub fn go_live(&self) {
        self.set_status(self.status() | status::DRIVER_OK);
    }

    /// Tells the device where a ring is, and that it is ready.
    pub fn enable(&self, number: u16, place: Place) -> Queue {
        mmio::write16(self.common + common::QUEUE_SELECT, number);
        mmio::write16(self.common + common::QUEUE_SIZE, place.size);
        let addresses = [
            (common::QUEUE_DESCRIPTORS, place.descriptors),
            (common::QUEUE_AVAILABLE, place.available),
            (common::QUEUE_USED, place.used),
        ];
        for (register, address) in addresses {
            mmio::write32(self.common + register, address as u32);
            mmio::write32(self.common + register + 4, (address >> 32) as u32);
        }
        mmio::write16(self.common + common::QUEUE_ENABLE, 1);
        let offset = u64::from(mmio::read16(self.common + common::QUEUE_NOTIFY_OFFSET));
        Queue {
            number,
            place,
            notify: self.notify + offset * self.notify_multiplier,
            offered: 0,
            seen: 0,
        }
    }

    /// 32 bits of the device's configuration.
    pub fn config32(&self, offset: u64) -> u32 {
        mmio::read32(self.device + offset)
    }

    /// 64 bits of the device's configuration.
    pub fn config64(&self, offset: u64) -> u64 {
        u64::from(self.config32(offset)) | u64::from(self.config32(offset + 4)) << 32
    }
}

/// Where a ring is.
#[derive(Clone, Copy)]
pub struct Place {
    /// Entries.
    pub size: u16,
    /// The descriptor table.
    pub descriptors: u64,
    /// What the driver offers.
    pub available: u64,
    /// What the device has used.
    pub used: u64,
}

impl Place {
    /// How many pages a ring of [`Self::of`] takes.
    pub const PAGES: u64 = 3;

    /// A ring of 256 entries in shared pages that hold zeros.
    pub fn of(memory: Shared, first_page: u64) -> Self {
        Self {
            size: 256,
            descriptors: memory.page(first_page),
            available: memory.page(first_page + 1),
            used: memory.page(first_page + 2),
        }
    }

    /// Forgets everything that is in the ring.
    pub fn clear(self) {
        for start in [self.descriptors, self.available, self.used] {
            for offset in (0..4096).step_by(8) {
                mmio::write64(start + offset, 0);
            }
        }
    }
}

/// A ring.
pub struct Queue {
    number: u16,
    place: Place,
    notify: u64,
    offered: u16,
    seen: u16,
}

/// A part of a chain.
#[derive(Clone, Copy, Default)]
pub struct Descriptor {
    /// DMA address.
    pub address: u64,
    /// Bytes.
    pub length: u32,
    /// [`NEXT`], [`WRITABLE`], [`INDIRECT`].
    pub flags: u16,
    /// The descriptor after it.
    pub next: u16,
}

/// There is a next descriptor.
pub const NEXT: u16 = 1;
/// For the device to write.
pub const WRITABLE: u16 = 2;
/// A table of descriptors.
pub const INDIRECT: u16 = 4;

/// A chain that the device has gone through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Used {
    /// Its first descriptor.
    pub head: u32,
    /// How many bytes the device says it has written.
    pub written: u32,
}

impl Queue {
    /// Fills in a descriptor.
    pub fn describe(&self, number: u16, descriptor: Descriptor) {
        let at = self.place.descriptors + u64::from(number) * 16;
        write_descriptor(at, descriptor);
    }

    /// Offers the chain that begins at a descriptor.
    pub fn offer(&mut self, head: u16) {
        let entry = self.offered % self.place.size;
        mmio::write16(self.place.available + 4 + 2 * u64::from(entry), head);
        mmio::barrier();
        self.claim(self.offered.wrapping_add(1));
    }

    /// Says that so many chains have been offered so far.
    pub fn claim(&mut self, offered: u16) {
        self.offered = offered;
        mmio::write16(self.place.available + 2, offered);
    }

    /// Tells the device to look.
    pub fn notify(&self) {
        mmio::barrier();
        mmio::write16(self.notify, self.number);
    }

    /// The next chain that the device has gone through.
    pub fn take(&mut self) -> Option<Used> {
        if mmio::read16(self.place.used + 2) == self.seen {
            return None;
        }
        mmio::barrier();
        let entry = self.place.used + 4 + 8 * u64::from(self.seen % self.place.size);
        self.seen = self.seen.wrapping_add(1);
        Some(Used {
            head: mmio::read32(entry),
            written: mmio::read32(entry + 4),
        })
    }

    /// Waits for the next chain.
    pub fn wait(&mut self) -> Option<Used> {
        let mut used = None;
        time::wait(10, || {
            used = self.take();
            used.is_some()
        });
        used
    }
}

/// Writes a descriptor to memory.
pub fn write_descriptor(at: u64, descriptor: Descriptor) {
    mmio::write64(at, descriptor.address);
    mmio::write32(at + 8, descriptor.length);
    mmio::write16(at + 12, descriptor.flags);
    mmio::write16(at + 14, descriptor.next);
}
