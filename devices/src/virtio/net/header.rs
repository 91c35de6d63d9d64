//! What a guest says about a frame that it sends, checked before the host's kernel gets to see it.

use zerocopy::FromBytes;
use zerocopy::little_endian::U16;

use super::wire::{HEADER_BYTES, Header, NEEDS_CSUM, feature, gso};

/// Bytes of an Ethernet header: no frame is shorter.
const ETHERNET: usize = 14;

/// Why a frame is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadFrame {
    /// Shorter than a header and an Ethernet header, or longer than any frame.
    #[error("a frame of {0} bytes")]
    Length(usize),
    /// It asks for what was not agreed.
    #[error("a checksum or a segmentation (type {0:#x}) that was not agreed")]
    NotAgreed(u8),
    /// The checksum would lie outside of the frame.
    #[error("a checksum at {at} in a frame of {bytes} bytes")]
    Checksum {
        /// Where it would end.
        at: usize,
        /// Bytes of the frame.
        bytes: usize,
    },
    /// There is no cutting it up so.
    #[error("segments of {size} bytes behind {headers} bytes of headers")]
    Segments {
        /// Bytes of payload in each segment.
        size: u16,
        /// Bytes of headers.
        headers: u16,
    },
}

/// The header that goes to the host in front of a frame; `packet` is the guest's header and the frame,
/// `features` what was agreed. Fields that mean nothing are zero, and flags that a device has to
/// ignore are gone.
pub(super) fn checked(packet: &[u8], features: u64) -> Result<Header, BadFrame> {
    let too_short = BadFrame::Length(packet.len());
    let (header, frame) = Header::read_from_prefix(packet).map_err(|_| too_short)?;
    if frame.len() < ETHERNET {
        return Err(too_short);
    }
    let mut clean = Header {
        flags: header.flags & NEEDS_CSUM,
        gso_type: header.gso_type,
        hdr_len: U16::ZERO,
        gso_size: U16::ZERO,
        csum_start: U16::ZERO,
        csum_offset: U16::ZERO,
        num_buffers: U16::ZERO,
    };
    let not_agreed = BadFrame::NotAgreed(header.gso_type);
    if clean.flags != 0 {
        if features & feature::CSUM == 0 {
            return Err(not_agreed);
        }
        let (start, offset) = (header.csum_start, header.csum_offset);
        let at = usize::from(start.get()) + usize::from(offset.get()) + size_of::<u16>();
        let bytes = frame.len();
        if at > bytes {
            return Err(BadFrame::Checksum { at, bytes });
        }
        (clean.csum_start, clean.csum_offset) = (start, offset);
    }
    let needed = match header.gso_type {
        gso::NONE => return Ok(clean),
        gso::TCPV4 => feature::HOST_TSO4,
        gso::TCPV6 => feature::HOST_TSO6,
        _ => return Err(not_agreed),
    };
    // Segments get checksums of their own.
    if features & needed == 0 || clean.flags == 0 {
        return Err(not_agreed);
    }
    let (size, headers) = (header.gso_size.get(), header.hdr_len.get());
    if size == 0 || usize::from(headers) > frame.len() {
        return Err(BadFrame::Segments { size, headers });
    }
    (clean.gso_size, clean.hdr_len) = (header.gso_size, header.hdr_len);
    Ok(clean)
}

/// Whether a frame of the host, behind its header, leaves no more to the guest than was agreed.
pub(super) fn is_agreed(packet: &[u8], features: u64) -> bool {
    let Ok((header, _)) = Header::read_from_prefix(packet) else {
        return false;
    };
    let checksum = header.flags & NEEDS_CSUM == 0 || features & feature::GUEST_CSUM != 0;
    let segments = match header.gso_type {
        gso::NONE => true,
        gso::TCPV4 => features & feature::GUEST_TSO4 != 0,
        gso::TCPV6 => features & feature::GUEST_TSO6 != 0,
        _ => false,
    };
    checksum && segments
}

