//! What the host must offer before anything else makes sense.

use anyhow::ensure;

use crate::case::{Case, Host};

pub(super) const CASES: &[Case] = &[Case {
    name: "the_host_offers_kvm_and_an_iommu_group_for_each_device",
    needs: &[],
    run: kvm_and_groups,
}];

fn kvm_and_groups(host: &mut Host<'_>) -> anyhow::Result<()> {
    host.machine
        .read("test -c /dev/kvm && test -c /dev/vfio/vfio")?;
    for device in host.devices.clone() {
        let address = device.address;
        let group = format!("/sys/bus/pci/devices/{address}/iommu_group/devices");
        let members = host.machine.read(&format!("ls {group}"))?;
        ensure!(
            members == address,
            "{address} shares its IOMMU group: {members}"
        );
    }
    Ok(())
}
