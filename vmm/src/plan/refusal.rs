//! Why a VM cannot be, in the words of its operator: which device, which address, by how much, and
//! what would help.

use super::assigned::Assigned;
use super::bounds::{ADDRESSES, Bounds, WIDEST, reach_of};
use super::case::{Case, Room};
use super::choice::NARROWEST;
use super::layout::Layout;
use super::outcome::WidthSource;
use crate::config::Size;
use crate::config::spec::DmaRule;
use crate::diagnostic::{Code, Diagnostic, Place, Severity};
use crate::platform::{Platform, SharedAlias};

/// The layout that the VM would have if its devices reached everything and the host offered wider
/// spaces as well.
pub(super) fn unbounded(case: &Case<'_>) -> Option<Layout> {
    let mut widths = case.widths.clone();
    if !case.forced && case.platform != Platform::Tdx {
        let widest = case.widths.last().copied().unwrap_or(NARROWEST - 1);
        widths.extend(widest + 1..=WIDEST);
    }
    case.problem(&Bounds::unlimited(), &widths)
        .solve(case.memory)
}

/// Why there is no placement.
pub(super) fn refuse(case: &Case<'_>, room: &Room) -> Vec<Diagnostic> {
    let mut findings = Vec::new();
    let possible = case.memory.min(room.without_devices);
    if possible < case.memory {
        findings.push(too_large(case, room));
    }
    // A device is to blame for what it takes away from what the host could hold.
    let case = &case.with_memory(possible);
    let wanted = unbounded(case);
    let narrow = case.direct().filter(|device| room.alone(device) < possible);
    let narrow: Vec<&Assigned<'_>> = narrow.collect();
    for device in &narrow {
        let bits = case.demands(device).bits;
        let wanted = wanted.as_ref();
        let mut causes = wanted.map_or_else(Vec::new, |layout| {
            shortfalls(case, device, bits, layout, Severity::Error)
        });
        if causes.is_empty() {
            causes.push(reserved(case, device, room.alone(device)));
        }
        let help = Help {
            case,
            device,
            room,
            sole: narrow.len() == 1,
        };
        findings.extend(causes.into_iter().map(|finding| help.add(finding)));
    }
    if findings.is_empty() {
        findings.push(reserved_together(case, room.together));
    }
    findings
}

/// In which ways a device falls short of `layout`, were it to drive `bits` address bits.
pub(super) fn shortfalls(
    case: &Case<'_>,
    device: &Assigned<'_>,
    bits: u8,
    layout: &Layout,
    severity: Severity,
) -> Vec<Diagnostic> {
    let pci = device.pci();
    let memory = Size(case.memory);
    let highest = layout.highest_dma_address(case.alias());
    let reach = reach_of(bits);
    let mut findings = Vec::new();
    let mut add = |code, key, message: String| {
        let finding = match severity {
            Severity::Error => Diagnostic::error(code, message),
            Severity::Warning => Diagnostic::warning(code, message),
        };
        findings.push(finding.about(pci).on(device.place(key)));
    };
    if highest >= reach {
        let beyond = highest - (reach - 1);
        let needs = format!(
            "{}, {beyond} bytes beyond the device's last, {:#x}",
            needs(case, layout),
            reach - 1
        );
        let key = (device.width.source == WidthSource::Override).then_some("dma-bits");
        if case.alias() == SharedAlias::TopBit && bits < NARROWEST {
            let message = format!(
                "{pci} drives {bits} address bits, too few for any '{}' VM: the smallest has {NARROWEST}, and shares memory from {:#x} on; {needs}",
                case.platform,
                reach_of(NARROWEST) / 2
            );
            add(Code::DmaWidthBelowMinimum, key, message);
        } else {
            let message = format!(
                "{pci} drives {bits} address bits and does not reach all of guest memory: {needs}"
            );
            add(Code::DmaWidthTooNarrow, key, message);
        }
    }
    let aperture = device.bounds.aperture_end;
    let end = match case.alias() {
        SharedAlias::TopBit => reach_of(layout.width),
        SharedAlias::InPlace => highest.saturating_add(1),
    };
    if end > aperture {
        let message = format!(
            "the IOMMU of {pci} does not map all of guest memory: {memory} need addresses up to {:#x}, {} bytes beyond the end of its aperture, {aperture:#x}",
            end - 1,
            end - aperture
        );
        add(Code::ApertureTooSmall, None, message);
    }
    findings
}

/// What the memory leads to.
fn needs(case: &Case<'_>, layout: &Layout) -> String {
    let memory = Size(case.memory);
    let highest = layout.highest_dma_address(case.alias());
    let width = layout.width;
    match case.alias() {
        SharedAlias::TopBit if case.forced => {
            format!("in a {width}-bit space the highest shared address is {highest:#x}")
        }
        SharedAlias::TopBit => format!(
            "{memory} of memory need a {width}-bit space, where the highest shared address is {highest:#x}"
        ),
        SharedAlias::InPlace => {
            format!("with {memory} of memory the highest address is {highest:#x}")
        }
    }
}

fn too_large(case: &Case<'_>, room: &Room) -> Diagnostic {
    let widest = case.widths.last().copied().unwrap_or(0);
    let below = match (case.alias(), case.platform.accepted_alias()) {
        (SharedAlias::TopBit, _) | (_, SharedAlias::TopBit) => reach_of(widest) / 2,
        (SharedAlias::InPlace, SharedAlias::InPlace) => reach_of(widest),
    };
    let memory = Size(case.memory);
    let most = room.without_devices;
    let message = if most == 0 {
        format!(
            "no memory fits beside the platform's devices and the PCI windows below {below:#x}, where a {widest}-bit space ends for them"
        )
    } else {
        let beyond = case.memory.saturating_sub(most);
        format!(
            "{memory} of memory do not fit in a {widest}-bit space, the widest there is: memory and devices must lie below {below:#x}, {beyond} bytes too few"
        )
    };
    let finding = Diagnostic::error(Code::MemoryTooLarge, message);
    finding
        .on(Place::Vm("memory"))
        .with_help(at_most(room.together))
}

