//! What a passed-through function needs of the host: `vmm` implements it with VFIO and KVM.

use std::io;

use iommu::Gpa;
use vmm_sys_util::eventfd::EventFd;

use super::decode::Span;
use crate::pci::BarIndex;

/// Which events the device's interrupts are to signal.
#[derive(Debug, Clone, Copy)]
pub enum Signals<'a> {
    /// The pin. It is masked when it fires, until `resample` is signalled.
    Intx {
        /// Signalled when the device asserts its pin.
        trigger: &'a EventFd,
        /// Signalled when the guest has dealt with it.
        resample: &'a EventFd,
    },
    /// MSI vector `n` signals the `n`th event; not empty.
    Msi(&'a [&'a EventFd]),
    /// MSI-X vector `n` signals the `n`th event; not empty.
    Msix(&'a [&'a EventFd]),
}

/// The device behind a passed-through function.
///
/// The guest can provoke every one of these calls, as often as it likes; a failure is answered to
/// it as a device would that is not there, and logged at a bounded rate.
pub trait PhysicalFunction: Send {
    /// Bytes of configuration space: 256 or 4096.
    fn config_bytes(&self) -> u16;

    /// Reads configuration space.
    ///
    /// # Errors
    /// When the device cannot be accessed.
    fn config_read(&self, register: u16, data: &mut [u8]) -> io::Result<()>;

    /// Writes configuration space.
    ///
    /// # Errors
    /// When the device cannot be accessed.
    fn config_write(&self, register: u16, data: &[u8]) -> io::Result<()>;

    /// How many bytes a BAR decodes; zero when it decodes none.
    fn bar_bytes(&self, bar: BarIndex) -> u64;

    /// The parts of a BAR that [`BarMapper::map`] can place in the guest.
    fn bar_mappable(&self, bar: BarIndex) -> Vec<Span>;

    /// Reads a BAR.
    ///
    /// # Errors
    /// When the access leaves the BAR, or the device does not answer.
    fn bar_read(&self, bar: BarIndex, offset: u64, data: &mut [u8]) -> io::Result<()>;

    /// Writes a BAR.
    ///
    /// # Errors
    /// When the access leaves the BAR, or the device does not answer.
    fn bar_write(&self, bar: BarIndex, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Makes the device signal exactly these events, whatever it signalled before.
    ///
    /// # Errors
    /// When the host has too few vectors; nothing is then signalled.
    fn signal(&mut self, signals: Signals<'_>) -> io::Result<()>;

    /// Makes the device signal nothing.
    ///
    /// # Errors
    /// When the host refuses.
    fn silence(&mut self) -> io::Result<()>;

    /// Puts the device back to its power-on state, or at least stops its DMA.
    ///
    /// # Errors
    /// When not even that was possible.
    fn reset(&mut self) -> io::Result<()>;
}

/// Places pages of a device's BARs in guest-physical space, so that the guest reaches the device
/// without an exit.
pub trait BarMapper: Send {
    /// Bytes of a page of the host: what is mapped begins and ends on a multiple of it.
    fn page_bytes(&self) -> u64;

    /// Places `span` of a BAR at `at`.
    ///
    /// # Errors
    /// When the host refuses; accesses then exit.
    fn map(&mut self, bar: BarIndex, span: Span, at: Gpa) -> io::Result<()>;

    /// Takes `span` of a BAR, mapped before, out of the guest.
    ///
    /// # Errors
    /// When the host refuses; the guest then keeps it.
    fn unmap(&mut self, bar: BarIndex, span: Span) -> io::Result<()>;
}
