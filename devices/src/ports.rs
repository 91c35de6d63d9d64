//! I/O port space: which device answers at which port.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::PoisonError;

use crate::bus::{SharedDevice, Unclaimed};

/// Ports `first` up to and with `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The ports from `first` to `last`; `None` when they are in the wrong order.
    #[must_use]
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first <= last {
            Some(Self { first, last })
        } else {
            None
        }
    }

    /// One port.
    #[must_use]
    pub const fn one(port: u16) -> Self {
        Self {
            first: port,
            last: port,
        }
    }

    /// The first port.
    #[must_use]
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The last port.
    #[must_use]
    pub const fn last(self) -> u16 {
        self.last
    }

    /// How many ports there are: 1 to 65536.
    #[must_use]
    pub const fn count(self) -> u32 {
        self.last as u32 - self.first as u32 + 1
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..={:#x}", self.first, self.last)
    }
}

/// Two devices cannot have one port.
#[derive(Debug, thiserror::Error)]
#[error("ports {range} overlap the device at ports {other}")]
pub struct PortOverlap {
    /// The range that was asked for.
    pub range: PortRange,
    /// The range that is taken.
    pub other: PortRange,
}

/// Devices by port. Ranges do not overlap.
///
/// Devices are those of the memory bus, with 1, 2 or 4 bytes at a time; a machine without port space
/// has none here.
#[derive(Default, Clone)]
pub struct PortBus {
    devices: BTreeMap<u16, (PortRange, SharedDevice)>,
}

impl PortBus {
    /// Puts `device` at `range`.
    ///
    /// # Errors
    /// When another device has a port of the range.
    pub fn insert(&mut self, range: PortRange, device: SharedDevice) -> Result<(), PortOverlap> {
        let below = self.devices.range(..=range.last).next_back();
        if let Some((_, &(other, _))) = below.filter(|(_, (other, _))| other.last >= range.first) {
            return Err(PortOverlap { range, other });
        }
        self.devices.insert(range.first, (range, device));
        Ok(())
    }

    /// Lets the device at `port` answer an `in`.
    ///
    /// # Errors
    /// [`Unclaimed`] when there is none; `data` is then untouched.
    pub fn read(&self, port: u16, data: &mut [u8]) -> Result<(), Unclaimed> {
        let (device, offset) = self.find(port)?;
        // A device that panicked has left consistent-enough registers behind: the guest's problem.
        let mut device = device.lock().unwrap_or_else(PoisonError::into_inner);
        device.read(offset, data);
        Ok(())
    }

    /// Hands an `out` to the device at `port`.
    ///
    /// # Errors
    /// [`Unclaimed`] when there is none.
    pub fn write(&self, port: u16, data: &[u8]) -> Result<(), Unclaimed> {
        let (device, offset) = self.find(port)?;
        let mut device = device.lock().unwrap_or_else(PoisonError::into_inner);
        device.write(offset, data);
        Ok(())
    }

    fn find(&self, port: u16) -> Result<(&SharedDevice, u64), Unclaimed> {
        let below = self.devices.range(..=port).next_back();
        let (first, (range, device)) = below.ok_or(Unclaimed)?;
        let offset = port.checked_sub(*first).filter(|_| port <= range.last);
        Ok((device, offset.ok_or(Unclaimed)?.into()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::bus::MmioDevice;

    struct Echo(u8);

    impl MmioDevice for Echo {
        fn read(&mut self, offset: u64, data: &mut [u8]) {
            data.fill(self.0.wrapping_add(u8::try_from(offset).unwrap()));
        }
        fn write(&mut self, _offset: u64, data: &[u8]) {
            self.0 = data[0];
        }
    }

    fn echo(value: u8) -> SharedDevice {
        Arc::new(Mutex::new(Echo(value)))
    }

    fn range(first: u16, last: u16) -> PortRange {
        PortRange::new(first, last).unwrap()
    }

    fn read(bus: &PortBus, port: u16) -> Option<u8> {
        let mut data = [0];
        bus.read(port, &mut data).ok().map(|()| data[0])
    }

    #[test]
    fn an_access_reaches_the_device_with_its_offset() {
        let mut bus = PortBus::default();
        bus.insert(range(0x3f8, 0x3ff), echo(1)).unwrap();
        bus.insert(range(0x1000, 0xffff), echo(2)).unwrap();
        assert_eq!(read(&bus, 0x3fd), Some(6));
        bus.write(0x3f8, &[7]).unwrap();
        assert_eq!(read(&bus, 0x3ff), Some(14));
        assert_eq!(read(&bus, 0x1001), Some(3));
        for nobody in [0, 0x3f7, 0x400, 0xfff] {
            assert_eq!(read(&bus, nobody), None);
            assert_eq!(bus.write(nobody, &[0]), Err(Unclaimed));
        }
    }

    #[test]
    fn two_devices_cannot_share_a_port() {
        let mut bus = PortBus::default();
        bus.insert(range(0x10, 0x1f), echo(1)).unwrap();
        for (first, last) in [(0x1f, 0x20), (0, 0x10), (0x12, 0x13), (0, 0xffff)] {
            assert!(bus.insert(range(first, last), echo(2)).is_err());
        }
        bus.insert(PortRange::one(0x20), echo(2)).unwrap();
        bus.insert(range(0, 0xf), echo(2)).unwrap();
    }

    #[test]
    fn ranges_count_their_ports() {
        assert_eq!(range(0, u16::MAX).count(), 0x1_0000);
        assert_eq!(PortRange::one(5).count(), 1);
        assert_eq!(PortRange::new(5, 4), None);
    }
}
