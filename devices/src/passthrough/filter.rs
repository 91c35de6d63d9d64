//! Which parts of a device's configuration space the guest sees, and which of them are ours.
//!
//! | what | the guest sees |
//! |---|---|
//! | ids, class, status, subsystem | the device's |
//! | command, BARs, interrupt line, MSI, MSI-X | ours, acted upon |
//! | expansion ROM, BIST, multi-function bit | nothing |
//! | power management, VPD, vendor, SATA, reset | the device's, as vfio-pci lets through |
//! | PCI Express | the device's, as an endpoint that is part of the root complex, without a link |
//! | serial number, vendor-specific (extended) | the device's |
//! | every other capability | nothing |
//!
//! Hidden for a reason: resizable BARs and enhanced allocation would move or resize what we have
//! mapped; SR-IOV would make functions that nobody planned; ATS, PRI and PASID let a device translate
//! by tables that are not ours; ACS, ARI, DPC, L1 substates, PTM and error reporting belong to the
//! host's root port; TDISP by DOE and IDE is the host's to negotiate.

use std::io;

use crate::pci::capability::{self as list, Capability, byte, dword, word};
use crate::pci::registers as reg;
use crate::pci::{Bar, BarError, BarIndex, BarKind, ConfigSpace, MsiCapability, MsixCapability};

/// Command bits that the guest can change.
const COMMAND_WRITABLE: u16 = reg::COMMAND_IO
    | reg::COMMAND_MEMORY
    | reg::COMMAND_BUS_MASTER
    | reg::COMMAND_WRITE_INVALIDATE
    | reg::COMMAND_PARITY
    | reg::COMMAND_SERR
    | reg::COMMAND_INTX_DISABLE;

/// Type field of the PCI Express capabilities register (PCI Express Base, 7.5.3.2).
const EXPRESS_TYPE: u16 = 0xf0;
const EXPRESS_INTEGRATED_ENDPOINT: u16 = 0x90;
/// Device capabilities: there is a function-level reset.
const EXPRESS_RESET: u32 = 1 << 28;
/// Advanced features: the same.
const ADVANCED_RESET: u8 = 1 << 1;
/// Upper byte of device control: extended tags, phantom functions, no snoop.
const EXPRESS_CONTROL: u8 = 1 << 0 | 1 << 1 | 1 << 3;
/// Upper byte of device control 2: tags of 10 bits.
const EXPRESS_CONTROL_2: u8 = 1 << 4;
/// Power management control and status: leaving D3hot is no reset.
const NO_SOFT_RESET: u8 = 1 << 3;
/// The power state field of power management control and status; 0 is D0.
pub(super) const POWER_STATE: u8 = 0b11;
/// Registers that only a function with a link or a slot has, by offset into the capability.
const EXPRESS_LINK_AND_SLOT: [std::ops::Range<u16>; 2] = [0x0c..0x24, 0x2c..0x3c];

/// Why a device cannot be shown to a guest.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A BAR is not as the specification has it.
    #[error("the device has a malformed base address register")]
    Bar(#[source] BarError),
    /// The device is a bridge, not an endpoint.
    #[error("header type {0:#04x}: only endpoints can be assigned")]
    NotAnEndpoint(u8),
    /// The vector table or the pending bits are not in a BAR.
    #[error("the MSI-X table of the device is not within {0}")]
    MsixTable(BarIndex),
    /// The device's configuration space could not be read.
    #[error("its configuration space cannot be read")]
    Unreadable(#[source] io::Error),
    /// The device's configuration space ends before its header does.
    #[error("configuration space of {0} bytes is too short")]
    Short(usize),
}

/// Bits of one byte of the device's registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Guarded {
    /// Which byte.
    pub(super) at: u16,
    /// Which bits.
    pub(super) mask: u8,
}

impl Guarded {
    const fn new(at: u16, mask: u8) -> Self {
        Self { at, mask }
    }
}

