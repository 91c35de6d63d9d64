//! The facts of one PCI function, from its directory in sysfs.

use std::path::Path;

use super::facts::{DeviceFacts, Hex, PciAddress};
use super::parse;
use super::remembered::{self, Remembered};
use super::roots::{Roots, attribute, link_name};

/// Reads one function; what cannot be read or understood goes to `unknown`.
///
/// Without its ids a function is nothing that a plan could use, so it is left out as a whole.
pub(super) fn read(
    roots: &Roots,
    pci: PciAddress,
    unknown: &mut Vec<String>,
) -> Option<DeviceFacts> {
    let directory = roots.pci_device(pci);
    let id = |name: &str| -> Result<u64, String> {
        let text = attribute(&directory.join(name)).map_err(|error| error.to_string())?;
        parse::hex(&text).ok_or_else(|| format!("'{text}' is not a number"))
    };
    let ids = || -> Result<(u16, u16, u32), String> {
        let in_range = |_| "an id is out of range".to_owned();
        let vendor = u16::try_from(id("vendor")?).map_err(in_range)?;
        let device = u16::try_from(id("device")?).map_err(in_range)?;
        let class = u32::try_from(id("class")?).map_err(in_range)?;
        if class > 0xff_ffff {
            return Err(format!("class {class:#x} has more than 24 bits"));
        }
        Ok((vendor, device, class))
    };
    let (vendor, device, class) = match ids() {
        Ok((vendor, device, class)) => (Hex(vendor), Hex(device), Hex(class)),
        Err(reason) => {
            unknown.push(format!("{pci}: its ids cannot be read: {reason}"));
            return None;
        }
    };
    let driver = link_name(&directory.join("driver"));
    let note = remembered::recall(roots, pci, (vendor, device));
    let masks = masks(&directory, driver.as_deref(), note.as_ref());
    Some(DeviceFacts {
        pci,
        vendor,
        device,
        class,
        group: link_name(&directory.join("iommu_group")).and_then(|name| name.parse().ok()),
        own_node: driver
            .as_deref()
            .is_some_and(is_vfio)
            .then(|| vfio::Sysfs::new(&*directory).node().is_some()),
        driver,
        dma_mask_bits: masks.streaming,
        coherent_dma_mask_bits: masks.coherent,
        register_dma_bits: note.as_ref().and_then(|note| note.register_dma_bits),
        tdisp_dma_bits: None,
        bars: bars(&directory, pci, unknown),
        reserved_regions: Vec::new(),
        iova_ranges: None,
    })
}

struct Masks {
    streaming: Option<u8>,
    coherent: Option<u8>,
}

/// The masks that the device's own driver set: sysfs shows them while it is bound, the note that was
/// taken when it was unbound has them afterwards.
fn masks(directory: &Path, driver: Option<&str>, note: Option<&Remembered>) -> Masks {
    let shown = |name: &str| parse::bits(&attribute(&directory.join(name)).ok()?);
    let streaming = shown("dma_mask_bits");
    let coherent = shown("consistent_dma_mask_bits");
    match note {
        Some(note) if !has_own_driver(driver) => Masks {
            streaming: note.dma_mask_bits.or(streaming),
            coherent: note.coherent_dma_mask_bits.or(coherent),
        },
        _ => Masks {
            streaming,
            coherent,
        },
    }
}

/// Whether a driver that knows the device is bound to it, and not one that only hands it on.
pub(super) fn has_own_driver(driver: Option<&str>) -> bool {
    driver.is_some_and(|driver| !is_vfio(driver) && driver != "pci-stub")
}

/// Whether a driver is `vfio-pci` or one of its variants (`mlx5_vfio_pci`, `nvgrace_gpu_vfio_pci`).
pub(super) fn is_vfio(driver: &str) -> bool {
    driver == "vfio-pci" || driver.ends_with("vfio_pci") || driver.ends_with("vfio-pci")
}

fn bars(
    directory: &Path,
    pci: PciAddress,
    unknown: &mut Vec<String>,
) -> Vec<super::facts::BarFacts> {
    let text = attribute(&directory.join("resource")).map_err(|error| error.to_string());
    match text.and_then(|text| parse::bars(&text)) {
        Ok(bars) => bars,
        Err(reason) => {
            unknown.push(format!("{pci}: its BARs cannot be read: {reason}"));
            Vec::new()
        }
    }
}
