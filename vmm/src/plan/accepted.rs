//! What becomes of a device once its guest has accepted it (TDISP RUN, T=1), on platforms where that changes
//! how it has to name memory: a plan that is right for the device as it starts can be wrong for it then.
//!
//! ```text
//!              not accepted (T0)       accepted (T1): private     accepted (T1): shared
//!   tdx        gpa                     gpa                        gpa | bit 47 or 51
//!   snp        gpa                     gpa                        nowhere, or above a vTOM that none sets
//! ```
//! No released kernel lets a guest of either accept a device (Linux 7.3: no TDX Connect, no SEV-TIO bind):
//! these are warnings of what will not work when one does.

use super::assigned::Assigned;
use super::bounds::reach_of;
use super::case::Case;
use super::layout::Layout;
use crate::diagnostic::{Code, Diagnostic};
use crate::platform::Platform;

/// What an operator should know of devices that the guest may accept one day.
pub(super) fn warnings(case: &Case<'_>, layout: &Layout) -> Vec<Diagnostic> {
    let warning = match case.platform {
        Platform::Tdx => td,
        Platform::Snp => snp,
        Platform::None
        | Platform::EmulatedRealm
        | Platform::Cca
        | Platform::Pkvm
        | Platform::SwProtected => return Vec::new(),
    };
    let devices = case.assigned.iter();
    devices
        .filter_map(|device| warning(device, layout))
        .collect()
}

/// A device that does not drive the shared bit of a TD.
fn td(device: &Assigned<'_>, layout: &Layout) -> Option<Diagnostic> {
    let (pci, needed) = (device.pci(), layout.width);
    let bits = device.width.bits;
    let aperture = device.bounds.aperture_end;
    let narrow = bits < needed;
    let short = aperture < reach_of(needed);
    if !narrow && !short {
        return None;
    }
    let shared = needed.saturating_sub(1);
    let why = match narrow {
        true => format!("it drives {bits} address bits, and needs {needed}"),
        false => format!("its IOMMU ends at {aperture:#x}"),
    };
    let message = format!(
        "{pci} reaches all of guest memory while the TD has not accepted it, and no shared memory from then on: an accepted device names that with bit {shared} set, but {why}"
    );
    let help = "leave it unaccepted in the guest, or take a device that drives all bits of a TD's addresses; with either width of a TD a device needs 48 of them";
    let finding = Diagnostic::warning(Code::AcceptedDmaTooNarrow, message);
    Some(finding.about(pci).on(device.place(None)).with_help(help))
}

/// Any device of an SNP guest.
fn snp(device: &Assigned<'_>, layout: &Layout) -> Option<Diagnostic> {
    let pci = device.pci();
    let bits = device.width.bits;
    let end = layout.last_dram_byte().saturating_add(1);
    // The alias of all memory begins at the first power of two above it, if not higher.
    let vtom = end.checked_next_power_of_two()?;
    let needed = vtom.trailing_zeros().saturating_add(1);
    let more = match u32::from(bits) < needed {
        true => format!(", and it drives {bits} of the {needed} bits or more that one would take"),
        false => String::new(),
    };
    let message = format!(
        "{pci} reaches shared memory while the guest has not accepted it, and private memory only from then on: an accepted device of SEV-SNP reaches shared pages at an alias above a virtual top of memory, which no kernel sets yet{more}"
    );
    let help = "leave it unaccepted in the guest";
    let finding = Diagnostic::warning(Code::AcceptedDmaUnshared, message);
    Some(finding.about(pci).on(device.place(None)).with_help(help))
}
