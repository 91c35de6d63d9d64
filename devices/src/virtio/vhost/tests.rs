//! A device that a host serves, driven as a driver does.

use std::sync::{Arc, Mutex};

use super::*;
use crate::pci::PciFunction;
use crate::virtio::driver::Driver;
use crate::virtio::feature::EVENT_IDX;

#[derive(Debug, PartialEq, Eq)]
enum Call {
    Start(u64, Vec<(usize, RingSetup)>),
    Wake(usize),
    Stop,
    Forget,
}

#[derive(Clone, Default)]
struct Host {
    calls: Arc<Mutex<Vec<Call>>>,
    interrupts: Arc<Mutex<Vec<EventFd>>>,
    refuses: bool,
}

impl Host {
    fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }
}

impl RingHost for Host {
    fn start(&mut self, features: u64, rings: Vec<HandedRing>) -> io::Result<()> {
        let setups = rings.iter().map(|ring| (ring.index, ring.setup)).collect();
        self.calls
            .lock()
            .unwrap()
            .push(Call::Start(features, setups));
        let interrupts = rings.into_iter().filter_map(|ring| ring.interrupt);
        *self.interrupts.lock().unwrap() = interrupts.collect();
        match self.refuses {
            true => Err(io::ErrorKind::Other.into()),
            false => Ok(()),
        }
    }
    fn wake(&mut self, ring: usize) {
        self.calls.lock().unwrap().push(Call::Wake(ring));
    }
    fn stop(&mut self) {
        self.calls.lock().unwrap().push(Call::Stop);
    }
    fn forget(&mut self) {
        self.calls.lock().unwrap().push(Call::Forget);
    }
}

fn setup(queue: u64) -> RingSetup {
    RingSetup {
        size: 16,
        descriptors: 0x1000 + 0x1000 * queue,
        available: 0x1400 + 0x1000 * queue,
        used: 0x1800 + 0x1000 * queue,
    }
}

fn device(host: &Host) -> VhostDevice<Vsock, Host> {
    VhostDevice::new(Vsock::new(52, !0), host.clone())
}

#[test]
fn a_ready_driver_hands_its_rings_over() {
    let host = Host::default();
    let mut guest = Driver::ready(device(&host), EVENT_IDX);
    assert_eq!(guest.bar_read(0x1000), 52_u64.to_le_bytes());
    let rings = vec![(0, setup(0)), (1, setup(1))];
    let features = EVENT_IDX | 3 << 32;
    assert_eq!(host.calls(), [Call::Forget, Call::Start(features, rings)]);
    host.interrupts.lock().unwrap()[1].write(1).unwrap();
    assert_eq!(guest.vectors.signalled(2), 1);
    guest.notify(1);
    guest.notify(2);
    assert_eq!(host.calls(), [Call::Wake(1)], "nobody serves the third");
}

#[test]
fn rings_are_let_go_with_the_bus_and_taken_up_with_it() {
    let host = Host::default();
    let mut guest = Driver::ready(device(&host), 0);
    host.calls();
    guest.function.config_write(4, &2_u16.to_le_bytes());
    assert_eq!(host.calls(), [Call::Stop]);
    guest.notify(0);
    assert_eq!(host.calls(), []);
    guest.function.config_write(4, &6_u16.to_le_bytes());
    assert!(matches!(&host.calls()[..], [Call::Start(_, rings)] if rings.len() == 2));
    guest.write8(20, 0);
    assert_eq!(host.calls(), [Call::Stop, Call::Forget]);
    guest.notify(0);
    assert_eq!(host.calls(), []);
    guest.restart(0);
    guest.function.shut_down();
    let calls = host.calls();
    assert!(
        matches!(&calls[..], [Call::Forget, Call::Start(..), Call::Stop]),
        "{calls:?}"
    );
}

#[test]
fn a_host_that_refuses_leaves_the_device_in_need_of_a_reset() {
    let host = Host {
        refuses: true,
        ..Host::default()
    };
    let mut guest = Driver::new(device(&host), crate::virtio::DmaAccess::Any);
    assert_eq!(guest.negotiate(1 << 32) & 8, 8);
    for queue in 0..3 {
        guest.set_up(queue);
    }
    guest.write8(20, 15);
    assert_eq!(guest.read8(20), 15 | 64);
    guest.notify(0);
    let calls = host.calls();
    assert!(matches!(calls[..], [Call::Start(..)]), "{calls:?}");
}

#[test]
fn a_host_that_is_gone_leaves_the_device_in_need_of_a_reset_and_the_driver_hears_of_it() {
    let host = Host::default();
    let mut guest = Driver::ready(device(&host), 0);
    host.calls();
    guest.write16(16, 0);
    guest.function.abandon();
    assert_eq!(guest.vectors.signalled(0), 1);
    assert_eq!(guest.read8(20), 15 | 64);
    guest.notify(0);
    guest.write8(20, 0);
    assert_eq!(guest.read8(20), 0);
    let calls = host.calls();
    assert!(
        !calls.iter().any(|call| matches!(call, Call::Start(..))),
        "{calls:?}"
    );
}
