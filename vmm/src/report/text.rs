//! The report for people: verdict, devices, memory, and a map of the address space.

use anstyle::{AnsiColor, Effects};

use super::Style;
use super::document::{
    DeviceReport, Dma, EmulatedReport, FindingSeverity, IommuReport, Region, Report, Unattached,
    Verdict,
};
use super::map::{self, Content, Halves, Row};
use super::snippet::{WIDTH, wrapped};
use crate::config::Size;
use crate::host::facts::PciAddress;
use crate::platform::Platform;

const PLAIN: anstyle::Style = anstyle::Style::new();
const HEADING: anstyle::Style = PLAIN.effects(Effects::BOLD);
const QUIET: anstyle::Style = PLAIN.effects(Effects::DIMMED);
const GOOD: anstyle::Style = AnsiColor::Green.on_default().effects(Effects::BOLD);
const BAD: anstyle::Style = AnsiColor::Red.on_default().effects(Effects::BOLD);
const SHARED: anstyle::Style = AnsiColor::Cyan.on_default();

/// The report as text, without its diagnostics: those are shown with the file that they are about.
#[must_use]
pub fn text(report: &Report, style: Style) -> String {
    let mut text = Text {
        out: String::new(),
        style,
    };
    text.verdict(report);
    text.notes(&report.notes);
    text.devices(&report.devices);
    text.origins(&report.devices);
    text.iommu(report);
    text.emulated(&report.emulated);
    text.memory(report);
    text.address_space(report);
    text.out
}

/// The one line on a check that could not be made, without its diagnostics.
#[must_use]
pub fn unusable(report: &Report, style: Style) -> String {
    let mut text = Text {
        out: String::new(),
        style,
    };
    text.part(BAD, "not checked");
    let errors = report
        .diagnostics
        .iter()
        .filter(|finding| finding.severity == FindingSeverity::Error)
        .count();
    let plural = if errors == 1 { "" } else { "s" };
    text.line(PLAIN, &format!(": {errors} error{plural} to mend first"));
    text.out
}

/// The kind of VM and its space, as far as they are decided.
pub(super) fn headline(report: &Report) -> String {
    let platform = report.platform.map(|platform| match platform {
        Platform::None => "plain VM".to_owned(),
        confidential => confidential.to_string(),
    });
    let would = match report.verdict {
        Verdict::Accepted => "",
        Verdict::Rejected => "would take a ",
    };
    let space = report.ipa_bits;
    let space = space.map(|bits| format!("{would}{bits}-bit guest-physical space"));
    let facts: Vec<String> = [platform, space].into_iter().flatten().collect();
    facts.join(", ")
}

/// How much memory there is, and how much there could be.
pub(super) fn memory_line(report: &Report) -> Option<String> {
    let most = match report.max_memory? {
        0 => return None,
        most => Size(most).rough(),
    };
    let total: u64 = report
        .memory
        .iter()
        .map(|range| range.size)
        .fold(0, u64::saturating_add);
    let given = match total {
        0 => String::new(),
        total => format!("{}, ", Size(total).rough()),
    };
    let limit = match report.limited_by {
        Some(device) => format!(" (limited by {device})"),
        None => String::new(),
    };
    Some(format!(
        "memory: {given}at most {most} with these devices{limit}"
    ))
}

struct Text {
    out: String,
    style: Style,
}

impl Text {
    fn line(&mut self, style: anstyle::Style, line: &str) {
        self.part(style, line.trim_end());
        self.out.push('\n');
    }

    fn part(&mut self, style: anstyle::Style, part: &str) {
        match self.style {
            Style::Coloured if style != PLAIN => {
                self.out.push_str(&format!("{style}{part}{style:#}"));
            }
            _ => self.out.push_str(part),
        }
    }