/// A device's configuration space as the guest sees it after reset, and what is in it.
pub(super) struct Layout {
    pub(super) space: ConfigSpace,
    pub(super) bars: Vec<Bar>,
    pub(super) msi: Option<MsiCapability>,
    pub(super) msix: Option<MsixCapability>,
    /// Power-management control and status.
    pub(super) power: Option<u16>,
    /// The register byte and its bit that ask for a function-level reset.
    pub(super) reset: Vec<(u16, u8)>,
    /// Bits of the device's own registers that must not change while its interface is locked.
    pub(super) guarded: Vec<Guarded>,
    /// 0 none, 1 to 4 INTA to INTD.
    pub(super) pin: u8,
}

impl Layout {
    /// What the guest is to see of the device with this configuration space; `bar_bytes` tells what
    /// each BAR decodes.
    pub(super) fn of(
        image: &[u8],
        bar_bytes: impl Fn(BarIndex) -> u64,
    ) -> Result<Self, BuildError> {
        let header = byte(image, 0x0e).ok_or(BuildError::Short(image.len()))? & 0x7f;
        if header != 0 {
            return Err(BuildError::NotAnEndpoint(header));
        }
        let mut layout = Self {
            space: ConfigSpace::default(),
            bars: bars(image, bar_bytes)?,
            msi: None,
            msix: None,
            power: None,
            reset: Vec::new(),
            guarded: Vec::new(),
            pin: byte(image, reg::INTERRUPT_PIN)
                .filter(|pin| *pin <= 4)
                .unwrap_or(0),
        };
        layout.install_header();
        layout.install_standard(image);
        layout.install_extended(image);
        layout.check_msix()?;
        Ok(layout)
    }

    fn install_header(&mut self) {
        let space = &mut self.space;
        space.pass_through(reg::VENDOR_ID..reg::COMMAND);
        space.emulate(reg::COMMAND, [0; 2], COMMAND_WRITABLE.to_le_bytes());
        space.pass_through(reg::STATUS..reg::CACHE_LINE_SIZE);
        space.emulate(reg::CACHE_LINE_SIZE, [0; 2], [0xff; 2]);
        space.pass_through(reg::SUBSYSTEM_VENDOR_ID..reg::SUBSYSTEM_VENDOR_ID + 4);
        space.emulate(reg::INTERRUPT_LINE, [0], [0xff]);
        space.emulate(reg::INTERRUPT_PIN, [self.pin], [0]);
        space.pass_through(reg::MIN_GRANT..reg::HEADER_END);
        for bar in &self.bars {
            bar.install(space);
        }
    }

    /// Links the capabilities that the guest sees into a list of their own.
    fn install_standard(&mut self, image: &[u8]) {
        let mut link = reg::CAPABILITIES;
        for capability in list::standard(image) {
            if !self.install_capability(image, capability) {
                continue;
            }
            // Standard capabilities lie below 0x100.
            let [pointer, _] = capability.register.to_le_bytes();
            self.space.emulate(link, [pointer], [0]);
            self.space
                .emulate(capability.register, [capability.id, 0], [0; 2]);
            link = capability.register + 1;
        }
    }

    /// Installs what comes behind the header of a capability; false for one that stays hidden.
    fn install_capability(&mut self, image: &[u8], capability: Capability<u8>) -> bool {
        let at = capability.register;
        match capability.id {
            list::POWER_MANAGEMENT => {
                self.power = Some(at + 4);
                self.pass_capability(capability, 8);
                let keeps = byte(image, at + 4).is_some_and(|now| now & NO_SOFT_RESET != 0);
                self.guarded
                    .extend((!keeps).then_some(Guarded::new(at + 4, POWER_STATE)));
            }
            list::VITAL_PRODUCT_DATA | list::SUBSYSTEM | list::SATA => {
                self.pass_capability(capability, 8);
            }
            list::VENDOR => {
                let length = byte(image, at + 2).unwrap_or_default();
                self.pass_capability(capability, length.into());
            }
            list::ADVANCED_FEATURES => {
                self.pass_capability(capability, 6);
                let capable = byte(image, at + 3).is_some_and(|caps| caps & ADVANCED_RESET != 0);
                self.reset.extend(capable.then_some((at + 4, 1 << 0)));
            }
            list::EXPRESS => {
                self.install_express(image, capability);
                let capable = dword(image, at + 4).is_some_and(|caps| caps & EXPRESS_RESET != 0);
                self.reset.extend(capable.then_some((at + 9, 1 << 7)));
                let controls = [(9, EXPRESS_CONTROL), (0x29, EXPRESS_CONTROL_2)];
                let there = controls.into_iter().filter(|(at, _)| *at < capability.room);
                self.guarded
                    .extend(there.map(|(offset, mask)| Guarded::new(at + offset, mask)));
            }
            list::MSI => {
                self.msi = MsiCapability::read_from(image, capability);
                let Some(msi) = self.msi else { return false };
                msi.install(&mut self.space);
            }
            list::MSIX => {
                self.msix = MsixCapability::read_from(image, capability);
                let Some(msix) = self.msix else { return false };
                msix.install(&mut self.space);
            }
            _ => return false,
        }
        true
    }

