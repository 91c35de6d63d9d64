//! Copying the segments of a guest into its memory.

use std::io::{self, Seek};

use iommu::Gpa;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use crate::boot::segment::{Content, Segment};

/// A segment could not be copied into guest memory.
#[derive(Debug, thiserror::Error)]
#[error("cannot load the {what} of {bytes} bytes at {at}")]
pub struct LoadError {
    /// What it is.
    pub what: &'static str,
    /// Its length.
    pub bytes: u64,
    /// Where it was to go.
    pub at: Gpa,
    /// Why not.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Puts all segments where they belong.
///
/// # Errors
/// When a file has shrunk since it was checked, or cannot be read.
pub fn load<M: GuestMemoryBackend>(memory: &M, segments: &[Segment<'_>]) -> Result<(), LoadError> {
    segments.iter().try_for_each(|segment| {
        copy(memory, segment).map_err(|source| LoadError {
            what: segment.kind().title(),
            bytes: segment.bytes(),
            at: segment.start(),
            source,
        })
    })
}

fn copy<M: GuestMemoryBackend>(
    memory: &M,
    segment: &Segment<'_>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let at = GuestAddress(segment.start().raw());
    match segment.content() {
        Content::Bytes(bytes) => memory.write_slice(bytes, at)?,
        Content::File(mut file) => {
            file.rewind()?;
            let bytes = usize::try_from(segment.bytes()).map_err(io::Error::other)?;
            memory.read_exact_volatile_from(at, &mut file, bytes)?;
        }
    }
    Ok(())
}
