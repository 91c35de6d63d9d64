//! The host facts document: what the planner needs to know of a host, and nothing else.
//!
//! Every bound is inclusive. An absent field means that the fact is unknown, not that it is zero.
//! What a value may be is checked while it is read (`checked.rs`), so that the JSON reader knows the
//! line and column of a bad one.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::checked;
use crate::platform::Platform;

/// The version of the document that this ccvm writes and reads.
pub const SCHEMA: u32 = 1;

/// Facts of one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostFacts {
    /// Version of this document: 1.
    pub schema: u32,
    /// Processor architecture as `uname -m` prints it.
    pub arch: Arch,
    /// What KVM offers; absent when there is no KVM, or when it could not be opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kvm: Option<KvmFacts>,
    /// What VFIO offers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vfio: Option<VfioFacts>,
    /// PCI functions, no address twice.
    #[serde(default, deserialize_with = "checked::devices")]
    pub devices: Vec<DeviceFacts>,
    /// What could not be read, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
}

/// Processor architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Arch {
    /// 64-bit Arm.
    #[serde(rename = "aarch64")]
    Aarch64,
    /// 64-bit x86.
    #[serde(rename = "x86_64")]
    X86_64,
}

/// What KVM offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KvmFacts {
    /// `KVM_GET_API_VERSION`.
    pub api: u32,
    /// Arm: the widest IPA space, `KVM_CAP_ARM_VM_IPA_SIZE`.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "checked::bits"
    )]
    #[schemars(range(min = 1, max = 64))]
    pub ipa_bits_max: Option<u8>,
    /// x86: guest-physical address bits.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "checked::bits"
    )]
    #[schemars(range(min = 1, max = 64))]
    pub phys_bits: Option<u8>,
    /// The kinds of VM that can be launched.
    #[serde(default)]
    pub platforms: Vec<Platform>,
    /// Kinds of VM of this architecture that cannot be launched, with what is missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacking: Vec<Lacking>,
}

/// A kind of VM that the host does not offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Lacking {
    /// Which.
    pub platform: Platform,
    /// What the host lacks for it, a phrase.
    pub reason: String,
}

/// What VFIO offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VfioFacts {
    /// Whether there are containers: `/dev/vfio/vfio`.
    pub type1: bool,
    /// Whether there is iommufd: `/dev/iommu`.
    pub iommufd: bool,
    /// Type1: how many mappings a container takes, the parameter of the module; absent when it is not
    /// loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dma_entry_limit: Option<u64>,
}

/// One PCI function of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceFacts {
    /// Where it sits: `0000:00:04.0`.
    pub pci: PciAddress,
    /// Vendor id.
    pub vendor: Hex<u16>,
    /// Device id.
    pub device: Hex<u16>,
    /// Class code: base class, subclass, programming interface.
    #[serde(deserialize_with = "checked::class")]
    pub class: Hex<u32>,
    /// IOMMU group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<u32>,
    /// The bound driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Whether it has a node in `/dev/vfio/devices`, as iommufd needs; absent unless a VFIO driver has
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_node: Option<bool>,
    /// sysfs `dma_mask_bits`: the last driver's streaming mask; 32 may mean that there never was one.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "checked::bits"
    )]
    #[schemars(range(min = 1, max = 64))]
    pub dma_mask_bits: Option<u8>,
    /// sysfs `consistent_dma_mask_bits`: the last driver's coherent mask.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "checked::bits"
    )]
    #[schemars(range(min = 1, max = 64))]
    pub coherent_dma_mask_bits: Option<u8>,
    /// Address bits read from a register of the device (xHCI AC64, AHCI S64A, SDHCI, HDA 64OK).
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "checked::bits"
    )]
    #[schemars(range(min = 1, max = 64))]
    pub register_dma_bits: Option<u8>,
    /// TDISP `DEV_ADDR_WIDTH`, where a security manager has reported it.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "checked::bits"
    )]
    #[schemars(range(min = 1, max = 64))]
    pub tdisp_dma_bits: Option<u8>,
    /// Base address registers that are in use.
    #[serde(default, deserialize_with = "checked::bars")]
    pub bars: Vec<BarFacts>,
    /// IOVA ranges that the IOMMU does not translate for this function's group.
    #[serde(default)]
    pub reserved_regions: Vec<ReservedRegion>,
    /// IOVA ranges that the IOMMU can map for this function; absent when it was not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iova_ranges: Option<Vec<AddressRange>>,
}

/// One base address register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BarFacts {
    /// Index, 0..=5; a 64-bit BAR has the index of its lower half.
    #[schemars(range(max = 5))]
    pub index: u8,
    /// Size in bytes, a power of two.
    pub size: u64,
    /// What it decodes.
    pub kind: BarKind,
}

/// What a base address register decodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BarKind {
    /// Memory below 4 GiB.
    Mem32,
    /// Memory anywhere.
    Mem64,
    /// Memory anywhere, without read side effects.
    Mem64Prefetchable,
    /// I/O ports.
    Io,
}

