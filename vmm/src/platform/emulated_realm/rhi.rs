//! Realm Host Interface calls for assigned devices: host calls by which a guest asks its host to lock,
//! start and stop a device, and for its interface report.
//!
//! Numbers and arguments are those of the guest series for device assignment as posted for Linux
//! (`arch/arm64/include/asm/rhi.h`); it is not upstream, and a kernel of today makes none of these
//! calls. Measurements are not served, as nobody has taken any: the series wants them before it uses
//! a device, so that such a kernel leaves the devices alone too.
//!
//! | function | arguments | returns |
//! |---|---|---|
//! | `DA_VERSION` | | version 1.0 |
//! | `DA_FEATURES` | | one bit for each of the calls below |
//! | `OBJECT_SIZE` | device, object | status, bytes |
//! | `OBJECT_READ` | device, object, shared page, bytes, offset | status, bytes copied |
//! | `GET_INTERFACE_REPORT` | device | status, cookie 0: it is there at once |
//! | `SET_TDI_STATE` | device, 0 unlocked, 1 locked, 2 run | status, cookie 0 |

use devices::pci::Bdf;
use iommu::Gpa;

use super::vdev::VdevTarget;
use super::{Realm, RealmMemory};

/// Registers of a host call that these calls use.
pub(super) const REGISTERS: usize = 6;

/// What comes back in the first two registers.
pub(super) type Answer = [u64; 2];

const VERSION: u64 = 0xc500_004a;
const FEATURES: u64 = 0xc500_004b;
const OBJECT_SIZE: u64 = 0xc500_004c;
const OBJECT_READ: u64 = 0xc500_004d;
const GET_INTERFACE_REPORT: u64 = 0xc500_0053;
const SET_TDI_STATE: u64 = 0xc500_0054;

/// `OBJECT_SIZE`, `OBJECT_READ`, `GET_INTERFACE_REPORT`, `SET_TDI_STATE`.
const SERVED: u64 = 1 << 0 | 1 << 1 | 1 << 4 | 1 << 5;

/// The object that is the interface report; certificates, measurements and the rest are not there.
const REPORT: u64 = 3;
const OBJECTS: std::ops::RangeInclusive<u64> = 1..=4;

/// Codes in the first register.
#[derive(Debug, Clone, Copy)]
enum Status {
    Success = 0,
    DataNotAvailable = 2,
    InvalidVdevId = 3,
    InvalidObject = 4,
    Input = 5,
    Device = 6,
    InvalidOffset = 7,
    AccessFailed = 8,
}

impl<M: RealmMemory> Realm<M> {
    /// Answers a call; `None` for one that is not served.
    pub(super) fn realm_host_interface(&self, registers: [u64; REGISTERS]) -> Option<Answer> {
        self.devices()?;
        let [function, id, argument, ..] = registers;
        Some(match function {
            VERSION => [1 << 16, 0],
            FEATURES => [SERVED, 0],
            OBJECT_SIZE => answer(self.object(id, argument).map(|object| object.len())),
            OBJECT_READ => answer(self.read_object(registers)),
            GET_INTERFACE_REPORT => answer(self.object(id, REPORT).map(|_| 0)),
            SET_TDI_STATE => answer(self.set_tdi_state(id, argument).map(|()| 0)),
            _ => return None,
        })
    }

    fn set_tdi_state(&self, id: u64, target: u64) -> Result<(), Status> {
        let (device, _) = self.vdev(id).ok_or(Status::InvalidVdevId)?;
        let target = match target {
            0 => VdevTarget::Unlocked,
            1 => VdevTarget::Locked,
            2 => VdevTarget::Run,
            _ => return Err(Status::Input),
        };
        let devices = self.devices().ok_or(Status::InvalidVdevId)?;
        let done = devices.bring_to(device, target);
        done.map_err(|error| refused(device, &*error))
    }

    fn object(&self, id: u64, object: u64) -> Result<Vec<u8>, Status> {
        let (device, _) = self.vdev(id).ok_or(Status::InvalidVdevId)?;
        if !OBJECTS.contains(&object) {
            return Err(Status::InvalidObject);
        }
        if object != REPORT {
            return Err(Status::DataNotAvailable);
        }
        let devices = self.devices().ok_or(Status::InvalidVdevId)?;
        let report = devices.report(device);
        report.map_err(|error| refused(device, &*error))
    }

    fn read_object(&self, registers: [u64; REGISTERS]) -> Result<usize, Status> {
        let [_, id, object, buffer, bytes, offset] = registers;
        let object = self.object(id, object)?;
        let offset = usize::try_from(offset).map_err(|_| Status::InvalidOffset)?;
        let rest = object.get(offset..).ok_or(Status::InvalidOffset)?;
        let room = usize::try_from(bytes).unwrap_or(usize::MAX);
        let part = rest.get(..room).unwrap_or(rest);
        let written = self.memory.write_shared(Gpa::new(buffer), part);
        written.map_err(|_| Status::AccessFailed)?;
        Ok(part.len())
    }
}

fn answer(result: Result<usize, Status>) -> Answer {
    match result {
        Ok(value) => [Status::Success as u64, value as u64],
        Err(status) => [status as u64, 0],
    }
}

fn refused(device: Bdf, error: &(dyn std::error::Error + 'static)) -> Status {
    super::device_refuses(device, error);
    Status::Device
}
