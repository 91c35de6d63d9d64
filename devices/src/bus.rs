//! The MMIO bus: which device answers at which guest-physical address.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use iommu::{Gpa, PageRange};

/// A device that answers loads and stores of the guest.
///
/// `data` is 1, 2, 4 or 8 bytes, little endian. An access that the device does not know reads as
/// zero and is otherwise ignored; it never panics.
pub trait MmioDevice: Send {
    /// Fills `data` with what the guest reads at `offset` bytes from the device's base.
    fn read(&mut self, offset: u64, data: &mut [u8]);
    /// Takes what the guest writes at `offset` bytes from the device's base.
    fn write(&mut self, offset: u64, data: &[u8]);
}

/// Why a device cannot be put on the bus.
#[derive(Debug, thiserror::Error)]
#[error("bus range {range} overlaps the device at {other}")]
pub struct BusOverlap {
    /// The range that was asked for.
    pub range: PageRange<Gpa>,
    /// The range that is taken.
    pub other: PageRange<Gpa>,
}

/// No device answers at the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unclaimed;

/// A shared handle to a device on the bus.
pub type SharedDevice = Arc<Mutex<dyn MmioDevice>>;

/// Devices by guest-physical address. Ranges do not overlap.
#[derive(Default, Clone)]
pub struct Bus {
    devices: BTreeMap<Gpa, (PageRange<Gpa>, SharedDevice)>,
}

impl Bus {
    /// Puts `device` at `range`.
    ///
    /// # Errors
    /// When another device has a page of the range.
    pub fn insert(
        &mut self,
        range: PageRange<Gpa>,
        device: SharedDevice,
    ) -> Result<(), BusOverlap> {
        let below = self.devices.range(..range.end()).next_back();
        if let Some((_, &(other, _))) = below.filter(|(_, (other, _))| other.overlaps(range)) {
            return Err(BusOverlap { range, other });
        }
        self.devices.insert(range.start(), (range, device));
        Ok(())
    }

    /// Lets the device at `address` answer a load.
    ///
    /// # Errors
    /// [`Unclaimed`] when there is none; `data` is then untouched.
    pub fn read(&self, address: Gpa, data: &mut [u8]) -> Result<(), Unclaimed> {
        let (device, offset) = self.find(address)?;
        // A device that panicked has left consistent-enough registers behind: the guest's problem.
        device
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .read(offset, data);
        Ok(())
    }

    /// Hands a store to the device at `address`.
    ///
    /// # Errors
    /// [`Unclaimed`] when there is none.
    pub fn write(&self, address: Gpa, data: &[u8]) -> Result<(), Unclaimed> {
        let (device, offset) = self.find(address)?;
        device
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write(offset, data);
        Ok(())
    }

    fn find(&self, address: Gpa) -> Result<(&SharedDevice, u64), Unclaimed> {
        let (base, (range, device)) = self
            .devices
            .range(..=address)
            .next_back()
            .ok_or(Unclaimed)?;
        if !range.contains(address) {
            return Err(Unclaimed);
        }
        Ok((device, address.raw().saturating_sub(base.raw())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo(u8);

    impl MmioDevice for Echo {
        fn read(&mut self, offset: u64, data: &mut [u8]) {
            data.fill(self.0.wrapping_add(u8::try_from(offset).unwrap()));
        }
        fn write(&mut self, _offset: u64, data: &[u8]) {
            self.0 = data[0];
        }
    }

    fn range(start: u64) -> PageRange<Gpa> {
        PageRange::new(Gpa::new(start), 0x1000).unwrap()
    }

    #[test]
    fn an_access_reaches_the_device_with_its_offset() {
        let mut bus = Bus::default();
        bus.insert(range(0x1000), Arc::new(Mutex::new(Echo(1))))
            .unwrap();
        let mut data = [0];
        bus.read(Gpa::new(0x1005), &mut data).unwrap();
        assert_eq!(data, [6]);
        bus.write(Gpa::new(0x1000), &[7]).unwrap();
        bus.read(Gpa::new(0x1000), &mut data).unwrap();
        assert_eq!(data, [7]);
        assert_eq!(bus.read(Gpa::new(0x2000), &mut data), Err(Unclaimed));
        assert_eq!(bus.read(Gpa::new(0xfff), &mut data), Err(Unclaimed));
    }

    #[test]
    fn two_devices_cannot_share_a_page() {
        let mut bus = Bus::default();
        bus.insert(range(0x1000), Arc::new(Mutex::new(Echo(1))))
            .unwrap();
        assert!(
            bus.insert(range(0x1000), Arc::new(Mutex::new(Echo(2))))
                .is_err()
        );
        assert!(
            bus.insert(range(0x2000), Arc::new(Mutex::new(Echo(2))))
                .is_ok()
        );
    }
}
