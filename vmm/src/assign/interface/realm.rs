//! Interfaces as the guest of an emulated Realm drives them.

use devices::passthrough::tdi::Nonce;
use devices::passthrough::{TrustedDma, tdi::Refusal};
use devices::pci::Bdf;

use super::{InterfaceError, Interfaces};
use crate::platform::emulated_realm::{RealmDevices, Vdev, VdevError, VdevTarget};

impl RealmDevices for Interfaces {
    fn vdev(&self, device: Bdf) -> Option<Vdev> {
        let status = self.status(device).ok()??;
        Some(Vdev {
            state: status.state,
            locks: status.locks,
        })
    }

    fn set_trusted_dma(&self, device: Bdf, dma: TrustedDma) -> Result<(), VdevError> {
        Ok(Self::set_trusted_dma(self, device, dma)?)
    }

    fn bring_to(&self, device: Bdf, target: VdevTarget) -> Result<(), VdevError> {
        match target {
            VdevTarget::Unlocked => self.stop(device).map(drop)?,
            VdevTarget::Locked => self.lock(device).map(drop)?,
            VdevTarget::Run => self.start(device, &self.nonce_for_start(device)?)?,
        }
        Ok(())
    }

    fn report(&self, device: Bdf) -> Result<Vec<u8>, VdevError> {
        Ok(Self::report(self, device)?.to_bytes())
    }
}

impl Interfaces {
    /// An RMM keeps the nonce to itself: its guest asks for a start by the state alone.
    fn nonce_for_start(&self, device: Bdf) -> Result<Nonce, InterfaceError> {
        let nonce = self.last_nonce(device)?;
        let never_locked = devices::passthrough::InterfaceError::Refused(Refusal::InvalidNonce);
        nonce.ok_or(InterfaceError::Interface(never_locked))
    }
}
