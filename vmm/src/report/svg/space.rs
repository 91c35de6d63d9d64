//! The address space: one column, or one for each half.

use super::MARGIN;
use super::canvas::{Canvas, Class, Rect};
use crate::config::Size;
use crate::report::document::{Dma, RegionKind, Report};
use crate::report::map::{self, Content, Halves, Row};

/// Pixels from the left edge to the column of private (or all) addresses.
const LEFT: u32 = MARGIN + 112;
/// Width of a column when there are two of them.
const HALF_WIDTH: u32 = 256;
/// Width of the only column.
const ONLY_WIDTH: u32 = 420;
/// Pixels between two columns; the addresses of the right one stand there.
const BETWEEN: u32 = 128;
/// The least height of a row, so that a line of text fits.
const ROW: u32 = 22;

/// A row with its place in the picture.
struct Placed {
    row: Row,
    y: u32,
    height: u32,
}

/// Draws the space of `report` from `top` down, if it has one; gives the first free line below.
pub(super) fn draw(canvas: &mut Canvas, report: &Report, top: u32) -> u32 {
    let (Some(halves), Some(bits)) = (map::halves(report), report.ipa_bits) else {
        return top;
    };
    if report.layout.is_empty() {
        return top;
    }
    let reaches = map::reaches(report, bits);
    let cuts: Vec<u64> = reaches.iter().map(|reach| reach.end).collect();
    let rows = place(map::rows(&report.layout, halves.low_end, &cuts), top + 24);
    let bottom = rows.last().map_or(top, |last| last.y + last.height);
    let right = match halves.alias {
        Some(_) => two_columns(canvas, report, &rows, halves),
        None => {
            canvas.text(LEFT, top + 12, Class::Head, "guest-physical addresses");
            column(canvas, LEFT, ONLY_WIDTH, &rows, 0);
            LEFT + ONLY_WIDTH
        }
    };
    let mut notes: Vec<Note> = Vec::new();
    for reach in &reaches {
        if let Some(y) = y_of(&rows, reach.end) {
            canvas.line(Class::Mark, (LEFT - 8, y), (right, y));
            let what = format!("{}-bit reach ends here", reach.bits);
            notes.push(Note {
                y,
                class: Class::Mark,
                lines: [map::names(&reach.devices), what],
            });
        }
    }
    notes.extend(highest(report, &rows, halves));
    let written = write_beside(canvas, right, notes);
    let end = format!("{:#x}", halves.low_end);
    canvas.text_to(LEFT - 8, bottom + 4, Class::Quiet, &end);
    bottom.max(written) + 40
}

/// Draws both halves, and gives the right edge.
fn two_columns(canvas: &mut Canvas, report: &Report, rows: &[Placed], halves: Halves) -> u32 {
    let shared = LEFT + HALF_WIDTH + BETWEEN;
    let top = rows.first().map_or(0, |first| first.y);
    let bottom = rows.last().map_or(0, |last| last.y + last.height);
    for placed in rows
        .iter()
        .filter(|placed| placed.row.content != Content::Gap)
    {
        let y = placed.y + 1;
        canvas.line(Class::Tie, (LEFT + HALF_WIDTH, y), (shared - 104, y));
    }
    canvas.text(LEFT, top - 12, Class::Head, "private half");
    let bit = report.shared_bit.unwrap_or(0);
    canvas.text(
        shared,
        top - 12,
        Class::Head,
        &format!("shared half: bit {bit} set"),
    );
    column(canvas, LEFT, HALF_WIDTH, rows, 0);
    column(canvas, shared, HALF_WIDTH, rows, halves.low_end);
    let end = format!("{:#x}", halves.low_end.saturating_mul(2));
    canvas.text_to(shared - 8, bottom + 4, Class::Quiet, &end);
    shared + HALF_WIDTH
}

