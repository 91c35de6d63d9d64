//! Host facts read from this machine.

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;

use super::facts::{
    AddressRange, Arch, DeviceFacts, Hex, HostFacts, KvmFacts, Lacking, ReservedRegion, SCHEMA,
    VfioFacts,
};
use super::roots::{Roots, addresses_in, attribute};
use super::{encrypted, function, parse};
use crate::platform::Platform;

const THIS_ARCH: Arch = if cfg!(target_arch = "aarch64") {
    Arch::Aarch64
} else {
    Arch::X86_64
};

/// Reads the facts of this host, as far as the caller's permissions go.
///
/// What could not be read is absent, with a sentence in [`HostFacts::unknown`]. No device is
/// disturbed: a group that is in use, or that a host driver serves, is not asked for its IOVA ranges.
#[must_use]
pub fn read() -> HostFacts {
    let roots = Roots::this_host();
    let mut unknown = Vec::new();
    let kvm = kvm(&roots, &mut unknown);
    let vfio = vfio(&roots);
    let devices = devices(&roots, &mut unknown, ask_vfio);
    HostFacts {
        schema: SCHEMA,
        arch: THIS_ARCH,
        kvm,
        vfio: Some(vfio),
        devices,
        unknown,
    }
}

fn kvm(roots: &Roots, unknown: &mut Vec<String>) -> Option<KvmFacts> {
    let probe = match kvm::probe() {
        Ok(probe) => probe,
        Err(error) => {
            unknown.push(kvm_sentence(&error));
            return None;
        }
    };
    let mut platforms = vec![Platform::None];
    if probe.smccc_filter {
        platforms.push(Platform::EmulatedRealm);
    }
    let mut lacking = Vec::new();
    match probe.realms {
        Ok(_) => platforms.push(Platform::Cca),
        Err(kvm::cca::RealmLack::Architecture) => {}
        Err(lack) => lacking.push(Lacking {
            platform: Platform::Cca,
            reason: lack.to_string(),
        }),
    }
    match probe.protected {
        Ok(()) => platforms.push(Platform::Pkvm),
        Err(kvm::ProtectedLack::Architecture) => {}
        Err(lack) => lacking.push(Lacking {
            platform: Platform::Pkvm,
            reason: lack.to_string(),
        }),
    }
    match probe.sw_protected {
        Ok(()) => platforms.push(Platform::SwProtected),
        Err(kvm::sw_protected::SwProtectedLack::Architecture) => {}
        Err(lack) => lacking.push(Lacking {
            platform: Platform::SwProtected,
            reason: lack.to_string(),
        }),
    }
    if THIS_ARCH == Arch::X86_64 {
        encrypted::platforms(roots, probe.vm_types, &mut platforms, &mut lacking);
    }
    let phys_bits = match THIS_ARCH {
        Arch::X86_64 => attribute(&roots.procfs.join("cpuinfo"))
            .ok()
            .and_then(|text| parse::physical_bits(&text)),
        Arch::Aarch64 => None,
    };
    Some(KvmFacts {
        api: probe.api,
        ipa_bits_max: probe.ipa_bits_max,
        phys_bits,
        platforms,
        lacking,
    })
}

fn kvm_sentence(error: &kvm::ProbeError) -> String {
    let remedy = match error {
        kvm::ProbeError::Absent => {
            "; load the kvm module of this processor, or turn virtualization on in the firmware"
                .to_owned()
        }
        kvm::ProbeError::NoPermission => {
            "; run as root, or as a member of the group that owns it".to_owned()
        }
        kvm::ProbeError::Open(source) => format!(": {source}"),
        kvm::ProbeError::NotKvm(_) => String::new(),
    };
    format!("KVM: {error}{remedy}")
}

fn vfio(roots: &Roots) -> VfioFacts {
    let limit = roots
        .sysfs
        .join("module/vfio_iommu_type1/parameters/dma_entry_limit");
    VfioFacts {
        type1: roots.dev.join("vfio/vfio").exists(),
        iommufd: roots.dev.join("iommu").exists(),
        dma_entry_limit: attribute(&limit).ok().and_then(|text| text.parse().ok()),
    }
}

