//! Any memory and any register accesses for a console, a source of random numbers, and a device that is
//! handed over: `cargo +nightly fuzz run small`.
//!
//! The first byte chooses the device; see `rings` for the rest.
#![no_main]

mod rings;
mod vectors;

use std::io;

use devices::virtio::console::{ConsoleHost, INPUT, VirtioConsole, receive};
use devices::virtio::rng::{EntropySource, MOST_BYTES, VirtioRng};
use devices::virtio::vhost::{HandedRing, RingHost, VhostDevice, Vsock};
use libfuzzer_sys::fuzz_target;

struct Terminal;

impl ConsoleHost for Terminal {
    fn output(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= 64 << 14);
    }
    fn wants_input(&mut self) {}
}

struct Ones;

impl EntropySource for Ones {
    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        assert!(bytes.len() <= MOST_BYTES);
        bytes.fill(1);
        Ok(())
    }
}

/// A host that is never told to stop what it has not started, nor to start twice.
#[derive(Default)]
struct Server {
    serves: bool,
}

impl RingHost for Server {
    fn start(&mut self, _: u64, rings: Vec<HandedRing>) -> io::Result<()> {
        assert!(!self.serves && !rings.is_empty());
        for ring in rings {
            assert!(ring.index < 2 && ring.setup.size.is_power_of_two());
            assert!(ring.setup.used < 0x1_0000);
        }
        self.serves = true;
        Ok(())
    }
    fn wake(&mut self, ring: usize) {
        assert!(self.serves && ring < 2);
    }
    fn stop(&mut self) {
        assert!(std::mem::take(&mut self.serves));
    }
    fn forget(&mut self) {
        assert!(!self.serves);
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((&choice, input)) = input.split_first() else {
        return;
    };
    match choice % 3 {
        0 => rings::drive(VirtioConsole::new(Terminal), 0, input, |rings, turn| {
            assert!(receive(&rings[INPUT], &[b'x'; 100][..usize::from(turn % 100)]) <= 100);
        }),
        1 => rings::drive(VirtioRng::new(Ones), 0, input, |_, _| {}),
        _ => {
            let device = VhostDevice::new(Vsock::new(3, !0), Server::default());
            rings::drive(device, 0, input, |_, _| {});
        }
    }
});