/// Draws one column whose addresses are those of the rows plus `offset`.
fn column(canvas: &mut Canvas, x: u32, width: u32, rows: &[Placed], offset: u64) {
    for Placed { row, y, height } in rows {
        let rect = Rect {
            x,
            y: *y,
            width,
            height: *height,
        };
        let address = format!("{:#x}", row.start.saturating_add(offset));
        let text_y = y + 15;
        match row.content {
            Content::Gap => {
                for x in [x, x + width] {
                    canvas.line(Class::Gap, (x, *y), (x, y + height));
                }
            }
            Content::Region(kind) => canvas.rect(class(kind, offset > 0), rect),
        }
        let size = Size(row.size).rough();
        match row.content {
            Content::Gap => {
                canvas.text_to(x - 8, y + 4, Class::Quiet, &address);
                canvas.text_to(x + width - 8, text_y, Class::Quiet, &size);
            }
            Content::Region(kind) => {
                canvas.text_to(x - 8, y + 4, Class::Normal, &address);
                let title = match (kind, offset) {
                    (RegionKind::Memory, 1..) => "memory, shared",
                    _ => kind.title(),
                };
                canvas.text(x + 8, text_y, Class::Normal, title);
                canvas.text_to(x + width - 8, text_y, Class::Normal, &size);
            }
        }
    }
}

/// Two lines of text about a place of the last column.
struct Note {
    y: u32,
    class: Class,
    lines: [String; 2],
}

/// Writes notes to the right of `x`, each as near to its place as the one above it lets it
/// be; gives the line of the last.
fn write_beside(canvas: &mut Canvas, x: u32, mut notes: Vec<Note>) -> u32 {
    const NOTE: u32 = 36;
    notes.sort_by_key(|note| note.y);
    let mut free = 0;
    for note in notes {
        let y = note.y.max(free);
        free = y + NOTE;
        canvas.line(note.class, (x, note.y), (x + 18, y));
        let [first, second] = note.lines;
        canvas.text(x + 24, y + 4, Class::Normal, &first);
        canvas.text(x + 24, y + 19, Class::Quiet, &second);
    }
    free.saturating_sub(NOTE)
}

/// The highest address that the devices will be told to use.
fn highest(report: &Report, rows: &[Placed], halves: Halves) -> Option<Note> {
    let direct = report
        .devices
        .iter()
        .filter(|device| device.dma == Dma::Direct);
    let top = direct
        .filter_map(|device| device.highest_dma_address)
        .max()?;
    let alias = halves.alias.filter(|alias| top.0 >= *alias).unwrap_or(0);
    Some(Note {
        y: y_of(rows, (top.0 - alias).saturating_add(1))?,
        class: Class::Reach,
        lines: [format!("{:#x}", top.0), "highest DMA address".to_owned()],
    })
}

fn class(kind: RegionKind, alias: bool) -> Class {
    match kind {
        RegionKind::Memory if alias => Class::Alias,
        RegionKind::Memory => Class::Memory,
        RegionKind::Reserved => Class::Reserved,
        RegionKind::PciConfig | RegionKind::PciIo | RegionKind::PciMem32 | RegionKind::PciMem64 => {
            Class::Pci
        }
        RegionKind::GicDistributor
        | RegionKind::GicIts
        | RegionKind::GicRedistributors
        | RegionKind::Serial
        | RegionKind::Rtc
        | RegionKind::Gpio => Class::Mmio,
    }
}

/// Gives each row its place: one under the other.
fn place(rows: Vec<Row>, top: u32) -> Vec<Placed> {
    let mut y = top;
    rows.into_iter()
        .map(|row| {
            let height = height(row);
            let placed = Placed { row, y, height };
            y += height;
            placed
        })
        .collect()
}

/// A line of text, and two pixels for each doubling beyond 64 KiB.
fn height(row: Row) -> u32 {
    match row.content {
        Content::Gap => ROW,
        Content::Region(_) => ROW + 2 * row.size.max(1).ilog2().saturating_sub(16),
    }
}

/// Where an address that begins or ends a row is.
fn y_of(rows: &[Placed], address: u64) -> Option<u32> {
    let begins = rows.iter().find(|placed| placed.row.start == address);
    let ends = || rows.iter().find(|placed| placed.row.end() == address);
    begins
        .map(|placed| placed.y)
        .or_else(|| ends().map(|placed| placed.y + placed.height))
}
