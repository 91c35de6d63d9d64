//! The guest is a host itself: a program of its own has a device, behind the guest's IOMMU.

use anyhow::ensure;

use crate::arch::EVERY;
use crate::case::{Case, Guest, GuestIommu, Host, Platform, Run};
use crate::devices::Role;
use crate::guest::Step;
use crate::progress::note;

pub(super) const CASES: &[Case] = &[Case {
    name: "a_guest_uses_vfio_on_an_assigned_device_behind_the_virtual_iommu",
    on: EVERY,
    needs: &[Role::WideEdu],
    run: vfio_in_the_guest,
}];

/// Boots a guest in which a program drives edu and measures.
pub(crate) fn boot(host: &mut Host<'_>) -> anyhow::Result<Run> {
    host.bind(&[Role::WideEdu])?;
    host.boot(&Guest {
        devices: vec![(Role::WideEdu, Some(36))],
        iommu: GuestIommu::Translating,
        ..Guest::debian(Platform::None, &[Step::Iommu, Step::Nested])
    })
}

fn vfio_in_the_guest(host: &mut Host<'_>) -> anyhow::Result<()> {
    host.await_fault_log()?;
    let run = boot(host)?;
    run.expect("mapped_dma", "ok")?;
    run.expect("unmapped_dma", "blocked")?;
    run.expect("huge_pages", "yes")?;
    run.expect("nested", "0")?;
    // The guest's driver was told on the event queue.
    ensure!(
        run.number("page_faults")? > 0,
        "the guest learnt of no fault"
    );
    ensure!(run.number("exit_ns")? > 0, "an exit takes no time");
    // One request for a contiguous range, however long: 256 times the pages take far less than 256
    // times the time. What a page costs is the host's own work.
    for what in ["map", "unmap"] {
        let (page, many) = (
            run.number(&format!("{what}_4k_ns"))?,
            run.number(&format!("{what}_1m_ns"))?,
        );
        ensure!(
            many < 64 * page,
            "{what} of 1 MiB took {many} ns, of 4 KiB {page} ns"
        );
    }
    note(&format!("one exit: {} ns", run.number("exit_ns")?));
    for size in ["4k", "64k", "1m"] {
        let map = run.fact(&format!("map_{size}_exits"))?;
        let unmap = run.fact(&format!("unmap_{size}_exits"))?;
        note(&format!("{size}: MAP {map} exits, UNMAP {unmap} exits"));
    }
    run.expect_status(0)
}
