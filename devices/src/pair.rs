//! Two small devices in one page, since the bus hands out whole pages.

use std::sync::{Mutex, PoisonError};

use crate::bus::{MmioDevice, SharedDevice};

/// `low` answers below `boundary`, `high` from there on, each counting from its own start.
pub struct Pair {
    low: SharedDevice,
    high: SharedDevice,
    boundary: u64,
}

impl Pair {
    /// A page of two devices.
    #[must_use]
    pub fn new(low: SharedDevice, boundary: u64, high: SharedDevice) -> Self {
        Self {
            low,
            high,
            boundary,
        }
    }

    fn at(&self, offset: u64) -> (&Mutex<dyn MmioDevice>, u64) {
        match offset.checked_sub(self.boundary) {
            Some(beyond) => (&*self.high, beyond),
            None => (&*self.low, offset),
        }
    }
}

impl MmioDevice for Pair {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let (device, offset) = self.at(offset);
        let mut device = device.lock().unwrap_or_else(PoisonError::into_inner);
        device.read(offset, data);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let (device, offset) = self.at(offset);
        let mut device = device.lock().unwrap_or_else(PoisonError::into_inner);
        device.write(offset, data);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    struct Named(u8);

    impl MmioDevice for Named {
        fn read(&mut self, offset: u64, data: &mut [u8]) {
            data.fill(self.0 + u8::try_from(offset).unwrap());
        }
        fn write(&mut self, _: u64, data: &[u8]) {
            self.0 = data[0];
        }
    }

    #[test]
    fn each_device_sees_offsets_of_its_own() {
        let low = Arc::new(Mutex::new(Named(10)));
        let mut pair = Pair::new(low, 0x800, Arc::new(Mutex::new(Named(100))));
        let mut read = |offset| {
            let mut data = [0];
            pair.read(offset, &mut data);
            data[0]
        };
        assert_eq!((read(7), read(0x800), read(0x803)), (17, 100, 103));
        pair.write(0x805, &[50]);
        let mut data = [0];
        pair.read(0x800, &mut data);
        assert_eq!(data, [50]);
    }
}
