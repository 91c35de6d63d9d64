use proptest::prelude::*;

use super::*;

fn fault(address: u64, access: Access) -> HostFault {
    HostFault {
        device: "0000:00:02.0".parse().unwrap(),
        address,
        access,
    }
}

#[test]
fn the_lines_of_every_driver_are_read() {
    use Access::{Read, Unknown, Write};
    for (line, expected) in [
        (
            "arm-smmu-v3 9050000.smmuv3: event: F_TRANSLATION client: 0000:00:02.0 sid: 0x10 \
             ssid: 0x0 iova: 0x80001000 ipa: 0x0",
            Line::Began(fault(0x8000_1000, Unknown)),
        ),
        (
            "arm-smmu-v3 arm-smmu-v3.0.auto: event: F_PERMISSION client: 0000:00:02.0 sid: 0x10 \
             ssid: 0 iova: 0 ipa: 0",
            Line::Began(fault(0, Unknown)),
        ),
        (
            "arm-smmu-v3 9050000.smmuv3: unpriv data write s1 \"Input address caused fault\" \
             stag: 0x0",
            Line::Tried(Write),
        ),
        (
            "vfio-pci 0000:00:02.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x0037 \
             address=0x7b657064 flags=0x0000]",
            Line::Fault(fault(0x7b65_7064, Read)),
        ),
        (
            "AMD-Vi: Event logged [IO_PAGE_FAULT device=0000:00:02.0 domain=0x0007 \
             address=0xffffc02000 flags=0x0020]",
            Line::Fault(fault(0xff_ffc0_2000, Write)),
        ),
        (
            "DMAR: [DMA Write NO_PASID] Request device [00:02.0] fault addr 0x6df084000 [fault \
             reason 0x05] PTE Write access is not set",
            Line::Fault(fault(0x6_df08_4000, Write)),
        ),
        (
            "DMAR: [DMA Read PASID 0x1] Request device [00:02.0] fault addr 0x1000 [fault reason \
             0x06] PTE Read access is not set",
            Line::Fault(fault(0x1000, Read)),
        ),
    ] {
        assert_eq!(read(line), Some(expected), "{line}");
    }
}

#[test]
fn what_is_no_fault_of_a_device_is_none() {
    for line in [
        "",
        "arm-smmu-v3 9050000.smmuv3: event 0x10 received:",
        "arm-smmu-v3 9050000.smmuv3: event: F_TRANSLATION client: (unassigned sid) sid: 0x10 \
         ssid: 0x0 iova: 0x1000 ipa: 0x0",
        "arm-smmu-v3 9050000.smmuv3: event: C_BAD_STE client: 0000:00:02.0 sid: 0x10 ssid: 0x0",
        "arm-smmu-v3 9050000.smmuv3: event: F_STE_FETCH client: 0000:00:02.0 sid: 0x10 ssid: 0x0 \
         fetch_addr: 0x1000",
        "arm-smmu-v3 9050000.smmuv3: allocated 65536 entries for evtq",
        "AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x0007 address=0xffffc02000 flags=0x0000]",
        "AMD-Vi: Event logged [IO_PAGE_FAULT device=0000:00:02.0 domain=0x0007 address=0x1",
        "DMAR: [INTR-REMAP] Request device [00:02.0] fault index 0x1 [fault reason 0x25] x",
        "DMAR: DRHD: handling fault status reg 2",
        "someone: DMAR: [DMA Write NO_PASID] Request device [00:02.0] fault addr 0x1 [fault \
         reason 0x05] x",
    ] {
        assert_eq!(read(line), None, "{line}");
    }
}

/// Names as drivers and devices have them, and worse.
fn words() -> impl Strategy<Value = String> {
    "(arm-smmu-v3 |x: |event: |F_TRANSLATION |client: |0000:00:02.0 |sid: |0x1f |ssid: |iova: |ipa: \
     |AMD-Vi: |\\[IO_PAGE_FAULT |DMAR: |\\] |é|[ -~]){0,24}"
}

proptest! {
    #[test]
    fn no_line_is_a_panic(line in words()) {
        let _ = read(&line);
    }

    #[test]
    fn what_a_driver_prints_is_read_back(
        bus: u8, device in 0u8..32, function in 0u8..8, address: u64, write: bool,
    ) {
        let at = format!("{bus:02x}:{device:02x}.{function}");
        let expected = HostFault {
            device: PciAddress { segment: 0, bus, device, function },
            address,
            access: if write { Access::Write } else { Access::Read },
        };
        let line = format!(
            "arm-smmu-v3 9050000.smmuv3: event: F_TRANSLATION client: 0000:{at} sid: {:#x} ssid: \
             0x0 iova: {address:#x} ipa: 0x0",
            u32::from(bus) << 8
        );
        let began = HostFault { access: Access::Unknown, ..expected };
        prop_assert_eq!(read(&line), Some(Line::Began(began)));
        let flags = if write { 0x20 } else { 0 };
        let line = format!(
            "vfio-pci 0000:{at}: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x0001 \
             address={address:#x} flags={flags:#06x}]"
        );
        prop_assert_eq!(read(&line), Some(Line::Fault(expected)));
        let what = if write { "Write" } else { "Read" };
        let line = format!(
            "DMAR: [DMA {what} NO_PASID] Request device [{at}] fault addr {address:#x} [fault \
             reason 0x06] why"
        );
        prop_assert_eq!(read(&line), Some(Line::Fault(expected)));
    }
}
