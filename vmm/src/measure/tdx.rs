//! The measurement of a TD's initial content, MRTD: one SHA-384 over what the TDX module was asked to
//! do.
//!
//! ```text
//! TDH.MEM.PAGE.ADD   "MEM.PAGE.ADD", 4 zeros, gpa, 104 zeros                     128 bytes
//! TDH.MR.EXTEND      "MR.EXTEND",    7 zeros, gpa, 104 zeros, then the content   128 + 256 bytes
//! ```
//!
//! By the Intel TDX Module Base Architecture Specification, "MRTD: Build-Time Measurement Register".

use iommu::{Gpa, PAGE_SIZE};
use sha2::{Digest as _, Sha384};

use super::digest::Digest;
use crate::boot::segment::Page;

/// How much content one `TDH.MR.EXTEND` measures.
const CHUNK: usize = 256;

/// Bytes of what stands before the content.
const HEADER: usize = 128;

/// An MRTD in the making.
#[derive(Debug, Clone, Default)]
pub struct Mrtd(Sha384);

impl Mrtd {
    /// `TDH.MEM.PAGE.ADD` of the page at `gpa`: that it is there, not what is in it.
    pub fn page_add(&mut self, gpa: Gpa) {
        self.header(b"MEM.PAGE.ADD", gpa.raw());
    }

    /// `TDH.MR.EXTEND` of all of a page that has been added.
    pub fn extend(&mut self, gpa: Gpa, page: &Page) {
        for (offset, chunk) in (0..PAGE_SIZE).step_by(CHUNK).zip(page.chunks(CHUNK)) {
            self.header(b"MR.EXTEND", gpa.raw().saturating_add(offset));
            self.0.update(chunk);
        }
    }

    /// `TDH.MR.FINALIZE`.
    #[must_use]
    pub fn finalize(self) -> Digest {
        Digest::new(&self.0.finalize())
    }

    fn header(&mut self, name: &[u8], gpa: u64) {
        let mut header = [0; HEADER];
        for (byte, value) in header.iter_mut().zip(name) {
            *byte = *value;
        }
        for (byte, value) in header.iter_mut().skip(16).zip(gpa.to_le_bytes()) {
            *byte = value;
        }
        self.0.update(header);
    }
}

#[cfg(test)]
mod tests;
