//! A network device, driven as a driver does.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use vm_memory::GuestMemoryMmap;

use super::*;
use crate::virtio::driver::{BUFFERS, Driver, MEMORY, NEXT, WRITE};

/// An interface of the host, in memory.
#[derive(Default)]
struct Wire {
    inbound: VecDeque<Vec<u8>>,
    outbound: Vec<Vec<u8>>,
    /// How many more frames it takes.
    room: Option<usize>,
    refuses: bool,
    gone: bool,
}

impl Frames for Wire {
    fn receive(&mut self, frame: &mut [u8]) -> io::Result<usize> {
        match self.inbound.pop_front() {
            Some(next) => {
                frame[..next.len()].copy_from_slice(&next);
                Ok(next.len())
            }
            None if self.gone => Err(io::ErrorKind::Other.into()),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        if self.refuses {
            return Err(io::ErrorKind::Other.into());
        }
        if let Some(room) = &mut self.room {
            *room = room.checked_sub(1).ok_or(io::ErrorKind::WouldBlock)?;
        }
        self.outbound.push(frame.to_vec());
        Ok(())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Call {
    Start(u64),
    Pairs(u16),
    Wake(usize),
    Stop,
}

#[derive(Clone, Default)]
struct Host(Arc<Mutex<Vec<Call>>>);

impl Host {
    fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl NetHost for Host {
    fn start(&mut self, features: u64) {
        self.0.lock().unwrap().push(Call::Start(features));
    }
    fn set_pairs(&mut self, pairs: u16) -> bool {
        self.0.lock().unwrap().push(Call::Pairs(pairs));
        pairs != 2
    }
    fn wake(&mut self, ring: usize) {
        self.0.lock().unwrap().push(Call::Wake(ring));
    }
    fn stop(&mut self) {
        self.0.lock().unwrap().push(Call::Stop);
    }
}

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OFFLOADS: u64 = feature::CSUM
    | feature::GUEST_CSUM
    | feature::GUEST_TSO4
    | feature::GUEST_TSO6
    | feature::HOST_TSO4
    | feature::HOST_TSO6;

/// A guest, and the thread that serves its first pair.
struct Bench {
    guest: Driver<VirtioNet<Host>>,
    host: Host,
    agreement: Agreement,
    rx: Receiver,
    tx: Transmitter,
    wire: Wire,
}

impl Bench {
    fn new(features: u64, pairs: u16) -> Self {
        let (host, agreement) = (Host::default(), Agreement::default());
        let identity = Identity {
            mac: MAC,
            pairs,
            mtu: Some(1500),
        };
        let device = VirtioNet::new(identity, host.clone(), agreement.clone());
        Self {
            guest: Driver::ready(device, features),
            host,
            rx: Receiver::new(agreement.clone()),
            tx: Transmitter::new(agreement.clone()),
            agreement,
            wire: Wire::default(),
        }
    }

    fn ring(&self, index: usize) -> Virtqueue<GuestMemoryMmap> {
        self.guest.function.rings()[index].clone()
    }

    fn receive(&mut self) -> Option<Received> {
        let ring = self.ring(0);
        ring.turn(|turn| self.rx.serve(turn, &mut self.wire))
    }

    fn transmit(&mut self) -> Option<Sent> {
        let ring = self.ring(1);
        ring.turn(|turn| self.tx.serve(turn, &mut self.wire))
    }

    fn inbound(&mut self, bytes: usize) -> Vec<u8> {
        let frame: Vec<u8> = (0..bytes)
            .map(|at| u8::try_from(at % 251).unwrap() + 1)
            .collect();
        let packet = [&[0; HEADER_BYTES][..], &frame].concat();
        self.wire.inbound.push_back(packet);
        frame
    }

    /// Offers buffers of so many bytes each, one behind the other.
    fn offer_buffers(&mut self, bytes: u32, count: u16) {
        let at = |index: u16| {
            (
                BUFFERS + u64::from(index) * u64::from(bytes),
                bytes,
                WRITE,
                0,
            )
        };
        let table: Vec<_> = (0..count).map(at).collect();
        self.guest.describe(0, &table);
        for head in 0..count {
            self.guest.offer(0, head);
        }
    }

    /// Offers a frame to send, behind a header in a descriptor of its own.
    fn offer_frame(&mut self, header: [u8; HEADER_BYTES], frame: &[u8]) {
        self.guest.put(BUFFERS, &header);
        self.guest.put(BUFFERS + 0x100, frame);
        let bytes = u32::try_from(frame.len()).unwrap();
        let table = [(BUFFERS, 12, NEXT, 1), (BUFFERS + 0x100, bytes, 0, 0)];
        self.guest.describe(1, &table);
        self.guest.offer(1, 0);
    }
}

#[test]
fn the_driver_learns_of_the_interface() {
    let mut bench = Bench::new(OFFLOADS, 3);
    let config: [u8; 12] = bench.guest.bar_read(0x1000);
    assert_eq!(config[..6], MAC);
    assert_eq!(config[6..], [1, 0, 3, 0, 0xdc, 5]);
    assert_eq!(bench.guest.read16(18), 7, "three pairs and the commands");
    let calls = bench.host.calls();
    assert_eq!(calls[0], Call::Stop, "reset before the handshake");
    assert!(matches!(calls[1], Call::Start(f) if f & OFFLOADS == OFFLOADS));
    assert_eq!(calls[2..], (0..6).map(Call::Wake).collect::<Vec<_>>());
}

#[test]
fn features_come_with_those_that_they_need() {
    let mut bench = Bench::new(OFFLOADS, 2);
    for (features, right) in [
        (0, true),
        (feature::CSUM | feature::HOST_TSO4, true),
        (feature::HOST_TSO4, false),
        (feature::HOST_TSO6 | feature::GUEST_CSUM, false),
        (feature::GUEST_TSO6 | feature::GUEST_CSUM, true),
        (feature::GUEST_TSO4 | feature::CSUM, false),
        (feature::CTRL_VQ | feature::MQ, true),
        (feature::MQ, false),
        (feature::CTRL_VQ, false),
    ] {
        bench.guest.write8(20, 0);
        let status = bench.guest.negotiate(features | 3 << 32);
        assert_eq!(status & 8 != 0, right, "{features:#x}");
    }
}

#[test]
fn a_frame_fills_one_buffer_or_several() {
    let mut bench = Bench::new(feature::MRG_RXBUF, 1);
    bench.offer_buffers(100, 4);
    let frame = bench.inbound(200);
    let small = bench.inbound(60);
    assert!(matches!(bench.receive(), Some(Received::Idle)));
    assert_eq!(bench.guest.used_index(0), 4);
    let packet = bench.guest.get(BUFFERS, 212);
    assert_eq!(packet[..12], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0]);
    assert_eq!(packet[12..], frame);
    let packet = bench.guest.get(BUFFERS + 300, 72);
    assert_eq!(packet[10..12], [1, 0]);
    assert_eq!(packet[12..], small);
    assert_eq!(bench.guest.last_used(0), (3, 72));
    assert_eq!(bench.guest.vectors.signalled(1), 1);
}

#[test]
fn an_interrupt_is_sent_when_the_index_passes_the_one_that_the_driver_waits_for() {
    let mut bench = Bench::new(feature::MRG_RXBUF | EVENT_IDX, 1);
    bench.guest.vectors.signalled(1);
    // `used_event` lies behind the 16 entries of the available ring.
    bench.guest.put(0x1424, &1_u16.to_le_bytes());
    bench.offer_buffers(100, 5);
    bench.inbound(60);
    bench.receive();
    assert_eq!(
        bench.guest.vectors.signalled(1),
        0,
        "index 0 does not matter"
    );
    bench.inbound(200);
    bench.receive();
    assert_eq!(bench.guest.used_index(0), 4);
    assert_eq!(bench.guest.vectors.signalled(1), 1, "index 1 does");
    bench.inbound(60);
    bench.receive();
    assert_eq!(bench.guest.vectors.signalled(1), 0, "and has been passed");
}

#[test]
fn a_frame_waits_for_buffers_and_the_host_is_not_asked_meanwhile() {
    let mut bench = Bench::new(feature::MRG_RXBUF, 1);
    bench.offer_buffers(100, 2);
    let frame = bench.inbound(200);
    bench.inbound(60);
    assert!(matches!(bench.receive(), Some(Received::NoBuffers)));
    assert!(matches!(bench.receive(), Some(Received::NoBuffers)));
    assert_eq!(
        (bench.guest.used_index(0), bench.wire.inbound.len()),
        (0, 1)
    );
    // The third buffer completes it.
    bench.guest.describe(
        0,
        &[(BUFFERS, 100, WRITE, 0), (BUFFERS + 100, 100, WRITE, 0)],
    );
    bench
        .guest
        .describe_at(0x1020, &[(BUFFERS + 200, 100, WRITE, 0)]);
    bench.guest.offer(0, 2);
    assert!(matches!(bench.receive(), Some(Received::NoBuffers)));
    assert_eq!(bench.guest.used_index(0), 3);
    assert_eq!(bench.guest.get(BUFFERS + 12, 200), frame);
    assert!(
        bench.wire.inbound.is_empty(),
        "the next frame waits in turn"
    );
}

#[test]
fn without_merging_a_frame_that_does_not_fit_is_dropped() {
    let mut bench = Bench::new(0, 1);
    bench.offer_buffers(100, 2);
    bench.inbound(200);
    let small = bench.inbound(60);
    assert!(matches!(bench.receive(), Some(Received::Idle)));
    assert_eq!((bench.guest.used_index(0), bench.rx.dropped()), (2, 1));
    assert_eq!(bench.guest.get(BUFFERS, 100), [0; 100]);
    assert_eq!(
        bench.guest.get(BUFFERS + 110, 62),
        [&[1, 0][..], &small].concat()
    );
}

#[test]
fn a_frame_that_all_buffers_together_do_not_hold_is_dropped() {
    let mut bench = Bench::new(feature::MRG_RXBUF, 1);
    bench.offer_buffers(10, 16);
    bench.inbound(200);
    assert!(matches!(bench.receive(), Some(Received::Idle)));
    assert_eq!((bench.guest.used_index(0), bench.rx.dropped()), (16, 1));
    assert_eq!(bench.guest.last_used(0), (15, 0));
}

#[test]
fn buffers_outside_of_memory_cost_the_frame_and_nothing_else() {
    let mut bench = Bench::new(feature::MRG_RXBUF, 1);
    bench
        .guest
        .describe(0, &[(MEMORY - 10, 500, WRITE, 0), (BUFFERS, 500, WRITE, 0)]);
    bench.guest.offer(0, 0);
    bench.guest.offer(0, 1);
    bench.inbound(60);
    bench.inbound(60);
    assert!(matches!(bench.receive(), Some(Received::Idle)));
    assert_eq!((bench.guest.used_index(0), bench.rx.dropped()), (2, 1));
    assert_eq!(bench.guest.last_used(0), (1, 72));
    assert_eq!(bench.guest.read8(20), 15);
}

#[test]
fn what_the_host_sent_for_an_earlier_driver_is_not_passed_on() {
    let mut bench = Bench::new(feature::GUEST_CSUM | feature::GUEST_TSO4, 1);
    bench.offer_buffers(100, 4);
    for header in [
        [1, 4, 54, 0, 0xb4, 5, 34, 0, 16, 0, 0, 0],
        [1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0, 0, 0],
    ] {
        let packet = [&header[..], &[7; 60]].concat();
        bench.wire.inbound.push_back(packet);
    }
    bench.wire.inbound.push_back(vec![0; 11]);
    assert!(matches!(bench.receive(), Some(Received::Idle)));
    assert_eq!((bench.guest.used_index(0), bench.rx.dropped()), (1, 2));
    assert_eq!(bench.guest.get(BUFFERS, 2), [1, 1]);
}

#[test]
fn chains_of_a_ring_that_is_gone_are_not_completed_in_the_next() {
    let mut bench = Bench::new(feature::MRG_RXBUF, 1);
    bench.offer_buffers(100, 2);
    bench.inbound(400);
    assert!(matches!(bench.receive(), Some(Received::NoBuffers)));
    bench.wire.room = Some(0);
    bench.offer_frame([0; 12], &[7; 60]);
    assert_eq!(bench.transmit(), Some(Sent::HostFull));
    bench.guest.write8(20, 0);
    assert!(bench.receive().is_none() && bench.transmit().is_none());
    bench.guest.restart(feature::MRG_RXBUF);
    bench.wire.room = None;
    assert!(matches!(bench.receive(), Some(Received::Idle)));
    assert_eq!(bench.transmit(), Some(Sent::Idle));
    assert_eq!(
        (bench.guest.used_index(0), bench.guest.used_index(1)),
        (0, 0)
    );
    assert!(bench.wire.outbound.is_empty());
}

#[test]
fn a_frame_goes_to_the_host_behind_a_checked_header() {
    let mut bench = Bench::new(OFFLOADS, 1);
    let frame: Vec<u8> = (0..200).collect();
    bench.offer_frame([1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0, 9, 9], &frame);
    assert_eq!(bench.transmit(), Some(Sent::Idle));
    let sent = bench.wire.outbound.pop().unwrap();
    assert_eq!(sent[..12], [1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0, 0, 0]);
    assert_eq!(sent[12..], frame);
    assert_eq!(
        (bench.guest.used_index(1), bench.guest.last_used(1)),
        (1, (0, 0))
    );
}

#[test]
fn a_bad_frame_is_dropped_and_the_next_is_sent() {
    let mut bench = Bench::new(0, 1);
    bench.offer_frame([1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0], &[7; 60]);
    assert_eq!(bench.transmit(), Some(Sent::Idle));
    bench
        .guest
        .describe(1, &[(BUFFERS, 0x2_0000, 0, 0), (MEMORY - 20, 80, 0, 0)]);
    bench.guest.offer(1, 0);
    bench.guest.offer(1, 1);
    assert_eq!(bench.transmit(), Some(Sent::Idle));
    assert_eq!((bench.guest.used_index(1), bench.tx.dropped()), (3, 3));
    bench.wire.refuses = true;
    bench.offer_frame([0; 12], &[7; 60]);
    assert_eq!(bench.transmit(), Some(Sent::Idle));
    bench.wire.refuses = false;
    bench.offer_frame([0; 12], &[7; 60]);
    assert_eq!(bench.transmit(), Some(Sent::Idle));
    assert_eq!((bench.wire.outbound.len(), bench.tx.dropped()), (1, 4));
    assert_eq!((bench.guest.used_index(1), bench.guest.read8(20)), (5, 15));
}

#[test]
fn a_frame_waits_for_the_host() {
    let mut bench = Bench::new(0, 1);
    bench.wire.room = Some(0);
    bench.offer_frame([0; 12], &[7; 60]);
    assert_eq!(bench.transmit(), Some(Sent::HostFull));
    assert_eq!(bench.guest.used_index(1), 0);
    // What it is has been decided: the guest changes it for nobody.
    bench.guest.put(BUFFERS + 0x100, &[8; 60]);
    bench.wire.room = Some(1);
    assert_eq!(bench.transmit(), Some(Sent::Idle));
    assert_eq!(bench.guest.used_index(1), 1);
    assert_eq!(bench.wire.outbound[0][12..], [7; 60]);
}

#[test]
fn an_interface_that_is_gone_is_told_of() {
    let mut bench = Bench::new(0, 1);
    bench.offer_buffers(100, 2);
    bench.wire.gone = true;
    assert!(matches!(bench.receive(), Some(Received::Gone(_))));
}

#[test]
fn one_turn_passes_on_as_many_frames_as_the_ring_has_entries() {
    let mut bench = Bench::new(0, 1);
    bench.offer_buffers(100, 16);
    for _ in 0..17 {
        bench.inbound(20);
    }
    assert!(matches!(bench.receive(), Some(Received::More)));
    assert_eq!(
        (bench.guest.used_index(0), bench.wire.inbound.len()),
        (16, 1)
    );
}

#[test]
fn commands_set_the_pairs_in_use() {
    let mut bench = Bench::new(feature::CTRL_VQ | feature::MQ, 3);
    bench.host.calls();
    let mut command = |bytes: &[u8], room: u32| {
        bench.guest.put(BUFFERS, bytes);
        bench.guest.put(BUFFERS + 0x100, &[0xee]);
        let length = u32::try_from(bytes.len()).unwrap();
        let table = [
            (BUFFERS, length, NEXT, 1),
            (BUFFERS + 0x100, room, WRITE, 0),
        ];
        bench.guest.describe(6, &table);
        bench.guest.offer(6, 0);
        bench.guest.notify(6);
        (bench.guest.get(BUFFERS + 0x100, 1)[0], bench.host.calls())
    };
    assert_eq!(command(&[4, 0, 3, 0], 1), (0, vec![Call::Pairs(3)]));
    assert_eq!(
        command(&[4, 0, 2, 0], 1),
        (1, vec![Call::Pairs(2)]),
        "the host cannot"
    );
    for refused in [
        &[4, 0, 0, 0][..],
        &[4, 0, 4, 0],
        &[4, 1, 1, 0],
        &[0, 0, 1, 0],
        &[4, 0, 1],
    ] {
        assert_eq!(command(refused, 1), (1, vec![]), "{refused:?}");
    }
    assert_eq!(
        command(&[4, 0, 1, 0], 0),
        (0xee, vec![]),
        "no room for an answer"
    );
}

proptest! {
    #[test]
    fn any_descriptors_leave_the_device_alive_or_in_need_of_a_reset(
        table in prop::collection::vec(any::<u8>(), 256),
        heads in prop::collection::vec((0_u16..2, 0_u16..17), 1..8),
        features in prop::sample::select(vec![0, OFFLOADS, OFFLOADS | feature::MRG_RXBUF]),
    ) {
        let mut bench = Bench::new(features, 1);
        for queue in [0, 1] {
            bench.guest.put(0x1000 + 0x1000 * queue, &table);
        }
        for (queue, head) in heads {
            bench.inbound(300);
            bench.guest.offer(queue, head);
            bench.receive();
            bench.transmit();
        }
        for packet in &bench.wire.outbound {
            let features = bench.agreement.newer(&mut 0).unwrap();
            let checked = header::checked(packet, features).unwrap();
            prop_assert_eq!(&packet[..HEADER_BYTES], zerocopy::IntoBytes::as_bytes(&checked));
        }
        let status = bench.guest.read8(20);
        prop_assert!(status == 15 || status == 15 | 64);
        bench.guest.write8(20, 0);
        prop_assert_eq!(bench.guest.read8(20), 0);
    }
}
