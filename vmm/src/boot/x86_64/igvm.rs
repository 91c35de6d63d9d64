//! Loading a guest that is an IGVM file.

use iommu::{Gpa, PAGE_SIZE, PageRange};
use kvm::snp::Content;
use vm_memory::GuestMemoryBackend;

use super::load::{LoadError, write};
use crate::boot::igvm::{Igvm, PageContent, Told};

/// Puts the pieces of `igvm` where it says, with `cpuid` for what its processors are. Returns what each is to
/// the security processor, in the order in which they are measured.
///
/// # Errors
/// When something is not in memory, or a parameter has no room.
pub fn load<M: GuestMemoryBackend>(
    memory: &M,
    igvm: &Igvm,
    told: &Told<'_>,
    cpuid: &[u8; 4096],
) -> Result<Vec<(PageRange<Gpa>, Content)>, LoadError> {
    let mut loaded = Vec::new();
    for piece in igvm.pieces() {
        let range = piece.range;
        let content = match piece.content() {
            PageContent::Measured => Content::Copied,
            PageContent::Unmeasured => Content::Unmeasured,
            PageContent::Secrets => Content::Secrets,
            PageContent::Cpuid => Content::Cpuid,
        };
        match content {
            Content::Cpuid => {
                for page in 0..range.pages() {
                    let at = range.start().checked_add(page.saturating_mul(PAGE_SIZE));
                    write(memory, "CPUID page", at.unwrap_or(range.start()), cpuid)?;
                }
            }
            Content::Copied | Content::Unmeasured | Content::Secrets | Content::Zero => {
                let bytes = igvm.bytes(piece, told)?;
                write(memory, "content of the IGVM file", range.start(), &bytes)?;
            }
        }
        loaded.push((range, content));
    }
    Ok(loaded)
}
