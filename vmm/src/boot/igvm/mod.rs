//! A guest of SEV-SNP in one file: IGVM, the Independent Guest Virtual Machine format.
//!
//! ```text
//!   file ─ headers ─► directives ─► Igvm: pages, areas of parameters, the first processor
//!                                     ├─► place: is all of it in DRAM?
//!                                     ├─► load: guest memory, and what the security processor makes of it
//!                                     └─► measure: the same, as it is digested
//! ```
//! Pages come in the file's order, which is that of the measurement. Memory that the file does not name is the guest's to
//! accept. What the file asks for and ccvm does not do is refused before anything is touched.

mod directive;
mod headers;
mod parameter;
mod processor;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use iommu::{Gpa, PageRange};

use super::segment::Page;
use directive::Directive;
use parameter::Area;

pub use directive::{PageContent, Refused};
pub use headers::BadFrame;
pub use parameter::{Kind, NoRoom, Told};
pub use processor::{Processor, Unlike};

/// Kernels and RAM disks are in such files, page by page.
pub const MOST_BYTES: u64 = 512 << 20;

/// All areas of parameters together have no more.
const MOST_AREA_BYTES: usize = 4 << 20;

/// Why a file is no guest that ccvm starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotStartable {
    /// Its frame is not whole.
    #[error(transparent)]
    Frame(#[from] BadFrame),
    /// It asks for something that there is not.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Its processor starts otherwise than KVM can be told.
    #[error(transparent)]
    Processor(#[from] Unlike),
    /// It names content beyond its end.
    #[error("it is shorter than its header {0} says")]
    Short(usize),
    /// An area of parameters is not there, there twice, too large, or put nowhere.
    #[error(
        "its area of parameters {0} is used where it is not declared, or declared and not used"
    )]
    Area(u32),
    /// It puts two things at one place.
    #[error("it puts two things at {0}")]
    Overlap(Gpa),
    /// It has no processor, or two.
    #[error("it does not say, or says twice, how its first processor starts")]
    Processors,
    /// It has no page.
    #[error("it has no page")]
    Empty,
}

impl NotStartable {
    /// Whether nobody could start it, by whatever loader.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Refused(refused) => matches!(refused, Refused::Header { .. }),
            Self::Processor(_) | Self::Frame(BadFrame::Unknown) => false,
            Self::Frame(_) | Self::Short(_) | Self::Area(_) | Self::Overlap(_) => true,
            Self::Processors | Self::Empty => true,
        }
    }
}

/// A piece of the guest's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Where it goes.
    pub range: PageRange<Gpa>,
    source: Source,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    /// Pages of one kind, from the file or zeros.
    File(PageContent, Option<Range<usize>>),
    /// Parameters.
    Area(Area),
}

impl Piece {
    /// What it is to the security processor. What a guest is told of its VM is not measured.
    #[must_use]
    pub fn content(&self) -> PageContent {
        match self.source {
            Source::File(content, _) => content,
            Source::Area(_) => PageContent::Unmeasured,
        }
    }
}

/// A guest in a file, all of which has been looked at.
#[derive(Clone, PartialEq, Eq)]
pub struct Igvm {
    file: Vec<u8>,
    policy: Option<u64>,
    pieces: Vec<Piece>,
    required: Vec<PageRange<Gpa>>,
    processor: Processor,
}

/// Without its content.
impl std::fmt::Debug for Igvm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pieces = self.pieces.len();
        write!(f, "Igvm {{ {pieces} pieces, {} bytes }}", self.file.len())
    }
}

impl Igvm {
    /// Whether a file that begins like this may be one.
    #[must_use]
    pub fn is_there(start: &[u8]) -> bool {
        start.starts_with(&headers::MAGIC)
    }

    /// Reads all of a file.
    ///
    /// # Errors
    /// When it is damaged, or no guest that can be started here.
    pub fn parse(file: Vec<u8>) -> Result<Self, NotStartable> {
        let mut building = Building::default();
        let headers = headers::headers(&file)?;
        let mask = directive::snp_mask(&headers)?;
        for (index, header) in headers.into_iter().enumerate() {
            if let Some(directive) = directive::read(index, header, mask)? {
                building.add(index, directive, &file)?;
            }
        }
        let Building {
            policy,
            pieces,
            required,
            areas,
            processor,
            ..
        } = building;
        if let Some(number) = areas.into_keys().next() {
            return Err(NotStartable::Area(number));
        }
        if pieces.is_empty() {
            return Err(NotStartable::Empty);
        }
        no_overlap(&pieces)?;
        Ok(Self {
            policy,
            pieces,
            required,
            processor: processor.ok_or(NotStartable::Processors)?,
            file,
        })
    }

    /// What the guest's owner lets the host do, where the file says it (56860, "Guest Policy").
    #[must_use]
    pub fn policy(&self) -> Option<u64> {
        self.policy
    }

    /// What goes where, in the order in which it is measured.
    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Memory that has to be there.
    pub fn memory(&self) -> impl Iterator<Item = PageRange<Gpa>> {
        let pieces = self.pieces.iter().map(|piece| piece.range);
        pieces.chain(self.required.iter().copied())
    }

