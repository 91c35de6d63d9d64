//! Any memory and any register accesses for a network card of one pair and one of two:
//! `cargo +nightly fuzz run net`.
//!
//! The first byte chooses the pairs and the features; see `rings` for the rest.
#![no_main]

mod rings;
mod vectors;

use std::io;

use devices::virtio::net::{
    Agreement, Frames, HEADER_BYTES, Identity, MOST_BYTES, NetHost, Receiver, Transmitter,
    VirtioNet, feature,
};
use libfuzzer_sys::fuzz_target;

/// A host that always has a frame, is sometimes full, and looks at what it is sent.
struct Wire {
    features: u64,
    turn: u8,
}

impl Frames for Wire {
    fn receive(&mut self, frame: &mut [u8]) -> io::Result<usize> {
        self.turn = self.turn.wrapping_add(1);
        if self.turn % 4 == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let bytes = usize::from(self.turn) * 37;
        frame[..bytes].fill(0);
        Ok(bytes)
    }

    fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        self.turn = self.turn.wrapping_add(1);
        if self.turn % 8 == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        assert!(frame.len() <= MOST_BYTES && frame.len() >= HEADER_BYTES + 14);
        let word = |at: usize| usize::from(u16::from_le_bytes([frame[at], frame[at + 1]]));
        let body = frame.len() - HEADER_BYTES;
        if frame[0] != 0 {
            assert!(frame[0] == 1 && self.features & feature::CSUM != 0);
            assert!(word(6) + word(8) + 2 <= body);
        }
        match frame[1] {
            0 => {}
            1 => assert!(self.features & feature::HOST_TSO4 != 0),
            4 => assert!(self.features & feature::HOST_TSO6 != 0),
            other => panic!("segmentation {other}"),
        }
        assert!(word(2) <= body && (frame[1] == 0 || word(4) > 0));
        Ok(())
    }
}

struct Host;

impl NetHost for Host {
    fn start(&mut self, _: u64) {}
    fn set_pairs(&mut self, pairs: u16) -> bool {
        assert!((1..=2).contains(&pairs));
        true
    }
    fn wake(&mut self, ring: usize) {
        assert!(ring < 4);
    }
    fn stop(&mut self) {}
}

fuzz_target!(|input: &[u8]| {
    let Some((&choice, input)) = input.split_first() else {
        return;
    };
    let pairs = u16::from(choice & 1) + 1;
    let offloads = feature::CSUM | feature::HOST_TSO4 | feature::HOST_TSO6;
    let features = [(2, offloads), (4, feature::MRG_RXBUF), (8, 1 << 29)];
    let chosen = features.iter().filter(|(bit, _)| choice & bit != 0);
    let mut features = chosen.fold(0, |all, (_, feature)| all | feature);
    if pairs == 2 {
        features |= feature::CTRL_VQ | feature::MQ;
    }
    let agreement = Agreement::default();
    let identity = Identity {
        mac: [2, 0, 0, 0, 0, 1],
        pairs,
        mtu: Some(1500),
    };
    let device = VirtioNet::new(identity, Host, agreement.clone());
    let mut receiver = Receiver::new(agreement.clone());
    let mut transmitter = Transmitter::new(agreement);
    let mut wire = Wire {
        // A driver may come to accept any of them after a reset.
        features: !0,
        turn: choice,
    };
    rings::drive(device, features, input, |rings, _| {
        let _ = rings[0].turn(|turn| receiver.serve(turn, &mut wire));
        let _ = rings[1].turn(|turn| transmitter.serve(turn, &mut wire));
    });
});
