//! A daemon of the same process, with the crate that daemons are written with.

use std::fs;
use std::sync::Mutex;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use devices::virtio::ring::RingSetup;
use devices::virtio::vhost::{HandedRing, RingHost};
use iommu::{Gpa, PageRange};
use kvm::ram::HostPages;
use vhost_user_backend::{VhostUserBackendMut, VhostUserDaemon, VringRwLock, VringT};
use virtio_queue::QueueT;
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{
    EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier,
};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::*;
use crate::emulate::vhost::Served;

const DRAM: u64 = 0x4000_0000;
/// The second range of memory, and where the ring is in it.
const HIGH: u64 = 0x1_0000_0000;
const RING: RingSetup = RingSetup {
    size: 16,
    descriptors: HIGH,
    available: HIGH + 0x400,
    used: HIGH + 0x800,
};

/// Turns every byte of a chain's first buffer over.
struct Inverter {
    memory: Option<GuestMemoryAtomic<GuestMemoryMmap>>,
}

impl VhostUserBackendMut for Inverter {
    type Bitmap = ();
    type Vring = VringRwLock;

    fn num_queues(&self) -> usize {
        2
    }
    fn max_queue_size(&self) -> usize {
        16
    }
    fn features(&self) -> u64 {
        1 << 32 | 1 << 6 | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }
    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        WANTED
    }
    fn set_event_idx(&mut self, _: bool) {}
    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        (offset..offset + size)
            .map(|at| u8::try_from(at).unwrap())
            .collect()
    }
    fn exit_event(&self, _: usize) -> Option<(EventConsumer, EventNotifier)> {
        new_event_consumer_and_notifier(EventFlag::empty()).ok()
    }
    fn update_memory(&mut self, memory: GuestMemoryAtomic<GuestMemoryMmap>) -> io::Result<()> {
        self.memory = Some(memory);
        Ok(())
    }
    fn handle_event(
        &mut self,
        _: u16,
        _: EventSet,
        rings: &[VringRwLock],
        _: usize,
    ) -> io::Result<()> {
        let memory = self.memory.as_ref().unwrap().memory();
        let mut ring = rings[0].get_mut();
        while let Some(chain) = ring.get_queue_mut().pop_descriptor_chain(memory.clone()) {
            let (head, buffer) = (chain.head_index(), chain.clone().next().unwrap());
            let mut bytes = vec![0; usize::try_from(buffer.len()).unwrap()];
            memory.read_slice(&mut bytes, buffer.addr()).unwrap();
            let bytes: Vec<u8> = bytes.iter().map(|byte| !byte).collect();
            memory.write_slice(&bytes, buffer.addr()).unwrap();
            ring.add_used(head, buffer.len()).unwrap();
        }
        ring.signal_used_queue()
    }
}

/// The daemon, and the folder that its socket is in.
fn daemon() -> (tempfile::TempDir, PathBuf, JoinHandle<()>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let served = path.clone();
    let thread = thread::spawn(move || {
        let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
        let backend = Arc::new(Mutex::new(Inverter { memory: None }));
        let mut daemon = VhostUserDaemon::new("inverter".to_owned(), backend, memory).unwrap();
        // Ends with the connection.
        let _ = daemon.serve(served);
    });
    let until = Instant::now() + PATIENCE;
    while !path.exists() && Instant::now() < until {
        thread::yield_now();
    }
    (folder, path, thread)
}

fn ram() -> Arc<GuestRam> {
    let range = |start| PageRange::new(Gpa::new(start), 2 << 20).unwrap();
    Arc::new(GuestRam::in_files(&[range(DRAM), range(HIGH)], HostPages::Transparent).unwrap())
}

/// Waits for an event.
fn heard(event: &EventFd) -> bool {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        if event.read().is_ok() {
            return true;
        }
        thread::sleep(Duration::from_millis(1));
    }
    false
}

