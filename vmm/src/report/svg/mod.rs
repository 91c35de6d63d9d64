//! The address map and the devices' reach as a picture.
//!
//! The scale is broken: a row's height grows with the logarithm of its size, so that a page and a
//! terabyte can both be read. Each half of a space with shared aliases is a column, and a page and
//! its alias stand side by side.

mod canvas;
mod devices;
mod space;

use super::document::{Report, Verdict};
use canvas::{Canvas, Class};

/// Width of every picture, in pixels.
const WIDTH: u32 = 960;
/// Space around everything.
const MARGIN: u32 = 28;

/// The picture of a report: one self-contained SVG document.
#[must_use]
pub fn svg(report: &Report) -> String {
    let mut canvas = Canvas::new(WIDTH);
    let top = header(&mut canvas, report);
    let below = space::draw(&mut canvas, report, top);
    let bottom = devices::draw(&mut canvas, report, below);
    canvas.finish(bottom + MARGIN)
}

/// Draws the verdict, and gives the first free line below.
fn header(canvas: &mut Canvas, report: &Report) -> u32 {
    let y = MARGIN + 14;
    let (class, word) = match report.verdict {
        Verdict::Accepted => (Class::Good, "accepted"),
        Verdict::Rejected => (Class::Bad, "rejected"),
    };
    canvas.text(MARGIN, y, class, word);
    canvas.text(MARGIN + 92, y, Class::Title, &super::text::headline(report));
    let y = y + 22;
    let memory = super::text::memory_line(report).unwrap_or_default();
    canvas.text(MARGIN, y, Class::Quiet, &memory);
    y + 26
}