    fn verdict(&mut self, report: &Report) {
        let (style, word) = match report.verdict {
            Verdict::Accepted => (GOOD, "accepted"),
            Verdict::Rejected => (BAD, "rejected"),
        };
        self.part(style, word);
        let headline = headline(report);
        let separator = if headline.is_empty() { "" } else { ": " };
        self.line(PLAIN, &format!("{separator}{headline}"));
    }

    fn notes(&mut self, notes: &[String]) {
        for note in notes {
            self.line(QUIET, note);
        }
    }

    fn devices(&mut self, devices: &[DeviceReport]) {
        if devices.is_empty() {
            return;
        }
        let heads = [
            "device",
            "id",
            "dma",
            "width",
            "known from",
            "highest DMA address",
            "",
        ];
        let cells: Vec<[String; 7]> = devices.iter().map(cells).collect();
        let widths: Vec<usize> = heads
            .iter()
            .enumerate()
            .map(|(column, head)| {
                let widest = cells
                    .iter()
                    .filter_map(|row| row.get(column))
                    .map(String::len);
                widest.chain([head.len()]).max().unwrap_or(0)
            })
            .collect();
        self.out.push('\n');
        let joined = |row: &[&str]| {
            let padded = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:width$}"));
            padded.collect::<Vec<_>>().join("  ")
        };
        self.line(HEADING, &joined(&heads));
        for (device, row) in devices.iter().zip(&cells) {
            let row: Vec<&str> = row.iter().map(String::as_str).collect();
            let (last, most) = row.split_last().unwrap_or((&"", &[]));
            self.part(PLAIN, &joined(most));
            self.out.push_str("  ");
            self.line(if device.reachable { GOOD } else { BAD }, last);
        }
    }

    /// What the device table cites, each citation once.
    fn origins(&mut self, devices: &[DeviceReport]) {
        let mut cited: Vec<(&str, Vec<PciAddress>)> = Vec::new();
        for device in devices {
            let Some(origin) = device.dma_bits_origin.as_deref() else {
                continue;
            };
            match cited.iter_mut().find(|(known, _)| *known == origin) {
                Some((_, whose)) => whose.push(device.pci),
                None => cited.push((origin, vec![device.pci])),
            }
        }
        for (origin, whose) in cited {
            let text = format!("{} by {origin}", map::names(&whose));
            for line in wrapped(&text, WIDTH - 2).lines() {
                self.line(QUIET, &format!("  {line}"));
            }
        }
    }

    fn iommu(&mut self, report: &Report) {
        let Some(iommu) = &report.iommu else { return };
        let IommuReport {
            guest,
            highest_address,
            ..
        } = iommu;
        let highest = highest_address.0;
        self.out.push('\n');
        let line = format!("virtual IOMMU: {guest} in the guest, translates up to {highest:#x}");
        self.line(PLAIN, &line);
        let confidential = report.platform.is_some_and(Platform::is_confidential);
        let meaning = match iommu.unattached {
            Unattached::Bypass => {
                "a device that the guest attaches to no domain reaches what it would without"
            }
            Unattached::Blocked => "a device that the guest attaches to no domain reaches nothing",
        };
        self.line(QUIET, &format!("  {meaning}"));
        if confidential {
            let passthrough = "the guest's kernel must not translate: iommu.passthrough=1";
            self.line(QUIET, &format!("  {passthrough}"));
        }
    }

    fn emulated(&mut self, emulated: &[EmulatedReport]) {
        if emulated.is_empty() {
            return;
        }
        self.out.push('\n');
        self.line(HEADING, "emulated devices");
        for EmulatedReport {
            guest,
            kind,
            source,
        } in emulated
        {
            let kind = kind.title();
            let line = format!("  {guest}  {kind:7}  {source}");
            self.line(PLAIN, line.trim_end());
        }
    }

    fn memory(&mut self, report: &Report) {
        if let Some(memory) = memory_line(report) {
            self.out.push('\n');
            self.line(PLAIN, &memory);
        }
    }

    fn address_space(&mut self, report: &Report) {
        let (Some(halves), Some(bits)) = (map::halves(report), report.ipa_bits) else {
            return;
        };
        let digits = usize::from(bits) / 4 + 1;
        let columns = Columns { digits };
        if report.layout.is_empty() {
            return;
        }
        self.out.push('\n');
        self.line(HEADING, "address space");
        self.half(report, &columns, halves);
        if let Some(alias) = halves.alias {
            let shared = report.shared_bit.unwrap_or(0);
            self.rule(
                &columns,
                alias,
                &format!("shared half begins (bit {shared} set)"),
            );
            self.aliases(&report.layout, &columns, halves);
        }
        let end = halves.low_end.saturating_add(halves.alias.unwrap_or(0));
        self.line(
            QUIET,
            &format!("  {}  end of the {bits}-bit space", columns.address(end)),
        );
    }

    /// The rows below the shared half, with a rule at each address where the reach of devices ends.
    fn half(&mut self, report: &Report, columns: &Columns, halves: Halves) {
        let bits = report.ipa_bits.unwrap_or(0);
        let mut reaches = map::reaches(report, bits);
        let cuts: Vec<u64> = reaches.iter().map(|reach| reach.end).collect();
        for row in map::rows(&report.layout, halves.low_end, &cuts) {
            while reaches.first().is_some_and(|reach| reach.end <= row.start) {
                let reach = reaches.remove(0);
                let whose = format!(
                    "end of the {}-bit reach of {}",
                    reach.bits,
                    map::names(&reach.devices)
                );
                self.rule(columns, reach.end, &whose);
            }
            self.row(columns, row, "");
        }
    }

    fn aliases(&mut self, layout: &[Region], columns: &Columns, halves: Halves) {
        for row in map::rows(layout, halves.low_end, &[]) {
            let alias = Row {
                start: row.start.saturating_add(halves.low_end),
                ..row
            };
            let of = format!("alias of {}", columns.address(row.start).trim_start());
            self.row(columns, alias, &of);
        }
    }

    fn row(&mut self, columns: &Columns, row: Row, note: &str) {
        let start = columns.address(row.start);
        let size = Size(row.size).rough();
        match row.content {
            Content::Gap => self.line(QUIET, &format!("  {start}  {size:>10}  -")),
            Content::Region(kind) => {
                let title = kind.title();
                self.part(PLAIN, &format!("  {start}  {size:>10}  "));
                if note.is_empty() {
                    self.line(PLAIN, title);
                } else {
                    self.part(PLAIN, &format!("{title:20}  "));
                    self.line(SHARED, note);
                }
            }
        }
    }

    fn rule(&mut self, columns: &Columns, address: u64, what: &str) {
        let label = format!("  {}  ── {what} ", columns.address(address));
        let rest = WIDTH
            .saturating_sub(20)
            .saturating_sub(label.chars().count());
        self.line(SHARED, &format!("{label}{}", "─".repeat(rest)));
    }
}

/// How the columns of the map are set.
struct Columns {
    digits: usize,
}

impl Columns {
    fn address(&self, address: u64) -> String {
        format!(
            "{:>width$}",
            format!("{address:#x}"),
            width = self.digits + 2
        )
    }
}

fn cells(device: &DeviceReport) -> [String; 7] {
    let id = match (device.vendor, device.device) {
        (Some(vendor), Some(device)) => format!("{:04x}:{:04x}", vendor.0, device.0),
        _ => "-".to_owned(),
    };
    let dma = match device.dma {
        Dma::Direct => "direct",
        Dma::Translated => "translated",
    };
    [
        device.pci.to_string(),
        id,
        dma.to_owned(),
        format!("{} bits", device.dma_bits),
        device.dma_bits_source.name().to_owned(),
        device
            .highest_dma_address
            .map_or_else(|| "-".to_owned(), |top| format!("{:#x}", top.0)),
        if device.reachable {
            "ok"
        } else {
            "out of reach"
        }
        .to_owned(),
    ]
}
