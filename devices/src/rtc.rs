//! The PL031 real-time clock: the wall clock time of the host, until the guest sets its own.

use crate::bus::MmioDevice;

/// A PL031. Its alarm never goes off, so that it needs no interrupt line.
pub struct Rtc {
    pl031: vm_superio::Rtc<vm_superio::rtc_pl031::NoEvents>,
}

impl Rtc {
    /// A clock that tells the host's time.
    #[must_use]
    pub fn new() -> Self {
        Self {
            pl031: vm_superio::Rtc::new(),
        }
    }
}

impl Default for Rtc {
    fn default() -> Self {
        Self::new()
    }
}

impl MmioDevice for Rtc {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let mut value = [0; 4];
        if let Ok(register) = u16::try_from(offset) {
            self.pl031.read(register, &mut value);
        }
        data.iter_mut().zip(value).for_each(|(to, from)| *to = from);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        // Registers are 32 bits wide; what is narrower or wider is no access of a PL031 driver.
        if let (Ok(register), Ok(value)) = (u16::try_from(offset), data.try_into()) {
            self.pl031.write(register, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn it_tells_the_time_of_the_host() {
        let mut data = [0; 4];
        Rtc::new().read(0, &mut data);
        let told = u64::from(u32::from_le_bytes(data));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        assert!(told.abs_diff(now.as_secs()) <= 1);
    }

    #[test]
    fn a_driver_finds_the_identification_of_a_pl031() {
        let mut rtc = Rtc::new();
        let ids: Vec<u8> = (0xfe0..=0xffc)
            .step_by(4)
            .map(|register| {
                let mut data = [0; 4];
                rtc.read(register, &mut data);
                data[0]
            })
            .collect();
        assert_eq!(ids, [0x31, 0x10, 0x04, 0x00, 0x0d, 0xf0, 0x05, 0xb1]);
    }

    #[test]
    fn odd_accesses_are_harmless() {
        let mut rtc = Rtc::new();
        rtc.write(0xffff_ffff, &[0; 8]);
        rtc.write(8, &[1]);
        let mut data = [0xff; 8];
        rtc.read(0x1_0000, &mut data);
        assert_eq!(data, [0; 8]);
    }
}