fn reserved(case: &Case<'_>, device: &Assigned<'_>, most: u64) -> Diagnostic {
    let pci = device.pci();
    let mappable = device.bounds.mappable.as_slice();
    let between = mappable
        .windows(2)
        .map(|pair| format!("{:#x}-{:#x}", pair[0].end, pair[1].start - 1));
    let lowest = mappable.first().map_or(ADDRESSES.end, |span| span.start);
    let below = (lowest > 0).then(|| format!("0x0-{:#x}", lowest - 1));
    let holes: Vec<String> = below.into_iter().chain(between).take(4).collect();
    let message = format!(
        "the IOMMU of {pci} leaves too little room for {} of memory, {} bytes too few, around the addresses that it reserves ({})",
        Size(case.memory),
        case.memory.saturating_sub(most),
        holes.join(", ")
    );
    let finding = Diagnostic::error(Code::ReservedRangesTooLarge, message);
    finding.about(pci).on(device.place(None))
}

fn reserved_together(case: &Case<'_>, max_memory: u64) -> Diagnostic {
    let message = format!(
        "the assigned devices together leave too little room for {} of memory, {} bytes too few: each by itself reaches enough, but not the same addresses",
        Size(case.memory),
        case.memory.saturating_sub(max_memory)
    );
    let finding = Diagnostic::error(Code::ReservedRangesTooLarge, message);
    finding
        .on(Place::Vm("memory"))
        .with_help(at_most(max_memory))
}

fn at_most(max_memory: u64) -> String {
    match max_memory {
        0 => "no memory size fits".to_owned(),
        most => format!("at most {} fit", Size(most)),
    }
}

/// What would help with a device.
struct Help<'c, 'a> {
    case: &'c Case<'a>,
    device: &'c Assigned<'a>,
    room: &'c Room,
    /// Whether no other device is to blame.
    sole: bool,
}

impl Help<'_, '_> {
    fn add(&self, finding: Diagnostic) -> Diagnostic {
        let mut ways = vec![at_most(self.room.together)];
        let alone = self.room.alone(self.device);
        if alone > self.room.together {
            ways.push(format!("with this device alone, at most {}", Size(alone)));
        }
        if self.sole {
            let others = self.case.without(self.device.pci());
            let most = others.max_memory(&others.together());
            ways.push(format!("without it, at most {}", Size(most)));
        }
        match finding.code {
            Code::ApertureTooSmall => {
                ways.push(
                    "or widen the IOMMU's aperture in the host's firmware or kernel".to_owned(),
                );
            }
            Code::ReservedRangesTooLarge => {}
            _ => ways.push(self.width()),
        }
        if self.case.platform == Platform::None {
            ways.push("or let the guest choose the addresses: `dma = \"translated\"`".to_owned());
        }
        let strict = self.case.rule == DmaRule::Strict;
        if strict
            && self.case.alias() == SharedAlias::InPlace
            && finding.code == Code::DmaWidthTooNarrow
        {
            ways.push("or let the guest bounce: `dma-rule = \"bounce\"`".to_owned());
        }
        finding.with_help(ways.join("; "))
    }

    /// Where the width comes from, and how to correct it.
    fn width(&self) -> String {
        let bits = self.device.width.bits;
        let source = match self.device.width.source {
            WidthSource::Override => {
                return "or raise its `dma-bits`, if it drives more".to_owned();
            }
            WidthSource::Tdisp => "what its TDISP report says".to_owned(),
            WidthSource::Table => {
                format!(
                    "by {}",
                    self.device.width.origin.unwrap_or("the device table")
                )
            }
            WidthSource::Register => "what its own register says".to_owned(),
            WidthSource::Sysfs => "what its last host driver asked for".to_owned(),
            WidthSource::Assumed => "assumed, for want of any source".to_owned(),
        };
        format!("or set its `dma-bits`, if it drives more than {bits} ({source})")
    }
}

/// Devices for which the guest bounces under the rule of this config.
pub(super) fn bounces(case: &Case<'_>, layout: &Layout) -> Vec<Diagnostic> {
    let highest = layout.highest_dma_address(case.alias());
    let narrow = case
        .direct()
        .filter(|device| highest >= reach_of(device.width.bits));
    narrow.map(|device| bounce(device, layout)).collect()
}

fn bounce(device: &Assigned<'_>, layout: &Layout) -> Diagnostic {
    let pci = device.pci();
    let bits = device.width.bits;
    let reach = reach_of(bits);
    let last = reach - 1;
    let highest = layout.last_dram_byte();
    let reached = layout
        .dram
        .iter()
        .map(|span| reach.clamp(span.start, span.end) - span.start);
    let reached: u64 = reached.sum();
    let (message, help) = if reached == 0 {
        (
            format!(
                "{pci} drives {bits} address bits and reaches none of guest memory, which lies beyond {last:#x}: it cannot even bounce"
            ),
            "set its `dma-bits`, if it drives more",
        )
    } else {
        (
            format!(
                "{pci} drives {bits} address bits and reaches {} of guest memory, up to {last:#x} of {highest:#x}: the guest bounces for the rest",
                Size(reached)
            ),
            "less memory avoids bouncing; `dma-rule = \"strict\"` refuses it",
        )
    };
    let finding = Diagnostic::warning(Code::DmaBounces, message);
    finding.about(pci).on(device.place(None)).with_help(help)
}
