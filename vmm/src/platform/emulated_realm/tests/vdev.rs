//! The calls for assigned devices, over a device that is nothing but its state machine.

use std::sync::Mutex;

use devices::passthrough::TrustedDma;
use devices::passthrough::tdi::{Event, Nonce, Tdi, TdiState};

use super::super::vdev::{RealmDevices, Vdev, VdevError, VdevTarget};
use super::*;

const GET_INFO: u32 = 0x9d;
const DMA_ENABLE: u32 = 0x9c;
const DMA_DISABLE: u32 = 0xa4;
const VALIDATE: u32 = 0x9f;
const DEVICE_ERROR: u64 = 5;

/// 00:01.0.
const ID: u64 = 8;
const REPORT: &[u8] = b"what the interface is";

#[derive(Default)]
struct OneDevice {
    tdi: Mutex<(Tdi, u64)>,
    dma: Mutex<Option<TrustedDma>>,
}

const NONCE: Nonce = Nonce([3; 32]);

impl RealmDevices for OneDevice {
    fn vdev(&self, device: Bdf) -> Option<Vdev> {
        let (tdi, locks) = *self.tdi.lock().unwrap();
        let state = tdi.state();
        (u64::from(device.requester_id()) == ID).then_some(Vdev { state, locks })
    }

    fn set_trusted_dma(&self, _: Bdf, dma: TrustedDma) -> Result<(), VdevError> {
        *self.dma.lock().unwrap() = Some(dma);
        Ok(())
    }

    fn bring_to(&self, _: Bdf, target: VdevTarget) -> Result<(), VdevError> {
        let (tdi, locks) = &mut *self.tdi.lock().unwrap();
        match target {
            VdevTarget::Unlocked => tdi.take(Event::Stop)?,
            VdevTarget::Locked => {
                tdi.lock(NONCE)?;
                *locks += 1;
            }
            VdevTarget::Run => tdi.start(&NONCE)?,
        }
        Ok(())
    }

    fn report(&self, _: Bdf) -> Result<Vec<u8>, VdevError> {
        self.tdi.lock().unwrap().0.take(Event::GetReport)?;
        Ok(REPORT.to_vec())
    }
}

fn realm_with_device() -> (Realm<Naive>, Arc<OneDevice>) {
    let realm = realm();
    let device = Arc::new(OneDevice::default());
    realm.assign(Arc::<OneDevice>::clone(&device));
    (realm, device)
}

/// A host call with these registers: what comes back in the first two.
fn host_call(realm: &Realm<Naive>, registers: &[u64]) -> [u64; 2] {
    let at = Gpa::new(DRAM + 0x100);
    let mut structure = vec![0; 8];
    structure.extend(registers.iter().flat_map(|register| register.to_le_bytes()));
    structure.resize(0x100, 0);
    realm.memory().write_private(at, &structure).unwrap();
    assert_eq!(call(realm, 0x99, [at.raw()])[0], SUCCESS);
    let mut answer = [0; 16];
    let first = Gpa::new(at.raw() + 8);
    realm.memory().read_private(first, &mut answer).unwrap();
    let word = |at: usize| u64::from_le_bytes(answer[at..at + 8].try_into().unwrap());
    [word(0), word(8)]
}

fn set_state(realm: &Realm<Naive>, id: u64, target: u64) -> u64 {
    host_call(realm, &[0xc500_0054, id, target])[0]
}

fn info(realm: &Realm<Naive>) -> [u8; 0x200] {
    let at = DRAM + 0x400;
    assert_eq!(call(realm, GET_INFO, [ID, at])[0], SUCCESS);
    let mut info = [0; 0x200];
    realm
        .memory()
        .read_private(Gpa::new(at), &mut info)
        .unwrap();
    info
}

#[test]
fn a_realm_without_devices_has_none_of_the_calls() {
    let realm = realm();
    for function in [GET_INFO, DMA_ENABLE, DMA_DISABLE, VALIDATE] {
        assert_eq!(call(&realm, function, [ID])[0], u64::MAX);
    }
    assert_eq!(host_call(&realm, &[0xc500_004b])[0], u64::MAX);
    let (realm, _) = realm_with_device();
    assert_eq!(call(&realm, 0x91, [0])[1], 1);
    assert_eq!(call(&realm, 0x91, [1])[1], 0);
    assert_eq!(host_call(&realm, &[0xc500_004b])[0], 0b11_0011);
    for unknown in [0xc500_0049, 0xc500_0051, 0xc500_0052, 0xc500_0055, 0] {
        assert_eq!(host_call(&realm, &[unknown, ID])[0], u64::MAX);
    }
}

#[test]
fn a_guest_locks_looks_enables_starts_and_stops() {
    let (realm, device) = realm_with_device();
    assert_eq!(info(&realm)[0x38], 0);
    assert_eq!(set_state(&realm, ID, 1), 0);
    let locked = info(&realm);
    assert_eq!(
        (locked[0x38], locked[0x18], locked[0x28], locked[0x30]),
        (1, 1, 1, 0x10)
    );
    assert_eq!(locked[0x140..0x160], *Sha256::digest(REPORT));
    assert!(
        locked[0x40..0x140].iter().all(|&byte| byte == 0),
        "nothing is measured"
    );
    assert_eq!(call(&realm, DMA_ENABLE, [ID, 0, 0, 1, 0, 1])[0], SUCCESS);
    assert_eq!(*device.dma.lock().unwrap(), Some(TrustedDma::Enabled));
    assert_eq!(set_state(&realm, ID, 2), 0);
    assert_eq!(info(&realm)[0x38], 2);
    assert_eq!(call(&realm, DMA_DISABLE, [ID])[0], SUCCESS);
    assert_eq!(*device.dma.lock().unwrap(), Some(TrustedDma::Disabled));
    assert_eq!(set_state(&realm, ID, 0), 0);
    assert_eq!(
        device.vdev(Bdf::from_requester_id(8)).unwrap().state,
        TdiState::Unlocked
    );
}

