//! Opening the planned devices.

use std::path::Path;
use std::sync::Arc;

use vfio::{Backend, BackendKind, Function, OpenError, Reset, Sysfs};

use super::device::Device;
use super::group::{Member, OpenGroup, Sharing};
use super::refusal;
use crate::causes::chain;
use crate::diagnostic::{Code, Diagnostic};
use crate::plan::{PlannedDevice, VmPlan};

/// The planned devices, held through VFIO, reset, and reaching no memory yet.
pub struct Assigned {
    pub(super) groups: Vec<OpenGroup>,
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
        let sharing = Sharing::of(plan);
        if !plan.devices().is_empty() {
            tracing::info!("DMA tables by {}", plan.dma_backend().name());
        }
        let places = places(plan, sysfs);
        let backend = Backend::open(plan.dma_backend());
        let backend = backend.map_err(|error| refusal::of_container(&error))?;
        let mut groups: Vec<OpenGroup> = Vec::new();
        let devices = plan.devices().iter().enumerate();
        for ((index, planned), place) in devices.zip(places) {
            let refused = |error| refusal::of_device(index, planned.pci, &error);
            let name = Function::check(&place).map_err(refused)?;
            let known = groups.iter_mut().find(|group| match sharing {
                Sharing::OneForAll => true,
                Sharing::OnePerGroup => group.host_groups.contains(&name),
            });
            let group = match known {
                Some(group) => group,
                None => {
                    let container = backend.container();
                    let container = container.map_err(|error| refusal::of_container(&error))?;
                    groups.push_mut(OpenGroup::new(container))
                }
            };
            group.take(name, planned, &place).map_err(refused)?;
        }
        Ok(Self { groups })
    }
}

impl OpenGroup {
    /// Takes a device by itself, found in `sysfs` (`/sys`), and resets it.
    ///
    /// # Errors
    /// What stands in the way. The device is bound to what it was bound to.
    pub(super) fn of_one(
        planned: &PlannedDevice,
        backend: BackendKind,
        sysfs: &Path,
    ) -> Result<Self, Diagnostic> {
        let refused = |error| refusal::of_device(0, planned.pci, &error);
        let place = place(planned, sysfs);
        let name = Function::check(&place).map_err(refused)?;
        let backend = Backend::open(backend);
        let container = backend.and_then(|backend| backend.container());
        let mut group = Self::new(container.map_err(|error| refusal::of_container(&error))?);
        group.take(name, planned, &place).map_err(refused)?;
        Ok(group)
    }

    /// Takes a device of the host's group `name`.
    fn take(
        &mut self,
        name: String,
        planned: &PlannedDevice,
        place: &Sysfs,
    ) -> Result<(), OpenError> {
        let function = Function::open(&self.container, place)?;
        reset(planned, &function);
        let device = Arc::new(Device::new(function));
        let planned = planned.clone();
        self.add(name, Member { planned, device });
        Ok(())
    }
}

fn places(plan: &VmPlan, sysfs: &Path) -> Vec<Sysfs> {
    let devices = plan.devices().iter();
    devices.map(|device| place(device, sysfs)).collect()
}

fn place(device: &PlannedDevice, sysfs: &Path) -> Sysfs {
    let devices = sysfs.join("bus/pci/devices");
    Sysfs::new(devices.join(device.pci.to_string()))
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