    fn install_express(&mut self, image: &[u8], capability: Capability<u8>) {
        let at = capability.register;
        self.pass_capability(capability, 0x3c);
        let flags = word(image, at + 2).unwrap_or_default();
        let flags = (flags & !EXPRESS_TYPE) | EXPRESS_INTEGRATED_ENDPOINT;
        self.space.emulate(at + 2, flags.to_le_bytes(), [0; 2]);
        for registers in EXPRESS_LINK_AND_SLOT {
            for register in registers.filter(|register| *register < capability.room) {
                self.space.emulate(at + register, [0], [0]);
            }
        }
    }

    fn pass_capability(&mut self, capability: Capability<u8>, bytes: u16) {
        let end = capability.register + bytes.min(capability.room);
        self.space.pass_through(capability.register + 2..end);
    }

    /// Links the extended capabilities that the guest sees; the list must begin at 0x100, with an
    /// empty one (id 0) where the device's first is hidden.
    fn install_extended(&mut self, image: &[u8]) {
        let mut previous = Capability {
            id: 0,
            register: reg::EXTENDED,
            room: 4,
        };
        let mut header = 0_u16;
        for capability in list::extended(image) {
            let at = capability.register;
            let bytes = match capability.id {
                list::SERIAL_NUMBER => 12,
                list::EXTENDED_VENDOR | list::DESIGNATED_VENDOR => {
                    word(image, at + 6).unwrap_or_default() >> 4
                }
                _ => continue,
            };
            if at != previous.register {
                self.link_extended(previous.id, previous.register, header | at << 4);
            }
            let end = at + bytes.min(capability.room);
            self.space.pass_through(at + 4..end.max(at + 4));
            header = word(image, at + 2).unwrap_or_default() & 0xf;
            self.link_extended(capability.id, at, header);
            previous = capability;
        }
    }

    /// Writes an extended header: id, then version and next pointer.
    fn link_extended(&mut self, id: u16, at: u16, version_and_next: u16) {
        self.space.emulate(at, id.to_le_bytes(), [0; 2]);
        self.space
            .emulate(at + 2, version_and_next.to_le_bytes(), [0; 2]);
    }

    fn check_msix(&self) -> Result<(), BuildError> {
        let Some(msix) = &self.msix else {
            return Ok(());
        };
        for location in [msix.table(), msix.pending()] {
            let bar = self.bars.iter().find(|bar| bar.index() == location.bar);
            let end = location.offset.saturating_add(location.bytes);
            if bar.is_none_or(|bar| bar.size() < end) {
                return Err(BuildError::MsixTable(location.bar));
            }
        }
        Ok(())
    }
}

fn bars(image: &[u8], bytes: impl Fn(BarIndex) -> u64) -> Result<Vec<Bar>, BuildError> {
    let mut bars = Vec::new();
    let mut indices = BarIndex::ALL.into_iter();
    while let Some(index) = indices.next() {
        let size = bytes(index);
        if size == 0 {
            continue;
        }
        let register = dword(image, index.register());
        let register = register.ok_or(BuildError::Short(image.len()))?;
        let kind = BarKind::of_register(register);
        bars.push(Bar::new(index, kind, size).map_err(BuildError::Bar)?);
        if matches!(kind, BarKind::Memory64 { .. }) {
            indices.next();
        }
    }
    Ok(bars)
}
