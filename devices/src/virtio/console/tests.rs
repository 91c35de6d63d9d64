//! A console, driven as a driver does.

use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;
use crate::virtio::driver::{BUFFERS, Driver, MEMORY, NEXT, WRITE};

#[derive(Clone, Default)]
struct Terminal(Arc<Mutex<(Vec<u8>, usize)>>);

impl ConsoleHost for Terminal {
    fn output(&mut self, bytes: &[u8]) {
        self.0.lock().unwrap().0.extend_from_slice(bytes);
    }
    fn wants_input(&mut self) {
        self.0.lock().unwrap().1 += 1;
    }
}

impl Terminal {
    fn shown(&self) -> Vec<u8> {
        self.0.lock().unwrap().0.clone()
    }

    fn asked(&self) -> usize {
        self.0.lock().unwrap().1
    }
}

fn console() -> (Driver<VirtioConsole<Terminal>>, Terminal) {
    let terminal = Terminal::default();
    let guest = Driver::ready(VirtioConsole::new(terminal.clone()), feature::EMERG_WRITE);
    (guest, terminal)
}

#[test]
fn output_is_shown_in_its_order() {
    let (mut guest, terminal) = console();
    guest.put(BUFFERS, b"hello, world");
    guest.describe(
        1,
        &[
            (BUFFERS, 5, NEXT, 1),
            (BUFFERS + 5, 2, 0, 0),
            (BUFFERS + 7, 5, 0, 0),
        ],
    );
    guest.offer(1, 0);
    guest.offer(1, 2);
    guest.notify(1);
    assert_eq!(terminal.shown(), b"hello, world");
    assert_eq!((guest.used_index(1), guest.last_used(1)), (2, (2, 0)));
    assert_eq!(guest.vectors.signalled(2), 1);
}

#[test]
fn a_chain_is_shown_up_to_its_bound_and_outside_of_memory_not_at_all() {
    let (mut guest, terminal) = console();
    let long = u32::try_from(MOST_BYTES).unwrap() + 100;
    guest.describe(1, &[(BUFFERS, long, 0, 0), (MEMORY - 2, 8, 0, 0)]);
    guest.offer(1, 0);
    guest.offer(1, 1);
    guest.notify(1);
    assert_eq!(terminal.shown().len(), MOST_BYTES);
    assert_eq!(guest.used_index(1), 2);
}

#[test]
fn input_fills_the_buffers_that_there_are() {
    let (mut guest, terminal) = console();
    let rings = guest.function.rings();
    assert_eq!(receive(&rings[INPUT], b"lost?"), 0, "no buffers yet");
    let asked = terminal.asked();
    guest.describe(0, &[(BUFFERS, 3, WRITE, 0), (BUFFERS + 3, 8, WRITE, 0)]);
    guest.offer(0, 0);
    guest.offer(0, 1);
    guest.notify(0);
    assert_eq!(terminal.asked(), asked + 1);
    assert_eq!(receive(&rings[INPUT], b"abcde"), 5);
    assert_eq!(guest.get(BUFFERS, 5), b"abcde");
    assert_eq!((guest.used_index(0), guest.last_used(0)), (2, (1, 2)));
    assert_eq!(guest.vectors.signalled(1), 1);
    assert_eq!(receive(&rings[INPUT], b"f"), 0);
}

#[test]
fn a_driver_notifies_of_buffers_only_while_input_waits_for_them() {
    let (mut guest, _) = console();
    let rings = guest.function.rings();
    assert!(guest.is_to_notify(0), "of its first buffers");
    guest.describe(0, &[(BUFFERS, 4, WRITE, 0), (BUFFERS, 4, WRITE, 0)]);
    guest.offer(0, 0);
    assert_eq!(receive(&rings[INPUT], b"abc"), 3);
    assert!(!guest.is_to_notify(0), "nothing waits");
    guest.offer(0, 1);
    assert_eq!(receive(&rings[INPUT], b"defghij"), 4);
    assert!(guest.is_to_notify(0), "three bytes wait");
    guest.offer(0, 0);
    assert_eq!(receive(&rings[INPUT], b"hij"), 3);
    assert!(!guest.is_to_notify(0), "nothing waits any more");
}

#[test]
fn a_driver_without_rings_writes_single_bytes() {
    let (mut guest, terminal) = console();
    assert_eq!(guest.bar_read(0x1004), 1_u32.to_le_bytes(), "one port");
    guest.bar_write(0x1008, &u32::from(b'!').to_le_bytes());
    guest.bar_write(0x1004, &u32::from(b'?').to_le_bytes());
    assert_eq!(terminal.shown(), b"!");
}

proptest! {
    #[test]
    fn any_descriptors_leave_the_console_alive_or_in_need_of_a_reset(
        table in prop::collection::vec(any::<u8>(), 256),
        heads in prop::collection::vec((0_u16..2, 0_u16..17), 1..8),
    ) {
        let (mut guest, _) = console();
        let rings = guest.function.rings();
        for queue in [0, 1] {
            guest.put(0x1000 + 0x1000 * queue, &table);
        }
        for (queue, head) in heads {
            guest.offer(queue, head);
            guest.notify(queue);
            let _ = receive(&rings[INPUT], b"input");
        }
        let status = guest.read8(20);
        prop_assert!(status == 15 || status == 15 | 64);
        guest.write8(20, 0);
        prop_assert_eq!(guest.read8(20), 0);
    }
}
