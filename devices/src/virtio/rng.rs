//! A source of random numbers (virtio 1.2, 5.4).
//!
//! It is served by the vCPU that asks, so that a guest which wants many pays with its own time, and
//! each request is bounded.

use std::io;

use super::device::VirtioDevice;
use super::memory::DeviceMemory;
use super::virtqueue::Virtqueue;
use crate::rate_limit::RateLimit;

static FAILURES: RateLimit = RateLimit::per_second(1);

/// The most bytes that one request gets; the guest asks again if it wants more.
pub const MOST_BYTES: usize = 4096;

/// Where random numbers come from.
pub trait EntropySource: Send {
    /// Fills `bytes` with random numbers that are good for keys.
    ///
    /// # Errors
    /// When the host has none.
    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()>;
}

/// The device.
pub struct VirtioRng<E> {
    source: E,
}

impl<E: EntropySource> VirtioRng<E> {
    /// A device that passes on what `source` has.
    pub const fn new(source: E) -> Self {
        Self { source }
    }
}

impl<E: EntropySource> VirtioDevice for VirtioRng<E> {
    type Config = [u8; 0];

    const ID: u16 = 4;
    /// In no class of PCI.
    const CLASS: [u8; 3] = [0xff, 0x00, 0x00];

    fn queues(&self) -> Vec<u16> {
        vec![16]
    }

    fn features(&self) -> u64 {
        0
    }

    fn config(&self) -> [u8; 0] {
        []
    }

    fn write_config(&mut self, _: usize, _: &[u8]) {}

    fn activate(&mut self, _: u64) {}

    fn notified<M: DeviceMemory>(&mut self, _: usize, ring: &Virtqueue<M>) {
        ring.turn(|turn| {
            while let Some(chain) = turn.take()? {
                let mut numbers = [0; MOST_BYTES];
                let bytes = usize::try_from(chain.writable_bytes()).unwrap_or(usize::MAX);
                let bytes = bytes.min(MOST_BYTES);
                let numbers = numbers.get_mut(..bytes).unwrap_or_default();
                match self.source.fill(numbers) {
                    Ok(()) => turn.complete(chain, numbers)?,
                    Err(error) => {
                        if let Some(skipped) = FAILURES.permit() {
                            tracing::warn!(skipped, "no random numbers for the guest: {error}");
                        }
                        turn.complete(chain, &[])?;
                    }
                }
            }
            Ok(())
        });
    }

    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::PciFunction;
    use crate::virtio::driver::{BUFFERS, Driver, MEMORY, WRITE};

    /// Counts up, or has nothing.
    struct Counting(Option<u8>);

    impl EntropySource for Counting {
        fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()> {
            let next = self.0.as_mut().ok_or(io::ErrorKind::Other)?;
            for byte in bytes {
                *next = next.wrapping_add(1);
                *byte = *next;
            }
            Ok(())
        }
    }

    #[test]
    fn a_request_is_filled_up_to_its_bound() {
        let mut guest = Driver::ready(VirtioRng::new(Counting(Some(0))), 0);
        guest.describe(0, &[(BUFFERS, 8, WRITE, 0), (BUFFERS, 5000, WRITE, 0)]);
        guest.put(BUFFERS, &[0xee; 16]);
        guest.offer(0, 0);
        guest.notify(0);
        assert_eq!(guest.last_used(0), (0, 8));
        assert_eq!(guest.get(BUFFERS, 9), [1, 2, 3, 4, 5, 6, 7, 8, 0xee]);
        guest.put(BUFFERS + MOST_BYTES as u64, &[0xee]);
        guest.offer(0, 1);
        guest.notify(0);
        assert_eq!(guest.last_used(0), (1, 4096));
        assert_eq!(guest.get(BUFFERS + MOST_BYTES as u64, 1), [0xee]);
        assert_eq!(guest.vectors.signalled(1), 2);
    }

    #[test]
    fn a_device_without_a_configuration_has_one_that_reads_as_zero() {
        let mut guest = Driver::ready(VirtioRng::new(Counting(None)), 0);
        let mut length = [0; 4];
        // The length of the structure, in the capability at 0x80.
        guest.function.config_read(0x8c, &mut length);
        assert_eq!(length, 4_u32.to_le_bytes());
        assert_eq!(guest.bar_read(0x1000), [0; 4]);
    }

    #[test]
    fn without_numbers_or_memory_a_request_comes_back_empty() {
        let mut guest = Driver::ready(VirtioRng::new(Counting(None)), 0);
        guest.describe(0, &[(BUFFERS, 8, WRITE, 0)]);
        guest.offer(0, 0);
        guest.notify(0);
        assert_eq!((guest.used_index(0), guest.last_used(0)), (1, (0, 0)));
        let mut guest = Driver::ready(VirtioRng::new(Counting(Some(0))), 0);
        let outside = (MEMORY - 4, 8, WRITE, 0);
        guest.describe(0, &[outside, (BUFFERS, 8, 0, 0)]);
        guest.offer(0, 0);
        guest.offer(0, 1);
        guest.notify(0);
        assert_eq!((guest.used_index(0), guest.last_used(0)), (2, (1, 0)));
        assert_eq!(guest.read8(20), 15);
    }
}
