//! What a device was before it was handed to VFIO: its driver, and the DMA masks that the driver had
//! set; and what a register of it says of its width. sysfs forgets a mask when the device is enumerated
//! again; this note does not.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::facts::{Hex, PciAddress};
use super::roots::{Roots, attribute};

/// The note on one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Remembered {
    /// Vendor id, so that a note on another card in the same slot is not believed.
    pub(super) vendor: Hex<u16>,
    /// Device id, for the same reason.
    pub(super) device: Hex<u16>,
    /// The driver that the device had.
    pub(super) driver: Option<String>,
    /// The streaming mask that this driver had set.
    pub(super) dma_mask_bits: Option<u8>,
    /// The coherent mask that this driver had set.
    pub(super) coherent_dma_mask_bits: Option<u8>,
    /// What a register of the device says, read when it had just come to VFIO.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) register_dma_bits: Option<u8>,
}

/// The note on a device, when there is one that is whole and about this very card.
pub(super) fn recall(
    roots: &Roots,
    pci: PciAddress,
    (vendor, device): (Hex<u16>, Hex<u16>),
) -> Option<Remembered> {
    let text = attribute(&path(roots, pci)).ok()?;
    let note: Remembered = serde_json::from_str(&text).ok()?;
    let widths = [
        note.dma_mask_bits,
        note.coherent_dma_mask_bits,
        note.register_dma_bits,
    ];
    let sound = widths
        .into_iter()
        .flatten()
        .all(|bits| (1..=64).contains(&bits));
    (sound && (note.vendor, note.device) == (vendor, device)).then_some(note)
}

/// Keeps a note until [`forget`].
pub(super) fn remember(roots: &Roots, pci: PciAddress, note: &Remembered) -> io::Result<()> {
    let path = path(roots, pci);
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let text = serde_json::to_string(note).map_err(io::Error::other)?;
    // A half-written note would be worse than none: it appears whole or not at all.
    let draft = path.with_extension("new");
    std::fs::write(&draft, text + "\n")?;
    std::fs::rename(&draft, &path)
}

/// Drops the note on a device, if there is one.
pub(super) fn forget(roots: &Roots, pci: PciAddress) -> io::Result<()> {
    match std::fs::remove_file(path(roots, pci)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn path(roots: &Roots, pci: PciAddress) -> PathBuf {
    roots.state.join("masks").join(format!("{pci}.json"))
}
