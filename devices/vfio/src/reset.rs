//! Putting a function back to its power-on state.
#![expect(unsafe_code, reason = "vfio-ioctls hides the result of the ioctl")]

use std::io;

use hostcall::gate;
use vfio_bindings::bindings::vfio::{VFIO_BASE, VFIO_TYPE};
use vmm_sys_util::ioctl::ioctl;
use vmm_sys_util::ioctl_io_nr;

use crate::Function;
use crate::function::AccessError;
use crate::region::RegionIndex;

ioctl_io_nr!(VFIO_DEVICE_RESET, VFIO_TYPE as u32, VFIO_BASE + 11);

/// Offset and bits of the PCI command register (PCI Local Bus 3.0, 6.2.2).
const COMMAND: u64 = 4;
const BUS_MASTER: u16 = 1 << 2;

/// How far a reset went.
#[derive(Debug)]
#[must_use]
pub enum Reset {
    /// The function is as after power-on.
    Done,
    /// The function cannot be reset; it was stopped from doing DMA, and keeps its other state.
    BusMasterCleared(io::Error),
}

/// Why a function could be neither reset nor stopped.
#[derive(Debug, thiserror::Error)]
#[error("{function}: cannot be reset ({reset}), nor stopped from doing DMA")]
pub struct ResetError {
    function: String,
    reset: io::Error,
    #[source]
    source: AccessError,
}

impl Function {
    /// Resets the function by whatever means the host has for it: FLR, power state, bus. Takes up
    /// to about a second. Where there is none, stops its DMA.
    ///
    /// # Errors
    /// When not even bus mastering could be turned off.
    pub fn reset(&self) -> Result<Reset, ResetError> {
        let Err(reset) = self.try_reset() else {
            return Ok(Reset::Done);
        };
        match self.clear_bus_master() {
            Ok(()) => Ok(Reset::BusMasterCleared(reset)),
            Err(source) => Err(ResetError {
                function: self.name().to_owned(),
                reset,
                source,
            }),
        }
    }

    fn try_reset(&self) -> io::Result<()> {
        gate("VFIO_DEVICE_RESET")?;
        // SAFETY: the descriptor is a VFIO device and the ioctl takes no argument.
        let result = unsafe { ioctl(&self.device, VFIO_DEVICE_RESET()) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Stops the function from doing DMA and from sending message interrupts.
    ///
    /// # Errors
    /// When its configuration space cannot be accessed.
    pub fn clear_bus_master(&self) -> Result<(), AccessError> {
        let mut command = [0; 2];
        self.read(RegionIndex::CONFIG, COMMAND, &mut command)?;
        let stopped = u16::from_le_bytes(command) & !BUS_MASTER;
        self.write(RegionIndex::CONFIG, COMMAND, &stopped.to_le_bytes())
    }
}
