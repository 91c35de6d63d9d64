//! The VDEV calls of RSI: what the guest is told of its devices, and whether it trusts them.
//!
//! ```text
//!   RHI SET_TDI_STATE locked ─► RSI VDEV_GET_INFO ─► RSI VDEV_DMA_ENABLE ─► RHI SET_TDI_STATE run
//!      (rhi.rs, to the host)       state, nonces        nonces: still that lock?     private pages
//! ```
//! Calls, layouts and errors are those of the beta of RMM 2.0 as TF-RMM has them
//! (`runtime/rsi/vdev.c`, `lib/smc/include/smc-rsi.h`). A Realm without assigned devices does not have
//! them, like one of RMM 1.0, and neither has it the calls of that beta that are not here.

use std::error::Error;

use devices::passthrough::TrustedDma;
use devices::passthrough::tdi::TdiState;
use devices::pci::Bdf;
use iommu::Gpa;

use super::ripas::Response;
use super::rsi::{Arguments, Failure, Reply};
use super::{Realm, RealmMemory};

/// Assigned devices as the RMM sees them.
pub trait RealmDevices: Send + Sync {
    /// A device; `None` when the Realm does not have it.
    fn vdev(&self, device: Bdf) -> Option<Vdev>;

    /// Lets it reach private pages while it runs, or takes that back.
    ///
    /// # Errors
    /// When the device is in another state than that needs, or the host cannot follow.
    fn set_trusted_dma(&self, device: Bdf, dma: TrustedDma) -> Result<(), VdevError>;

    /// Brings its interface into a state.
    ///
    /// # Errors
    /// When no request leads there from where it is, or the host cannot follow.
    fn bring_to(&self, device: Bdf, target: VdevTarget) -> Result<(), VdevError>;

    /// The report of its locked interface.
    ///
    /// # Errors
    /// When it is not locked.
    fn report(&self, device: Bdf) -> Result<Vec<u8>, VdevError>;
}

/// A device of the Realm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vdev {
    /// The state of its interface.
    pub state: TdiState,
    /// How often it has been locked: what the guest has seen of it holds for one of these times.
    pub locks: u64,
}

/// A state that the guest can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VdevTarget {
    /// Stopped.
    Unlocked,
    /// Locked, from unlocked.
    Locked,
    /// Started, from locked.
    Run,
}

/// Why a device did not follow.
pub type VdevError = Box<dyn Error + Send + Sync>;

/// Bytes of `RsiVdevInfo`, which is aligned to its size.
const INFO: usize = 0x200;

/// Where `RsiVdevInfo` has its fields, in bytes. All others read zero: there are no certificates and
/// no measurements behind the device, and the digests of both say so.
mod field {
    pub(super) const HASH_ALGORITHM: usize = 0x10;
    pub(super) const LOCK_NONCE: usize = 0x18;
    pub(super) const REPORT_NONCE: usize = 0x28;
    pub(super) const TDISP_VERSION: usize = 0x30;
    pub(super) const STATE: usize = 0x38;
    pub(super) const REPORT_DIGEST: usize = 0x140;
}

/// Version 1.0 of TDISP.
const TDISP_VERSION: u64 = 0x10;

impl Vdev {
    /// Whether these are the nonces of its last lock, of no measurement, and of the report that was
    /// taken at that lock.
    fn knows(self, nonces: [u64; 3]) -> bool {
        nonces == [self.locks, 0, self.locks]
    }
}

impl<M: RealmMemory> Realm<M> {
    /// x1 device, x2 the structure to fill, in private memory.
    pub(super) fn vdev_get_info(&self, arguments: &Arguments) -> Reply {
        let [id, structure, ..] = *arguments;
        let structure = Gpa::new(structure);
        if !structure.raw().is_multiple_of(INFO as u64) || !self.is_protected(structure) {
            return Failure::Input.into();
        }
        let Some((device, vdev)) = self.vdev(id) else {
            return Failure::Input.into();
        };
        let mut info = [0; INFO];
        let mut put = |at: usize, bytes: &[u8]| {
            for (byte, value) in info.iter_mut().skip(at).zip(bytes) {
                *byte = *value;
            }
        };
        put(field::HASH_ALGORITHM, &[self.config.hash as u8]);
        put(field::LOCK_NONCE, &vdev.locks.to_le_bytes());
        put(field::REPORT_NONCE, &vdev.locks.to_le_bytes());
        put(field::TDISP_VERSION, &TDISP_VERSION.to_le_bytes());
        // The numbers of TDISP and of `RsiVdevState` are the same.
        put(field::STATE, &[vdev.state as u8]);
        if let Some(Ok(report)) = self.devices().map(|devices| devices.report(device)) {
            let digest = self.config.hash.digest(&[&report]);
            put(field::REPORT_DIGEST, digest.as_bytes());
        }
        match self.memory.write_private(structure, &info) {
            Ok(()) => Reply::success([]),
            Err(_) => Failure::Input.into(),
        }
    }

    /// x1 device, x2 flags and x3 plane (no planes and no ATS here), x4 to x6 nonces of the lock, of
    /// measurements and of the report.
    pub(super) fn vdev_dma_enable(&self, arguments: &Arguments) -> Reply {
        let [id, _, _, lock, measurements, report, ..] = *arguments;
        let Some((device, vdev)) = self.vdev(id) else {
            return Failure::Input.into();
        };
        if !vdev.state.is_locked() || !vdev.knows([lock, measurements, report]) {
            return Failure::Device.into();
        }
        self.vdev_dma(device, TrustedDma::Enabled)
    }

    /// x1 device.
    pub(super) fn vdev_dma_disable(&self, arguments: &Arguments) -> Reply {
        match self.vdev(arguments[0]) {
            Some((device, _)) => self.vdev_dma(device, TrustedDma::Disabled),
            None => Failure::Input.into(),
        }
    }

    /// x1 device, x2 base, x3 top, x4 base of the device's addresses, x5 flags, x6 to x8 nonces;
    /// returns how far it came, and the host's response.
    ///
    /// This host has device memory at shared addresses only, as its interface report says, so that it
    /// rejects every mapping that is well-formed.
    pub(super) fn vdev_validate_mapping(&self, arguments: &Arguments) -> Reply {
        let [id, base, top, physical, _, lock, measurements, report, ..] = *arguments;
        let aligned = Gpa::new(physical).is_page_aligned();
        if self.protected_range(base, top).is_none() || !aligned {
            return Failure::Input.into();
        }
        let Some((_, vdev)) = self.vdev(id).filter(|(_, vdev)| vdev.state.is_locked()) else {
            return Failure::Input.into();
        };
        if !vdev.knows([lock, measurements, report]) {
            return Failure::Device.into();
        }
        Reply::success([base, Response::Reject as u64])
    }

    /// A device by its id: segment and requester id. There is one segment.
    pub(super) fn vdev(&self, id: u64) -> Option<(Bdf, Vdev)> {
        let device = Bdf::from_requester_id(u16::try_from(id).ok()?);
        Some((device, self.devices()?.vdev(device)?))
    }

    fn vdev_dma(&self, device: Bdf, dma: TrustedDma) -> Reply {
        let done = self
            .devices()
            .map(|devices| devices.set_trusted_dma(device, dma));
        match done {
            Some(Ok(())) => Reply::success([]),
            Some(Err(error)) => {
                super::device_refuses(device, &*error);
                Failure::Device.into()
            }
            None => Failure::Input.into(),
        }
    }
}