/// Asks what a group can map: `vfio::iova_ranges`, or a test's answer.
type AskIova = fn(u32) -> Result<Vec<RangeInclusive<u64>>, String>;

fn ask_vfio(group: u32) -> Result<Vec<RangeInclusive<u64>>, String> {
    vfio::iova_ranges(group).map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        format!("{error}{}", cause.unwrap_or_default())
    })
}

fn devices(roots: &Roots, unknown: &mut Vec<String>, ask: AskIova) -> Vec<DeviceFacts> {
    let addresses = match addresses_in(&roots.pci_devices()) {
        Ok(addresses) => addresses,
        Err(error) => {
            unknown.push(no_pci(&error));
            return Vec::new();
        }
    };
    let mut devices: Vec<_> = addresses
        .into_iter()
        .filter_map(|pci| function::read(roots, pci, unknown))
        .collect();
    if devices.iter().all(|device| device.group.is_none()) && !devices.is_empty() {
        unknown.push(
            "IOMMU groups: there are none, so no device can be assigned; turn the IOMMU on in the \
             firmware and on the kernel's command line"
                .to_owned(),
        );
    }
    let groups = groups(&devices);
    let facts: BTreeMap<u32, GroupFacts> = groups
        .iter()
        .map(|(&group, members)| (group, group_facts(roots, group, members, unknown, ask)))
        .collect();
    for device in &mut devices {
        if let Some(facts) = device.group.and_then(|group| facts.get(&group)) {
            device.reserved_regions.clone_from(&facts.reserved);
            device.iova_ranges.clone_from(&facts.iova);
        }
    }
    devices
}

fn no_pci(error: &io::Error) -> String {
    format!("PCI devices: sysfs does not list them: {error}")
}

struct GroupFacts {
    reserved: Vec<ReservedRegion>,
    iova: Option<Vec<AddressRange>>,
}

/// The drivers of each group's members.
fn groups(devices: &[DeviceFacts]) -> BTreeMap<u32, Vec<Option<String>>> {
    let mut groups = BTreeMap::<u32, Vec<_>>::new();
    for device in devices {
        if let Some(group) = device.group {
            groups.entry(group).or_default().push(device.driver.clone());
        }
    }
    groups
}

fn group_facts(
    roots: &Roots,
    group: u32,
    drivers: &[Option<String>],
    unknown: &mut Vec<String>,
    ask: AskIova,
) -> GroupFacts {
    let path = roots.iommu_group(group).join("reserved_regions");
    let text = attribute(&path).map_err(|error| error.to_string());
    let reserved = text.and_then(|text| parse::reserved_regions(&text));
    let reserved = reserved.unwrap_or_else(|reason| {
        unknown.push(format!(
            "IOMMU group {group}: its reserved regions cannot be read: {reason}"
        ));
        Vec::new()
    });
    let mut drivers = drivers.iter().flatten();
    let on_vfio = drivers.clone().any(|driver| function::is_vfio(driver));
    // A bridge in the group keeps its driver; any other host driver makes the group unusable.
    let free = drivers.all(|driver| {
        function::is_vfio(driver) || matches!(driver.as_str(), "pcieport" | "pci-stub")
    });
    let iova = (on_vfio && free).then(|| ask(group)).and_then(|answer| {
        answer
            .map_err(|reason| {
                unknown.push(format!("IOMMU group {group}: IOVA ranges: {reason}"));
            })
            .ok()
    });
    GroupFacts {
        reserved,
        iova: iova.map(|ranges| ranges.into_iter().map(address_range).collect()),
    }
}

fn address_range(range: RangeInclusive<u64>) -> AddressRange {
    AddressRange {
        start: Hex(*range.start()),
        end: Hex(*range.end()),
    }
}

#[cfg(test)]
mod tests;
