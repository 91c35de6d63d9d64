//! The guest has an IOMMU of its own, and the distribution's driver for it.

use anyhow::ensure;

use super::{disk, net};
use crate::arch::{ARM64, EVERY};
use crate::case::{Case, Guest, GuestIommu, Host, Platform, Run};
use crate::devices::Role;
use crate::guest::Step;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a_guest_translates_for_a_disk_too_narrow_for_any_of_its_memory",
        on: EVERY,
        needs: &[Role::Ahci],
        run: |host| translated_disk(host, Role::Ahci, 28),
    },
    Case {
        name: "a_guest_translates_the_dma_of_a_network_card_beside_a_disk",
        on: EVERY,
        needs: &[Role::Nic, Role::Ahci],
        run: translated_net,
    },
    Case {
        name: "a_realm_with_an_iommu_passes_dma_through_to_shared_pages",
        on: ARM64,
        needs: &[Role::Ahci],
        run: passed_through,
    },
];

/// Untranslated, a device of 28 bits would reach none of an arm64 guest's memory, which begins at 1 GiB,
/// and half of an x86_64 guest's.
pub(super) fn translated_disk(host: &mut Host<'_>, role: Role, bits: u8) -> anyhow::Result<()> {
    let guest = Guest {
        devices: vec![(role, Some(bits))],
        iommu: GuestIommu::Translating,
        ..Guest::debian(Platform::None, &[])
    };
    let run = disk::intact(host, role, &guest, Step::Iommu)?;
    translates(&run, 1, bits)
}

fn translated_net(host: &mut Host<'_>) -> anyhow::Result<()> {
    host.backing()?;
    host.bind(&[Role::Nic, Role::Ahci])?;
    let steps = [
        Step::Iommu,
        Step::Disk,
        Step::Link,
        Step::Transfer,
        Step::Unload,
    ];
    let guest = Guest {
        vcpus: 2,
        devices: vec![(Role::Ahci, Some(36)), (Role::Nic, None)],
        iommu: GuestIommu::Translating,
        ..Guest::debian(Platform::None, &steps)
    };
    let run = net::carries_traffic(host, &guest)?;
    ensure!(
        run.number("disk_interrupts")? > 0,
        "the disk raised no interrupt"
    );
    translates(&run, 2, 32)
}

/// Each device is in a group with a domain of its own, of addresses that all of them drive.
fn translates(run: &Run, devices: u8, bits: u8) -> anyhow::Result<()> {
    run.expect("iommu_default", "Translated")?;
    run.expect("iommu_groups", &devices.to_string())?;
    run.expect("iommu_input_bits", &bits.to_string())?;
    let kinds = run.fact("iommu_types")?;
    ensure!(kinds.starts_with("DMA"), "the domains are {kinds}");
    Ok(())
}

/// Without being told anything: ccvm adds to the command line what such a guest needs.
fn passed_through(host: &mut Host<'_>) -> anyhow::Result<()> {
    let guest = Guest {
        devices: vec![(Role::Ahci, Some(36))],
        iommu: GuestIommu::PassedThrough,
        ..Guest::debian(Platform::Realm, &[])
    };
    let run = disk::intact(host, Role::Ahci, &guest, Step::Iommu)?;
    run.expect("iommu_default", "Passthrough")?;
    run.expect("iommu_groups", "1")?;
    run.expect("iommu_input_bits", "36")?;
    run.expect("iommu_types", "identity,")?;
    run.expect("bounces", "1")
}
