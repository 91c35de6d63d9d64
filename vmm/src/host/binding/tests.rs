use std::cell::RefCell;
use std::collections::BTreeSet;

use super::super::recorded::Tree;
use super::*;

const NIC: &str = "0000:00:04.0";
const TWIN: &str = "0000:00:04.1";

/// What the driver core does with these attributes, on a tree; it can be told to refuse.
struct Driver<'a> {
    tree: &'a Tree,
    /// Which driver's ids match the devices.
    native: &'static str,
    /// Attributes whose writing fails.
    broken: BTreeSet<&'static str>,
    open: bool,
    register: Option<u8>,
    /// The group that a device without one comes into when a driver comes to it.
    isolates: Option<u32>,
    writes: RefCell<Vec<String>>,
}

impl<'a> Driver<'a> {
    fn new(tree: &'a Tree) -> Self {
        Self {
            tree,
            native: "e1000",
            broken: BTreeSet::new(),
            open: false,
            register: None,
            isolates: None,
            writes: RefCell::default(),
        }
    }

    fn without(tree: &'a Tree, attribute: &'static str) -> Self {
        let mut driver = Self::new(tree);
        driver.broken.insert(attribute);
        driver
    }

    fn path(&self, attribute: &Path) -> String {
        let sysfs = &self.tree.roots().sysfs;
        attribute.strip_prefix(sysfs).unwrap().display().to_string()
    }
}

impl Kernel for Driver<'_> {
    fn write(&self, attribute: &Path, text: &str) -> io::Result<()> {
        let path = self.path(attribute);
        let name = path.trim_start_matches("bus/pci/");
        self.writes
            .borrow_mut()
            .push(format!("{name} {}", text.trim()));
        if self.broken.iter().any(|broken| path.ends_with(broken)) {
            return Err(io::Error::from_raw_os_error(16));
        }
        let link = |pci: &str| self.tree.roots().pci_device(pci.parse().unwrap());
        match path.rsplit('/').next().unwrap() {
            "driver_override" => std::fs::write(attribute, text)?,
            "unbind" => std::fs::remove_file(link(text).join("driver"))?,
            "bind" => self.tree.bind(text, path.rsplit('/').nth(1).unwrap()),
            "drivers_probe" => {
                let chosen = std::fs::read_to_string(link(text).join("driver_override"))?;
                match chosen.trim() {
                    "" | "(null)" => self.tree.bind(text, self.native),
                    chosen => {
                        if let Some(group) = self.isolates {
                            self.tree.isolate(text, group);
                        }
                        let has_group = link(text).join("iommu_group").exists();
                        if has_group || chosen != VFIO_PCI {
                            self.tree.bind(text, chosen);
                        }
                    }
                }
            }
            other => panic!("nothing writes to {other}"),
        }
        Ok(())
    }

    fn group_is_open(&self, _group: u32) -> bool {
        self.open
    }

    fn register_dma_bits(&self, _device: &DeviceFacts) -> Option<u8> {
        self.register
    }
}

fn host_with_a_card(driver: Option<&str>) -> Tree {
    let tree = Tree::new();
    tree.e1000(NIC, Some(3), driver);
    tree.driver("vfio-pci");
    tree
}

fn driver_of(tree: &Tree, pci: &str) -> Option<String> {
    link_name(&tree.roots().pci_device(pci.parse().unwrap()).join("driver"))
}

fn note_of(tree: &Tree) -> Option<serde_json::Value> {
    let path = tree.roots().state.join("masks").join(format!("{NIC}.json"));
    serde_json::from_str(&std::fs::read_to_string(path).ok()?).unwrap()
}

fn nic() -> PciAddress {
    NIC.parse().unwrap()
}

