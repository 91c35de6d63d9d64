use std::path::Path;

use proptest::prelude::*;

use super::super::recorded::Tree;
use super::*;

fn no_vfio(_group: u32) -> Result<Vec<RangeInclusive<u64>>, String> {
    Err("nothing should have been asked".to_owned())
}

fn smmu(_group: u32) -> Result<Vec<RangeInclusive<u64>>, String> {
    Ok(vec![0..=0x7ff_ffff, 0x810_0000..=0xffff_ffff_ffff])
}

fn document(devices: Vec<DeviceFacts>, unknown: Vec<String>) -> HostFacts {
    HostFacts {
        schema: SCHEMA,
        arch: Arch::Aarch64,
        kvm: None,
        vfio: None,
        devices,
        unknown,
    }
}

#[test]
fn a_device_with_its_own_driver_is_read_whole() {
    let tree = Tree::new();
    tree.e1000("0000:00:04.0", Some(3), Some("e1000"));
    let mut unknown = Vec::new();
    let devices = devices(tree.roots(), &mut unknown, no_vfio);
    assert_eq!(unknown, Vec::<String>::new());
    let json = serde_json::to_value(&devices[0]).unwrap();
    assert_eq!(
        json,
        serde_json::json!({
            "pci": "0000:00:04.0", "vendor": "0x8086", "device": "0x100e", "class": "0x020000",
            "group": 3, "driver": "e1000", "dma_mask_bits": 32, "coherent_dma_mask_bits": 32,
            "bars": [{"index": 0, "size": 131072, "kind": "mem32"},
                     {"index": 1, "size": 64, "kind": "io"}],
            "reserved_regions": [{"start": "0x8000000", "end": "0x80fffff", "kind": "msi"}]
        })
    );
}

#[test]
fn iova_ranges_are_asked_only_of_a_group_that_is_free() {
    let tree = Tree::new();
    tree.e1000("0000:00:04.0", Some(3), Some("vfio-pci"));
    tree.e1000("0000:00:05.0", Some(4), Some("vfio-pci"));
    tree.e1000("0000:00:05.1", Some(4), Some("e1000"));
    let devices = devices(tree.roots(), &mut Vec::new(), smmu);
    assert_eq!(devices[0].iova_ranges.as_ref().unwrap().len(), 2);
    assert_eq!(devices[1].iova_ranges, None);
    assert_eq!(devices[2].iova_ranges, None);
}

#[test]
fn a_group_that_does_not_answer_is_told() {
    let tree = Tree::new();
    tree.e1000("0000:00:04.0", Some(3), Some("vfio-pci"));
    let mut unknown = Vec::new();
    let devices = devices(tree.roots(), &mut unknown, |_| {
        Err("it is in use".to_owned())
    });
    assert_eq!(devices[0].iova_ranges, None);
    assert_eq!(unknown, ["IOMMU group 3: IOVA ranges: it is in use"]);
}

#[test]
fn a_host_without_an_iommu_or_without_pci_says_so() {
    let tree = Tree::new();
    let mut unknown = Vec::new();
    assert_eq!(devices(tree.roots(), &mut unknown, no_vfio), []);
    assert!(unknown[0].starts_with("PCI devices:"), "{unknown:?}");

    tree.e1000("0000:00:04.0", None, Some("e1000"));
    unknown.clear();
    assert_eq!(devices(tree.roots(), &mut unknown, no_vfio).len(), 1);
    assert!(
        unknown[0].starts_with("IOMMU groups: there are none"),
        "{unknown:?}"
    );
}

#[test]
fn masks_that_were_remembered_count_while_the_driver_is_away() {
    let tree = Tree::new();
    let pci = "0000:00:04.0";
    tree.e1000(pci, Some(3), Some("vfio-pci"));
    let note = |device: &str| {
        format!(
            "{{\"vendor\":\"0x8086\",\"device\":\"{device}\",\"driver\":\"e1000\",\
             \"dma_mask_bits\":40,\"coherent_dma_mask_bits\":39}}"
        )
    };
    let path = tree.roots().state.join("masks").join(format!("{pci}.json"));
    let read = || devices(tree.roots(), &mut Vec::new(), smmu).remove(0);

    tree.write(&path, &note("0x100e"));
    assert_eq!(read().dma_mask_bits, Some(40));
    assert_eq!(read().coherent_dma_mask_bits, Some(39));
    tree.write(&path, &note("0xffff"));
    assert_eq!(read().dma_mask_bits, Some(32), "a note on another card");
    tree.write(&path, "{ torn");
    assert_eq!(read().dma_mask_bits, Some(32), "a torn note");
    tree.write(&path, &note("0x100e"));
    tree.bind(pci, "e1000");
    assert_eq!(read().dma_mask_bits, Some(32), "the driver is back");
}

#[test]
fn this_host_is_read_without_a_fuss() {
    let facts = read();
    let text = serde_json::to_string(&facts).unwrap();
    assert_eq!(super::super::from_json(&text).unwrap(), facts);
}

#[test]
fn kvm_that_is_absent_or_barred_comes_with_a_remedy() {
    let absent = kvm_sentence(&kvm::ProbeError::Absent);
    assert!(absent.contains("load the kvm module"), "{absent}");
    let barred = kvm_sentence(&kvm::ProbeError::NoPermission);
    assert!(barred.contains("run as root"), "{barred}");
}

proptest! {
    // Each case writes a tree of its own.
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever sysfs says, what is recorded of it is a document that reads back the same.
    #[test]
    fn odd_attributes_never_make_an_odd_document(
        attributes in prop::collection::vec("[0-9a-fx \n-]{0,40}", 7),
        garbage in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let tree = Tree::new();
        tree.e1000("0000:00:04.0", Some(3), Some("vfio-pci"));
        let directory = tree.roots().pci_device("0000:00:04.0".parse().unwrap());
        let names = ["vendor", "device", "class", "dma_mask_bits", "consistent_dma_mask_bits",
                     "resource"];
        for (name, text) in names.iter().zip(&attributes) {
            // Every other case keeps a sound attribute, so that the later ones are reached.
            if text.len() % 2 == 0 {
                tree.write(&directory.join(name), text);
            }
        }
        let regions = tree.roots().iommu_group(3).join("reserved_regions");
        tree.write(&regions, &attributes[6]);
        std::fs::write(tree.roots().pci_devices().join("odd"), &garbage).unwrap();
        std::fs::write(directory.join("resource0"), &garbage).unwrap();

        let mut unknown = Vec::new();
        let facts = document(devices(tree.roots(), &mut unknown, smmu), unknown);
        let text = serde_json::to_string(&facts).unwrap();
        prop_assert_eq!(super::super::from_json(&text).unwrap(), facts);
    }
}

#[test]
fn attributes_that_are_not_files_are_survived() {
    let tree = Tree::new();
    tree.e1000("0000:00:04.0", Some(3), None);
    let directory = tree.roots().pci_device("0000:00:04.0".parse().unwrap());
    let replace = |path: &Path| {
        std::fs::remove_file(path).unwrap();
        std::fs::create_dir(path).unwrap();
    };
    replace(&directory.join("resource"));
    let mut unknown = Vec::new();
    assert_eq!(devices(tree.roots(), &mut unknown, no_vfio).len(), 1);
    assert!(
        unknown[0].contains("its BARs cannot be read"),
        "{unknown:?}"
    );
    replace(&directory.join("vendor"));
    assert_eq!(devices(tree.roots(), &mut unknown, no_vfio).len(), 0);
    assert!(
        unknown
            .iter()
            .any(|text| text.contains("its ids cannot be read"))
    );
}
