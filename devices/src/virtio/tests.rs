//! The transport, driven as a driver does.

mod doorbells;

use proptest::prelude::*;

use super::device::VirtioDevice;
use super::driver::{BUFFERS, Driver, INDIRECT, MEMORY, NEXT, SIZE, WRITE};
use super::memory::DeviceMemory;
use super::virtqueue::Virtqueue;
use super::wiring::DmaAccess;
use crate::irq::MsiMessage;
use crate::pci::{PciFunction, capability};

/// Writes back what it reads, and shows the last length as its configuration.
#[derive(Default)]
struct Echo {
    features: Option<u64>,
    lengths: Vec<usize>,
    resets: usize,
}

impl VirtioDevice for Echo {
    type Config = [u8; 8];
    const ID: u16 = 0x30;
    const CLASS: [u8; 3] = [0xff, 0, 0];

    fn queues(&self) -> Vec<u16> {
        vec![16, 16]
    }

    fn features(&self) -> u64 {
        0b101
    }

    fn config(&self) -> [u8; 8] {
        (self.lengths.len() as u64).to_le_bytes()
    }

    fn write_config(&mut self, _: usize, _: &[u8]) {}

    fn activate(&mut self, features: u64) {
        self.features = Some(features);
    }

    fn notified<M: DeviceMemory>(&mut self, _: usize, ring: &Virtqueue<M>) {
        ring.turn(|turn| {
            while let Some(chain) = turn.take()? {
                let mut data = [0; 64];
                let length = turn.read(&chain, 0, &mut data);
                self.lengths.push(length);
                turn.complete(chain, &data[..length])?;
            }
            Ok(())
        });
    }

    fn reset(&mut self) {
        self.resets += 1;
    }
}

fn echo() -> Driver<Echo> {
    Driver::ready(Echo::default(), 0b100)
}

#[test]
fn the_function_is_a_modern_virtio_device_with_the_structures_that_drivers_need() {
    let mut driver = Driver::new(Echo::default(), DmaAccess::Any);
    let mut image = vec![0; 256];
    driver.function.config_read(0, &mut image);
    assert_eq!(image[..4], [0xf4, 0x1a, 0x70, 0x10]);
    assert_eq!(image[8..12], [1, 0, 0, 0xff]);
    assert_eq!(image[0x3d], 0, "there is no interrupt pin");
    let found = capability::standard(&image);
    let vendor = found
        .iter()
        .filter(|capability| capability.id == capability::VENDOR);
    let structures: Vec<_> = vendor
        .map(|capability| {
            let at = usize::from(capability.register);
            let offset = capability::dword(&image, capability.register + 8);
            let length = capability::dword(&image, capability.register + 12);
            assert!(u16::from(image[at + 2]) <= capability.room);
            (image[at + 3], offset.unwrap(), length.unwrap())
        })
        .collect();
    assert_eq!(
        structures,
        [
            (1, 0, 56),
            (2, 0x2000, 8),
            (3, 0x800, 1),
            (4, 0x1000, 8),
            (5, 0, 0)
        ]
    );
    assert_eq!(found[0].id, capability::MSIX);
}

#[test]
fn the_handshake_gives_the_device_the_features_that_both_know() {
    let mut driver = echo();
    assert_eq!(driver.function.device().features, Some(0b100 | 3 << 32));
    driver.write32(0, 0);
    assert_eq!(driver.read32(4), 0b101);
    driver.write32(0, 1);
    assert_eq!(driver.read32(4), 3);
    driver.write32(0, 2);
    assert_eq!(driver.read32(4), 0);
    assert_eq!(driver.read16(18), 2);
}

