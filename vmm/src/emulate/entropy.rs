//! Random numbers for the guest, from the host's kernel.

use std::io;

use devices::virtio::rng::EntropySource;

use crate::random;

/// The host's kernel.
pub(super) struct HostEntropy;

impl EntropySource for HostEntropy {
    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        random::fill(bytes)
    }
}
