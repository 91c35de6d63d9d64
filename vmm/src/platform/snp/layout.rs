//! What each page of an SNP guest is when it starts.
//!
//! ```text
//!   0        CPUID  secrets        kernel          initrd
//!   │ copied │ cpuid │ sec │ copied │ zero │ copied │ zero │ copied │ zero ... │ end of DRAM
//! ```
//! In ascending order, which is that of the measurement: the same files at the same places give the same
//! digest.

use iommu::{Gpa, PAGE_SIZE, PageRange};
use kvm::snp::Content;

use crate::boot::x86_64::low_memory;

/// The pages that the security processor has a hand in, ascending.
#[derive(Debug, Clone, Copy)]
pub struct SpecialPages {
    /// What the guest's processors are.
    pub cpuid: Gpa,
    /// The guest's keys.
    pub secrets: Gpa,
}

impl SpecialPages {
    /// Where a kernel that is entered by ccvm is told to look for them.
    pub const OF_LINUX: Self = Self {
        cpuid: low_memory::SNP_CPUID,
        secrets: low_memory::SNP_SECRETS,
    };
}

/// What was loaded is not in DRAM, or two pieces overlap: a bug in its placement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what was loaded up to {0} lies nowhere in guest memory, or over something else")]
pub struct LayoutError(pub Gpa);

/// What all of `dram` (ascending) holds, where `parts`, each a first byte and a length, were loaded.
///
/// # Errors
/// When a part is not DRAM.
pub fn layout(
    dram: &[PageRange<Gpa>],
    parts: &[(Gpa, u64)],
    special: SpecialPages,
) -> Result<Vec<(PageRange<Gpa>, Content)>, LayoutError> {
    let mut marks = vec![
        (special.cpuid.raw(), page_end(special.cpuid), Content::Cpuid),
        (
            special.secrets.raw(),
            page_end(special.secrets),
            Content::Secrets,
        ),
    ];
    for (start, bytes) in parts.iter().filter(|(_, bytes)| *bytes != 0) {
        let end = start.raw().checked_add(*bytes);
        let end = end.and_then(|end| end.checked_next_multiple_of(PAGE_SIZE));
        let end = end.ok_or(LayoutError(*start))?;
        let mut at = start.raw() - start.raw() % PAGE_SIZE;
        // The special pages are cut out of what was loaded around them.
        for page in [special.cpuid.raw(), special.secrets.raw()] {
            if (at..end).contains(&page) {
                marks.extend((at < page).then_some((at, page, Content::Copied)));
                at = page.saturating_add(PAGE_SIZE);
            }
        }
        marks.extend((at < end).then_some((at, end, Content::Copied)));
    }
    marks.sort_by_key(|(start, ..)| *start);
    let mut marks = marks.into_iter().peekable();
    let mut all = Vec::new();
    for range in dram {
        let mut at = range.start().raw();
        let end = range.end().raw();
        while let Some((start, stop, content)) = marks.next_if(|(start, ..)| *start < end) {
            if start < at || stop > end {
                return Err(LayoutError(Gpa::new(stop)));
            }
            all.extend(piece(at, start, Content::Zero));
            all.extend(piece(start, stop, content));
            at = stop;
        }
        all.extend(piece(at, end, Content::Zero));
    }
    match marks.next() {
        None => Ok(all),
        Some((_, stop, _)) => Err(LayoutError(Gpa::new(stop))),
    }
}

fn page_end(page: Gpa) -> u64 {
    page.raw().saturating_add(PAGE_SIZE)
}

fn piece(start: u64, end: u64, content: Content) -> Option<(PageRange<Gpa>, Content)> {
    let range = PageRange::from_bounds(Gpa::new(start), Gpa::new(end)).ok()?;
    Some((range, content))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECIAL: SpecialPages = SpecialPages {
        cpuid: Gpa::new(0x1_0000),
        secrets: Gpa::new(0x1_1000),
    };

    fn range(start: u64, bytes: u64) -> PageRange<Gpa> {
        PageRange::new(Gpa::new(start), bytes).unwrap()
    }

    fn laid_out(parts: &[(u64, u64)]) -> Result<Vec<(u64, u64, Content)>, LayoutError> {
        let dram = [range(0, 0x200_0000), range(1 << 32, 0x20_0000)];
        let parts: Vec<_> = parts
            .iter()
            .map(|(start, bytes)| (Gpa::new(*start), *bytes))
            .collect();
        let all = layout(&dram, &parts, SPECIAL)?.into_iter();
        Ok(all
            .map(|(range, content)| (range.start().raw(), range.end().raw(), content))
            .collect())
    }

    #[test]
    fn every_page_of_dram_is_something_and_none_is_twice() {
        let all = laid_out(&[(0x180_0000, 0x1001), (0, 0x10_0000), (0x100_0000, 0x2800)]).unwrap();
        let expected = [
            (0, 0x1_0000, Content::Copied),
            (0x1_0000, 0x1_1000, Content::Cpuid),
            (0x1_1000, 0x1_2000, Content::Secrets),
            (0x1_2000, 0x10_0000, Content::Copied),
            (0x10_0000, 0x100_0000, Content::Zero),
            (0x100_0000, 0x100_3000, Content::Copied),
            (0x100_3000, 0x180_0000, Content::Zero),
            (0x180_0000, 0x180_2000, Content::Copied),
            (0x180_2000, 0x200_0000, Content::Zero),
            (1 << 32, (1 << 32) + 0x20_0000, Content::Zero),
        ];
        assert_eq!(all, expected);
    }

    #[test]
    fn what_is_nowhere_in_memory_is_refused() {
        assert!(laid_out(&[(0x200_0000, 1)]).is_err(), "behind DRAM");
        assert!(laid_out(&[(0x1ff_f000, 0x1001)]).is_err(), "over its end");
        assert!(laid_out(&[(u64::MAX - 1, 2)]).is_err());
        let twice = [(0x100_0000, 0x2000), (0x100_1000, 0x1000)];
        assert!(laid_out(&twice).is_err(), "one over the other");
    }
}
