//! A queue that another thread serves, while the driver does as it likes.

use std::io;
use std::sync::{Condvar, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use vm_memory::VolatileSlice;

use super::*;
use crate::virtio::feature::EVENT_IDX;

/// What is long enough to see that something does not happen.
const A_WHILE: Duration = Duration::from_millis(50);

/// Has a request begun by another thread that does not get on until `slow` is let go.
fn in_the_middle_of_a_request(bed: &mut Bed, act: impl FnOnce(&mut Bed) + Send) -> (bool, u16) {
    let disk = Arc::clone(&bed.disk);
    let slow = disk.slow.lock().unwrap();
    bed.put_header(OUT, 0);
    let chain = [
        (HEADER, 16, NEXT, 1),
        (DATA, 512, NEXT, 2),
        (STATUS_AT, 1, WRITE, 0),
    ];
    bed.driver.describe(0, &chain);
    for _ in 0..3 {
        bed.driver.offer(0, 0);
    }
    let ring = bed.ring();
    let geometry = Geometry {
        sectors: SECTORS,
        block_bytes: 512,
        writes: Writes::Taken,
    };
    let device = VirtioBlock::new(geometry, Vec::new());
    let queue = device.queue(Arc::clone(&disk), "");
    let (tell, told) = mpsc::channel();
    thread::scope(|scope| {
        let server = scope.spawn(move || queue.serve(&ring, || {}));
        thread::sleep(A_WHILE);
        let (begin, begun) = mpsc::channel();
        let acting = scope.spawn(move || {
            begin.send(()).unwrap();
            act(bed);
            tell.send(()).unwrap();
            bed.driver.used_index(0)
        });
        // A busy machine may take its time to start a thread.
        begun.recv().unwrap();
        let early = told.recv_timeout(A_WHILE).is_ok();
        drop(slow);
        server.join().unwrap();
        (early, acting.join().unwrap())
    })
}

#[test]
fn a_reset_waits_for_the_request_in_hand_and_nothing_is_completed_after_it() {
    let mut bed = Bed::ready(Writes::Taken, FLUSH);
    let (early, used) = in_the_middle_of_a_request(&mut bed, |bed| bed.driver.write8(20, 0));
    assert!(!early, "the reset came back while a request was under way");
    assert_eq!(used, 1, "the one in hand, and no other");
    thread::sleep(A_WHILE);
    assert_eq!(bed.driver.used_index(0), 1);
    // And the device works again.
    bed.driver.restart(FLUSH);
    assert_eq!(bed.write(1, &[5; 512]), OK);
}

#[test]
fn a_driver_that_takes_bus_mastership_away_waits_likewise() {
    use crate::pci::PciFunction as _;
    let mut bed = Bed::ready(Writes::Taken, FLUSH);
    let (early, used) = in_the_middle_of_a_request(&mut bed, |bed| {
        bed.driver.function.config_write(0x04, &2_u16.to_le_bytes());
    });
    assert!(!early);
    assert_eq!(used, 1);
    // What was left is served once the function may use memory again.
    bed.driver.function.config_write(0x04, &6_u16.to_le_bytes());
    bed.serve();
    assert_eq!(bed.driver.used_index(0), 3);
}

#[test]
fn the_end_of_the_run_waits_and_serves_no_more() {
    let mut bed = Bed::ready(Writes::Taken, FLUSH);
    let (early, used) = in_the_middle_of_a_request(&mut bed, |bed| {
        bed.driver.function.shut_down();
    });
    assert!(!early);
    assert_eq!(used, 1);
}

#[test]
fn the_driver_is_interrupted_only_from_the_index_on_that_it_names() {
    let mut bed = Bed::ready(Writes::Taken, FLUSH | EVENT_IDX);
    // used_event is behind the available ring's entries.
    bed.driver.set_used_event(0, 2);
    for _ in 0..2 {
        assert_eq!(bed.request(FLUSH_CACHE, 0, &[], &[]), OK);
    }
    assert_eq!(bed.driver.vectors.signalled(1), 0);
    assert_eq!(bed.request(FLUSH_CACHE, 0, &[], &[]), OK);
    assert_eq!(bed.driver.vectors.signalled(1), 1);
    assert_eq!(bed.driver.available_event(0), 3, "from the next one on");
}

#[test]
fn a_bad_ring_stops_the_disk_until_it_is_reset() {
    let mut bed = Bed::ready(Writes::Taken, FLUSH);
    bed.driver.set_available(0, 100);
    bed.driver.notify(0);
    bed.serve();
    assert_eq!(bed.driver.read8(20) & 64, 64, "the device needs a reset");
    bed.driver.restart(FLUSH);
    assert_eq!(bed.write(1, &[5; 512]), OK);
}

/// Lets two requests that are in hand at once go on, and fails one that is alone for too long.
struct Meeting {
    here: Mutex<usize>,
    both: Condvar,
}

impl Meeting {
    fn meet(&self) -> io::Result<()> {
        let mut here = self.here.lock().unwrap();
        *here += 1;
        self.both.notify_all();
        let enough = self
            .both
            .wait_timeout_while(here, Duration::from_secs(10), |here| *here < 2);
        match enough.unwrap().1.timed_out() {
            true => Err(io::ErrorKind::TimedOut.into()),
            false => Ok(()),
        }
    }
}

impl BlockBackend for Meeting {
    fn read(&self, _: u64, _: &[VolatileSlice<'_>]) -> io::Result<()> {
        self.meet()
    }
    fn write(&self, _: u64, _: &[VolatileSlice<'_>]) -> io::Result<()> {
        self.meet()
    }
    fn flush(&self) -> io::Result<()> {
        self.meet()
    }
    fn discard(&self, _: u64, _: u64) -> io::Result<()> {
        self.meet()
    }
    fn write_zeroes(&self, _: u64, _: u64, _: Unmap) -> io::Result<()> {
        self.meet()
    }
}

#[test]
fn two_threads_have_a_request_each_of_one_queue_in_hand() {
    let mut bed = Bed::ready(Writes::Taken, FLUSH);
    let geometry = Geometry {
        sectors: SECTORS,
        block_bytes: 512,
        writes: Writes::Taken,
    };
    let meeting = Meeting {
        here: Mutex::default(),
        both: Condvar::new(),
    };
    let queue = VirtioBlock::new(geometry, Vec::new()).queue(Arc::new(meeting), "");
    bed.put_header(FLUSH_CACHE, 0);
    let second = STATUS_AT + 1;
    bed.driver.put(second, &[UNTOUCHED]);
    let chains = [
        (HEADER, 16, NEXT, 1),
        (STATUS_AT, 1, WRITE, 0),
        (HEADER, 16, NEXT, 3),
        (second, 1, WRITE, 0),
    ];
    bed.driver.describe(0, &chains);
    bed.driver.offer(0, 0);
    bed.driver.offer(0, 2);
    let ring = bed.ring();
    let (call, called) = mpsc::channel();
    thread::scope(|scope| {
        let (queue, ring) = (&queue, &ring);
        let first = scope.spawn(move || queue.serve(ring, || call.send(()).unwrap()));
        called
            .recv_timeout(Duration::from_secs(10))
            .expect("no help is called for");
        queue.serve(ring, || {});
        first.join().unwrap();
    });
    assert_eq!(bed.driver.get(STATUS_AT, 2), [OK, OK]);
    assert_eq!(bed.driver.used_index(0), 2);
    assert!(called.recv().is_err(), "help was called for nothing");
    let counts = ring.counters().read();
    assert_eq!((counts.requests, counts.errors), (2, 0));
    assert_eq!((counts.bytes_from_guest, counts.bytes_to_guest), (32, 2));
}

#[test]
fn a_request_that_comes_to_grief_keeps_no_reset_waiting() {
    let mut bed = Bed::ready(Writes::Taken, FLUSH);
    let ring = bed.ring();
    bed.put_header(FLUSH_CACHE, 0);
    let chain = [(HEADER, 16, NEXT, 1), (STATUS_AT, 1, WRITE, 0)];
    bed.driver.describe(0, &chain);
    bed.driver.offer(0, 0);
    let server = thread::spawn(move || ring.serve_apart(|| {}, |_, _| panic!("as a test wants")));
    server.join().unwrap_err();
    bed.driver.restart(FLUSH);
    assert_eq!(bed.write(1, &[5; 512]), OK);
}

#[test]
fn errors_notifications_and_interrupts_are_counted() {
    let mut bed = Bed::ready(Writes::Taken, FLUSH);
    assert_eq!(bed.write(0, &[1; 512]), OK);
    assert_eq!(bed.write(SECTORS, &[1; 512]), IO_ERROR);
    let counts = bed.ring().counters().read();
    assert_eq!(
        (counts.requests, counts.errors, counts.interrupts),
        (2, 1, 2)
    );
    assert_eq!(counts.bytes_from_guest, 2 * (16 + 512));
    assert_eq!(counts.bytes_to_guest, 2, "two statuses");
    // Nothing catches them before the function does.
    assert_eq!(counts.notifications, 2);
}

#[test]
fn several_threads_give_every_chain_back_once_and_resets_come_in_between() {
    const ROUNDS: u32 = 200;
    const CHAINS: u16 = 5;
    let until = Instant::now() + Duration::from_secs(60);
    let mut bed = Bed::ready(Writes::Taken, FLUSH);
    let over = AtomicBool::new(false);
    let (ring, disk) = (bed.ring(), Arc::clone(&bed.disk));
    let geometry = Geometry {
        sectors: SECTORS,
        block_bytes: 512,
        writes: Writes::Taken,
    };
    let queue = VirtioBlock::new(geometry, Vec::new()).queue(disk, "");
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    queue.serve(&ring, || {});
                    thread::yield_now();
                }
            });
        }
        let driver = scope.spawn(|| {
            for round in 0..ROUNDS {
                bed.put_header(FLUSH_CACHE, 0);
                let chains: Vec<_> = (0..CHAINS)
                    .flat_map(|chain| {
                        let status = STATUS_AT + u64::from(chain);
                        [(HEADER, 16, NEXT, 2 * chain + 1), (status, 1, WRITE, 0)]
                    })
                    .collect();
                bed.driver.describe(0, &chains);
                for chain in 0..CHAINS {
                    bed.driver.offer(0, 2 * chain);
                }
                // Every other time while the threads are at it.
                while round % 2 == 0 && bed.driver.used_index(0) < CHAINS {
                    assert!(Instant::now() < until, "chains do not come back");
                    thread::yield_now();
                }
                bed.driver.write8(20, 0);
                let used = bed.driver.used_index(0);
                thread::yield_now();
                assert_eq!(bed.driver.used_index(0), used, "after the reset");
                assert!(used <= CHAINS);
                bed.driver.restart(FLUSH);
            }
        });
        let outcome = driver.join();
        over.store(true, Ordering::SeqCst);
        outcome.unwrap();
    });
    let counts = ring.counters().read();
    assert!(counts.requests >= u64::from(ROUNDS / 2) * u64::from(CHAINS));
    assert_eq!(counts.errors, 0);
}
