//! Names of PCI classes, for people (PCI Code and ID Assignment Specification, section 1).

/// What a function is, in two or three words.
#[must_use]
pub const fn class_name(class: u32) -> &'static str {
    // A 24-bit code: base class, subclass, programming interface.
    match (class >> 16, class >> 8 & 0xff, class & 0xff) {
        (0x00, _, _) => "unclassified",
        (0x01, 0x00, _) => "SCSI controller",
        (0x01, 0x01, _) => "IDE controller",
        (0x01, 0x04, _) => "RAID controller",
        (0x01, 0x06, _) => "SATA controller",
        (0x01, 0x07, _) => "SAS controller",
        (0x01, 0x08, _) => "NVMe controller",
        (0x01, _, _) => "storage controller",
        (0x02, 0x00, _) => "Ethernet controller",
        (0x02, 0x07, _) => "InfiniBand controller",
        (0x02, _, _) => "network controller",
        (0x03, 0x00, _) => "VGA controller",
        (0x03, 0x02, _) => "3D controller",
        (0x03, _, _) => "display controller",
        (0x04, 0x03, _) => "HD audio controller",
        (0x04, _, _) => "multimedia device",
        (0x05, 0x02, _) => "CXL memory",
        (0x05, _, _) => "memory controller",
        (0x06, 0x00, _) => "host bridge",
        (0x06, 0x01, _) => "ISA bridge",
        (0x06, 0x04, _) => "PCI bridge",
        (0x06, _, _) => "bridge",
        (0x07, 0x00, _) => "serial port",
        (0x07, _, _) => "communication device",
        (0x08, 0x05, _) => "SD host controller",
        (0x08, 0x06, _) => "IOMMU",
        (0x08, _, _) => "system device",
        (0x09, _, _) => "input device",
        (0x0b, _, _) => "processor",
        (0x0c, 0x03, 0x30) => "USB controller (xHCI)",
        (0x0c, 0x03, _) => "USB controller",
        (0x0c, 0x05, _) => "SMBus controller",
        (0x0c, _, _) => "serial bus controller",
        (0x0d, _, _) => "wireless controller",
        (0x10, _, _) => "encryption controller",
        (0x11, _, _) => "signal processor",
        (0x12, _, _) => "accelerator",
        (0xff, _, _) => "vendor-specific",
        _ => "other",
    }
}

/// Whether a function is a bridge: part of the host's own fabric, never handed to a VM.
#[must_use]
pub const fn is_bridge(class: u32) -> bool {
    class >> 16 == 0x06
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_told_apart_down_to_the_interface() {
        assert_eq!(class_name(0x01_0802), "NVMe controller");
        assert_eq!(class_name(0x0c_0330), "USB controller (xHCI)");
        assert_eq!(class_name(0x0c_0320), "USB controller");
        assert_eq!(class_name(u32::MAX), "other");
        assert!(is_bridge(0x06_0400) && !is_bridge(0x02_0000));
    }
}
