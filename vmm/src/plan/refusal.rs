//! Why a VM cannot be, in the words of its operator: which device, which address, by how much, and
//! what would help.

use std::fmt;

use super::assigned::Assigned;
use super::bounds::{Bounds, WIDEST, reach_of};
use super::case::Case;
use super::choice::NARROWEST;
use super::layout::Layout;
use super::outcome::{DmaWidth, WidthSource};
use crate::config::spec::DmaRule;
use crate::diagnostic::{Code, Diagnostic, Place, Severity};
use crate::platform::{Platform, SharedAlias};

/// Bytes as people write them, exactly.
pub(super) struct Size(pub(super) u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        let whole = |(shift, _): &&(u32, &str)| self.0 != 0 && self.0.trailing_zeros() >= *shift;
        match units.iter().find(whole) {
            Some((shift, unit)) => write!(f, "{} {unit}", self.0 >> shift),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

impl fmt::Display for DmaWidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.bits;
        match self.source {
            WidthSource::Override => write!(f, "{bits} address bits (by the config's dma-bits)"),
            WidthSource::Tdisp => write!(f, "{bits} address bits (by its TDISP report)"),
            WidthSource::Table => {
                let origin = self.origin.unwrap_or("no source");
                write!(f, "{bits} address bits (by the device table: {origin})")
            }
            WidthSource::Register => write!(f, "{bits} address bits (by its own register)"),
            WidthSource::Sysfs => write!(f, "{bits} address bits (by its last host driver)"),
            WidthSource::Assumed => write!(f, "{bits} address bits (assumed: nobody says)"),
        }
    }
}

/// The layout that the VM would have if its devices reached everything and the host offered any
/// width.
pub(super) fn unbounded(case: &Case<'_>) -> Option<Layout> {
    let widths: Vec<u8> = (NARROWEST..=WIDEST).collect();
    case.problem(&Bounds::unlimited(), &widths)
        .solve(case.memory)
}

/// Why there is no placement.
pub(super) fn refuse(case: &Case<'_>, max_memory: u64) -> Vec<Diagnostic> {
    let mut findings = Vec::new();
    let wanted = unbounded(case);
    let free = case.max_memory(&Bounds::unlimited());
    let host_is_to_blame = free < case.memory;
    if host_is_to_blame {
        findings.push(too_large(case, free, max_memory));
    }
    let alone = case.each_alone();
    let failing: Vec<&Assigned<'_>> = alone
        .iter()
        .filter(|(_, alone)| !alone.fits)
        .map(|(device, _)| *device)
        .collect();
    for device in &failing {
        let help = Help {
            case,
            device,
            max_memory,
            without: (failing.len() == 1)
                .then(|| case.max_memory(&case.together_without(device.pci()))),
        };
        let causes = wanted
            .as_ref()
            .map(|layout| causes(case, device, layout, Severity::Error));
        let causes = causes.unwrap_or_default();
        if causes.is_empty() && !host_is_to_blame {
            findings.push(help.add(reserved(case, device)));
        }
        findings.extend(causes.into_iter().map(|finding| help.add(finding)));
    }
    if findings.is_empty() {
        findings.push(holes_together(case, max_memory));
    }
    findings
}

/// In which ways `device` falls short of `layout`.
pub(super) fn causes(
    case: &Case<'_>,
    device: &Assigned<'_>,
    layout: &Layout,
    severity: Severity,
) -> Vec<Diagnostic> {
    let pci = device.pci();
    let highest = layout.highest_dma_address(case.alias());
    let mut findings = Vec::new();
    let mut add = |code, key, message: String| {
        let finding = match severity {
            Severity::Error => Diagnostic::error(code, message),
            Severity::Warning => Diagnostic::warning(code, message),
        };
        findings.push(finding.about(pci).on(device.place(key)));
    };
    let needs = needs(case, layout);
    let reach = reach_of(device.width.bits);
    let width = &device.width;
    let key = (width.source == WidthSource::Override).then_some("dma-bits");
    let (last, beyond) = (reach - 1, highest.saturating_sub(reach - 1));
    if case.alias() == SharedAlias::TopBit && width.bits < NARROWEST {
        add(
            Code::DmaWidthBelowMinimum,
            key,
            format!(
                "{pci} drives {width}, and no '{}' VM can be that narrow: the smallest is {NARROWEST} bits wide and shares memory from {:#x} on, beyond the device's last address, {last:#x}; {needs}, {beyond} bytes too many",
                case.platform,
                reach_of(NARROWEST) / 2,
            ),
        );
    } else if highest >= reach {
        add(
            Code::DmaWidthTooNarrow,
            key,
            format!(
                "{pci} drives {width} and does not reach all of guest memory: {needs}, {beyond} bytes beyond the device's last, {last:#x}"
            ),
        );
    }
    let aperture = device.bounds.aperture_end;
    let space = match case.alias() {
        SharedAlias::TopBit => reach_of(layout.width),
        SharedAlias::InPlace => highest + 1,
    };
    if space > aperture {
        let beyond = space - aperture;
        let last = aperture.saturating_sub(1);
        add(
            Code::ApertureTooSmall,
            None,
            format!(
                "the IOMMU of {pci} does not map all of guest memory: {needs}, and the space ends {beyond} bytes beyond the aperture's last address, {last:#x}"
            ),
        );
    }
    findings
}

