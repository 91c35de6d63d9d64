//! The config file as its JSON Schema and the reference describe it.
//!
//! The doc comments here are the reference's text. The file is read by hand, not by these types: a
//! derived reader stops at the first error.

use schemars::JsonSchema;
use serde::Serialize;

use super::size::Size;
use super::spec::HotplugSpec;

/// The configuration of one virtual machine.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Config", rename_all = "kebab-case")]
pub struct ConfigFile {
    /// The machine itself.
    pub vm: Vm,
    /// What to boot. A config without it can be checked, not run.
    pub boot: Option<Boot>,
    /// The PCI functions of the host that the VM gets, one table each.
    #[schemars(default)]
    pub device: Vec<Device>,
    /// The emulated disks of the VM, one table each.
    #[schemars(default)]
    pub disk: Vec<Disk>,
    /// The emulated network interfaces of the VM, one table each.
    #[schemars(default)]
    pub net: Vec<Net>,
    /// Devices that other processes of the host serve, one table each.
    #[schemars(default)]
    pub vhost_user: Vec<VhostUser>,
    /// Sockets between guest and host.
    pub vsock: Option<Vsock>,
    /// A source of random numbers for the guest.
    pub rng: Option<Rng>,
    /// The console.
    pub console: Option<Console>,
    /// What of the host the VM is made of.
    pub resources: Option<Resources>,
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
    /// Whether the guest has an IOMMU of its own, by which it can confine its devices and choose their
    /// DMA addresses.
    #[schemars(default)]
    pub iommu: IommuChoice,
    /// By which interface of the host's kernel the assigned devices' DMA tables are made.
    #[schemars(default)]
    pub dma_backend: DmaBackendChoice,
    /// On `pkvm`: whether the VM may have assigned devices, which pKVM does not keep from its private
    /// memory.
    #[schemars(default)]
    pub pkvm_device_dma: PkvmDeviceDma,
    /// Slots for assigned devices that come while the VM runs (`ccvm ctl plug`) and go (`unplug`). For
    /// `none` and `emulated-realm`, without a virtual IOMMU.
    #[schemars(default, range(min = 0, max = 15))]
    pub hotplug_ports: u8,
    /// Memory below 4 GiB that is kept for the registers (BARs) of the device in each slot: a multiple of
    /// 2 MiB, at most 1 GiB. BARs of more than 1 MiB need twice their size.
    #[schemars(default = "usual_window", regex(pattern = r"^[0-9]+ ?(KiB|MiB|GiB|TiB)$"), extend("examples" = ["64 MiB"]))]
    pub hotplug_window: String,
}

fn usual_window() -> String {
    Size(HotplugSpec::USUAL_WINDOW).to_string()
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

/// Whether a protected VM of pKVM may have assigned devices.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PkvmDeviceDma {
    /// No.
    #[default]
    Refused,
    /// Yes, though every such device reads and writes the VM's private memory.
    NotIsolated,
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

/// Whether the guest has an IOMMU of its own.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Iommu")]
pub enum IommuChoice {
    /// `virtio` if some device has `dma = "translated"`, else `none`.
    #[default]
    Auto,
    /// No IOMMU: devices use guest-physical addresses.
    None,
    /// A virtio-iommu, in front of every assigned device. A kernel without a driver for it has its
    /// devices all the same, unless their IOMMU on the host cannot map all of guest memory.
    Virtio,
}

/// By which interface of the host's kernel DMA tables are made.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "DmaBackend")]
pub enum DmaBackendChoice {
    /// `iommufd` where the host has it for all assigned devices, else `type1`.
    #[default]
    Auto,
    /// VFIO's own containers: on every host, with a limit on the number of mappings.
    Type1,
    /// iommufd, with devices opened by their own nodes (Linux 6.6 and newer, where configured).
    Iommufd,
}

/// What to boot. Relative paths count from the directory of the config file.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Boot {
    /// The kernel. On arm64: an `Image`, or the compressed form that distributions ship. On x86-64: the
    /// `vmlinuz` of a distribution (a bzImage), or a `vmlinux` with a PVH entry; for the platform `snp` also
    /// a whole guest, as an IGVM file.
    #[schemars(extend("examples" = ["Image"]))]
    pub kernel: String,
    /// The initial RAM disk.
    pub initrd: Option<String>,
    /// The kernel's command line.
    #[schemars(default)]
    pub cmdline: String,
    /// The firmware that starts the kernel: a TDVF that takes one (td-shim). For the platform `tdx`, which
    /// needs it; no other has firmware.
    pub firmware: Option<String>,
}

/// What of the host the VM is made of. What the guest sees does not depend on it.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Resources {
    /// The host's pages that guest memory is made of.
    #[schemars(default)]
    pub huge_pages: HugePagesChoice,
    /// Whether all of guest memory is taken from the host before the guest runs. Without, pages come as
    /// the guest touches them, and the VM starts at once.
    #[schemars(default)]
    pub prefault: bool,
    /// The NUMA nodes of the host that memory comes from, as the kernel writes lists: guest memory,
    /// what the kernel needs for the VM, and ccvm's own. Without, from any.
    #[schemars(extend("examples" = ["0-1"]))]
    pub numa_nodes: Option<String>,
    /// For each vCPU, in their order, the CPU of the host that it runs on, as the kernel writes lists.
    /// Without, on any.
    #[schemars(extend("examples" = ["4-7"]))]
    pub pin_vcpus: Option<String>,
}