#[test]
fn features_that_were_not_offered_or_are_missing_are_refused() {
    let both = 3 << 32;
    let version_1 = 1 << 32;
    let cases = [
        (DmaAccess::Any, both, true),
        (DmaAccess::Any, version_1, true),
        (DmaAccess::Platform, both, true),
        (DmaAccess::Platform, version_1, false),
        (DmaAccess::Any, 1 << 33, false),
        (DmaAccess::Any, both | 0b10, false),
        (DmaAccess::Any, both | 1 << 34, false),
    ];
    for (access, features, accepted) in cases {
        let mut driver = Driver::new(Echo::default(), access);
        let status = driver.negotiate(features);
        assert_eq!(status & 8 != 0, accepted, "{access:?} {features:#x}");
    }
}

#[test]
fn a_chain_is_answered_and_the_driver_interrupted() {
    let mut driver = echo();
    driver.put(BUFFERS, b"hello world");
    driver.describe(
        0,
        &[
            (BUFFERS, 5, NEXT, 1),
            (BUFFERS + 5, 6, NEXT, 2),
            (BUFFERS + 0x100, 3, NEXT | WRITE, 3),
            (BUFFERS + 0x200, 60, WRITE, 0),
        ],
    );
    driver.offer(0, 0);
    driver.notify(0);
    assert_eq!(driver.last_used(0), (0, 11));
    assert_eq!(driver.get(BUFFERS + 0x100, 3), b"hel");
    assert_eq!(driver.get(BUFFERS + 0x200, 8), b"lo world");
    assert_eq!(driver.vectors.signalled(1), 1);
    let message = MsiMessage {
        address: 0x0808_0040,
        data: 100,
    };
    assert_eq!(driver.vectors.message(1), Some(message));
    assert_eq!(driver.bar_read(0x800), [1], "reading clears the status");
    assert_eq!(driver.bar_read(0x800), [0]);
}

#[test]
fn a_driver_that_wants_no_interrupt_gets_none() {
    let mut driver = echo();
    driver.set_available_flags(0, 1);
    driver.describe(0, &[(BUFFERS, 4, WRITE, 0)]);
    driver.offer(0, 0);
    driver.notify(0);
    assert_eq!(driver.used_index(0), 1);
    assert_eq!(driver.vectors.signalled(1), 0);
}

#[test]
fn chains_may_lie_in_an_indirect_table() {
    let mut driver = echo();
    let table = BUFFERS + 0x1000;
    driver.put(BUFFERS, b"abcd");
    driver.describe_at(
        table,
        &[(BUFFERS, 4, NEXT, 1), (BUFFERS + 0x100, 4, WRITE, 0)],
    );
    driver.describe(0, &[(table, 32, INDIRECT, 0)]);
    driver.offer(0, 0);
    driver.notify(0);
    assert_eq!(driver.last_used(0), (0, 4));
    assert_eq!(driver.get(BUFFERS + 0x100, 4), b"abcd");
}

#[test]
fn a_malformed_chain_goes_back_empty_and_the_next_one_is_served() {
    let long = BUFFERS + 0x1000;
    let cases: [&[(u64, u32, u16, u16)]; 6] = [
        // A loop.
        &[(BUFFERS, 4, NEXT, 1), (BUFFERS, 4, NEXT, 0)],
        // A next descriptor that the ring does not have.
        &[(BUFFERS, 4, NEXT, SIZE)],
        // More than 4 GiB.
        &[(BUFFERS, u32::MAX, NEXT, 1), (BUFFERS, 4, WRITE, 0)],
        // Something to read behind something to write.
        &[(BUFFERS, 4, NEXT | WRITE, 1), (BUFFERS, 4, 0, 0)],
        // A longer table than the ring has entries.
        &[(long, 17 * 16, INDIRECT, 0)],
        // A table that is not in memory.
        &[(u64::MAX - 15, 32, INDIRECT, 0)],
    ];
    for case in cases {
        let mut driver = echo();
        let table: Vec<_> = (1..=17)
            .map(|next| (BUFFERS, 1, if next == 17 { WRITE } else { NEXT }, next))
            .collect();
        driver.describe_at(long, &table);
        driver.describe(0, case);
        driver.offer(0, 0);
        driver.notify(0);
        assert_eq!(driver.last_used(0), (0, 0), "{case:?}");
        driver.describe(0, &[(BUFFERS, 4, NEXT, 1), (BUFFERS, 4, WRITE, 0)]);
        driver.offer(0, 0);
        driver.notify(0);
        assert_eq!(driver.last_used(0), (0, 4), "{case:?}");
        assert_eq!(driver.function.device().lengths, [0, 4], "{case:?}");
    }
}