#[test]
fn a_device_goes_to_vfio_and_its_masks_are_noted() {
    let tree = host_with_a_card(Some("e1000"));
    let kernel = Driver::new(&tree);
    let moved = Binder::new(tree.roots(), &kernel)
        .bind(nic(), HostUse::Respect)
        .unwrap();
    assert_eq!(moved.from.as_deref(), Some("e1000"));
    assert_eq!(moved.to.as_deref(), Some("vfio-pci"));
    assert_eq!(moved.must_follow, []);
    assert_eq!(driver_of(&tree, NIC).as_deref(), Some("vfio-pci"));
    assert_eq!(
        note_of(&tree).unwrap(),
        serde_json::json!({"vendor": "0x8086", "device": "0x100e", "driver": "e1000",
                           "dma_mask_bits": 32, "coherent_dma_mask_bits": 32})
    );
    assert_eq!(
        *kernel.writes.borrow(),
        [
            format!("devices/{NIC}/driver_override vfio-pci"),
            format!("drivers/e1000/unbind {NIC}"),
            format!("drivers_probe {NIC}"),
        ]
    );
}

#[test]
fn a_device_comes_back_to_the_driver_that_it_had() {
    for former in [Some("e1000"), Some("e1000-out-of-tree"), None] {
        let tree = host_with_a_card(former);
        let kernel = Driver::new(&tree);
        let binder = Binder::new(tree.roots(), &kernel);
        binder.bind(nic(), HostUse::Respect).unwrap();
        let moved = binder.unbind(nic()).unwrap();
        assert_eq!(moved.from.as_deref(), Some("vfio-pci"));
        assert_eq!(moved.to.as_deref(), former);
        assert_eq!(driver_of(&tree, NIC).as_deref(), former);
        assert_eq!(binder.driver_override(nic()), "");
        assert_eq!(note_of(&tree).is_some(), former.is_none());
    }
}

#[test]
fn a_driver_that_is_gone_leaves_the_choice_to_the_kernel() {
    let tree = host_with_a_card(Some("e1000-out-of-tree"));
    Binder::new(tree.roots(), &Driver::new(&tree))
        .bind(nic(), HostUse::Respect)
        .unwrap();
    let kernel = Driver::without(&tree, "e1000-out-of-tree/bind");
    let moved = Binder::new(tree.roots(), &kernel).unbind(nic()).unwrap();
    assert_eq!(moved.to.as_deref(), Some("e1000"));
}

#[test]
fn moving_a_device_to_where_it_is_changes_nothing() {
    let tree = host_with_a_card(Some("vfio-pci"));
    let kernel = Driver::new(&tree);
    let moved = Binder::new(tree.roots(), &kernel)
        .bind(nic(), HostUse::Respect)
        .unwrap();
    assert_eq!(moved.from, moved.to);
    tree.bind(NIC, "e1000");
    let moved = Binder::new(tree.roots(), &kernel).unbind(nic()).unwrap();
    assert_eq!(moved.to.as_deref(), Some("e1000"));
    assert_eq!(*kernel.writes.borrow(), Vec::<String>::new());
}

#[test]
fn a_device_that_cannot_be_bound_is_left_as_it_was() {
    for broken in ["driver_override", "e1000/unbind", "drivers_probe"] {
        let tree = host_with_a_card(Some("e1000"));
        let kernel = Driver::without(&tree, broken);
        let error = Binder::new(tree.roots(), &kernel)
            .bind(nic(), HostUse::Respect)
            .unwrap_err();
        assert_eq!(error.code, Code::DeviceNotMoved, "{error}");
        assert_eq!(driver_of(&tree, NIC).as_deref(), Some("e1000"), "{broken}");
        let left = Binder::new(tree.roots(), &kernel).driver_override(nic());
        assert_eq!(left, "", "{broken}");
    }
}

