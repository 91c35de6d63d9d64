//! Which VM a command is about: a config file, or flags that say the same.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use vmm::check::{Check, FileFindings, recorded_facts};
use vmm::config::Flags;
use vmm::host::HostFacts;
use vmm::plan::PlanOptions;
use vmm::report;

use crate::output::{explain, print, style};

/// Exit code when the flags are not what they should be.
const UNUSABLE: u8 = 2;

#[derive(clap::Args)]
#[group(id = "vm", required = true, multiple = true, args = ["config", "memory"])]
pub(crate) struct Config {
    /// The config file
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: VmFlags,
}

/// A VM without a config file. Each flag is a key of the config under the same name.
#[derive(clap::Args)]
#[command(next_help_heading = "In place of a config file")]
#[group(id = "flags", conflicts_with = "config", multiple = true)]
struct VmFlags {
    /// Guest memory, such as 512MiB or 4GiB
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// Number of virtual CPUs
    #[arg(long, value_name = "N", requires = "memory")]
    vcpus: Option<String>,
    /// The kind of VM: none, emulated-realm, auto, ...
    #[arg(long, value_name = "KIND", requires = "memory")]
    platform: Option<String>,
    /// What to do about a device that cannot reach all of guest memory: strict or bounce
    #[arg(long, value_name = "RULE", requires = "memory")]
    dma_rule: Option<String>,
    /// The guest's own IOMMU: auto, none or virtio
    #[arg(long, value_name = "KIND", requires = "memory")]
    iommu: Option<String>,
    /// Who makes the DMA tables: auto, type1 or iommufd
    #[arg(long, value_name = "KIND", requires = "memory")]
    dma_backend: Option<String>,
    /// On pkvm, devices that reach private memory: refused or not-isolated
    #[arg(long, value_name = "KIND", requires = "memory")]
    pkvm_device_dma: Option<String>,
    /// Slots for devices that come while it runs
    #[arg(long, value_name = "N", requires = "memory")]
    hotplug_ports: Option<String>,
    /// Memory for the registers of the device in each slot, such as 64MiB
    #[arg(long, value_name = "SIZE", requires = "hotplug_ports")]
    hotplug_window: Option<String>,
    /// The kernel
    #[arg(long, value_name = "FILE", requires = "memory")]
    kernel: Option<String>,
    /// The initial RAM disk
    #[arg(long, value_name = "FILE", requires = "kernel")]
    initrd: Option<String>,
    /// The kernel's command line
    #[arg(
        long,
        value_name = "TEXT",
        requires = "kernel",
        allow_hyphen_values = true
    )]
    cmdline: Option<String>,
    /// The firmware that starts the kernel, on the platform tdx
    #[arg(long, value_name = "FILE", requires = "kernel")]
    firmware: Option<String>,
    /// Assign this PCI function of the host; other keys of its table go behind commas
    #[arg(long, value_name = "PCI[,KEY=VALUE]...", requires = "memory")]
    device: Vec<String>,
    /// Give the VM this file or block device as a disk; other keys of its table go behind commas
    #[arg(long, value_name = "FILE[,KEY=VALUE]...", requires = "memory")]
    disk: Vec<String>,
    /// Give the VM a network card in front of this tap interface; other keys of its table go behind commas
    #[arg(long, value_name = "TAP[,KEY=VALUE]...", requires = "memory")]
    net: Vec<String>,
    /// Give the VM a device that another process serves: block, net or fs; other keys of its table go
    /// behind commas
    #[arg(
        long,
        value_name = "KIND,socket=PATH[,KEY=VALUE]...",
        requires = "memory"
    )]
    vhost_user: Vec<String>,
    /// Give the VM sockets to the host, with this context id
    #[arg(long, value_name = "CID", requires = "memory")]
    vsock: Option<String>,
    /// Give the VM the host's random numbers
    #[arg(long, requires = "memory")]
    rng: bool,
    /// What the terminal is connected to: serial or virtio
    #[arg(long, value_name = "DEVICE", requires = "memory")]
    console: Option<String>,
    /// The host's pages that memory is made of: transparent, 2MiB or 1GiB
    #[arg(long, value_name = "SIZE", requires = "memory")]
    huge_pages: Option<String>,
    /// Take all of guest memory from the host before the guest runs
    #[arg(long, requires = "memory")]
    prefault: bool,
    /// The NUMA nodes that memory comes from, such as 0-1
    #[arg(long, value_name = "LIST", requires = "memory")]
    numa_nodes: Option<String>,
    /// The host's CPU for each vCPU, such as 4-7
    #[arg(long, value_name = "LIST", requires = "memory")]
    pin_vcpus: Option<String>,
    /// Print the config file that says the same as the flags, and do nothing else
    #[arg(long, requires = "memory")]
    print_config: bool,
}

