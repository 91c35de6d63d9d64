//! A chain of descriptors: what the guest alleges, copied once.

use virtio_queue::desc::split::Descriptor;
use vm_memory::GuestAddress;

/// Bytes of guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) address: GuestAddress,
    pub(super) bytes: usize,
}

/// A chain of descriptors, copied. One that is malformed is empty: nothing to read, no room to write.
#[derive(Debug)]
pub struct Chain {
    pub(super) head: u16,
    parts: Parts,
}

impl Chain {
    /// The chain of `descriptors` that begins at `head` of a ring of `size` entries.
    pub(super) fn new(head: u16, descriptors: impl Iterator<Item = Descriptor>, size: u16) -> Self {
        let parts = Parts::of(descriptors, size);
        Self { head, parts }
    }

    /// How many bytes the device may read.
    #[must_use]
    pub fn readable_bytes(&self) -> u64 {
        self.readable().iter().map(|span| span.bytes as u64).sum()
    }

    /// How many bytes the device may write.
    #[must_use]
    pub fn writable_bytes(&self) -> u64 {
        self.writable().iter().map(|span| span.bytes as u64).sum()
    }

    pub(super) fn readable(&self) -> &[Span] {
        &self.parts.readable
    }

    pub(super) fn writable(&self) -> &[Span] {
        &self.parts.writable
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Parts {
    readable: Vec<Span>,
    writable: Vec<Span>,
}

impl Parts {
    /// The two parts of a chain. It is malformed if it does not end, has more descriptors than the ring
    /// has entries, is longer than 4 GiB, or goes back to reading after it has come to writing.
    fn of(chain: impl Iterator<Item = Descriptor>, size: u16) -> Self {
        let (mut parts, mut ended, mut total) = (Self::default(), false, 0_u32);
        for descriptor in chain.take(usize::from(size).saturating_add(1)) {
            let Some(sum) = total.checked_add(descriptor.len()) else {
                return Self::default();
            };
            total = sum;
            let span = Span {
                address: descriptor.addr(),
                bytes: usize::try_from(descriptor.len()).unwrap_or(usize::MAX),
            };
            if descriptor.is_write_only() {
                parts.writable.push(span);
            } else if parts.writable.is_empty() {
                parts.readable.push(span);
            } else {
                return Self::default();
            }
            ended = !descriptor.has_next();
        }
        let count = parts.readable.len().saturating_add(parts.writable.len());
        if ended && count <= usize::from(size) {
            parts
        } else {
            Self::default()
        }
    }
}

/// What is left of `spans` without their first `skip` bytes.
pub(super) fn beyond(spans: &[Span], mut skip: u64) -> impl Iterator<Item = Span> {
    spans.iter().map(move |span| {
        let skipped = skip.min(span.bytes as u64);
        skip = skip.saturating_sub(skipped);
        let left = usize::try_from(skipped).unwrap_or(usize::MAX);
        Span {
            // One that goes beyond the last address is in no memory, from wherever it is looked at.
            address: GuestAddress(span.address.0.saturating_add(skipped)),
            bytes: span.bytes.saturating_sub(left),
        }
    })
}

/// The first `bytes` bytes of `spans`.
pub(super) fn first(spans: &[Span], mut bytes: u64) -> impl Iterator<Item = Span> {
    spans.iter().map(move |span| {
        let taken = bytes.min(span.bytes as u64);
        bytes = bytes.saturating_sub(taken);
        Span {
            address: span.address,
            bytes: usize::try_from(taken).unwrap_or(span.bytes),
        }
    })
}
