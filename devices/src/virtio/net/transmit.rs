//! Frames of the guest to the host.

use vm_memory::GuestMemory;
use zerocopy::IntoBytes;

use super::header::{BadFrame, checked};
use super::receive::would_block;
use super::wire::HEADER_BYTES;
use super::{Agreement, Frames, MOST_BYTES, Sent};
use crate::rate_limit::RateLimit;
use crate::virtio::ring::{Chain, RingError, Turn};

static BAD_FRAMES: RateLimit = RateLimit::per_second(2);
static REFUSED: RateLimit = RateLimit::per_second(1);

/// What empties a ring of frames.
pub struct Transmitter {
    agreement: Agreement,
    life: u64,
    features: u64,
    packet: Box<[u8]>,
    /// The frame in `packet` that the host had no room for: its buffer, and how many bytes it has.
    waiting: Option<(Chain, usize)>,
    dropped: u64,
}

impl Transmitter {
    /// One for a driver that has accepted what `agreement` says.
    #[must_use]
    pub fn new(agreement: Agreement) -> Self {
        Self {
            agreement,
            life: 0,
            features: 0,
            packet: vec![0; MOST_BYTES].into_boxed_slice(),
            waiting: None,
            dropped: 0,
        }
    }

    /// How many frames were malformed, or refused by the host.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Sends the frames of the ring, at most as many as it has entries.
    ///
    /// # Errors
    /// When the ring is bad.
    pub fn serve<M: GuestMemory>(
        &mut self,
        turn: &mut Turn<'_, M>,
        host: &mut impl Frames,
    ) -> Result<Sent, RingError> {
        if let Some(features) = self.agreement.newer(&mut self.life) {
            self.features = features;
            self.waiting = None;
        }
        turn.silence()?;
        loop {
            let (chain, frame) = match self.waiting.take() {
                // It has been read: the guest changes it for nobody.
                Some((chain, bytes)) => (chain, Ok(bytes)),
                None => match turn.take()? {
                    Some(chain) => {
                        let frame = self.read(turn, &chain);
                        (chain, frame)
                    }
                    None if turn.listen()? => return Ok(Sent::More),
                    None => return Ok(Sent::Idle),
                },
            };
            match frame {
                Err(bad) => {
                    self.dropped = self.dropped.saturating_add(1);
                    if let Some(skipped) = BAD_FRAMES.permit() {
                        tracing::warn!(skipped, "the guest sends {bad}: dropped");
                    }
                }
                Ok(bytes) => match host.send(self.packet.get(..bytes).unwrap_or_default()) {
                    Ok(()) => {}
                    Err(error) if would_block(&error) => {
                        self.waiting = Some((chain, bytes));
                        return Ok(Sent::HostFull);
                    }
                    Err(error) => {
                        self.dropped = self.dropped.saturating_add(1);
                        if let Some(skipped) = REFUSED.permit() {
                            tracing::warn!(skipped, "the host does not take a frame: {error}");
                        }
                    }
                },
            }
            turn.complete(chain, &[])?;
        }
    }

    /// Copies the frame of a chain, with a header that the host can be given. Returns how many bytes
    /// that is.
    fn read<M: GuestMemory>(
        &mut self,
        turn: &Turn<'_, M>,
        chain: &Chain,
    ) -> Result<usize, BadFrame> {
        let bytes = usize::try_from(chain.readable_bytes()).unwrap_or(usize::MAX);
        if bytes > MOST_BYTES || turn.read(chain, 0, &mut self.packet) < bytes {
            return Err(BadFrame::Length(bytes));
        }
        let packet = self.packet.get(..bytes).unwrap_or_default();
        let header = checked(packet, self.features)?;
        if let Some(place) = self.packet.get_mut(..HEADER_BYTES) {
            place.copy_from_slice(header.as_bytes());
        }
        Ok(bytes)
    }
}