/// What the memory leads to: "4 GiB of memory need 34 address bits, ...".
fn needs(case: &Case<'_>, layout: &Layout) -> String {
    let memory = Size(case.memory);
    let highest = layout.highest_dma_address(case.alias());
    match case.alias() {
        SharedAlias::TopBit => format!(
            "{memory} of memory {} an IPA size of {}, where the highest shared address is {highest:#x}",
            if case.forced {
                "are placed with"
            } else {
                "need"
            },
            layout.width
        ),
        SharedAlias::InPlace => {
            format!("with {memory} of memory the highest address is {highest:#x}")
        }
    }
}

fn too_large(case: &Case<'_>, free: u64, max_memory: u64) -> Diagnostic {
    let widest = case.widths.last().copied().unwrap_or(0);
    let room = match case.alias() {
        SharedAlias::TopBit => format!("the lower half of {widest} address bits"),
        SharedAlias::InPlace => format!("{widest} address bits"),
    };
    let offers = if case.forced {
        "there are"
    } else {
        "the host offers"
    };
    let memory = Size(case.memory);
    let message = if free == 0 {
        format!(
            "{offers} {room}, which leave no memory beside the PCI windows and {} vCPUs' devices",
            "the"
        )
    } else {
        let beyond = Size(case.memory.saturating_sub(free));
        format!("{memory} of memory do not fit: {offers} {room}, {beyond} too few")
    };
    Diagnostic::error(Code::MemoryTooLarge, message)
        .on(Place::Vm("memory"))
        .with_help(at_most(max_memory))
}

fn reserved(case: &Case<'_>, device: &Assigned<'_>) -> Diagnostic {
    let pci = device.pci();
    let memory = Size(case.memory);
    let message = format!(
        "reserved IOVA ranges of {pci} leave too little room for {memory} of memory within what the device reaches"
    );
    Diagnostic::error(Code::ReservedRangesTooLarge, message)
        .about(pci)
        .on(device.place(None))
}

fn holes_together(case: &Case<'_>, max_memory: u64) -> Diagnostic {
    let beyond = Size(case.memory.saturating_sub(max_memory));
    let memory = Size(case.memory);
    let message = format!(
        "the reach and the reserved IOVA ranges of the assigned devices together leave no room for {memory} of memory: {beyond} too much"
    );
    Diagnostic::error(Code::ReservedRangesTooLarge, message)
        .on(Place::Vm("memory"))
        .with_help(at_most(max_memory))
}

fn at_most(max_memory: u64) -> String {
    if max_memory == 0 {
        "no memory size would fit".to_owned()
    } else {
        format!("at most {} fit", Size(max_memory))
    }
}

/// What would help with a device.
struct Help<'c, 'a> {
    case: &'c Case<'a>,
    device: &'c Assigned<'a>,
    max_memory: u64,
    /// The largest memory without the device, where it is the only one to blame.
    without: Option<u64>,
}

impl Help<'_, '_> {
    fn add(&self, finding: Diagnostic) -> Diagnostic {
        let mut ways = vec![at_most(self.max_memory)];
        ways.push(match self.without {
            Some(without) => format!("without the device, at most {}", Size(without)),
            None => "or leave the device out".to_owned(),
        });
        match finding.code {
            Code::ApertureTooSmall => ways.push(
                "a wider IOMMU aperture is a matter of the host's firmware and kernel".to_owned(),
            ),
            Code::ReservedRangesTooLarge => {}
            _ => ways.push(match self.device.width.source {
                WidthSource::Override => "raise its `dma-bits` if it drives more".to_owned(),
                _ => "set its `dma-bits` if you know that it drives more".to_owned(),
            }),
        }
        if self.case.platform == Platform::None {
            ways.push(
                "`dma = \"translated\"` lets the guest choose addresses that it reaches".to_owned(),
            );
        }
        let strict = self.case.rule == DmaRule::Strict;
        if strict
            && self.case.alias() == SharedAlias::InPlace
            && finding.code == Code::DmaWidthTooNarrow
        {
            ways.push(
                "`dma-rule = \"bounce\"` lets the guest copy through memory that it reaches"
                    .to_owned(),
            );
        }
        finding.with_help(ways.join("; "))
    }
}

/// Devices for which the guest bounces under the rule of this config.
pub(super) fn bounces(case: &Case<'_>, layout: &Layout) -> Vec<Diagnostic> {
    let narrow = case
        .direct()
        .filter(|device| layout.highest_dma_address(case.alias()) >= reach_of(device.width.bits));
    let warn = |device: &Assigned<'_>| {
        let pci = device.pci();
        let reach = reach_of(device.width.bits);
        let reached: u64 = layout
            .dram
            .iter()
            .map(|span| reach.clamp(span.start, span.end) - span.start)
            .sum();
        let highest = layout.last_dram_byte();
        let (message, help) = if reached == 0 {
            (
                format!(
                    "{pci} drives {} and reaches none of guest memory, which begins beyond the device's last address, {:#x}: it cannot do DMA, even by bouncing",
                    device.width,
                    reach - 1
                ),
                "set its `dma-bits` if you know that it drives more".to_owned(),
            )
        } else {
            (
                format!(
                    "{pci} drives {} and reaches {} of guest memory, up to {:#x} of {highest:#x}: the guest bounces for the rest",
                    device.width,
                    Size(reached),
                    reach - 1
                ),
                "`dma-rule = \"strict\"` refuses such a device; less memory avoids bouncing"
                    .to_owned(),
            )
        };
        let finding = Diagnostic::warning(Code::DmaBounces, message);
        finding.about(pci).on(device.place(None)).with_help(help)
    };
    narrow.map(warn).collect()
}