#[test]
fn a_buffer_outside_of_memory_is_not_read_or_written() {
    let mut driver = echo();
    driver.put(BUFFERS, b"abcd");
    driver.describe(0, &[(BUFFERS, 4, NEXT, 1), (MEMORY - 2, 4, WRITE, 0)]);
    driver.offer(0, 0);
    driver.notify(0);
    assert_eq!(driver.last_used(0), (0, 0));
    driver.describe(0, &[(u64::MAX - 1, 4, NEXT, 1), (BUFFERS, 4, WRITE, 0)]);
    driver.offer(0, 0);
    driver.notify(0);
    assert_eq!(driver.function.device().lengths, [4, 0]);
}

#[test]
fn a_bad_ring_needs_a_reset_and_the_driver_is_told() {
    let mut driver = echo();
    driver.write16(16, 0);
    driver.set_available(0, SIZE + 1);
    driver.notify(0);
    assert_eq!(driver.read8(20), 15 | 64);
    assert_eq!(driver.vectors.signalled(0), 1);
    assert_eq!(driver.bar_read(0x800), [2]);
    // Nothing works now, until the reset.
    driver.notify(1);
    driver.write8(20, 15);
    assert_eq!(driver.read8(20), 15 | 64);
    let resets = driver.function.device().resets;
    driver.write8(20, 0);
    assert_eq!(driver.read8(20), 0);
    assert_eq!(driver.function.device().resets, resets + 1);
}

#[test]
fn a_chain_that_begins_beyond_the_table_is_a_bad_ring() {
    let mut driver = echo();
    driver.offer(0, SIZE);
    driver.notify(0);
    assert_eq!(driver.read8(20), 15 | 64);
    assert_eq!(driver.used_index(0), 0);
}

#[test]
fn a_ring_that_is_not_in_memory_cannot_be_enabled() {
    for (register, address) in [(32, 0), (32, 8), (40, 1), (48, 2), (48, 0x1000_0000)] {
        let mut driver = Driver::new(Echo::default(), DmaAccess::Any);
        driver.negotiate(3 << 32);
        for at in [32, 40, 48] {
            driver.write32(at, 0x1000);
        }
        driver.write32(register, address);
        driver.write16(28, 1);
        assert_eq!(driver.read16(28), 0, "{register} {address:#x}");
        assert_eq!(driver.read8(20), 11 | 64);
    }
}

#[test]
fn a_queue_is_not_there_before_the_features_are_agreed_nor_after_a_reset() {
    let mut driver = Driver::new(Echo::default(), DmaAccess::Any);
    driver.set_up(0);
    assert_eq!(driver.read16(28), 0);
    let mut driver = echo();
    driver.write16(22, 1);
    assert_eq!(driver.read16(28), 1);
    driver.write8(20, 0);
    driver.write16(22, 1);
    assert_eq!(driver.read16(28), 0);
    assert_eq!((driver.read16(26), driver.read32(48)), (0xffff, 0));
    driver.write16(22, 2);
    assert_eq!(driver.read16(24), 0, "there is no third queue");
}

#[test]
fn buffers_are_served_once_the_driver_is_ready_and_not_before() {
    let mut driver = Driver::new(Echo::default(), DmaAccess::Any);
    driver.negotiate(3 << 32);
    driver.set_up(0);
    driver.describe(0, &[(BUFFERS, 4, 0, 0)]);
    driver.offer(0, 0);
    driver.notify(0);
    assert_eq!(driver.used_index(0), 0);
    driver.write8(20, 15);
    assert_eq!(driver.used_index(0), 1);
}

