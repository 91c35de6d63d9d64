//! What is answered.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::host::facts::{Hex, PciAddress};
use crate::platform::Platform;
use crate::report::document::Dma;

/// What the VM is and how it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// The process that runs it.
    pub pid: u32,
    /// The kind of VM.
    pub platform: Platform,
    /// Width of the guest-physical space in bits.
    pub ipa_bits: u8,
    /// The address bit that names a page's shared alias, where the platform has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_bit: Option<u8>,
    /// Processors.
    pub vcpus: u32,
    /// Guest memory in bytes.
    pub memory: u64,
    /// Whether the guest runs.
    pub state: RunState,
    /// Milliseconds since ccvm was started.
    pub uptime_ms: u64,
    /// Resident bytes of the process that are not guest memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_memory_bytes: Option<u64>,
    /// Assigned devices.
    pub devices: u32,
    /// How the host's kernel is told what devices reach, `type1` or `iommufd`; absent without devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dma_backend: Option<String>,
    /// Whether the guest has a virtual IOMMU.
    pub iommu: GuestIommu,
    /// Who plays the TSM towards assigned devices; absent where the VM has no private memory, or no
    /// device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tsm: Option<String>,
    /// Whether faults of assigned devices are heard of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault_watch: Option<FaultWatch>,
}

/// Whether the guest runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// Its vCPUs run.
    Running,
    /// Its vCPUs are held; DMA of its devices goes on.
    Paused,
}

/// The IOMMU that a guest sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GuestIommu {
    /// None.
    None,
    /// virtio-iommu.
    Virtio,
}

/// Whether faults of assigned devices are heard of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FaultWatch {
    /// Whether the kernel's log is read.
    pub active: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
    /// Messages of the kernel that were overwritten before they could be read: faults may be among
    /// them.
    pub lost: u64,
}

/// The assigned devices, in the order of the config, then those that have come since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Devices {
    /// One each.
    pub list: Vec<DeviceStatus>,
}

/// An assigned device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceStatus {
    /// The function of the host.
    pub pci: PciAddress,
    /// Bus, device and function that the guest sees.
    pub guest: String,
    /// The slot that it came into while the VM ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u8>,
    /// IOMMU groups of the host that share its DMA table.
    pub groups: Vec<String>,
    /// How its DMA is addressed.
    pub dma: Dma,
    /// Its interface, on platforms that have private memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<Interface>,
    /// The table in force.
    pub table: TableName,
    /// Whether the table follows the guest's memory.
    pub health: TableHealth,
    /// Mappings that the host holds for the table.
    pub mappings: u64,
    /// Bytes that the device reaches.
    pub reach: u64,
    /// Accesses that the host's IOMMU refused, at least: the kernel does not log all of them.
    pub faults: u64,
    /// The address of the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_fault: Option<Hex<u64>>,
}

/// A device that has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Plugged {
    /// The function of the host.
    pub pci: PciAddress,
    /// Bus, device and function that the guest sees, once it has taken the device.
    pub guest: String,
    /// The slot that it is in.
    pub slot: u8,
    /// What `ccvm check` would warn of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A device that is to leave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unplugged {
    /// The function of the host.
    pub pci: PciAddress,
    /// What has become of it.
    pub state: UnplugState,
}

/// What has become of a device that is to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UnplugState {
    /// The guest is asked to give it up; when it has, `devices` does not list it any more.
    Asked,
    /// The guest's driver is at it: its slot's power indicator blinks.
    Leaving,
    /// It is the host's again.
    Gone,
}

/// The two DMA tables of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TableName {
    /// In force until the guest accepts the device: shared pages.
    T0,
    /// In force while it is accepted: the same shared pages, and private ones.
    T1,
}

/// Whether a table follows the guest's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TableHealth {
    /// It does.
    Sound,
    /// A call to the host failed in a way that nothing repairs: its devices have been cut off.
    Quarantined,
}

/// A device's interface (TDI) and what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Interface {
    /// Its TDISP state: `CONFIG_UNLOCKED`, `CONFIG_LOCKED`, `RUN` or `ERROR`.
    pub state: String,
    /// Whether it may reach private pages while it runs.
    pub trusted_dma: bool,
    /// How often it has been locked.
    pub locks: u64,
    /// Writes of the guest that were kept from the device.
    pub withheld: u64,
    /// What took it to ERROR.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_by: Option<String>,
    /// Microseconds that a switch of tables took, as the answer to `start` and `stop`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_us: Option<u64>,
    /// Ranges of device memory, as the answer to `report`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mmio: Vec<InterfaceMmio>,
}

