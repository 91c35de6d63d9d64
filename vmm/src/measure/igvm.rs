//! What an SNP guest is measured as that is an IGVM file: the same pieces as a launch loads, in the same order.

use iommu::{Gpa, PAGE_SIZE};
use sha2::{Digest as _, Sha256};

use super::digest::Digest;
use super::expected::MeasuredSegment;
use super::snp::{ContentFree, LaunchDigest, Vmsa};
use crate::boot::igvm::{Igvm, PageContent, Piece};
use crate::boot::segment::{Page, SegmentKind};

/// The launch digest of a VM with so many processors, of `guest` and nothing else.
pub(super) fn launch_digest(guest: &Igvm, vcpus: u32) -> Digest {
    let mut digest = LaunchDigest::default();
    for piece in guest.pieces() {
        let content_free = match piece.content() {
            PageContent::Measured => None,
            PageContent::Unmeasured => Some(ContentFree::Unmeasured),
            PageContent::Secrets => Some(ContentFree::Secrets),
            PageContent::Cpuid => Some(ContentFree::Cpuid),
        };
        match content_free {
            Some(kind) => digest.content_free(piece.range, kind),
            None => each_page(guest, piece, |at, page| digest.normal(at, page)),
        }
    }
    digest.vmsa_page(&guest.processor().measured());
    for _ in 1..vcpus {
        digest.vmsa_page(&Vmsa::untold());
    }
    digest.digest()
}

/// The pieces whose content is measured, by ascending addresses.
pub(super) fn segments(guest: &Igvm) -> Vec<MeasuredSegment> {
    let pieces = guest.pieces().iter();
    let measured = pieces.filter(|piece| piece.content() == PageContent::Measured);
    let mut segments: Vec<MeasuredSegment> = measured
        .map(|piece| {
            let mut hasher = Sha256::new();
            each_page(guest, piece, |_, page| hasher.update(page));
            MeasuredSegment {
                kind: SegmentKind::Igvm,
                start: piece.range.start(),
                bytes: piece.range.bytes(),
                sha256: Digest::new(&hasher.finalize()),
            }
        })
        .collect();
    segments.sort_by_key(|segment| segment.start);
    segments
}

/// Hands over each page of a piece: from the file, or zeros.
fn each_page(guest: &Igvm, piece: &Piece, mut page: impl FnMut(Gpa, &Page)) {
    const ZEROS: Page = [0; 4096];
    let mut content = guest.content(piece).as_chunks().0.iter();
    for number in 0..piece.range.pages() {
        let offset = number.saturating_mul(PAGE_SIZE);
        if let Some(at) = piece.range.start().checked_add(offset) {
            page(at, content.next().unwrap_or(&ZEROS));
        }
    }
}
