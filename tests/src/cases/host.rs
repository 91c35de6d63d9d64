//! What the host must offer before anything else makes sense, and what ccvm reads and moves there.

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::arch::{Arch, EVERY};
use crate::case::{Case, Host};
use crate::devices::Role;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "the_host_offers_kvm_and_an_iommu_group_for_each_device",
        on: EVERY,
        needs: &[],
        run: kvm_and_groups,
    },
    Case {
        name: "ccvm_host_reads_the_facts_of_a_bound_device",
        on: EVERY,
        needs: &[Role::Nic],
        run: facts,
    },
    Case {
        name: "a_device_moves_to_vfio_and_back_to_its_driver",
        on: EVERY,
        needs: &[Role::Ahci],
        run: there_and_back,
    },
];

fn kvm_and_groups(host: &mut Host<'_>) -> anyhow::Result<()> {
    host.machine
        .read("test -c /dev/kvm && test -c /dev/vfio/vfio")?;
    let alone = host
        .devices
        .iter()
        .filter(|device| device.role != Role::Tied);
    for device in alone.cloned().collect::<Vec<_>>() {
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

fn facts(host: &mut Host<'_>) -> anyhow::Result<()> {
    host.bind(&[Role::Nic])?;
    let output = host.ccvm("host --json")?;
    let facts: Value = serde_json::from_str(&output.text)
        .with_context(|| format!("ccvm host printed no JSON: {}", output.text))?;
    ensure!(facts["arch"] == host.arch.machine(), "{facts}");
    ensure!(facts["kvm"]["api"] == 12, "{facts}");
    let platforms = facts["kvm"]["platforms"]
        .as_array()
        .context("no platforms")?;
    let expected: &[&str] = match host.arch {
        Arch::Arm64 => &["none", "emulated-realm"],
        Arch::X86_64 => &["none"],
    };
    for platform in expected {
        ensure!(
            platforms.iter().any(|known| known == platform),
            "no {platform}: {facts}"
        );
    }
    let address = host.address(Role::Nic)?;
    let devices = facts["devices"].as_array().context("no devices")?;
    let card = devices
        .iter()
        .find(|device| device["pci"] == address.as_str())
        .with_context(|| format!("{address} is not among the devices: {facts}"))?;
    ensure!(card["driver"] == "vfio-pci", "{card}");
    ensure!(card["group"].is_u64(), "{card}");
    ensure!(
        card["bars"].as_array().is_some_and(|bars| !bars.is_empty()),
        "{card}"
    );
    host.unbind(&[Role::Nic])
}

fn there_and_back(host: &mut Host<'_>) -> anyhow::Result<()> {
    host.unbind(&[Role::Ahci])?;
    let address = host.address(Role::Ahci)?;
    let folder = format!("/sys/bus/pci/devices/{address}");
    let driver = format!("basename $(readlink {folder}/driver)");
    let masks = format!("cat {folder}/dma_mask_bits {folder}/consistent_dma_mask_bits");
    let (driver_before, masks_before) = (host.machine.read(&driver)?, host.machine.read(&masks)?);
    host.bind(&[Role::Ahci])?;
    ensure!(
        host.machine.read(&driver)? == "vfio-pci",
        "the device is not with vfio-pci"
    );
    let facts = host.ccvm("host --json")?;
    let facts: Value = serde_json::from_str(&facts.text).context("ccvm host printed no JSON")?;
    let mut devices = facts["devices"].as_array().into_iter().flatten();
    let disk = devices
        .find(|device| device["pci"] == address.as_str())
        .context("the disk is not among the devices")?;
    // Bit 31 of the CAP register, S64A, is set in QEMU's and in every recent AHCI.
    ensure!(disk["register_dma_bits"] == 64, "{disk}");
    host.unbind(&[Role::Ahci])?;
    let (driver_after, masks_after) = (host.machine.read(&driver)?, host.machine.read(&masks)?);
    ensure!(
        driver_after == driver_before,
        "the device went to {driver_after}"
    );
    ensure!(
        masks_after == masks_before,
        "the DMA masks are {masks_after}, not {masks_before}"
    );
    Ok(())
}
