//! What an x86-64 host lacks for guests whose processor encrypts their memory.
//!
//! KVM says by one bit whether it makes them. Why not is told by what the kernel shows of the processor
//! and of KVM's modules: looked at in the order in which an operator would put it right.

use kvm::VmTypes;

use super::facts::Lacking;
use super::parse;
use super::roots::{Roots, attribute};
use crate::platform::Platform;

/// What is there, and why what is not is not.
pub(super) fn platforms(
    roots: &Roots,
    types: VmTypes,
    offered: &mut Vec<Platform>,
    lacking: &mut Vec<Lacking>,
) {
    let cpuinfo = attribute(&roots.procfs.join("cpuinfo")).unwrap_or_default();
    for (platform, lack) in [
        (Platform::Snp, snp(roots, types, &cpuinfo)),
        (Platform::Tdx, tdx(roots, types, &cpuinfo)),
    ] {
        match lack {
            None => offered.push(platform),
            Some(reason) => lacking.push(Lacking {
                platform,
                reason: reason.to_owned(),
            }),
        }
    }
}

fn snp(roots: &Roots, types: VmTypes, cpuinfo: &str) -> Option<&'static str> {
    if !types.has_snp() {
        let module = module_switch(roots, "kvm_amd/parameters/sev_snp");
        return Some(match module {
            _ if !matches!(
                parse::vendor(cpuinfo),
                Some("AuthenticAMD" | "HygonGenuine")
            ) =>
            {
                "its processor is not one of AMD"
            }
            _ if !parse::has_flag(cpuinfo, "sev_snp") => {
                "its processor has no SEV-SNP, or the firmware's settings have it off (no sev_snp among \
                 the flags in /proc/cpuinfo)"
            }
            Switch::Absent => {
                "its kernel has no SEV-SNP for guests (CONFIG_KVM_AMD_SEV, Linux 6.11 and later), or the \
                 module kvm_amd is not loaded"
            }
            Switch::Off => {
                "its kvm_amd has SEV-SNP off (parameter sev_snp): the kernel's log says what it misses, \
                 such as the RMP that the firmware reserves (SNP memory coverage), the IOMMU, or the \
                 security processor's firmware"
            }
            Switch::On => {
                "its KVM does not make VMs of this type, though its module has SEV-SNP on"
            }
        });
    }
    let device = roots.dev.join("sev").exists();
    (!device)
        .then_some("there is no /dev/sev: the driver of the security processor, ccp, is not there")
}

fn tdx(roots: &Roots, types: VmTypes, cpuinfo: &str) -> Option<&'static str> {
    if types.has_tdx() {
        return None;
    }
    Some(match module_switch(roots, "kvm_intel/parameters/tdx") {
        _ if parse::vendor(cpuinfo) != Some("GenuineIntel") => "its processor is not one of Intel",
        _ if !parse::has_flag(cpuinfo, "tdx_host_platform") => {
            "its processor has no TDX, or the firmware's settings have it off (no tdx_host_platform among \
             the flags in /proc/cpuinfo)"
        }
        Switch::Absent => {
            "its kernel has no TDX for guests (CONFIG_KVM_INTEL_TDX, Linux 6.16 and later), or the module \
             kvm_intel is not loaded"
        }
        Switch::Off => {
            "its kvm_intel has TDX off: load it with tdx=1; the kernel's log says what it misses then, such \
             as the TDX module"
        }
        Switch::On => "its KVM does not make VMs of this type, though its module has TDX on",
    })
}

/// A parameter of a module that is yes or no.
enum Switch {
    Absent,
    Off,
    On,
}

fn module_switch(roots: &Roots, path: &str) -> Switch {
    match attribute(&roots.sysfs.join("module").join(path)).as_deref() {
        Ok("Y" | "1") => Switch::On,
        Ok(_) => Switch::Off,
        Err(_) => Switch::Absent,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    /// A host with these files.
    fn reasons(files: &[(&str, &str)]) -> (String, String) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let at = |name: &str| -> PathBuf { root.path().join(name) };
        let roots = Roots {
            sysfs: at("sys"),
            procfs: at("proc"),
            dev: at("dev"),
            state: at("state"),
        };
        let (mut offered, mut lacking) = (Vec::new(), Vec::new());
        platforms(&roots, VmTypes::default(), &mut offered, &mut lacking);
        assert_eq!(offered, []);
        let [snp, tdx] = lacking.try_into().unwrap();
        (snp.reason, tdx.reason)
    }

    fn cpuinfo(vendor: &str, flags: &str) -> String {
        format!("processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: fpu {flags}\n")
    }

    #[test]
    fn the_first_thing_to_put_right_is_named() {
        let snp = |flags: &str, switch: Option<&str>| {
            let cpuinfo = cpuinfo("AuthenticAMD", flags);
            let mut files = vec![("proc/cpuinfo", cpuinfo.as_str())];
            files.extend(switch.map(|value| ("sys/module/kvm_amd/parameters/sev_snp", value)));
            reasons(&files).0
        };
        assert!(snp("sev", None).contains("no sev_snp among"));
        assert!(snp("sev sev_snp", None).contains("CONFIG_KVM_AMD_SEV"));
        assert!(snp("sev sev_snp", Some("N\n")).contains("parameter sev_snp"));
        assert!(snp("sev sev_snp", Some("Y\n")).contains("though"));
        let tdx = |flags: &str, switch: Option<&str>| {
            let cpuinfo = cpuinfo("GenuineIntel", flags);
            let mut files = vec![("proc/cpuinfo", cpuinfo.as_str())];
            files.extend(switch.map(|value| ("sys/module/kvm_intel/parameters/tdx", value)));
            reasons(&files).1
        };
        assert!(tdx("", None).contains("no tdx_host_platform among"));
        assert!(tdx("tdx_host_platform", None).contains("CONFIG_KVM_INTEL_TDX"));
        assert!(tdx("tdx_host_platform", Some("N\n")).contains("tdx=1"));
    }

    #[test]
    fn a_processor_of_another_vendor_has_none() {
        let (snp, _) = reasons(&[(
            "proc/cpuinfo",
            &cpuinfo("GenuineIntel", "tdx_host_platform"),
        )]);
        assert_eq!(snp, "its processor is not one of AMD");
        let (_, tdx) = reasons(&[("proc/cpuinfo", &cpuinfo("AuthenticAMD", "sev_snp"))]);
        assert_eq!(tdx, "its processor is not one of Intel");
        let (snp, tdx) = reasons(&[]);
        assert!(snp.contains("AMD") && tdx.contains("Intel"));
    }
}
