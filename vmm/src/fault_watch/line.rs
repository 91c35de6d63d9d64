//! What the kernel's IOMMU drivers log of a fault.
//!
//! | driver | line | source |
//! |---|---|---|
//! | SMMUv3 | `arm-smmu-v3 NAME: event: F_TRANSLATION client: 0000:00:02.0 sid: 0x10 ssid: 0 iova: 0x1000 ipa: 0` | `arm_smmu_dump_event()` |
//! | | and then `arm-smmu-v3 NAME: unpriv data write s1 "..." stag: 0` | |
//! | AMD-Vi | `vfio-pci 0000:00:02.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x1 address=0x1000 flags=0x20]` | `amd_iommu_report_page_fault()` |
//! | | `AMD-Vi: Event logged [IO_PAGE_FAULT device=0000:00:02.0 domain=0x1 address=0x1000 flags=0x20]` | |
//! | VT-d | `DMAR: [DMA Write NO_PASID] Request device [00:02.0] fault addr 0x1000 [fault reason 0x05] ...` | `dmar_fault_do_one()` |
//!
//! These are no stable interface. A line of another form is no fault, rather than half of one.

use devices::pci::Bdf;
use iommu::fault::{FaultAccess, FaultReason};
use iommu::request::EndpointId;
use iommu::{FaultEvent, Iova};

use crate::host::facts::PciAddress;

/// An access that the host's IOMMU refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostFault {
    /// Whose. VT-d does not say in which segment: then it is taken to be the first.
    pub device: PciAddress,
    /// Where, as the device gave it.
    pub address: u64,
    /// What it wanted to do.
    pub access: Access,
}

impl HostFault {
    /// The fault as the IOMMU of a guest reports it, which sees the device at `guest`.
    #[must_use]
    pub fn seen_by_guest(self, guest: Bdf) -> FaultEvent {
        FaultEvent {
            reason: FaultReason::Mapping,
            access: match self.access {
                Access::Read => FaultAccess::Read,
                Access::Write => FaultAccess::Write,
                Access::Unknown => FaultAccess::Unknown,
            },
            endpoint: EndpointId(guest.requester_id().into()),
            address: Some(Iova::new(self.address)),
        }
    }
}

/// What a device wanted to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read.
    Read,
    /// Write.
    Write,
    /// The line does not say.
    Unknown,
}

/// A line that has to do with faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// A fault, of which the line says all that will be said.
    Fault(HostFault),
    /// A fault; the next line of the same driver may say what was tried.
    Began(HostFault),
    /// What was tried.
    Tried(Access),
}

/// Reads a line of the kernel's log.
pub(super) fn read(line: &str) -> Option<Line> {
    smmu(line)
        .or_else(|| amd(line).map(Line::Fault))
        .or_else(|| vt_d(line).map(Line::Fault))
}

fn smmu(line: &str) -> Option<Line> {
    const EVENTS: [&str; 4] = ["F_TRANSLATION", "F_ADDR_SIZE", "F_ACCESS", "F_PERMISSION"];
    let (_name, said) = line.strip_prefix("arm-smmu-v3 ")?.split_once(": ")?;
    let mut words = said.split(' ');
    let first = words.next()?;
    if first != "event:" {
        let (privilege, kind, access) = (first, words.next()?, words.next()?);
        let known = matches!(privilege, "priv" | "unpriv") && matches!(kind, "inst" | "data");
        return match access {
            "read" if known => Some(Line::Tried(Access::Read)),
            "write" if known => Some(Line::Tried(Access::Write)),
            _ => None,
        };
    }
    let event = words.next()?;
    let mut field = |name: &str| {
        (words.next()? == name).then_some(())?;
        words.next()
    };
    let client = field("client:")?;
    let _stream = number(field("sid:")?)?;
    let _substream = number(field("ssid:")?)?;
    let address = number(field("iova:")?)?;
    EVENTS.contains(&event).then_some(Line::Began(HostFault {
        device: client.parse().ok()?,
        address,
        access: Access::Unknown,
    }))
}

fn amd(line: &str) -> Option<HostFault> {
    /// The RW flag of an I/O page fault event (AMD IOMMU specification, 2.5.3).
    const WRITE: u64 = 1 << 5;
    let (before, said) = line.split_once("AMD-Vi: Event logged [IO_PAGE_FAULT ")?;
    let mut fields = said.strip_suffix(']')?.split(' ');
    let device = match before {
        "" => fields.next()?.strip_prefix("device=")?,
        driver => driver.strip_suffix(": ")?.split_once(' ')?.1,
    };
    let _domain = number(fields.next()?.strip_prefix("domain=")?)?;
    let address = number(fields.next()?.strip_prefix("address=")?)?;
    let flags = number(fields.next()?.strip_prefix("flags=")?)?;
    let access = match flags & WRITE {
        0 => Access::Read,
        _ => Access::Write,
    };
    fields.next().is_none().then_some(HostFault {
        device: device.parse().ok()?,
        address,
        access,
    })
}

fn vt_d(line: &str) -> Option<HostFault> {
    let said = line.strip_prefix("DMAR: [DMA ")?;
    let (kind, said) = said.split_once("] Request device [")?;
    let (device, said) = said.split_once("] fault addr ")?;
    let (address, _reason) = said.split_once(" [fault reason ")?;
    let (access, pasid) = kind.split_once(' ')?;
    let access = match access {
        "Read" => Access::Read,
        "Write" => Access::Write,
        _ => return None,
    };
    let pasid = pasid == "NO_PASID" || pasid.strip_prefix("PASID ").and_then(number).is_some();
    pasid.then_some(HostFault {
        device: device.parse().ok()?,
        address: number(address)?,
        access,
    })
}

/// A number as `%#llx` prints it.
fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            u64::from_str_radix(digits, 16).ok()
        }
        Some(_) => None,
        None => (text == "0").then_some(0),
    }
}

#[cfg(test)]
mod tests;
