//! The VM tests.

mod block;
mod boot;
mod conformance;
mod control;
mod disk;
mod edu;
mod faults;
mod flags;
mod host;
mod hostile;
mod hotplug;
mod iommu;
mod iommufd;
pub(crate) mod nested;
mod net;
mod pkvm;
mod realm;
mod refuse;
mod resources;
mod storage;
mod storm;
mod sw_protected;
mod tdi;
mod vhost_user;
mod virtio_misc;
pub(crate) mod virtio_net;

use crate::arch::Arch;
use crate::case::Case;
use conformance::Home;

/// The tests that run on the distribution's kernel, in the order in which they run: cheap ones first.
#[must_use]
pub(crate) fn on_distribution_kernel(arch: Arch) -> Vec<Case> {
    let groups = [
        host::CASES,
        refuse::CASES,
        flags::CASES,
        resources::CASES,
        realm::CASES,
        edu::CASES,
        tdi::CASES,
        control::CASES,
        faults::CASES,
        iommufd::WITHOUT,
        boot::CASES,
        disk::CASES,
        block::CASES,
        storage::CASES,
        virtio_net::CASES,
        virtio_misc::CASES,
        vhost_user::CASES,
        iommu::CASES,
        net::CASES,
        nested::CASES,
        hostile::CASES,
        hotplug::CASES,
        storm::CASES,
        &conformance::cases(Home::Distribution),
    ];
    of(arch, groups.concat())
}

/// The tests that need a kernel with IOMMUFD and VMs with private memory.
#[must_use]
pub(crate) fn on_own_kernel(arch: Arch) -> Vec<Case> {
    let groups = [
        sw_protected::CASES,
        iommufd::CASES,
        &conformance::cases(Home::Own),
    ];
    of(arch, groups.concat())
}

/// The tests that need a host that runs as pKVM.
#[must_use]
pub(crate) fn on_pkvm(arch: Arch) -> Vec<Case> {
    of(
        arch,
        [pkvm::CASES, &conformance::cases(Home::Pkvm)].concat(),
    )
}

/// All tests of an architecture.
#[must_use]
pub(crate) fn all(arch: Arch) -> Vec<Case> {
    [
        on_distribution_kernel(arch),
        on_own_kernel(arch),
        on_pkvm(arch),
    ]
    .concat()
}

fn of(arch: Arch, mut cases: Vec<Case>) -> Vec<Case> {
    cases.retain(|case| case.on.contains(&arch));
    cases
}
