//! Opening the planned devices.

use std::path::Path;
use std::sync::Arc;

use vfio::{Container, Function, Reset, Sysfs};

use super::device::Device;
use super::dma::Connected;
use super::{chain, refusal};
use crate::diagnostic::{Code, Diagnostic};
use crate::plan::{PlannedDevice, VmPlan};

/// The planned devices, held through VFIO, reset, and reaching no memory yet.
pub struct Assigned {
    // Emptied before the devices are closed.
    pub(super) table: Option<Connected>,
    pub(super) devices: Vec<(PlannedDevice, Arc<Device>)>,
    pub(super) container: Option<Container>,
}

/// Looks, by what `sysfs` (`/sys`) shows, whether the devices of `plan` are free to be assigned.
///
/// # Errors
/// Everything that stands in the way. Nothing was touched.
pub fn check(plan: &VmPlan, sysfs: &Path) -> Result<(), Vec<Diagnostic>> {
    refuse_unfit(plan.devices(), &places(plan, sysfs))
}

impl Assigned {
    /// Takes the devices of `plan`, found in `sysfs` (`/sys`), and resets them. Devices that have no
    /// reset are logged.
    ///
    /// # Errors
    /// What stands in the way. What was opened before is closed again, and every device is bound to
    /// what it was bound to.
    pub fn open(plan: &VmPlan, sysfs: &Path) -> Result<Self, Diagnostic> {
        let mut assigned = Self {
            table: None,
            devices: Vec::new(),
            container: None,
        };
        if plan.devices().is_empty() {
            return Ok(assigned);
        }
        let container = Container::open().map_err(|error| refusal::of_container(&error))?;
        let devices = plan.devices().iter().enumerate();
        for ((index, device), place) in devices.zip(places(plan, sysfs)) {
            let function = Function::open(&container, &place)
                .map_err(|error| refusal::of_device(index, device.pci, &error))?;
            reset(device, &function);
            let opened = Arc::new(Device::new(function));
            assigned.devices.push((device.clone(), opened));
        }
        assigned.container = Some(container);
        Ok(assigned)
    }
}

fn places(plan: &VmPlan, sysfs: &Path) -> Vec<Sysfs> {
    let devices = sysfs.join("bus/pci/devices");
    let place = |device: &PlannedDevice| Sysfs::new(devices.join(device.pci.to_string()));
    plan.devices().iter().map(place).collect()
}

fn refuse_unfit(devices: &[PlannedDevice], places: &[Sysfs]) -> Result<(), Vec<Diagnostic>> {
    let refusals: Vec<Diagnostic> = devices
        .iter()
        .zip(places)
        .enumerate()
        .filter_map(|(index, (device, place))| {
            let error = Function::check(place).err()?;
            Some(refusal::of_device(index, device.pci, &error))
        })
        .collect();
    if refusals.is_empty() {
        Ok(())
    } else {
        Err(refusals)
    }
}

/// Puts a device into its power-on state; one that has no such reset at least does no DMA.
fn reset(device: &PlannedDevice, function: &Function) {
    let why = match function.reset() {
        Ok(Reset::Done) => return,
        Ok(Reset::BusMasterCleared(error)) => format!("cannot be reset: {error}"),
        Err(error) => chain(&error),
    };
    tracing::warn!(
        "{}: {}: {why}; the guest finds it as its last user left it",
        Code::DeviceNotReset,
        device.pci
    );
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::config::spec::DmaMode;
    use crate::plan::WidthSource;

    fn planned(pci: &str) -> PlannedDevice {
        PlannedDevice {
            pci: pci.parse().unwrap(),
            guest: devices::pci::Bdf::new(0, 1, 0).unwrap(),
            dma_bits: 64,
            dma_bits_source: WidthSource::Table,
            dma: DmaMode::Direct,
            highest_dma_address: 0xffff_ffff,
        }
    }

    #[test]
    fn every_device_that_is_not_free_is_told_of_at_once() {
        let root = tempfile::tempdir().unwrap();
        let function = root.path().join("0000:00:04.0");
        fs::create_dir(&function).unwrap();
        fs::write(function.join("vendor"), "0x8086\n").unwrap();
        symlink("../../kernel/iommu_groups/3", function.join("iommu_group")).unwrap();
        symlink("../../bus/pci/drivers/e1000", function.join("driver")).unwrap();
        let devices = [planned("0000:00:04.0"), planned("0000:00:05.0")];
        let places = devices
            .iter()
            .map(|device| Sysfs::new(root.path().join(device.pci.to_string())));
        let refusals = refuse_unfit(&devices, &places.collect::<Vec<_>>()).unwrap_err();
        let codes: Vec<Code> = refusals.iter().map(|refusal| refusal.code).collect();
        assert_eq!(codes, [Code::DeviceNotBound, Code::DeviceAbsent]);
    }
}
