//! The config file as its JSON Schema and the reference describe it.
//!
//! The doc comments here are the reference's text. The file is read by hand, not by these types: a
//! derived reader stops at the first error.

use schemars::JsonSchema;
use serde::Serialize;

/// The configuration of one virtual machine.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Config")]
pub struct ConfigFile {
    /// The machine itself.
    pub vm: Vm,
    /// What to boot. A config without it can be checked, not run.
    pub boot: Option<Boot>,
    /// The PCI functions of the host that the VM gets, one table each.
    #[schemars(default)]
    pub device: Vec<Device>,
}

/// The machine itself.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Vm {
    /// The kind of VM. `auto` takes the strongest protection that the host offers and this ccvm can
    /// launch, and a plain VM where there is none; never an emulated one.
    #[schemars(default)]
    pub platform: PlatformChoice,
    /// Number of virtual CPUs.
    #[schemars(default = "one", range(min = 1, max = 512))]
    pub vcpus: u32,
    /// Guest memory: a whole number of KiB, MiB, GiB or TiB (powers of 1024), in all a multiple of
    /// 2 MiB.
    #[schemars(regex(pattern = r"^[0-9]+ ?(KiB|MiB|GiB|TiB)$"), extend("examples" = ["512 MiB"]))]
    pub memory: String,
    /// What to do about a device that cannot reach all of guest memory. The default is `strict`
    /// for a confidential VM and `bounce` for a plain one.
    pub dma_rule: Option<DmaRuleChoice>,
}

fn one() -> u32 {
    1
}

/// The kind of VM.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Platform")]
pub enum PlatformChoice {
    /// The strongest protection that the host offers and this ccvm can launch, else none.
    #[default]
    Auto,
    /// A plain VM.
    None,
    /// An ordinary arm64 VM that looks like a Realm to its kernel. It gives no confidentiality.
    EmulatedRealm,
    /// An Arm CCA Realm.
    Cca,
    /// A protected VM of pKVM.
    Pkvm,
    /// KVM's software-protected VM (x86, for development).
    SwProtected,
    /// AMD SEV-SNP.
    Snp,
    /// Intel TDX.
    Tdx,
}

/// What to do about a device that cannot reach all of guest memory.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "kebab-case", rename = "DmaRule")]
pub enum DmaRuleChoice {
    /// Refuse the VM.
    Strict,
    /// Warn: the guest copies through memory that the device reaches. Not possible where shared
    /// memory is named by the top address bit (`cca`, `emulated-realm`): there is none low enough.
    Bounce,
}

/// What to boot. Relative paths count from the directory of the config file.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Boot {
    /// The kernel: an arm64 `Image`, or the compressed form that distributions ship.
    #[schemars(extend("examples" = ["Image"]))]
    pub kernel: String,
    /// The initial RAM disk.
    pub initrd: Option<String>,
    /// The kernel's command line.
    #[schemars(default)]
    pub cmdline: String,
}

/// A PCI function of the host that the VM gets.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Device {
    /// Where it sits on the host, as `lspci -D` prints it.
    #[schemars(extend("examples" = ["0000:00:04.0"]))]
    pub pci: crate::host::facts::PciAddress,
    /// How many address bits the device drives, when you know better than every other source.
    #[schemars(range(min = 24, max = 64))]
    pub dma_bits: Option<u8>,
    /// How the device's DMA is addressed.
    #[schemars(default)]
    pub dma: DmaChoice,
}

/// How a device's DMA is addressed.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Dma")]
pub enum DmaChoice {
    /// By guest-physical address, with the shared bit where the platform has one.
    #[default]
    Direct,
    /// Only by addresses that the guest chooses through a virtual IOMMU, so that the device's width
    /// does not limit the VM. Not possible for a confidential VM yet: guest kernels do not
    /// translate DMA to shared memory.
    Translated,
}
