//! Frames from the host into the guest's buffers.
//!
//! ```text
//!              ┌────────────── the host has no frame: Idle ──────────────┐
//!              ▼                                                         │
//!   a frame is taken ─► buffers are gathered until it fits ─► written, all of them given back at once
//!                         └─ the ring is empty: NoBuffers. The frame waits, and so do those behind it
//!                            in the host's queue; nothing asks for them.
//! ```

use std::io;

use vm_memory::GuestMemory;

use super::header::{is_agreed, set_buffers};
use super::wire::feature;
use super::{Agreement, Frames, MOST_BYTES, Received};
use crate::virtio::ring::{Chain, RingError, Turn};

/// What fills a ring of buffers.
pub struct Receiver {
    agreement: Agreement,
    life: u64,
    features: u64,
    packet: Box<[u8]>,
    /// How many bytes of `packet` wait for buffers; zero when none do.
    waiting: usize,
    /// Buffers that have been taken for what waits, and how many bytes they hold in all.
    gathered: Vec<Chain>,
    room: u64,
    dropped: u64,
}

impl Receiver {
    /// One for a driver that has accepted what `agreement` says.
    #[must_use]
    pub fn new(agreement: Agreement) -> Self {
        Self {
            agreement,
            life: 0,
            features: 0,
            packet: vec![0; MOST_BYTES].into_boxed_slice(),
            waiting: 0,
            gathered: Vec::new(),
            room: 0,
            dropped: 0,
        }
    }

    /// How many frames were not passed on: the driver's buffers did not hold them, or they asked for
    /// what was not agreed.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Passes on frames, while there are some and there are buffers, and at most as many as the ring
    /// has entries.
    ///
    /// # Errors
    /// When the ring is bad.
    pub fn serve<M: GuestMemory>(
        &mut self,
        turn: &mut Turn<'_, M>,
        host: &mut impl Frames,
    ) -> Result<Received, RingError> {
        self.follow_agreement();
        turn.silence()?;
        for _ in 0..turn.entries() {
            if self.waiting == 0 {
                match host.receive(&mut self.packet) {
                    Ok(bytes) => self.waiting = bytes.min(MOST_BYTES),
                    Err(error) if would_block(&error) => return Ok(Received::Idle),
                    Err(error) => return Ok(Received::Gone(error)),
                }
                let packet = self.packet.get(..self.waiting).unwrap_or_default();
                if !is_agreed(packet, self.features) {
                    // Sent before the host knew this driver.
                    self.waiting = 0;
                    self.drop_one();
                    continue;
                }
            }
            while !self.fits(turn.entries()) {
                let Some(chain) = turn.take()? else {
                    return Ok(match turn.listen()? {
                        true => Received::More,
                        false => Received::NoBuffers,
                    });
                };
                self.room = self.room.saturating_add(chain.writable_bytes());
                self.gathered.push(chain);
            }
            self.deliver(turn)?;
        }
        Ok(Received::More)
    }

    /// Chains of an earlier ring are forgotten, and so is what waited for them.
    fn follow_agreement(&mut self) {
        if let Some(features) = self.agreement.newer(&mut self.life) {
            self.features = features;
            self.gathered.clear();
            (self.waiting, self.room) = (0, 0);
        }
    }

    /// Whether no more buffers are needed for what waits, or none would help.
    fn fits(&self, entries: u16) -> bool {
        let most = match self.features & feature::MRG_RXBUF {
            0 => 1,
            _ => usize::from(entries),
        };
        self.room >= self.waiting as u64 || self.gathered.len() >= most
    }

    fn deliver<M: GuestMemory>(&mut self, turn: &mut Turn<'_, M>) -> Result<(), RingError> {
        let buffers = u16::try_from(self.gathered.len()).unwrap_or(u16::MAX);
        set_buffers(&mut self.packet, buffers);
        let packet = self.packet.get(..self.waiting).unwrap_or_default();
        let written = turn.complete_together(std::mem::take(&mut self.gathered), packet)?;
        (self.waiting, self.room) = (0, 0);
        if !written {
            self.drop_one();
        }
        Ok(())
    }

    fn drop_one(&mut self) {
        self.dropped = self.dropped.saturating_add(1);
    }
}

pub(super) fn would_block(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, WouldBlock};
    matches!(error.kind(), WouldBlock | Interrupted)
}