/// Waits for an interrupt after which so many buffers are used: one may come for nothing, when a ring starts.
fn heard_of(call: &EventFd, ram: &GuestRam, count: u16) -> bool {
    while heard(call) {
        if used(ram) == count {
            return true;
        }
    }
    false
}

/// The guest's half of the ring: makes a buffer of 4 bytes in the first range available.
fn offer(ram: &GuestRam, index: u16) {
    let put = |at, bytes: &[u8]| ram.memory().write_slice(bytes, GuestAddress(at)).unwrap();
    put(RING.descriptors, &(DRAM + 0x1000).to_le_bytes());
    put(RING.descriptors + 8, &4_u32.to_le_bytes());
    put(RING.descriptors + 12, &[2, 0, 0, 0]);
    put(RING.available + 4 + 2 * u64::from(index), &[0, 0]);
    put(RING.available + 2, &(index + 1).to_le_bytes());
}

fn used(ram: &GuestRam) -> u16 {
    ram.memory().read_obj(GuestAddress(RING.used + 2)).unwrap()
}

fn buffer(ram: &GuestRam) -> [u8; 4] {
    ram.memory().read_obj(GuestAddress(DRAM + 0x1000)).unwrap()
}

#[test]
fn a_daemon_serves_a_ring_in_the_guests_memory_and_takes_it_up_again() {
    let (_folder, path, thread) = daemon();
    let ram = ram();
    let mut backend = Daemon::connect(&path, 2, &ram).unwrap();
    assert_eq!(backend.offered() & 0xff, 1 << 6);
    assert_eq!(backend.config::<4>().unwrap(), [0, 1, 2, 3]);
    let event = || EventFd::new(EFD_NONBLOCK).unwrap();
    let (kick, call) = (event(), event());
    let kicks = vec![kick.try_clone().unwrap(), event()];
    let mut served = Served::new(backend, kicks).unwrap();
    let rings = || {
        vec![HandedRing {
            index: 0,
            setup: RING,
            interrupt: Some(call.try_clone().unwrap()),
        }]
    };
    served.start(1 << 32 | 1 << 33 | 1 << 6, rings()).unwrap();
    offer(&ram, 0);
    kick.write(1).unwrap();
    assert!(heard_of(&call, &ram, 1), "no interrupt");
    assert_eq!(buffer(&ram), [0xff; 4]);
    served.stop();
    offer(&ram, 1);
    served.wake(0);
    served.start(1 << 32, rings()).unwrap();
    kick.write(1).unwrap();
    assert!(
        heard_of(&call, &ram, 2),
        "no interrupt after the ring was handed over again"
    );
    assert_eq!(buffer(&ram), [0; 4]);
    drop(served);
    thread.join().unwrap();
}

#[test]
fn a_ring_outside_of_memory_is_not_handed_over() {
    let (_folder, path, thread) = daemon();
    let backend = Daemon::connect(&path, 1, &ram()).unwrap();
    let kicks = vec![EventFd::new(EFD_NONBLOCK).unwrap()];
    let mut served = Served::new(backend, kicks).unwrap();
    let outside = HandedRing {
        index: 0,
        setup: RingSetup {
            used: HIGH + (2 << 20),
            ..RING
        },
        interrupt: None,
    };
    served.start(1 << 32, vec![outside]).unwrap_err();
    drop(served);
    thread.join().unwrap();
}

#[test]
fn a_daemon_that_is_not_there_or_has_too_few_queues_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nobody");
    let error = Daemon::connect(&path, 1, &ram()).err().unwrap();
    assert!(matches!(error, UserError::Connect { .. }), "{error}");
    fs::write(&path, "").unwrap();
    assert!(Daemon::connect(&path, 1, &ram()).is_err());
    let (_folder, path, thread) = daemon();
    let error = Daemon::connect(&path, 3, &ram()).err().unwrap();
    let UserError::Queues { has, asked, .. } = error else {
        panic!("{error}");
    };
    assert_eq!((has, asked), (2, 3));
    thread.join().unwrap();
}