/// The host's pages that guest memory is made of.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[schemars(rename = "HugePages")]
pub enum HugePagesChoice {
    /// Huge pages as the host finds them (transparent huge pages), else usual ones.
    #[default]
    #[serde(rename = "transparent")]
    Transparent,
    /// From the host's pool of pages of 2 MiB (hugetlbfs), all set aside before the guest runs. Not
    /// for a confidential VM.
    #[serde(rename = "2 MiB")]
    Huge2M,
    /// From the host's pool of pages of 1 GiB, likewise.
    #[serde(rename = "1 GiB")]
    Huge1G,
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

/// An emulated disk (virtio-blk), with a file or a block device of the host behind it.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Disk {
    /// The file or block device. A relative path counts from the directory of the config file.
    #[schemars(extend("examples" = ["disk.img"]))]
    pub path: String,
    /// What the file is. The default is `qcow2` for a file with that ending and `raw` for any other:
    /// what is in the file is never asked, because a guest can write there what it likes.
    pub format: Option<DiskFormatChoice>,
    /// Whether the guest may only read. Several VMs can have a file at once that all only read.
    #[schemars(default)]
    pub readonly: bool,
    /// The serial number that the guest reads: 1 to 20 printable ASCII characters.
    #[schemars(length(min = 1, max = 20))]
    pub serial: Option<String>,
    /// Queues; each has up to four requests in hand, with a thread for each. The default is one queue for
    /// each vCPU, and at most 4.
    #[schemars(range(min = 1, max = 16))]
    pub queues: Option<u16>,
    /// Whether the host's page cache is used.
    #[schemars(default)]
    pub cache: DiskCacheChoice,
    /// The image that a qcow2 image is written over, which is only read: several VMs can have it. Without
    /// this key an image that names another file is refused, and with it the name in the image is not
    /// followed either: this one is opened.
    #[schemars(extend("examples" = ["base.img"]))]
    pub backing: Option<String>,
    /// What the file under a qcow2 image is; the default is by its name, as with `format`. It must be whole
    /// by itself.
    pub backing_format: Option<DiskFormatChoice>,
}

/// What the file of a disk is.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "kebab-case", rename = "DiskFormat")]
pub enum DiskFormatChoice {
    /// The bytes of the disk, as they are.
    Raw,
    /// A qcow2 image of version 2 or 3.
    Qcow2,
}

/// Whether the host's page cache is used.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "DiskCache")]
pub enum DiskCacheChoice {
    /// It is not: data goes between the guest's memory and the storage (`O_DIRECT`).
    #[default]
    Direct,
    /// It is: for file systems without `O_DIRECT`, and for files that several VMs read.
    Host,
}

/// An emulated network interface (virtio-net) in front of a tap interface of the host.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Net {
    /// The tap interface. One that does not exist is made, and goes with the VM; that takes
    /// `CAP_NET_ADMIN`. Either this or `fd` is given.
    #[schemars(length(min = 1, max = 15), extend("examples" = ["tap0"]))]
    pub tap: Option<String>,
    /// A tap interface that ccvm is started with, by the number of its file descriptor. It must have been
    /// made with `IFF_TAP`, `IFF_NO_PI` and `IFF_VNET_HDR`.
    #[schemars(range(min = 3, max = 65535))]
    pub fd: Option<u16>,
    /// The address that the guest sees. The default is another one at each launch.
    #[schemars(extend("examples" = ["02:00:00:00:00:01"]))]
    pub mac: Option<String>,
    /// Pairs of queues, each with a thread; the guest uses as many as it likes. A tap interface that
    /// exists must have been made for several (`multi_queue`) if this is more than 1.
    #[schemars(default = "one_queue", range(min = 1, max = 8))]
    pub queues: u16,
}

fn one_queue() -> u16 {
    1
}

/// A device that another process of the host serves (vhost-user). That process gets all of the guest's
/// memory, so it is refused for a confidential VM.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields, rename_all = "kebab-case")]
pub struct VhostUser {
    /// What it is to the guest.
    pub kind: DaemonChoice,
    /// The socket that the process listens at. A relative path counts from the directory of the config
    /// file.
    #[schemars(extend("examples" = ["/run/disk.sock"]))]
    pub socket: String,
    /// Queues of a disk. The default is 1.
    #[schemars(range(min = 1, max = 16))]
    pub queues: Option<u16>,
    /// The address of a network interface. The default is another one at each launch.
    pub mac: Option<String>,
    /// The name by which the guest mounts a file system, which must have one: 1 to 36 bytes.
    #[schemars(length(min = 1, max = 36))]
    pub tag: Option<String>,
}

/// What another process serves.
#[derive(Debug, JsonSchema)]
#[schemars(rename_all = "kebab-case", rename = "VhostUserKind")]
pub enum DaemonChoice {
    /// A disk.
    Block,
    /// A network interface.
    Net,
    /// A file system.
    Fs,
}

/// Sockets between guest and host (virtio-vsock), by the host's kernel. It sees all of the guest's memory,
/// so they are refused for a confidential VM.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Vsock {
    /// The guest's context id: no other VM of the host has it.
    #[schemars(range(min = 3, max = 4294967294_u32), extend("examples" = [3]))]
    pub cid: u32,
}

/// A source of random numbers for the guest (virtio-rng): those of the host's kernel. The table has no
/// keys.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Rng {}

/// The console: what ccvm's standard input and output are connected to.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Console {
    /// Which device of the guest it is.
    #[schemars(default)]
    pub device: ConsoleDeviceChoice,
}

/// Which device the console is.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "ConsoleDevice")]
pub enum ConsoleDeviceChoice {
    /// The serial port: `console=ttyS0` on the kernel's command line.
    #[default]
    Serial,
    /// A virtio console: `console=hvc0`. It costs an exit for each line instead of each byte. What the
    /// guest sends to the serial port is shown as well.
    Virtio,
}