/// A reserved IOVA range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "checked::RawReservedRegion")]
#[schemars(!try_from)]
pub struct ReservedRegion {
    /// First address.
    pub start: Hex<u64>,
    /// Last address.
    pub end: Hex<u64>,
    /// As the kernel names it: `msi`, `reserved`, `direct`, `direct-relaxable`.
    pub kind: String,
}

/// An inclusive range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "checked::RawAddressRange")]
#[schemars(!try_from)]
pub struct AddressRange {
    /// First address.
    pub start: Hex<u64>,
    /// Last address.
    pub end: Hex<u64>,
}

/// Segment, bus, device and function of a host PCI function, printed `0000:00:04.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    /// Segment (domain).
    pub segment: u32,
    /// Bus.
    pub bus: u8,
    /// Device, 0..=31.
    pub device: u8,
    /// Function, 0..=7.
    pub function: u8,
}

/// Not a PCI address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a PCI address of the form 0000:00:04.0")]
pub struct NotAPciAddress(pub String);

impl FromStr for PciAddress {
    type Err = NotAPciAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_pci_address(text).ok_or_else(|| NotAPciAddress(text.to_owned()))
    }
}

fn parse_pci_address(text: &str) -> Option<PciAddress> {
    let (rest, function) = text.rsplit_once('.')?;
    let mut parts = rest.rsplit(':');
    let device = hex(parts.next()?, 2)?;
    let bus = hex(parts.next()?, 2)?;
    let segment = parts.next().map_or(Some(0), |part| hex(part, 8))?;
    let function = hex(function, 1)?;
    if parts.next().is_some() || device > 31 || function > 7 {
        return None;
    }
    Some(PciAddress {
        segment,
        bus: u8::try_from(bus).ok()?,
        device: u8::try_from(device).ok()?,
        function: u8::try_from(function).ok()?,
    })
}

fn hex(digits: &str, most: usize) -> Option<u32> {
    let plain = !digits.is_empty() && digits.len() <= most;
    (plain && digits.bytes().all(|b| b.is_ascii_hexdigit()))
        .then(|| u32::from_str_radix(digits, 16).ok())
        .flatten()
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:04x}:{:02x}:{:02x}.{:x}",
            self.segment, self.bus, self.device, self.function
        )
    }
}

impl Serialize for PciAddress {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PciAddress {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for PciAddress {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PciAddress".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "PCI address, such as `0000:00:04.0`",
            "type": "string",
            "pattern": "^([0-9a-fA-F]{1,8}:)?[0-9a-fA-F]{1,2}:[0-1]?[0-9a-fA-F]\\.[0-7]$"
        })
    }
}

/// A number that JSON carries as a hexadecimal string such as `"0x8086"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hex<T>(pub T);

impl<T: fmt::LowerHex> Serialize for Hex<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Ids keep their full width (`0x0007`), addresses do not.
        let digits = match size_of::<T>() {
            2 => 4,
            4 => 6,
            _ => 1,
        };
        serializer.collect_str(&format_args!("{:#0width$x}", self.0, width = digits + 2))
    }
}

impl<'de, T: TryFrom<u64>> Deserialize<'de> for Hex<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
        digits
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|digits| u64::from_str_radix(digits, 16).ok())
            .and_then(|value| T::try_from(value).ok())
            .map(Hex)
            .ok_or_else(|| {
                serde::de::Error::custom(format!("'{text}' is not a hexadecimal number in range"))
            })
    }
}

impl<T> JsonSchema for Hex<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Hex".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "hexadecimal text, such as `0x8086`",
            "type": "string",
            "pattern": "^0[xX][0-9a-fA-F]+$"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_example_reads_and_writes_back_the_same() {
        let text = r#"{"schema":1,"arch":"aarch64","kvm":{"api":12,"ipa_bits_max":48,
            "platforms":["none","emulated-realm"]},"devices":[{"pci":"0000:00:04.0",
            "vendor":"0x8086","device":"0x100e","class":"0x020000","group":3,"driver":"vfio-pci",
            "dma_mask_bits":32,"coherent_dma_mask_bits":32,
            "bars":[{"index":0,"size":131072,"kind":"mem32"}],
            "reserved_regions":[{"start":"0x8000000","end":"0x80fffff","kind":"msi"}],
            "iova_ranges":[{"start":"0x0","end":"0xffffffff"}]}]}"#;
        let facts: HostFacts = serde_json::from_str(text).unwrap();
        let written: serde_json::Value = serde_json::to_value(&facts).unwrap();
        let read: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(written, read);
    }

    #[test]
    fn pci_addresses_are_parsed_strictly() {
        let address: PciAddress = "0001:3f:1f.7".parse().unwrap();
        assert_eq!(address.to_string(), "0001:3f:1f.7");
        assert_eq!(
            "00:04.0".parse::<PciAddress>().unwrap().to_string(),
            "0000:00:04.0"
        );
        for bad in [
            "",
            "0000:00:04",
            "0:0:0:04.0",
            "0000:00:20.0",
            "0000:00:04.8",
            "+0:00.0",
        ] {
            assert!(bad.parse::<PciAddress>().is_err(), "{bad}");
        }
    }
}
