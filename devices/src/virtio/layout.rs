//! Where things are in the BAR and in configuration space of a virtio function.
//!
//! ```text
//!   BAR 0   0x0000 common configuration   0x0800 ISR
//!           0x1000 device configuration
//!           0x2000 notification, 4 bytes for each queue
//!           0x3000 MSI-X table            0x3800 pending bits
//! ```

use crate::pci::registers::{CAPABILITIES, STATUS, STATUS_CAPABILITIES};
use crate::pci::{Bar, BarError, BarIndex, BarKind, ConfigSpace, MsixCapability, capability};

/// Which BAR.
pub(super) const BAR: BarIndex = BarIndex::ALL[0];
/// Bytes of the one BAR of a virtio function, in 64-bit memory.
pub const BAR_BYTES: u64 = 0x4000;
/// Bytes between the notification addresses of two queues.
pub(super) const NOTIFY_MULTIPLIER: u32 = 4;

/// Where the driver notifies a queue, in the BAR.
pub(super) const fn notify_at(queue: usize) -> u64 {
    NOTIFY as u64 + NOTIFY_MULTIPLIER as u64 * queue as u64
}

const COMMON: u32 = 0;
const ISR: u32 = 0x800;
const DEVICE: u32 = 0x1000;
const NOTIFY: u32 = 0x2000;
const MSIX_TABLE: u32 = 0x3000;
const MSIX_PENDING: u32 = 0x3800;

/// The most vectors that the table has room for.
pub(super) const MOST_VECTORS: u16 = 128;

/// Where the capabilities are in configuration space; each ends where the next begins.
const MSIX_AT: u16 = 0x40;
const COMMON_AT: u16 = 0x4c;
const NOTIFY_AT: u16 = 0x5c;
const ISR_AT: u16 = 0x70;
const DEVICE_AT: u16 = 0x80;
const WINDOW_AT: u16 = 0x90;
const END: u16 = 0xa4;

/// The four bytes of the window onto the BAR.
pub(super) const WINDOW_DATA: u16 = WINDOW_AT + 16;

/// Values of `cfg_type` (virtio 1.2, 4.1.4).
mod kind {
    pub(super) const COMMON: u8 = 1;
    pub(super) const NOTIFY: u8 = 2;
    pub(super) const ISR: u8 = 3;
    pub(super) const DEVICE: u8 = 4;
    pub(super) const PCI: u8 = 5;
}

/// What answers at an offset of the BAR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Region {
    /// The common configuration.
    Common,
    /// The ISR status.
    Isr,
    /// The device configuration.
    Device,
    /// The notification addresses.
    Notify,
    /// The MSI-X table.
    MsixTable,
    /// The MSI-X pending bits.
    MsixPending,
}

impl Region {
    /// The region at an offset, and the offset into it.
    pub(super) fn at(offset: u64) -> Option<(Self, usize)> {
        let regions = [
            (MSIX_PENDING, Self::MsixPending),
            (MSIX_TABLE, Self::MsixTable),
            (NOTIFY, Self::Notify),
            (DEVICE, Self::Device),
            (ISR, Self::Isr),
            (COMMON, Self::Common),
        ];
        let offset = u32::try_from(offset).ok().filter(|_| offset < BAR_BYTES)?;
        regions.into_iter().find_map(|(start, region)| {
            let within = offset.checked_sub(start)?;
            Some((region, usize::try_from(within).ok()?))
        })
    }
}

/// The BAR.
///
/// # Errors
/// Never, for these constants.
pub(super) fn bar() -> Result<Bar, BarError> {
    let prefetchable = false;
    Bar::new(BAR, BarKind::Memory64 { prefetchable }, BAR_BYTES)
}

/// The MSI-X capability; `None` when there is no room for so many vectors.
pub(super) fn msix(vectors: u16) -> Option<MsixCapability> {
    let tables = ((BAR, MSIX_TABLE), (BAR, MSIX_PENDING));
    MsixCapability::new(MSIX_AT, vectors, tables).filter(|_| vectors <= MOST_VECTORS)
}

/// Puts the capability list into `space`, for a device with so many queues and so many bytes of
/// configuration.
pub(super) fn install(space: &mut ConfigSpace, queues: usize, config_bytes: usize) {
    let small = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    // A device without a configuration has one that reads as zero: Linux takes no structure of no bytes.
    let config_bytes = config_bytes.max(size_of::<u32>());
    let notify_bytes = small(queues).saturating_mul(NOTIFY_MULTIPLIER);
    let pointer = MSIX_AT.to_le_bytes();
    space.emulate(CAPABILITIES, [pointer[0]], [0]);
    space.emulate(STATUS, STATUS_CAPABILITIES.to_le_bytes(), [0; 2]);
    header(space, MSIX_AT, COMMON_AT, capability::MSIX);
    let structures = [
        (COMMON_AT, NOTIFY_AT, kind::COMMON, COMMON, 56),
        (NOTIFY_AT, ISR_AT, kind::NOTIFY, NOTIFY, notify_bytes),
        (ISR_AT, DEVICE_AT, kind::ISR, ISR, 1),
        (
            DEVICE_AT,
            WINDOW_AT,
            kind::DEVICE,
            DEVICE,
            small(config_bytes),
        ),
        (WINDOW_AT, END, kind::PCI, 0, 0),
    ];
    for (at, end, kind, offset, length) in structures {
        let next = if end == END { 0 } else { end };
        header(space, at, next, capability::VENDOR);
        let [bytes, _] = (end - at).to_le_bytes();
        space.emulate(at + 2, [bytes, kind, BAR.number()], [0; 3]);
        space.emulate(at + 8, offset.to_le_bytes(), [0; 4]);
        space.emulate(at + 12, length.to_le_bytes(), [0; 4]);
    }
    space.emulate(NOTIFY_AT + 16, NOTIFY_MULTIPLIER.to_le_bytes(), [0; 4]);
    // The window is the driver's to move: BAR, offset, length, data.
    space.emulate(WINDOW_AT + 4, [0], [0xff]);
    space.emulate(WINDOW_AT + 8, [0; 12], [0xff; 12]);
}

fn header(space: &mut ConfigSpace, at: u16, next: u16, id: u8) {
    let [next, _] = next.to_le_bytes();
    space.emulate(at, [id, next], [0; 2]);
}

/// What the driver has put the window onto: an offset of the BAR, and how many bytes. `None` when that
/// is not in the BAR.
pub(super) fn window(space: &ConfigSpace) -> Option<(u64, usize)> {
    let bar = space.u16(WINDOW_AT + 4) & 0xff;
    let offset = space.u32(WINDOW_AT + 8);
    let length = space.u32(WINDOW_AT + 12);
    let fits = u64::from(offset) < BAR_BYTES;
    let is_window = bar == u16::from(BAR.number()) && matches!(length, 1 | 2 | 4);
    if !fits || !is_window || !offset.is_multiple_of(length) {
        return None;
    }
    Some((offset.into(), usize::try_from(length).ok()?))
}