#[test]
fn what_the_guest_has_seen_of_an_earlier_lock_counts_for_nothing() {
    let (realm, device) = realm_with_device();
    for target in [1, 0, 1] {
        assert_eq!(set_state(&realm, ID, target), 0);
    }
    for nonces in [[1, 0, 1], [2, 1, 2], [2, 0, 1], [0, 0, 0]] {
        let [lock, measurements, report] = nonces;
        let reply = call(&realm, DMA_ENABLE, [ID, 0, 0, lock, measurements, report]);
        assert_eq!(reply[0], DEVICE_ERROR, "{nonces:?}");
        let arguments = [ID, DRAM, DRAM + 0x1000, 0, 0, lock, measurements, report];
        assert_eq!(call(&realm, VALIDATE, arguments)[0], DEVICE_ERROR);
    }
    assert_eq!(*device.dma.lock().unwrap(), None);
    assert_eq!(set_state(&realm, ID, 0), 0);
    let unlocked = call(&realm, DMA_ENABLE, [ID, 0, 0, 2, 0, 2]);
    assert_eq!(unlocked[0], DEVICE_ERROR, "the right nonces, not locked");
}

#[test]
fn bad_arguments_get_the_codes_of_the_rmm() {
    let (realm, _) = realm_with_device();
    let structure = DRAM + 0x400;
    for arguments in [
        [9, structure],
        [ID | 1 << 16, structure],
        [ID, structure + 0x100],
        [ID, structure | HALF],
        [ID, DRAM + PAGE_SIZE],
        [ID, DRAM_END],
    ] {
        assert_eq!(
            call(&realm, GET_INFO, arguments)[0],
            INPUT,
            "{arguments:x?}"
        );
    }
    assert_eq!(call(&realm, DMA_ENABLE, [9, 0, 0, 0, 0, 0])[0], INPUT);
    assert_eq!(call(&realm, DMA_DISABLE, [9])[0], INPUT);
    let map = |base, top, physical| call(&realm, VALIDATE, [ID, base, top, physical, 0, 1, 0, 1]);
    assert_eq!(map(DRAM, DRAM + 0x1000, 0)[0], INPUT, "not locked");
    assert_eq!(set_state(&realm, ID, 1), 0);
    for (base, top, physical) in [
        (DRAM, DRAM, 0),
        (DRAM + 1, DRAM + 0x1000, 0),
        (DRAM, DRAM + 0x1000, 8),
        (DRAM | HALF, HALF + DRAM_END, 0),
    ] {
        assert_eq!(map(base, top, physical)[0], INPUT, "{base:#x}");
    }
    assert_eq!(
        map(DRAM, DRAM + 0x1000, 0),
        [SUCCESS, DRAM, 1, 0],
        "the host rejects it"
    );
}

#[test]
fn host_calls_for_devices_have_codes_of_their_own() {
    let (realm, _) = realm_with_device();
    assert_eq!(set_state(&realm, 9, 1), 3, "no such device");
    assert_eq!(set_state(&realm, ID, 3), 5, "no such state");
    assert_eq!(set_state(&realm, ID, 2), 6, "not locked");
    assert_eq!(
        host_call(&realm, &[0xc500_004c, ID, 3]),
        [6, 0],
        "not locked"
    );
    assert_eq!(set_state(&realm, ID, 1), 0);
    assert_eq!(set_state(&realm, ID, 1), 6, "locked already");
    let length = REPORT.len() as u64;
    assert_eq!(host_call(&realm, &[0xc500_004c, ID, 3]), [0, length]);
    assert_eq!(
        host_call(&realm, &[0xc500_004c, ID, 1]),
        [2, 0],
        "no certificate"
    );
    assert_eq!(
        host_call(&realm, &[0xc500_004c, ID, 5]),
        [4, 0],
        "no such object"
    );
    assert_eq!(host_call(&realm, &[0xc500_0053, ID]), [0, 0]);
    let shared = DRAM + PAGE_SIZE;
    let read =
        |buffer, bytes, offset| host_call(&realm, &[0xc500_004d, ID, 3, buffer, bytes, offset]);
    assert_eq!(read(shared, 0x1000, 0), [0, length]);
    assert_eq!(read(shared + 0x800, 4, 5), [0, 4]);
    assert_eq!(read(shared, 4, length + 1), [7, 0]);
    assert_eq!(
        read(DRAM, 4, 0),
        [8, 0],
        "private memory is not the host's to write"
    );
    let pages = realm.memory().pages.borrow();
    assert_eq!(pages[1].1[..REPORT.len()], *REPORT);
    assert_eq!(pages[1].1[0x800..0x804], REPORT[5..9]);
}