/// Memory of a device as its interface reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InterfaceMmio {
    /// The base address register that decodes it.
    pub bar: u8,
    /// First address, as the guest sees it.
    pub start: Hex<u64>,
    /// Length in bytes.
    pub size: u64,
    /// Whether it answers to everybody in every state.
    pub non_tee: bool,
}

/// Page states and DMA tables, by extent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemoryMap {
    /// The states of the guest's pages.
    pub states: StateList,
    /// The tables, once for all devices that share them.
    pub tables: Vec<TableMap>,
}

/// States of pages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StateList {
    /// Extents, ascending; an extent that begins below what was asked for is shown whole.
    pub extents: Vec<StateExtent>,
    /// Extents above these that were left out.
    pub left_out: u64,
}

/// Pages of one state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StateExtent {
    /// First guest-physical address, without the shared bit.
    pub start: Hex<u64>,
    /// Length in bytes.
    pub size: u64,
    /// What they are.
    pub state: PageStateName,
}

/// What pages are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PageStateName {
    /// Only the guest, and devices that it has accepted, reach them.
    Private,
    /// The host and every assigned device reach them.
    Shared,
    /// On their way from one to the other.
    Converting,
    /// Out of use since a conversion failed half-way.
    Quarantined,
}

/// The two tables of devices that share them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TableMap {
    /// The devices.
    pub devices: Vec<PciAddress>,
    /// The table in force.
    pub in_force: TableName,
    /// What T0 holds, or would.
    pub t0: MappingList,
    /// What T1 holds, or would.
    pub t1: MappingList,
}

/// Mappings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MappingList {
    /// Extents, ascending; those that go on in each other are one.
    pub extents: Vec<MappingExtent>,
    /// Extents above these that were left out.
    pub left_out: u64,
}

/// A mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MappingExtent {
    /// First address that the device uses.
    pub iova: Hex<u64>,
    /// Length in bytes.
    pub size: u64,
    /// The guest-physical address that it reaches.
    pub gpa: Hex<u64>,
    /// What the device may do there.
    pub access: AccessName,
}

/// What a device may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AccessName {
    /// Only read.
    Read,
    /// Only write.
    Write,
    /// Read and write.
    ReadWrite,
}

/// What came of holding every table against what it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Verification {
    /// Whether every table is as it must be, and in use.
    pub clean: bool,
    /// Microseconds for which conversions had to wait, at most at a time.
    pub held_up_us: u64,
    /// Microseconds that it took.
    pub took_us: u64,
    /// The tables, once for all devices that share them.
    pub tables: Vec<TableVerification>,
}

/// A table held against what it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TableVerification {
    /// The devices behind it.
    pub devices: Vec<PciAddress>,
    /// Which of their tables: the one in force, and the other one where the host holds both.
    pub table: TableName,
    /// Whether it is in use.
    pub health: TableHealth,
    /// Extents that T0 must hold, derived from scratch.
    pub t0_extents: u64,
    /// Extents that T1 must hold, derived from scratch.
    pub t1_extents: u64,
    /// Mappings by ccvm's record.
    pub recorded: u64,
    /// Mappings that the kernel has accepted and not given back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<u64>,
    /// Mappings by the kernel's own count, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted: Option<u64>,
    /// What is not as it must be.
    pub differences: Vec<TableDifference>,
    /// Differences that were left out.
    pub left_out: u64,
}

/// Where a table is not what it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TableDifference {
    /// In what way.
    pub kind: DifferenceKind,
    /// First address that the device uses; absent for `count`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iova: Option<Hex<u64>>,
    /// Length in bytes; absent for `count`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The guest-physical address behind it, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpa: Option<Hex<u64>>,
}

/// In what way a table differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DifferenceKind {
    /// Its devices must reach this, and do not.
    Missing,
    /// Its devices reach this, and must not.
    Surplus,
    /// The host was told to map this and does not hold it.
    Lost,
    /// The host holds this, and nobody knows why.
    Leaked,
    /// The kernel counts another number of mappings.
    Count,
    /// T0 shows a shared page that T1 does not show.
    Unmirrored,
}
