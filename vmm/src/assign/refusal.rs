//! Why devices cannot be assigned, in the words of an operator.

use vfio::{ContainerError, IommufdOpenError, OpenError};

use crate::causes::chain;
use crate::diagnostic::{Code, Diagnostic, Place};
use crate::host::facts::PciAddress;

/// Why there is no VFIO.
pub(super) fn of_container(error: &ContainerError) -> Diagnostic {
    let (code, help) = match error {
        ContainerError::Missing => (
            Code::VfioMissing,
            "load the modules: `modprobe vfio-pci` and `modprobe vfio_iommu_type1`; the host also \
             needs an IOMMU that is on",
        ),
        ContainerError::Permission => (
            Code::VfioPermission,
            "run as root, or give this user read and write access to /dev/vfio/vfio",
        ),
        ContainerError::Open(_) => (Code::VfioMissing, "VFIO must be usable on this host"),
        ContainerError::Unsupported(_) => (
            Code::VfioMissing,
            "ccvm needs the type1 IOMMU: `modprobe vfio_iommu_type1`",
        ),
        ContainerError::Iommufd(IommufdOpenError::Missing) => (
            Code::IommufdMissing,
            "load the module: `modprobe iommufd`; a kernel without it has type1 only",
        ),
        ContainerError::Iommufd(IommufdOpenError::Permission) => (
            Code::VfioPermission,
            "run as root, or give this user read and write access to /dev/iommu",
        ),
        ContainerError::Iommufd(IommufdOpenError::Open(_)) | ContainerError::Ioas(_) => (
            Code::IommufdMissing,
            "iommufd must be usable on this host, or use `dma-backend = \"type1\"`",
        ),
    };
    Diagnostic::error(code, chain(error)).with_help(help)
}

/// Why this device, the `index`th of the config, is not free.
pub(super) fn of_device(index: usize, pci: PciAddress, error: &OpenError) -> Diagnostic {
    let (code, help) = match error {
        OpenError::Missing(_) => (
            Code::DeviceAbsent,
            "`ccvm host` lists the functions of this host".to_owned(),
        ),
        OpenError::NoGroup(_) => (
            Code::NoIommuGroup,
            "turn the IOMMU on in the firmware and in the kernel".to_owned(),
        ),
        OpenError::HostDriver { .. } | OpenError::Unbound(_) => (
            Code::DeviceNotBound,
            format!("run `ccvm device bind {pci}`"),
        ),
        OpenError::ForeignMembers { members, .. } => {
            let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
            let names = names.join(" ");
            let help =
                format!("the whole group goes to the VM or none: `ccvm device bind {names}`");
            (Code::GroupNotViable, help)
        }
        OpenError::Permission { node, .. } => (
            Code::VfioPermission,
            format!(
                "run as root, or give this user read and write access to {}",
                node.display()
            ),
        ),
        OpenError::NoNode(_) => (
            Code::IommufdMissing,
            "this kernel's VFIO knows no iommufd: use `dma-backend = \"type1\"`".to_owned(),
        ),
        OpenError::Busy { .. } => (
            Code::DeviceInUse,
            "another VM has a device of this IOMMU group".to_owned(),
        ),
        OpenError::Call { .. } | OpenError::Descriptor { .. } => (
            Code::DeviceNotOpened,
            "the kernel's log may say more: `dmesg`".to_owned(),
        ),
        OpenError::Malformed { .. } => (
            Code::DeviceNotAssignable,
            "only PCI endpoints can be assigned".to_owned(),
        ),
    };
    Diagnostic::error(code, chain(error))
        .about(pci)
        .on(Place::Device(index, Some("pci")))
        .with_help(help)
}

#[cfg(test)]
mod tests {
    use vfio::Member;

    use super::*;

    fn pci() -> PciAddress {
        "0000:00:04.0".parse().unwrap()
    }

    #[test]
    fn a_device_of_a_host_driver_names_the_command_that_frees_it() {
        let error = OpenError::HostDriver {
            function: "0000:00:04.0".to_owned(),
            driver: "e1000".to_owned(),
        };
        let refusal = of_device(0, pci(), &error);
        assert_eq!(refusal.code, Code::DeviceNotBound);
        assert_eq!(
            refusal.message,
            "0000:00:04.0: device still bound to host driver e1000"
        );
        let help = refusal.help.as_deref();
        assert_eq!(help, Some("run `ccvm device bind 0000:00:04.0`"));
    }

    #[test]
    fn foreign_members_of_the_group_are_named() {
        let member = |name: &str| Member {
            name: name.to_owned(),
            driver: "snd_hda_intel".to_owned(),
        };
        let error = OpenError::ForeignMembers {
            function: "0000:00:04.0".to_owned(),
            group: "7".to_owned(),
            members: vec![member("0000:00:04.1"), member("0000:00:04.2")],
        };
        let refusal = of_device(0, pci(), &error);
        assert_eq!(refusal.code, Code::GroupNotViable);
        assert!(
            refusal
                .message
                .contains("0000:00:04.1 (driver snd_hda_intel)")
        );
        assert!(
            refusal
                .help
                .unwrap()
                .ends_with("bind 0000:00:04.1 0000:00:04.2`")
        );
    }

    #[test]
    fn missing_modules_and_missing_permission_are_told_apart() {
        assert_eq!(
            of_container(&ContainerError::Missing).code,
            Code::VfioMissing
        );
        let denied = of_container(&ContainerError::Permission);
        assert_eq!(denied.code, Code::VfioPermission);
        assert_eq!(denied.message, "no permission to open /dev/vfio/vfio");
    }
}
