//! What a Realm starts from, in the order in which an RMM measures it.

use iommu::{Gpa, PageRange};

use super::digest::{Digest, HashAlgorithm};
use super::rim::{Content, Lpa2, RealmParameters, Rim};
use crate::boot::aarch64::{Entry, Program};
use crate::boot::segment::{Page, Segment};

/// The initial content of a guest with one vCPU that runs at once.
#[derive(Debug, Clone, Copy)]
pub struct InitialContent<'a> {
    /// Its memory: all of it is RAM when it starts.
    pub dram: &'a [PageRange<Gpa>],
    /// What is in its memory.
    pub segments: &'a [Segment<'a>],
    /// How it is entered.
    pub entry: Entry,
}

impl<'a> InitialContent<'a> {
    /// What `program` starts from, with the segments that it has.
    #[must_use]
    pub fn of(program: &Program<'a>, segments: &'a [Segment<'a>]) -> Self {
        Self {
            dram: program.dram(),
            segments,
            entry: program.entry(),
        }
    }

    /// The Realm initial measurement of RMM 1.0: memory by ascending addresses, then the pages of the
    /// segments in their order, then the boot processor. `read` gives the content of a page.
    ///
    /// # Errors
    /// What `read` gives.
    pub fn realm_initial_measurement<E>(
        &self,
        parameters: RealmParameters,
        mut read: impl FnMut(&Segment<'_>, Gpa, &mut Page) -> Result<(), E>,
    ) -> Result<Digest, E> {
        let mut rim = self.created(parameters, RmmVersion::V1);
        let mut page = [0; 4096];
        for segment in self.segments {
            for at in segment.page_addresses() {
                read(segment, at, &mut page)?;
                rim.data_create(at, measured(parameters, &page));
            }
        }
        rim.rec_create(self.entry);
        Ok(rim.digest())
    }

    /// The Realm initial measurement where KVM populates the pages of `populated`, which may be more than
    /// those of the segments: what is between them is zero. By `rmm`.
    ///
    /// # Errors
    /// What `read` gives.
    pub fn populated_measurement<E>(
        &self,
        parameters: RealmParameters,
        rmm: RmmVersion,
        populated: &[PageRange<Gpa>],
        mut read: impl FnMut(&Segment<'_>, Gpa, &mut Page) -> Result<(), E>,
    ) -> Result<Digest, E> {
        let mut rim = self.created(parameters, rmm);
        for range in populated {
            let pages = (range.start().raw()..range.end().raw()).step_by(4096);
            for at in pages.map(Gpa::new) {
                let mut page = [0; 4096];
                let here = self.segments.iter();
                for segment in here.filter(|segment| segment.pages().contains(at)) {
                    let mut part = [0; 4096];
                    read(segment, at, &mut part)?;
                    // No byte is of two segments, and a segment is zero where it is not.
                    let bytes = page.iter_mut().zip(part);
                    bytes.for_each(|(byte, more)| *byte |= more);
                }
                rim.data_create(at, measured(parameters, &page));
            }
        }
        rim.rec_create(self.entry);
        Ok(rim.digest())
    }

    /// A Realm with its memory, and nothing in it.
    fn created(&self, parameters: RealmParameters, rmm: RmmVersion) -> Rim {
        let mut rim = Rim::new(parameters);
        if rmm == RmmVersion::V1 {
            for range in self.dram {
                rim.init_ripas(*range);
            }
        }
        rim
    }
}

fn measured(parameters: RealmParameters, page: &Page) -> Content {
    Content::Measured(parameters.hash.digest(&[page]))
}

/// Whose measurement it is: the later one does not measure which memory is RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RmmVersion {
    /// RMM 1.0.
    V1,
    /// RMM 2.0, of which there are betas.
    V2,
}

/// What goes into a Realm's measurement and is the host's to say; host facts do not tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RealmHost {
    /// The RMM.
    pub rmm: RmmVersion,
    /// How many breakpoints it gives a Realm: 2 to 16.
    pub breakpoints: u8,
    /// How many watchpoints: 2 to 16.
    pub watchpoints: u8,
    /// Whether KVM has it use addresses of more than 48 bits: series v13 and v14 do on hosts that can.
    pub lpa2: Lpa2,
}

impl RealmHost {
    /// What KVM asks the RMM for, for a Realm of ccvm: SHA-256, and neither SVE nor a PMU.
    #[must_use]
    pub fn parameters(self, ipa_bits: u8) -> RealmParameters {
        RealmParameters {
            hash: HashAlgorithm::Sha256,
            ipa_bits,
            lpa2: self.lpa2,
            sve_vl: None,
            breakpoints: self.breakpoints.saturating_sub(1),
            watchpoints: self.watchpoints.saturating_sub(1),
            pmu_counters: None,
        }
    }
}

#[cfg(test)]
mod tests;