/// Says in the header of a frame from the host in how many buffers the guest finds it. `packet` begins
/// with the header.
pub(super) fn set_buffers(packet: &mut [u8], buffers: u16) {
    let at = HEADER_BYTES - size_of::<u16>();
    if let Some(field) = packet.get_mut(at..HEADER_BYTES) {
        field.copy_from_slice(&buffers.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zerocopy::IntoBytes;

    use super::*;

    const ALL: u64 = feature::CSUM | feature::HOST_TSO4 | feature::HOST_TSO6;

    fn packet(header: [u8; HEADER_BYTES], frame: usize) -> Vec<u8> {
        [&header[..], &vec![0xaa; frame]].concat()
    }

    #[test]
    fn a_plain_frame_has_an_empty_header() {
        // Whatever else it says: DATA_VALID, lengths, a number of buffers.
        let said = [2, 0, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9];
        let header = checked(&packet(said, 14), 0).unwrap();
        assert_eq!(header.as_bytes(), [0; HEADER_BYTES]);
        let too_short = checked(&packet(said, 13), 0);
        assert_eq!(too_short, Err(BadFrame::Length(25)));
        assert_eq!(checked(&said[..11], 0), Err(BadFrame::Length(11)));
    }

    #[test]
    fn a_checksum_lies_in_the_frame_and_was_agreed() {
        let said = [1, 0, 9, 9, 9, 9, 34, 0, 16, 0, 7, 7];
        let header = checked(&packet(said, 52), ALL).unwrap();
        assert_eq!(header.as_bytes(), [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0]);
        let outside = checked(&packet(said, 51), ALL);
        assert_eq!(outside, Err(BadFrame::Checksum { at: 52, bytes: 51 }));
        let not_agreed = checked(&packet(said, 52), feature::HOST_TSO4);
        assert_eq!(not_agreed, Err(BadFrame::NotAgreed(0)));
    }

    #[test]
    fn segments_are_of_an_agreed_kind_and_not_empty() {
        let said = |kind| [1, kind, 54, 0, 0xb4, 5, 34, 0, 16, 0, 0, 0];
        let large = |kind| packet(said(kind), 4000);
        assert_eq!(checked(&large(1), ALL).unwrap().as_bytes(), said(1));
        assert_eq!(checked(&large(4), ALL).unwrap().as_bytes(), said(4));
        for kind in [2, 3, 5, 0x80, 0x81, 0xff] {
            let refused = checked(&large(kind), ALL);
            assert_eq!(refused, Err(BadFrame::NotAgreed(kind)));
        }
        let only_four = feature::CSUM | feature::HOST_TSO4;
        assert!(checked(&large(1), only_four).is_ok());
        assert!(checked(&large(4), only_four).is_err());
        let mut empty = large(1);
        empty[4..6].fill(0);
        let (size, headers) = (0, 54);
        assert_eq!(
            checked(&empty, ALL),
            Err(BadFrame::Segments { size, headers })
        );
        assert!(checked(&packet(said(1), 53), ALL).is_err());
        let mut unsummed = large(1);
        unsummed[0] = 0;
        assert_eq!(checked(&unsummed, ALL), Err(BadFrame::NotAgreed(1)));
    }

    proptest! {
        #[test]
        fn what_passes_stays_within_the_frame(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            features: u64,
        ) {
            if let Ok(header) = checked(&bytes, features) {
                let frame = bytes.len() - HEADER_BYTES;
                let end = usize::from(header.csum_start.get())
                    + usize::from(header.csum_offset.get());
                prop_assert!(header.flags == 0 || end + 2 <= frame);
                prop_assert!(usize::from(header.hdr_len.get()) <= frame);
                prop_assert!(header.gso_type == 0 || header.gso_size.get() > 0);
                prop_assert!(header.flags <= NEEDS_CSUM && header.num_buffers.get() == 0);
            }
        }
    }
}
