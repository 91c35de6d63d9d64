//! `ccvm device`: handing PCI devices to VFIO and back.

use std::process::ExitCode;

use vmm::host::Roots;
use vmm::host::binding::{Binder, HostUse, Moved, ThisKernel};
use vmm::host::facts::PciAddress;

use crate::output::{findings, print};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// List the PCI devices of this host
    List,
    /// Move a device to vfio-pci, noting the DMA masks that its driver had set
    Bind {
        #[command(flatten)]
        device: Address,
        /// Take the device even when this host has mounts, swap or routes on it
        #[arg(long)]
        force: bool,
    },
    /// Move a device back to the driver that it had
    Unbind(Address),
}

#[derive(clap::Args)]
struct Address {
    /// PCI address, such as 0000:00:04.0
    address: PciAddress,
}

pub(crate) fn main(args: &Args) -> ExitCode {
    let roots = Roots::this_host();
    let binder = Binder::new(&roots, &ThisKernel);
    let text = match &args.action {
        Action::List => Ok(super::host::devices(&vmm::host::read().devices)),
        Action::Bind {
            device: Address { address },
            force,
        } => {
            let host_use = if *force {
                HostUse::Override
            } else {
                HostUse::Respect
            };
            binder
                .bind(*address, host_use)
                .map(|moved| bound(*address, &moved))
        }
        Action::Unbind(Address { address }) => binder
            .unbind(*address)
            .map(|moved| unbound(*address, &moved)),
    };
    match text {
        Ok(text) => {
            print(&text);
            ExitCode::SUCCESS
        }
        Err(diagnostic) => {
            findings(&[diagnostic]);
            ExitCode::FAILURE
        }
    }
}

fn bound(pci: PciAddress, moved: &Moved) -> String {
    let mut text = travelled(pci, moved);
    if !moved.must_follow.is_empty() {
        text.push_str(
            "a VM gets it only together with the rest of its IOMMU group; bind these, too:\n",
        );
        for other in &moved.must_follow {
            let driver = other.driver.as_deref().unwrap_or("none");
            text.push_str(&format!(
                "  ccvm device bind {}   (now {driver})\n",
                other.pci
            ));
        }
    }
    text
}

fn unbound(pci: PciAddress, moved: &Moved) -> String {
    travelled(pci, moved)
}

fn travelled(pci: PciAddress, moved: &Moved) -> String {
    let name = |driver: &Option<String>| driver.clone().unwrap_or_else(|| "no driver".to_owned());
    if moved.from == moved.to {
        return format!("{pci}: stays with {}\n", name(&moved.to));
    }
    format!("{pci}: {} -> {}\n", name(&moved.from), name(&moved.to))
}