#[test]
fn an_override_that_an_operator_had_set_is_put_back() {
    let tree = host_with_a_card(Some("e1000"));
    let path = tree.roots().pci_device(nic()).join("driver_override");
    tree.write(&path, "e1000\n");
    let kernel = Driver::without(&tree, "drivers_probe");
    let binder = Binder::new(tree.roots(), &kernel);
    binder.bind(nic(), HostUse::Respect).unwrap_err();
    assert_eq!(binder.driver_override(nic()), "e1000");
    assert_eq!(note_of(&tree), None);
}

#[test]
fn a_device_that_a_vm_uses_is_not_taken_from_it() {
    let tree = host_with_a_card(Some("vfio-pci"));
    let mut kernel = Driver::new(&tree);
    kernel.open = true;
    let error = Binder::new(tree.roots(), &kernel)
        .unbind(nic())
        .unwrap_err();
    assert_eq!(error.code, Code::DeviceInUse);
    assert_eq!(*kernel.writes.borrow(), Vec::<String>::new());
}

#[test]
fn a_device_that_cannot_be_given_back_stays_on_vfio() {
    let tree = host_with_a_card(Some("e1000"));
    Binder::new(tree.roots(), &Driver::new(&tree))
        .bind(nic(), HostUse::Respect)
        .unwrap();
    let kernel = Driver::without(&tree, "vfio-pci/unbind");
    let error = Binder::new(tree.roots(), &kernel)
        .unbind(nic())
        .unwrap_err();
    assert_eq!(error.code, Code::DeviceNotMoved, "{error}");
    assert_eq!(driver_of(&tree, NIC).as_deref(), Some("vfio-pci"));
    assert!(note_of(&tree).is_some());
}

#[test]
fn bridges_and_devices_without_a_group_stay_with_the_host() {
    let tree = Tree::new();
    tree.driver("vfio-pci");
    tree.e1000(NIC, None, Some("e1000"));
    tree.function("0000:00:01.0", "0x060400", Some(1), Some("pcieport"));
    let kernel = Driver::new(&tree);
    let binder = Binder::new(tree.roots(), &kernel);
    for pci in [NIC, "0000:00:01.0"] {
        let error = binder
            .bind(pci.parse().unwrap(), HostUse::Respect)
            .unwrap_err();
        assert_eq!(error.code, Code::DeviceNotAssignable, "{error}");
    }
    let error = binder
        .bind("0000:00:09.0".parse().unwrap(), HostUse::Respect)
        .unwrap_err();
    assert_eq!(error.code, Code::DeviceAbsent);
    assert_eq!(*kernel.writes.borrow(), Vec::<String>::new());
}

#[test]
fn a_device_may_come_into_its_group_on_its_way_to_vfio() {
    let tree = Tree::new();
    tree.driver("vfio-pci");
    tree.e1000(NIC, None, None);
    tree.e1000(TWIN, Some(3), Some("e1000"));
    let mut kernel = Driver::new(&tree);
    kernel.isolates = Some(3);
    let binder = Binder::new(tree.roots(), &kernel);
    let moved = binder.unbind(nic()).unwrap();
    assert_eq!((moved.from, moved.to), (None, None));
    let moved = binder.bind(nic(), HostUse::Respect).unwrap();
    assert_eq!(moved.to.as_deref(), Some("vfio-pci"));
    assert_eq!(moved.must_follow.len(), 1, "its group is known now");
}

#[test]
fn a_device_that_comes_into_no_group_is_left_alone() {
    let tree = Tree::new();
    tree.driver("vfio-pci");
    tree.e1000(NIC, None, None);
    let kernel = Driver::new(&tree);
    let error = Binder::new(tree.roots(), &kernel)
        .bind(nic(), HostUse::Respect)
        .unwrap_err();
    assert_eq!(error.code, Code::DeviceNotAssignable, "{error}");
    assert!(error.message.ends_with("it is as it was"), "{error}");
    assert_eq!(driver_of(&tree, NIC), None);
}