    /// How the first processor starts.
    #[must_use]
    pub fn processor(&self) -> &Processor {
        &self.processor
    }

    /// Whether the guest can be told a command line.
    #[must_use]
    pub fn takes_command_line(&self) -> bool {
        self.pieces.iter().any(|piece| match &piece.source {
            Source::Area(area) => {
                let mut parameters = area.parameters.iter();
                parameters.any(|(kind, _)| *kind == Kind::CommandLine)
            }
            Source::File(..) => false,
        })
    }

    /// The bytes that the file has for a piece: none, or all of them. Where there are none it is zeros, or
    /// what the guest is told.
    #[must_use]
    pub fn content(&self, piece: &Piece) -> &[u8] {
        match &piece.source {
            Source::File(_, Some(file)) => self.file.get(file.clone()).unwrap_or_default(),
            Source::File(_, None) | Source::Area(_) => &[],
        }
    }

    /// What is loaded for a piece: nothing where it is zeros.
    ///
    /// # Errors
    /// When a parameter has no room.
    pub fn bytes(&self, piece: &Piece, told: &Told<'_>) -> Result<Cow<'_, [u8]>, NoRoom> {
        match &piece.source {
            Source::File(..) => Ok(Cow::Borrowed(self.content(piece))),
            Source::Area(area) => area.filled(told).map(Cow::Owned),
        }
    }
}

/// A guest that is being read.
#[derive(Default)]
struct Building {
    policy: Option<u64>,
    pieces: Vec<Piece>,
    required: Vec<PageRange<Gpa>>,
    /// Those that have been declared and not yet put anywhere.
    areas: BTreeMap<u32, Area>,
    area_bytes: usize,
    processor: Option<Processor>,
}

impl Building {
    fn add(&mut self, index: usize, directive: Directive, file: &[u8]) -> Result<(), NotStartable> {
        let content = |at: &Range<usize>| file.get(at.clone()).ok_or(NotStartable::Short(index));
        match directive {
            Directive::Policy(policy) => self.policy = Some(policy),
            Directive::Required(range) => self.required.push(range),
            Directive::Page {
                at,
                content: what,
                file,
            } => {
                file.as_ref().map(content).transpose()?;
                self.page(at, what, file);
            }
            Directive::Area {
                number,
                bytes,
                file,
            } => {
                let initial = file.as_ref().map(content).transpose()?;
                let initial = initial.map_or_else(|| vec![0; bytes], <[u8]>::to_vec);
                self.area_bytes = self.area_bytes.saturating_add(bytes);
                let area = Area {
                    initial,
                    parameters: Vec::new(),
                };
                let there = self.areas.insert(number, area);
                if there.is_some() || self.area_bytes > MOST_AREA_BYTES {
                    return Err(NotStartable::Area(number));
                }
            }
            Directive::Parameter { area, offset, kind } => {
                let declared = self.areas.get_mut(&area).ok_or(NotStartable::Area(area))?;
                declared.parameters.push((kind, offset));
            }
            Directive::Insert { area: number, at } => {
                let area = self.areas.remove(&number);
                let area = area.ok_or(NotStartable::Area(number))?;
                let range = PageRange::new(at, area.initial.len() as u64);
                self.pieces.push(Piece {
                    range: range.map_err(|_| NotStartable::Area(number))?,
                    source: Source::Area(area),
                });
            }
            Directive::Processor { index, at, file } => {
                let page = content(&file)?.first_chunk();
                let page: &Page = page.ok_or(NotStartable::Processors)?;
                let processor = Processor::read(index, at, page)?;
                if self.processor.replace(processor).is_some() {
                    return Err(NotStartable::Processors);
                }
            }
        }
        Ok(())
    }

    /// Adds a page, to the piece before it where it continues that.
    fn page(&mut self, at: PageRange<Gpa>, what: PageContent, file: Option<Range<usize>>) {
        if let Some(Piece {
            range,
            source: Source::File(content, before),
        }) = self.pieces.last_mut()
            && *content == what
            && range.end() == at.start()
            && let Ok(longer) = PageRange::from_bounds(range.start(), at.end())
        {
            let continued = match (before, &file) {
                (None, None) => true,
                (Some(before), Some(file)) if before.end == file.start => {
                    before.end = file.end;
                    true
                }
                _ => false,
            };
            if continued {
                *range = longer;
                return;
            }
        }
        self.pieces.push(Piece {
            range: at,
            source: Source::File(what, file),
        });
    }
}

/// Nothing is at one place twice.
fn no_overlap(pieces: &[Piece]) -> Result<(), NotStartable> {
    let mut ranges: Vec<PageRange<Gpa>> = pieces.iter().map(|piece| piece.range).collect();
    ranges.sort_by_key(|range| range.start());
    for pair in ranges.windows(2) {
        if let [before, after] = pair
            && after.start() < before.end()
        {
            return Err(NotStartable::Overlap(after.start()));
        }
    }
    Ok(())
}
