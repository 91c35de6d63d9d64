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
    warnings: Vec<Diagnostic>,
}

impl Assigned {
    /// Takes the devices of `plan`, found in `sysfs` (`/sys`).
    ///
    /// # Errors
    /// Everything that stands in the way, at once where it shows without touching a device. What was
    /// opened before a failure is closed again, and every device is bound to what it was bound to.
    pub fn open(plan: &VmPlan, sysfs: &Path) -> Result<Self, Vec<Diagnostic>> {
        let mut assigned = Self {
            table: None,
            devices: Vec::new(),
            container: None,
            warnings: Vec::new(),
        };
        if plan.devices().is_empty() {
            return Ok(assigned);
        }
        let places: Vec<Sysfs> = plan
            .devices()
            .iter()
            .map(|device| Sysfs::new(sysfs.join("bus/pci/devices").join(device.pci.to_string())))
            .collect();
        refuse_unfit(plan.devices(), &places)?;
        let container = Container::open().map_err(|error| vec![refusal::of_container(&error)])?;
        for (device, place) in plan.devices().iter().zip(&places) {
            let function = Function::open(&container, place)
                .map_err(|error| vec![refusal::of_device(device.pci, &error)])?;
            assigned.warnings.extend(reset(device, &function));
            let opened = Arc::new(Device::new(function));
            assigned.devices.push((device.clone(), opened));
        }
        assigned.container = Some(container);
        Ok(assigned)
    }

    /// What the operator should know of the devices.
    #[must_use]
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.warnings
    }

    /// Whether no device is assigned.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }
}

fn refuse_unfit(devices: &[PlannedDevice], places: &[Sysfs]) -> Result<(), Vec<Diagnostic>> {
    let checked = devices.iter().zip(places);
    let refusals: Vec<Diagnostic> = checked
        .filter_map(|(device, place)| {
            let error = Function::check(place).err()?;
            Some(refusal::of_device(device.pci, &error))
        })
        .collect();
    if refusals.is_empty() {
        Ok(())
    } else {
        Err(refusals)
    }
}

/// Puts a device into its power-on state; a warning where that cannot be.
fn reset(device: &PlannedDevice, function: &Function) -> Option<Diagnostic> {
    let why = match function.reset() {
        Ok(Reset::Done) => return None,
        Ok(Reset::BusMasterCleared(error)) => format!("cannot be reset: {error}"),
        Err(error) => chain(&error),
    };
    let message = format!("{}: {why}", device.pci);
    let help = "the guest finds the device as its last user left it, and the next user as the guest \
         leaves it; assign it only where that is acceptable";
    let warning = Diagnostic::warning(Code::DeviceNotReset, message).about(device.pci);
    Some(warning.with_help(help))
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
