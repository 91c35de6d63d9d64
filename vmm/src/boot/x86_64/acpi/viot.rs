//! The VIOT: which functions the virtual IOMMU translates for.

use acpi_tables::viot::{PciDevice, PciRange, VIOT, VirtIoPciIommu};
use devices::pci::Bdf;

use super::{Iommu, OEM, OEM_REVISION, OEM_TABLE};

/// Each endpoint by itself: the IOMMU must not translate for itself, nor for the root.
pub(super) fn viot(iommu: &Iommu<'_>) -> VIOT {
    let mut viot = VIOT::new(OEM, OEM_TABLE, OEM_REVISION);
    let node = viot.add_virtio_pci_iommu(VirtIoPciIommu::new(device(iommu.function)));
    for endpoint in iommu.endpoints {
        let range = PciRange::new(device(*endpoint), device(*endpoint), &node);
        viot.add_pci_range(range);
    }
    viot
}

fn device(function: Bdf) -> PciDevice {
    let [_, bus] = function.requester_id().to_le_bytes();
    PciDevice::new(0, bus, function.device(), function.function())
}