#[test]
fn the_vfio_driver_is_never_loaded_silently() {
    let tree = Tree::new();
    tree.e1000(NIC, Some(3), Some("e1000"));
    let kernel = Driver::new(&tree);
    let error = Binder::new(tree.roots(), &kernel)
        .bind(nic(), HostUse::Respect)
        .unwrap_err();
    assert_eq!(error.code, Code::VfioDriverAbsent);
    assert!(error.help.unwrap().contains("modprobe vfio-pci"));
    assert_eq!(*kernel.writes.borrow(), Vec::<String>::new());
}

#[test]
fn the_rest_of_the_group_that_must_follow_is_named() {
    let tree = host_with_a_card(Some("e1000"));
    tree.e1000(TWIN, Some(3), Some("e1000"));
    tree.e1000("0000:00:04.2", Some(3), None);
    tree.function("0000:00:01.0", "0x060400", Some(3), Some("pcieport"));
    let moved = Binder::new(tree.roots(), &Driver::new(&tree))
        .bind(nic(), HostUse::Respect)
        .unwrap();
    let names: Vec<_> = moved
        .must_follow
        .iter()
        .map(|other| other.pci.to_string())
        .collect();
    assert_eq!(names, [TWIN]);
}

#[test]
fn a_second_move_to_vfio_keeps_what_the_driver_had_set() {
    let tree = host_with_a_card(Some("e1000"));
    let kernel = Driver::new(&tree);
    let binder = Binder::new(tree.roots(), &kernel);
    binder.bind(nic(), HostUse::Respect).unwrap();
    let first = note_of(&tree);
    std::fs::remove_file(tree.roots().pci_device(nic()).join("driver")).unwrap();
    binder.bind(nic(), HostUse::Respect).unwrap();
    assert_eq!(note_of(&tree), first);
}

#[test]
fn a_note_that_cannot_be_kept_stops_the_move() {
    let tree = host_with_a_card(Some("e1000"));
    tree.write(&tree.roots().state, "a file where a directory should be");
    let kernel = Driver::new(&tree);
    let error = Binder::new(tree.roots(), &kernel)
        .bind(nic(), HostUse::Respect)
        .unwrap_err();
    assert_eq!(error.code, Code::MasksNotKept, "{error}");
    assert_eq!(*kernel.writes.borrow(), Vec::<String>::new());
}

#[test]
fn a_device_that_the_host_depends_on_is_taken_only_by_force() {
    let tree = host_with_a_card(Some("e1000"));
    let interface = tree.roots().pci_device(nic()).join("net/eth0");
    tree.write(&interface.join("address"), "52:54:00:12:34:56");
    let class = tree.roots().sysfs.join("class/net");
    std::os::unix::fs::symlink(class, interface.join("subsystem")).unwrap();
    tree.write(
        &tree.roots().procfs.join("net/route"),
        "eth0 00000000 0202000A",
    );
    let kernel = Driver::new(&tree);
    let binder = Binder::new(tree.roots(), &kernel);
    let error = binder.bind(nic(), HostUse::Respect).unwrap_err();
    assert_eq!(error.code, Code::DeviceInUse, "{error}");
    assert!(error.message.contains("routes through eth0"), "{error}");
    assert_eq!(*kernel.writes.borrow(), Vec::<String>::new());
    assert!(binder.bind(nic(), HostUse::Override).is_ok());
}

#[test]
fn a_width_that_the_device_tells_is_among_its_facts_while_it_is_away() {
    let tree = host_with_a_card(Some("e1000"));
    let mut kernel = Driver::new(&tree);
    kernel.register = Some(64);
    let binder = Binder::new(tree.roots(), &kernel);
    binder.bind(nic(), HostUse::Respect).unwrap();
    assert_eq!(binder.find(nic()).unwrap().register_dma_bits, Some(64));
    assert_eq!(binder.find(nic()).unwrap().dma_mask_bits, Some(32));
    binder.unbind(nic()).unwrap();
    assert_eq!(binder.find(nic()).unwrap().register_dma_bits, None);
}
