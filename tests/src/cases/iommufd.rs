//! Devices behind iommufd, on a host whose kernel has it, and on one whose kernel has not.

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::disk::{disk, plain_disk};
use super::faults::{Walk, every_call};
use super::hostile::translation_and_conversion;
use super::hotplug::comes_and_goes;
use super::iommu::translated_disk;
use super::tdi::{one_of_two, turns};
use crate::arch::{ARM64, Arch, EVERY, X86_64};
use crate::case::{Case, Guest, Host, Platform, Skip};
use crate::devices::Role;
use crate::guest::Program;

/// On a host with iommufd.
pub(super) const CASES: &[Case] = &[
    Case {
        name: "a_host_with_iommufd_says_so_and_type1_can_be_had_as_well",
        on: EVERY,
        needs: &[Role::WideEdu],
        run: both_backends,
    },
    Case {
        name: "a_device_of_iommufd_that_is_accepted_reaches_private_pages_and_no_other_does",
        on: ARM64,
        needs: &[Role::WideEdu, Role::SecondEdu],
        run: |host| {
            require(host)?;
            one_of_two(host)
        },
    },
    Case {
        name: "whatever_call_of_iommufd_fails_ccvm_says_which_and_the_device_is_free",
        on: EVERY,
        needs: &[Role::WideEdu, Role::SecondEdu],
        run: |host| {
            require(host)?;
            let (test, devices): (_, &[Role]) = match host.arch {
                Arch::Arm64 => ("vdev", &[Role::WideEdu, Role::SecondEdu]),
                Arch::X86_64 => ("edu-highest-page", &[Role::WideEdu]),
            };
            every_call(
                host,
                &Walk {
                    dma_backend: "iommufd",
                    test,
                    devices,
                    wanted: is_of_iommufd,
                    most_points: 5,
                },
            )
        },
    },
    Case {
        name: "a_device_of_iommufd_reaches_what_the_guest_maps_and_only_as_long_as_it_is_shared",
        on: EVERY,
        needs: &[Role::WideEdu],
        run: |host| {
            require(host)?;
            translation_and_conversion(host)?;
            host.unbind(&[Role::WideEdu])
        },
    },
    Case {
        name: "a_busy_disk_behind_iommufd_is_accepted_and_stopped_and_loses_no_byte_and_no_interrupt",
        on: EVERY,
        needs: &[Role::Nvme],
        run: |host| {
            require(host)?;
            turns(host, 20)
        },
    },
    Case {
        name: "a_disk_behind_iommufd_comes_into_a_running_vm_and_leaves_it",
        on: EVERY,
        needs: &[Role::Ahci],
        run: |host| {
            require(host)?;
            comes_and_goes(host, Role::Ahci, &[1, 2])
        },
    },
    Case {
        name: "a_disk_behind_iommufd_reads_and_writes_in_a_realm",
        on: ARM64,
        needs: &[Role::Nvme],
        run: |host| {
            require(host)?;
            disk(host, Role::Nvme)
        },
    },
    Case {
        name: "a_disk_behind_iommufd_reads_and_writes_in_a_plain_vm",
        on: X86_64,
        needs: &[Role::Nvme],
        run: |host| {
            require(host)?;
            plain_disk(host, Role::Nvme)
        },
    },
    Case {
        name: "a_guest_translates_the_dma_of_a_disk_behind_iommufd",
        on: EVERY,
        needs: &[Role::Nvme],
        run: |host| {
            require(host)?;
            translated_disk(host, Role::Nvme, 36)
        },
    },
];

/// On a host without.
pub(super) const WITHOUT: &[Case] = &[Case {
    name: "iommufd_that_the_host_lacks_is_refused",
    on: EVERY,
    needs: &[Role::WideEdu],
    run: lacking,
}];

/// A guest with edu, and what it reports when all is well.
fn edu(
    arch: Arch,
    dma_backend: Option<&'static str>,
) -> (Guest, &'static [(&'static str, &'static str)]) {
    let (test, facts): (_, &[_]) = match arch {
        Arch::Arm64 => (
            "edu-private-again",
            &[
                ("shared_dma", "ok"),
                ("private_dma", "blocked"),
                ("shared_again_dma", "ok"),
                ("result", "pass"),
            ],
        ),
        Arch::X86_64 => ("edu-highest-page", &[("result", "pass")]),
    };
    let guest = Guest {
        devices: vec![(Role::WideEdu, Some(36))],
        dma_backend,
        ..Guest::new(Platform::hardest(arch), Program::Payload(test))
    };
    (guest, facts)
}

fn has_iommufd(host: &mut Host<'_>) -> anyhow::Result<bool> {
    let there = "test -c /dev/iommu && echo yes || true";
    Ok(host.machine.read(there)? == "yes")
}

/// Skips the test where the host has no iommufd.
fn require(host: &mut Host<'_>) -> anyhow::Result<()> {
    if has_iommufd(host)? {
        return Ok(());
    }
    Err(Skip("the host has no iommufd".to_owned()).into())
}

fn both_backends(host: &mut Host<'_>) -> anyhow::Result<()> {
    require(host)?;
    host.bind(&[Role::WideEdu])?;
    let output = host.ccvm("host --json")?;
    let facts: Value = serde_json::from_str(&output.text)
        .with_context(|| format!("ccvm host printed no JSON: {}", output.text))?;
    ensure!(facts["vfio"]["iommufd"] == true, "{facts}");
    ensure!(facts["vfio"]["type1"] == true, "{facts}");
    let address = host.address(Role::WideEdu)?;
    let mut devices = facts["devices"].as_array().into_iter().flatten();
    let device = devices.find(|device| device["pci"] == address.as_str());
    let device = device.with_context(|| format!("{address} is not there: {facts}"))?;
    ensure!(device["own_node"] == true, "{device}");
    for backend in [None, Some("type1")] {
        let (guest, facts) = edu(host.arch, backend);
        let run = host.boot(&guest)?;
        for (key, value) in facts {
            run.expect(key, value)?;
        }
        run.expect_status(0)?;
    }
    host.unbind(&[Role::WideEdu])
}

fn is_of_iommufd(call: &str) -> bool {
    call.starts_with("IOMMU_") || call.contains("IOMMUFD")
}

fn lacking(host: &mut Host<'_>) -> anyhow::Result<()> {
    if has_iommufd(host)? {
        return Err(Skip("the host has iommufd".to_owned()).into());
    }
    host.bind(&[Role::WideEdu])?;
    let (guest, _) = edu(host.arch, Some("iommufd"));
    let (status, report) = host.check(&guest)?;
    ensure!(status == 1, "{status}: {report}");
    let mut findings = report["diagnostics"].as_array().into_iter().flatten();
    ensure!(
        findings.any(|finding| finding["code"] == "CCVM0537"),
        "{report}"
    );
    let run = host.boot(&guest)?;
    run.expect_status(1)?;
    ensure!(run.output.text.contains("CCVM0537"), "{}", run.tail());
    host.unbind(&[Role::WideEdu])
}
