//! This machine as the host: the devices that its operator names, taken and given back.
#![expect(
    clippy::print_stdout,
    reason = "the operator is told what happens to the devices"
)]

use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, bail, ensure};

use crate::arch::Arch;
use crate::devices::{Device, Role};

const SYSFS: &str = "/sys/bus/pci/devices";

/// A device that the operator offers, as this machine has it now.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Offer {
    address: String,
    role: Role,
    driver: Option<String>,
}

/// Checks that this machine can play a host of an architecture at all.
///
/// # Errors
/// Names what it lacks.
pub fn require(arch: Arch) -> anyhow::Result<()> {
    ensure!(
        arch.is_here(),
        "this takes a machine with {arch} processors, and this is not one"
    );
    for (file, what) in [
        ("/dev/kvm", "KVM"),
        ("/dev/vfio/vfio", "VFIO (modprobe vfio-pci)"),
    ] {
        ensure!(
            Path::new(file).exists(),
            "this machine has no {file}: {what} is missing"
        );
    }
    Ok(())
}

/// Reads what the named devices are.
///
/// # Errors
/// When a device does not exist or no test has a use for it.
pub fn devices(addresses: &[String]) -> anyhow::Result<Vec<Device>> {
    let offers = addresses
        .iter()
        .map(|address| offer(Path::new(SYSFS), address));
    offers
        .map(|offer| offer.map(|Offer { role, address, .. }| Device { role, address }))
        .collect()
}

fn offer(sysfs: &Path, address: &str) -> anyhow::Result<Offer> {
    let folder = sysfs.join(address);
    ensure!(
        folder.exists(),
        "there is no PCI device {address} (write it as 0000:00:04.0)"
    );
    let number = |file: &str| -> anyhow::Result<u32> {
        let text = fs::read_to_string(folder.join(file))
            .with_context(|| format!("cannot read {file} of {address}"))?;
        let digits = text.trim().trim_start_matches("0x");
        u32::from_str_radix(digits, 16).with_context(|| format!("{file} of {address} is {text}"))
    };
    let ids = (number("vendor")?, number("device")?);
    let role = match (ids, number("class")? >> 8) {
        ((0x1234, 0x11e8), _) => Role::NarrowEdu,
        (_, 0x0200) => Role::Nic,
        (_, 0x0106) => Role::Ahci,
        (_, 0x0108) => Role::Nvme,
        (_, class) => bail!("no test has a use for {address}, a device of class {class:#06x}"),
    };
    let driver = fs::read_link(folder.join("driver")).ok();
    let driver = driver.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    Ok(Offer {
        address: address.to_owned(),
        role,
        driver,
    })
}

/// The devices under test, which go back to their drivers however this process ends.
///
/// A child outside of this process's session holds the reading end of a pipe. When this process
/// ends, by whatever signal, the pipe closes and the child unbinds the devices.
#[derive(Debug)]
pub struct Loan {
    lifeline: Option<ChildStdin>,
    keeper: Child,
}

impl Loan {
    /// Says what will happen to the devices and arranges for their return.
    ///
    /// # Errors
    /// When the child cannot be started.
    pub fn take(ccvm: &Path, addresses: &[String], scratch: &[String]) -> anyhow::Result<Self> {
        Self::take_from(Path::new(SYSFS), ccvm, addresses, scratch)
    }

    fn take_from(
        sysfs: &Path,
        ccvm: &Path,
        addresses: &[String],
        scratch: &[String],
    ) -> anyhow::Result<Self> {
        let mut undo = String::from("trap '' INT TERM HUP; cat >/dev/null\n");
        for address in addresses {
            let Offer { role, driver, .. } = offer(sysfs, address)?;
            let driver = driver.as_deref();
            println!("{address}, {}:", role.name());
            println!("    leaves {} for vfio-pci", driver.unwrap_or("no driver"));
            println!(
                "    is reset and driven by guests{}",
                fate(role, scratch.contains(address))
            );
            if driver == Some("vfio-pci") {
                println!("    stays with vfio-pci, where it was found");
                continue;
            }
            println!(
                "    goes back to {} at the end",
                driver.unwrap_or("no driver")
            );
            undo += &format!("'{}' device unbind '{address}'\n", ccvm.display());
        }
        let mut keeper = Command::new("sh")
            .args(["-c", &undo])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start the process that gives the devices back")?;
        Ok(Self {
            lifeline: keeper.stdin.take(),
            keeper,
        })
    }
}

/// What happens to a device's content.
fn fate(role: Role, scratch: bool) -> &'static str {
    match (role, scratch) {
        (Role::Ahci | Role::Nvme | Role::ApartNvme, true) => {
            ", which write 1 MiB at 8 MiB of the disk"
        }
        (Role::Ahci | Role::Nvme | Role::ApartNvme, false) => ", which only read the disk",
        _ => "",
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if let Some(mut lifeline) = self.lifeline.take() {
            // A failed flush of an empty pipe changes nothing: closing it is what counts.
            let _ = lifeline.flush();
        }
        let _ = self.keeper.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(class: &str, vendor: &str, id: &str) -> tempfile::TempDir {
        let sysfs = tempfile::tempdir().unwrap();
        let folder = sysfs.path().join("0000:00:04.0");
        fs::create_dir(&folder).unwrap();
        for (file, value) in [("class", class), ("vendor", vendor), ("device", id)] {
            fs::write(folder.join(file), format!("{value}\n")).unwrap();
        }
        sysfs
    }

    #[test]
    fn a_device_is_used_for_what_its_class_says() {
        for (class, vendor, id, role) in [
            ("0x020000", "0x8086", "0x100e", Role::Nic),
            ("0x010601", "0x8086", "0x2922", Role::Ahci),
            ("0x010802", "0x1b36", "0x0010", Role::Nvme),
            ("0x00ff00", "0x1234", "0x11e8", Role::NarrowEdu),
        ] {
            let sysfs = device(class, vendor, id);
            assert_eq!(offer(sysfs.path(), "0000:00:04.0").unwrap().role, role);
        }
    }

    #[test]
    fn a_device_without_a_use_or_without_existence_is_refused() {
        let sysfs = device("0x030000", "0x10de", "0x2330");
        let error = offer(sysfs.path(), "0000:00:04.0").unwrap_err();
        assert!(error.to_string().contains("class 0x0300"), "{error}");
        let error = offer(sysfs.path(), "00:09.0").unwrap_err();
        assert!(
            error.to_string().contains("no PCI device 00:09.0"),
            "{error}"
        );
    }

    #[test]
    fn devices_go_back_when_the_loan_ends() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let ccvm = folder.path().join("ccvm");
        fs::write(
            &ccvm,
            format!("#!/bin/sh\necho \"$@\" >>{}\n", log.display()),
        )
        .unwrap();
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&ccvm, executable).unwrap();
        let sysfs = device("0x020000", "0x8086", "0x100e");
        let addresses = ["0000:00:04.0".to_owned()];
        let loan = Loan::take_from(sysfs.path(), &ccvm, &addresses, &[]).unwrap();
        assert!(!log.exists(), "nothing goes back while the tests run");
        drop(loan);
        assert_eq!(
            fs::read_to_string(&log).unwrap(),
            "device unbind 0000:00:04.0\n"
        );
    }
}
