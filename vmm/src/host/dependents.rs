//! What of the running host would break if a device left its driver: mounted file systems, swap,
//! volumes, routes.

use std::path::{Path, PathBuf};

use super::facts::PciAddress;
use super::roots::{Roots, attribute, link_name};

/// Deeper than a disk behind a SAS expander sits; a tree that goes on is not followed.
const DEPTH_MAX: usize = 16;

/// More directories than the busiest controller has.
const DIRECTORIES_MAX: usize = 20_000;

/// What depends on a device, one clause each.
pub(super) fn dependents(roots: &Roots, pci: PciAddress) -> Vec<String> {
    let mounts = text(&roots.procfs.join("self/mountinfo"));
    let swaps = text(&roots.procfs.join("swaps"));
    let routes = text(&roots.procfs.join("net/route"));
    let mut found = Vec::new();
    for node in nodes(&roots.pci_device(pci)) {
        match node.kind {
            NodeKind::Block => {
                let number = text(&node.path.join("dev"));
                found.extend(mount_of(&mounts, &node.name, &number));
                found.extend(swap_on(&swaps, &node.name));
                found.extend(volume_on(&node));
            }
            NodeKind::Network => found.extend(route_through(&routes, &node.name)),
        }
    }
    found
}

fn text(path: &Path) -> String {
    attribute(path).unwrap_or_default()
}

/// A block device or network interface below a PCI function.
struct Node {
    kind: NodeKind,
    name: String,
    path: PathBuf,
}

enum NodeKind {
    Block,
    Network,
}

/// The block devices and network interfaces of a function. Links are not followed: they lead out of
/// the device.
fn nodes(device: &Path) -> Vec<Node> {
    let mut found = Vec::new();
    let mut open = vec![(device.to_owned(), 0)];
    let mut seen = 0;
    while let Some((directory, depth)) = open.pop() {
        for entry in std::fs::read_dir(&directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            seen += 1;
            if seen > DIRECTORIES_MAX {
                return found;
            }
            let path = entry.path();
            found.extend(node(&path));
            if depth < DEPTH_MAX {
                open.push((path, depth + 1));
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn node(path: &Path) -> Option<Node> {
    let kind = match link_name(&path.join("subsystem"))?.as_str() {
        "block" => NodeKind::Block,
        "net" => NodeKind::Network,
        _ => return None,
    };
    Some(Node {
        kind,
        name: path.file_name()?.to_str()?.to_owned(),
        path: path.to_owned(),
    })
}

/// A line of mountinfo: id, parent, MAJOR:MINOR, root, WHERE, options ... - type, SOURCE, options.
///
/// The source is looked at too: btrfs shows a number of its own.
fn mount_of(mounts: &str, name: &str, number: &str) -> Option<String> {
    let place = mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(2);
        let (mounted, place) = (left.next()?, left.nth(1)?);
        let source = right.split(' ').nth(1)?;
        (mounted == number || source.strip_prefix("/dev/") == Some(name)).then_some(place)
    })?;
    Some(format!("{name} is mounted on {place}"))
}

fn swap_on(swaps: &str, name: &str) -> Option<String> {
    swaps
        .lines()
        .filter_map(|line| line.split_whitespace().next()?.strip_prefix("/dev/"))
        .any(|device| device == name)
        .then(|| format!("the host swaps to {name}"))
}

fn volume_on(node: &Node) -> Option<String> {
    let mut holders = std::fs::read_dir(node.path.join("holders")).ok()?;
    let holder = holders.next()?.ok()?.file_name();
    let holder = holder.to_string_lossy();
    Some(format!("{} is part of {holder}", node.name))
}

/// A line of `/proc/net/route`: interface, destination, ...
fn route_through(routes: &str, name: &str) -> Option<String> {
    routes
        .lines()
        .any(|line| line.split_whitespace().next() == Some(name))
        .then(|| format!("the host has routes through {name}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::recorded::Tree;
    use super::*;

    const PCI: &str = "0000:00:04.0";

    fn host() -> (Tree, PathBuf) {
        let tree = Tree::new();
        tree.e1000(PCI, Some(3), Some("nvme"));
        let device = tree.roots().pci_device(PCI.parse().unwrap());
        (tree, device)
    }

    fn add(tree: &Tree, path: &Path, class: &str, number: &str) {
        tree.write(&path.join("dev"), number);
        symlink(
            tree.roots().sysfs.join("class").join(class),
            path.join("subsystem"),
        )
        .unwrap();
    }

    fn found(tree: &Tree) -> Vec<String> {
        dependents(tree.roots(), PCI.parse().unwrap())
    }

    #[test]
    fn a_disk_that_nothing_uses_is_free() {
        let (tree, device) = host();
        assert_eq!(found(&tree), [""; 0]);
        add(
            &tree,
            &device.join("nvme/nvme0/nvme0n1"),
            "block",
            "259:0\n",
        );
        tree.write(
            &tree.roots().procfs.join("self/mountinfo"),
            "22 1 254:0 / / rw - ext4 /dev/vda rw\nnot a mount\n",
        );
        assert_eq!(found(&tree), [""; 0]);
    }

    #[test]
    fn a_mounted_partition_a_swap_and_a_volume_are_found() {
        let (tree, device) = host();
        let disk = device.join("nvme/nvme0/nvme0n1");
        add(&tree, &disk, "block", "259:0\n");
        add(&tree, &disk.join("nvme0n1p1"), "block", "259:1\n");
        add(&tree, &disk.join("nvme0n1p2"), "block", "259:2\n");
        add(&tree, &disk.join("nvme0n1p3"), "block", "259:3\n");
        tree.write(&disk.join("nvme0n1p3/holders/dm-0/x"), "");
        tree.write(
            &tree.roots().procfs.join("self/mountinfo"),
            "22 1 259:1 / /home rw,relatime shared:1 - ext4 /dev/root rw\n",
        );
        tree.write(
            &tree.roots().procfs.join("swaps"),
            "Filename Type Size Used Priority\n/dev/nvme0n1p2 partition 1 0 -2\n",
        );
        assert_eq!(
            found(&tree),
            [
                "nvme0n1p1 is mounted on /home",
                "the host swaps to nvme0n1p2",
                "nvme0n1p3 is part of dm-0",
            ]
        );
    }

    #[test]
    fn a_file_system_with_its_own_number_is_found_by_its_source() {
        let mounts = "22 1 0:35 /root / rw - btrfs /dev/sda2 rw";
        let found = mount_of(mounts, "sda2", "8:2");
        assert_eq!(found.as_deref(), Some("sda2 is mounted on /"));
    }

    #[test]
    fn a_card_with_routes_is_found() {
        let (tree, device) = host();
        add(&tree, &device.join("net/eth0"), "net", "");
        tree.write(
            &tree.roots().procfs.join("net/route"),
            "Iface Destination Gateway\neth0 00000000 0202000A\n",
        );
        assert_eq!(found(&tree), ["the host has routes through eth0"]);
    }
}
