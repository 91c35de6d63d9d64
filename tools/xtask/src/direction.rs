//! Which crate may use which: dependencies point one way.
//!
//! ```text
//!             ┌── devices ◄──┐
//!   iommu ◄───┼── vfio ◄─────┼── vmm ◄── ccvm          xtask, vmtest: nothing imports them,
//!             └── kvm ◄──────┘                         and they import nothing of the product
//!  hostcall ◄── vfio, kvm, ccvm
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, bail};
use serde::Deserialize;

/// The crates of the workspace that each of them may use, in product code and in tests.
const ALLOWED: [(&str, &[&str]); 11] = [
    ("iommu", &[]),
    ("hostcall", &[]),
    ("scripted", &[]),
    ("devices", &["iommu"]),
    ("vfio", &["hostcall", "iommu"]),
    ("kvm", &["hostcall", "iommu", "scripted"]),
    ("vmm", &["devices", "iommu", "kvm", "scripted", "vfio"]),
    ("ccvm", &["devices", "hostcall", "iommu", "vmm"]),
    ("vmtest", &[]),
    ("nested", &["iommu", "kvm", "vfio"]),
    ("xtask", &[]),
];

/// Outside crates that are reserved for some: the kernel interfaces for the two crates that wrap them,
/// errors without a type for programs. The kernel of the tests is for nobody's product.
const RESERVED: [(&str, &[&str]); 11] = [
    ("iommufd-ioctls", &["vfio"]),
    ("iommufd-bindings", &["vfio"]),
    ("kvm-ioctls", &["kvm"]),
    ("kvm-bindings", &["kvm"]),
    ("vfio-ioctls", &["vfio"]),
    ("vfio-bindings", &["vfio"]),
    ("libc", &["kvm", "scripted", "vfio"]),
    ("scripted", &[]),
    ("vhost", &["vmm"]),
    ("vmm-sys-util", &["devices", "kvm", "vfio", "vmm"]),
    ("anyhow", &["ccvm", "nested", "vmtest", "xtask"]),
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

/// Fails on a dependency that points the wrong way.
///
/// # Errors
/// All such dependencies, or that `cargo metadata` does not work.
pub(crate) fn check() -> anyhow::Result<()> {
    let output = Command::new("cargo")
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let metadata: Metadata =
        serde_json::from_slice(&output.stdout).context("cargo metadata is not as expected")?;
    let wrong = wrong_arrows(&metadata);
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    Ok(())
}

fn wrong_arrows(metadata: &Metadata) -> Vec<String> {
    let allowed: BTreeMap<_, _> = ALLOWED.into_iter().collect();
    let reserved: BTreeMap<_, _> = RESERVED.into_iter().collect();
    let workspace: BTreeSet<_> = metadata.packages.iter().map(|p| p.name.as_str()).collect();
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        let from = package.name.as_str();
        let Some(may_use) = allowed.get(from) else {
            wrong.push(format!("{from}: a new crate has no place in the order yet"));
            continue;
        };
        for dependency in &package.dependencies {
            let to = dependency.name.as_str();
            let in_product = dependency.kind.as_deref() != Some("dev");
            if workspace.contains(to) && !may_use.contains(&to) {
                wrong.push(format!("{from} must not use {to}"));
            }
            if in_product && reserved.get(to).is_some_and(|by| !by.contains(&from)) {
                wrong.push(format!(
                    "{from} must not use {to}: it is for {:?}",
                    reserved[to]
                ));
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_of_this_workspace_point_one_way() {
        check().unwrap();
    }

    #[test]
    fn an_arrow_the_wrong_way_is_named() {
        let text = r#"{"packages":[
            {"name":"iommu","dependencies":[{"name":"vmm","kind":"dev"}]},
            {"name":"vmm","dependencies":[{"name":"kvm-ioctls","kind":null},
                                          {"name":"anyhow","kind":"dev"}]},
            {"name":"novel","dependencies":[]}]}"#;
        let metadata = serde_json::from_str(text).unwrap();
        let wrong = wrong_arrows(&metadata);
        assert_eq!(wrong.len(), 3, "{wrong:?}");
        assert_eq!(wrong[0], "iommu must not use vmm");
        assert!(wrong[1].starts_with("vmm must not use kvm-ioctls"));
        assert!(wrong[2].starts_with("novel"));
    }
}