/// What is known of a host: of the recorded one, or else of this one.
pub(crate) fn host_facts(recorded: Option<&Path>) -> Result<HostFacts, FileFindings> {
    match recorded {
        Some(path) => recorded_facts(path),
        None => Ok(vmm::host::read()),
    }
}

impl Config {
    /// Checks the VM against `facts`.
    pub(crate) fn check(
        &self,
        facts: Result<HostFacts, FileFindings>,
        options: PlanOptions,
    ) -> Check {
        match &self.config {
            Some(path) => Check::of_file(path, facts, options),
            None => Check::of_flags(&self.flags.flags(), facts, options),
        }
    }

    /// Prints the config in place of anything else, when that is asked for.
    pub(crate) fn printed(&self) -> Option<ExitCode> {
        self.flags.print_config.then(|| {
            let flags = self.flags.flags();
            let (source, parsed) = flags.parse();
            if parsed.diagnostics.is_empty() {
                print(&flags.to_toml());
                return ExitCode::SUCCESS;
            }
            let style = style(&std::io::stderr());
            explain(&report::findings(&parsed.diagnostics, Some(&source), style));
            ExitCode::from(UNUSABLE)
        })
    }
}

impl VmFlags {
    fn flags(&self) -> Flags {
        let mut flags = Flags::default();
        flags.key("--platform", ("vm", "platform"), self.platform.as_ref());
        flags.key("--vcpus", ("vm", "vcpus"), self.vcpus.as_ref());
        flags.key("--memory", ("vm", "memory"), self.memory.as_ref());
        flags.key("--dma-rule", ("vm", "dma-rule"), self.dma_rule.as_ref());
        flags.key("--iommu", ("vm", "iommu"), self.iommu.as_ref());
        let backend = self.dma_backend.as_ref();
        flags.key("--dma-backend", ("vm", "dma-backend"), backend);
        let isolation = self.pkvm_device_dma.as_ref();
        flags.key("--pkvm-device-dma", ("vm", "pkvm-device-dma"), isolation);
        let ports = self.hotplug_ports.as_ref();
        flags.key("--hotplug-ports", ("vm", "hotplug-ports"), ports);
        let window = self.hotplug_window.as_ref();
        flags.key("--hotplug-window", ("vm", "hotplug-window"), window);
        flags.key("--kernel", ("boot", "kernel"), self.kernel.as_ref());
        flags.key("--initrd", ("boot", "initrd"), self.initrd.as_ref());
        flags.key("--cmdline", ("boot", "cmdline"), self.cmdline.as_ref());
        flags.key("--firmware", ("boot", "firmware"), self.firmware.as_ref());
        flags.entries("--device", ("device", "pci"), &self.device);
        flags.entries("--disk", ("disk", "path"), &self.disk);
        flags.entries("--net", ("net", "tap"), &self.net);
        flags.entries("--vhost-user", ("vhost-user", "kind"), &self.vhost_user);
        flags.key("--vsock", ("vsock", "cid"), self.vsock.as_ref());
        if self.rng {
            flags.bare("--rng", "rng");
        }
        flags.key("--console", ("console", "device"), self.console.as_ref());
        let table = "resources";
        let pages = self.huge_pages.as_ref();
        flags.key("--huge-pages", (table, "huge-pages"), pages);
        let prefault = self.prefault.then_some("true");
        flags.key("--prefault", (table, "prefault"), prefault);
        let nodes = self.numa_nodes.as_ref();
        flags.key("--numa-nodes", (table, "numa-nodes"), nodes);
        let pins = self.pin_vcpus.as_ref();
        flags.key("--pin-vcpus", (table, "pin-vcpus"), pins);
        flags
    }
}
