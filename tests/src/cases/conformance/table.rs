//! The table. `docs/platforms/conformance.md` is made from it.

use super::Can::{Not, OnHardware, Runs};
use super::{Cell, Row};
use super::{all_memory, device, device_private, extents, launch, pages, private_access, race};
use super::{attempt, host_access, life, shared_access};
use crate::case::Platform;
use crate::devices::Role;

/// The columns.
#[cfg(test)]
pub(super) const PLATFORMS: [Platform; 7] = [
    Platform::None,
    Platform::Realm,
    Platform::Protected,
    Platform::SwProtected,
    Platform::Cca,
    Platform::Snp,
    Platform::Tdx,
];

const NO_STATES: &str = "a plain VM has no private pages: nothing can change its state";
const SEES_ALL: &str = "an emulated Realm gives no confidentiality: the host sees all of it";
const NOT_ISOLATED: &str = "pKVM (Linux 7.3) leaves the IOMMU to the host: a device reaches private pages, and ccvm refuses it unless \
     the config gives that protection up";
const NO_RMM: &str =
    "no machine of the testbed has an RMM; on one that has, every row has passed (cca.md)";
const NO_SNP: &str = "no machine of the testbed has a security processor";
const NO_GHCB: &str = "an SNP guest's every access to a device is a message by the GHCB, which the tests' bare-metal guest does not speak; a \
     Linux that does starts in the row `launch`";
const NO_TDVF: &str = "a TD starts in firmware that hands a kernel on, which no distribution has, and in which there is no place for an initial RAM \
     disk: no guest of the tests comes up";

const EDU: &[Role] = &[Role::WideEdu];

macro_rules! platform {
    (none) => {
        Platform::None
    };
    (emulated_realm) => {
        Platform::Realm
    };
    (pkvm) => {
        Platform::Protected
    };
    (sw_protected) => {
        Platform::SwProtected
    };
    (cca) => {
        Platform::Cca
    };
    (snp) => {
        Platform::Snp
    };
    (tdx) => {
        Platform::Tdx
    };
}

macro_rules! rows {
    ($($name:ident, $means:literal, $needs:expr, $test:expr =>
        { $($platform:ident: $can:expr,)+ })+) => {
        pub(super) const ROWS: &[Row] = &[$(Row {
            #[cfg(test)]
            name: stringify!($name),
            #[cfg(test)]
            means: $means,
            needs: $needs,
            cells: &[$(Cell {
                case: concat!("conformance_", stringify!($name), "_on_", stringify!($platform)),
                platform: platform!($platform),
                can: $can,
                run: |host| attempt(host, (platform!($platform), $can), $means, $test),
            },)+],
        },)+];
    };
}

rows! {
    launch, "a guest with two processors starts, finds its memory, and powers off", &[], launch => {
        none: Runs,
        emulated_realm: Runs,
        pkvm: Runs,
        sw_protected: Runs,
        cca: OnHardware(NO_RMM),
        snp: OnHardware(NO_SNP),
        tdx: Not(NO_TDVF),
    }
    guest_reaches_private, "private pages hold what the guest writes", &[], private_access => {
        none: Not(NO_STATES),
        emulated_realm: Runs,
        pkvm: Runs,
        sw_protected: Runs,
        cca: OnHardware(NO_RMM),
        snp: Not(NO_GHCB),
        tdx: Not(NO_TDVF),
    }
    guest_reaches_shared, "shared pages hold what the guest writes", &[], shared_access => {
        none: Runs,
        emulated_realm: Runs,
        pkvm: Runs,
        sw_protected: Runs,
        cca: OnHardware(NO_RMM),
        snp: Not(NO_GHCB),
        tdx: Not(NO_TDVF),
    }
    host_reaches_shared, "the host reads what the guest writes to a shared page, and the guest what the host writes",
        &[], host_access::shared =>
    {
        none: Runs,
        emulated_realm: Runs,
        pkvm: Runs,
        sw_protected: Runs,
        cca: OnHardware(NO_RMM),
        snp: Not(NO_GHCB),
        tdx: Not(NO_TDVF),
    }
    host_misses_private, "the host does not find what the guest writes to a private page", &[], host_access::private => {
        none: Not(NO_STATES),
        emulated_realm: Not(SEES_ALL),
        pkvm: Runs,
        sw_protected: Runs,
        cca: OnHardware(NO_RMM),
        snp: Not(NO_GHCB),
        tdx: Not(NO_TDVF),
    }
    pages_convert, "single pages go from private to shared and back, and their neighbours keep their content", &[], pages => {
        none: Not(NO_STATES),
        emulated_realm: Runs,
        pkvm: Runs,
        sw_protected: Runs,
        cca: OnHardware(NO_RMM),
        snp: Not(NO_GHCB),
        tdx: Not(NO_TDVF),
    }
    extents_convert, "so do extents, large, small and not aligned", &[], extents => {
        none: Not(NO_STATES),
        emulated_realm: Runs,
        pkvm: Runs,
        sw_protected: Runs,
        cca: OnHardware(NO_RMM),
        snp: Not(NO_GHCB),
        tdx: Not(NO_TDVF),
    }
    all_memory_converts, "so does all memory that the guest does not run from", &[], all_memory => {
        none: Not(NO_STATES),
        emulated_realm: Runs,
        pkvm: Runs,
        sw_protected: Runs,
        cca: OnHardware(NO_RMM),
        snp: Not(NO_GHCB),
        tdx: Not(NO_TDVF),
    }
    conversions_race, "two processors convert neighbouring pages, and the same ones, at the same time", &[], race => {
        none: Not(NO_STATES),
        emulated_realm: Runs,
        pkvm: Runs,
        sw_protected: Runs,
        cca: OnHardware(NO_RMM),
        snp: Not(NO_GHCB),
        tdx: Not(NO_TDVF),
    }
    device_reaches_shared, "an assigned device reads and writes shared pages, through conversions by page, by extent and of all memory",
        EDU, device =>
    {
        none: Runs,
        emulated_realm: Runs,
        pkvm: Runs,
        sw_protected: Runs,
        cca: OnHardware(NO_RMM),
        snp: Not(NO_GHCB),
        tdx: Not(NO_TDVF),
    }
    device_misses_private, "it neither reads nor writes a page while that is private", EDU, device_private => {
        none: Not(NO_STATES),
        emulated_realm: Runs,
        pkvm: Not(NOT_ISOLATED),
        sw_protected: Runs,
        cca: OnHardware(NO_RMM),
        snp: Not(NO_GHCB),
        tdx: Not(NO_TDVF),
    }
    teardown, "a VM with a device that is ended leaves no process and no pinned page", EDU, life::teardown => {
        none: Runs,
        emulated_realm: Runs,
        pkvm: Runs,
        sw_protected: Runs,
        cca: OnHardware(NO_RMM),
        snp: Not(NO_GHCB),
        tdx: Not(NO_TDVF),
    }
    relaunch, "the same VM starts again at once, with the same device", EDU, life::relaunch => {
        none: Runs,
        emulated_realm: Runs,
        pkvm: Runs,
        sw_protected: Runs,
        cca: OnHardware(NO_RMM),
        snp: Not(NO_GHCB),
        tdx: Not(NO_TDVF),
    }
}