#[test]
fn a_vector_that_does_not_exist_is_none() {
    let mut driver = echo();
    driver.write16(16, 3);
    assert_eq!(driver.read16(16), 0xffff);
    driver.write16(16, 2);
    assert_eq!(driver.read16(16), 2);
    driver.write16(26, 77);
    assert_eq!(driver.read16(26), 0xffff);
}

#[test]
fn a_masked_vector_keeps_its_interrupt_pending() {
    let mut driver = echo();
    driver.bar_write(0x301c, &1_u32.to_le_bytes());
    assert_eq!(driver.vectors.message(1), None);
    driver.describe(0, &[(BUFFERS, 4, 0, 0)]);
    driver.offer(0, 0);
    driver.notify(0);
    assert_eq!(driver.bar_read(0x3800), [0b10]);
    driver.bar_write(0x301c, &0_u32.to_le_bytes());
    assert!(driver.vectors.message(1).is_some());
    assert_eq!(driver.bar_read(0x3800), [0]);
}

#[test]
fn a_changed_configuration_has_another_generation() {
    let mut driver = echo();
    let before = driver.read8(21);
    assert_eq!(driver.bar_read(0x1000), [0]);
    assert_eq!(driver.read8(21), before);
    driver.describe(0, &[(BUFFERS, 4, 0, 0)]);
    driver.offer(0, 0);
    driver.notify(0);
    assert_eq!(driver.bar_read(0x1000), [1]);
    assert_ne!(driver.read8(21), before);
}

#[test]
fn the_window_in_configuration_space_reaches_the_bar() {
    let mut driver = echo();
    driver.function.config_write(0x94, &[0]);
    driver.function.config_write(0x98, &20_u32.to_le_bytes());
    driver.function.config_write(0x9c, &1_u32.to_le_bytes());
    let mut data = [0; 4];
    driver.function.config_read(0xa0, &mut data);
    assert_eq!(data[0], 15);
    driver.function.config_write(0xa0, &[0; 4]);
    assert_eq!(driver.read8(20), 0);
    // Nothing is there, or it is misaligned: no effect.
    for (offset, length) in [(0x4000, 4), (2, 4), (u32::MAX - 3, 4), (0, 3), (0, 0)] {
        driver
            .function
            .config_write(0x98, &u32::to_le_bytes(offset));
        driver
            .function
            .config_write(0x9c, &u32::to_le_bytes(length));
        driver.function.config_read(0xa0, &mut data);
        driver.function.config_write(0xa0, &data);
    }
}

proptest! {
    #[test]
    fn no_access_panics_and_no_ring_is_served_beyond_its_size(
        accesses in prop::collection::vec(
            (0_u64..0x4010, prop::collection::vec(any::<u8>(), 1..9), any::<bool>()),
            0..200,
        ),
        memory in prop::collection::vec(any::<u8>(), 0x900),
    ) {
        let mut driver = echo();
        driver.put(0x1000, &memory);
        for (offset, data, write) in accesses {
            let bar = crate::pci::BarIndex::ALL[0];
            let before = driver.function.device().lengths.len();
            if write {
                driver.function.bar_write(bar, offset, &data);
            } else {
                driver.function.bar_read(bar, offset, &mut vec![0; data.len()]);
            }
            let served = driver.function.device().lengths.len() - before;
            prop_assert!(served <= 2 * usize::from(SIZE));
        }
    }

    #[test]
    fn no_access_to_configuration_space_panics(
        accesses in prop::collection::vec(
            (0_u16..0x1010, prop::collection::vec(any::<u8>(), 1..9), any::<bool>()),
            0..100,
        ),
    ) {
        let mut driver = echo();
        for (register, mut data, write) in accesses {
            if write {
                driver.function.config_write(register, &data);
            } else {
                driver.function.config_read(register, &mut data);
            }
        }
    }
}
