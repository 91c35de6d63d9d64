//! How wide each device is, against how wide the space is.

use super::canvas::{Canvas, Class, Rect};
use super::{MARGIN, WIDTH};
use crate::report::document::{DeviceReport, Dma, Report};

/// Rows that are drawn; the rest is counted.
const MOST: usize = 16;
/// Pixels for each row.
const ROW: u32 = 22;
/// Where the bars begin.
const BARS: u32 = MARGIN + 372;
/// Widths that get a mark on the scale.
const SCALE: [u8; 5] = [24, 32, 40, 48, 64];
/// Pixels for each address bit beyond where the scale begins.
const BIT: u32 = 12;
/// Where the scale begins.
const LEAST: u8 = 20;

/// Devices that are alike in all that is drawn.
struct Alike<'r> {
    first: &'r DeviceReport,
    count: usize,
}

/// Draws the devices of `report` from `top` down; gives the first free line below.
pub(super) fn draw(canvas: &mut Canvas, report: &Report, top: u32) -> u32 {
    if report.devices.is_empty() {
        return top;
    }
    let groups = alike(&report.devices);
    canvas.text(MARGIN, top, Class::Head, "device");
    canvas.text(MARGIN + 212, top, Class::Head, "DMA width");
    for bits in SCALE {
        canvas.text(
            bar_end(bits).saturating_sub(8),
            top,
            Class::Quiet,
            &bits.to_string(),
        );
    }
    let mut y = top + 12;
    for group in groups.iter().take(MOST) {
        row(canvas, group, y);
        y += ROW;
    }
    let needed = report
        .devices
        .iter()
        .filter(|device| device.dma == Dma::Direct);
    if let Some(highest) = needed.filter_map(|device| device.highest_dma_address).max() {
        let bits = 64 - highest.0.leading_zeros();
        let x = bar_end(u8::try_from(bits).unwrap_or(64));
        canvas.line(Class::Mark, (x, top + 6), (x, y + 4));
        canvas.text_to(
            WIDTH - MARGIN,
            y + 18,
            Class::Quiet,
            &format!("dashed: the {bits} bits that {:#x} takes", highest.0),
        );
        y += ROW;
    }
    let hidden: usize = groups.iter().skip(MOST).map(|group| group.count).sum();
    if hidden > 0 {
        canvas.text(MARGIN, y, Class::Quiet, &format!("and {hidden} more"));
    }
    y
}

fn row(canvas: &mut Canvas, group: &Alike<'_>, y: u32) {
    let device = group.first;
    let name = match group.count {
        1 => device.pci.to_string(),
        count => format!("{} and {} more", device.pci, count - 1),
    };
    canvas.text(MARGIN, y + 14, Class::Normal, &name);
    let (bits, source) = (device.dma_bits, device.dma_bits_source.name());
    canvas.text(
        MARGIN + 212,
        y + 14,
        Class::Normal,
        &format!("{bits} bits ({source})"),
    );
    let bar = |end: u32| Rect {
        x: BARS,
        y: y + 4,
        width: end.saturating_sub(BARS).max(2),
        height: ROW - 8,
    };
    canvas.rect(Class::Track, bar(bar_end(64)));
    let class = match (device.reachable, device.dma) {
        (true, _) | (false, Dma::Translated) => Class::Enough,
        (false, Dma::Direct) => Class::Short,
    };
    canvas.rect(class, bar(bar_end(bits)));
}

fn bar_end(bits: u8) -> u32 {
    BARS + BIT * u32::from(bits.saturating_sub(LEAST))
}

/// The devices, those that are alike together, in the order of the config.
fn alike(devices: &[DeviceReport]) -> Vec<Alike<'_>> {
    let mut groups: Vec<Alike<'_>> = Vec::new();
    let key = |device: &DeviceReport| {
        (
            device.dma_bits,
            device.dma_bits_source,
            device.dma,
            device.reachable,
        )
    };
    for device in devices {
        match groups
            .iter_mut()
            .find(|group| key(group.first) == key(device))
        {
            Some(group) => group.count += 1,
            None => groups.push(Alike {
                first: device,
                count: 1,
            }),
        }
    }
    groups
}
