//! A device in plain memory, for tests: records what is asked of it.

use std::io;
use std::sync::{Arc, Mutex};

use iommu::{Gpa, Table};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::decode::{BarWindow, Span};
use super::function::{PassthroughFunction, Wiring};
use super::interface::{Acceptance, AcceptanceError};
use super::physical::{BarMapper, PhysicalFunction, Signals};
use crate::irq::{IntxLine, MsiController, MsiMessage, MsiVector};
use crate::pci::{AddressSpace, BarIndex, Bdf};

/// Where windows are.
pub(super) const MEMORY: u64 = 0x1000_0000;
pub(super) const MEMORY_END: u64 = 0x2000_0000;
pub(super) const PORTS_END: u64 = 0x1_0000;

/// What was asked of the device and of KVM, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Call {
    ConfigWrite(u16, Vec<u8>),
    BarWrite(u8, u64, Vec<u8>),
    Intx,
    Msi(usize),
    Msix(usize),
    Silence,
    Reset,
    Map(u8, Span, u64),
    Unmap(u8, Span),
    Route(usize, Option<MsiMessage>),
    PutUnder(Table),
}

/// What the host does when a device is put under another table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Host {
    #[default]
    Follows,
    Refuses,
    CutsOff,
    HasLostIt,
}

/// What the test keeps of the device.
#[derive(Clone, Default)]
pub(super) struct Log {
    calls: Arc<Mutex<Vec<Call>>>,
    vectors: Arc<Mutex<Vec<EventFd>>>,
    pub(super) refuse_vectors: Arc<Mutex<bool>>,
    pub(super) host: Arc<Mutex<Host>>,
}

impl Log {
    fn push(&self, call: Call) {
        self.calls.lock().unwrap().push(call);
    }

    /// The calls since the last time.
    pub(super) fn take(&self) -> Vec<Call> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }

    /// Signals vector `index`, in order of creation.
    pub(super) fn fire(&self, index: usize) {
        self.vectors.lock().unwrap()[index].write(1).unwrap();
    }

    /// Signals vector `index` if there is one.
    pub(super) fn fire_if_there(&self, index: usize) {
        if let Some(event) = self.vectors.lock().unwrap().get(index) {
            event.write(1).unwrap();
        }
    }
}

/// A device with configuration space `config` and BARs of these sizes.
pub(super) struct Fake {
    pub(super) config: Vec<u8>,
    pub(super) bars: [u64; 6],
    pub(super) log: Log,
    /// What is in the configuration space now.
    pub(super) now: Mutex<Vec<u8>>,
}

impl Fake {
    /// A function with MSI-X (5 vectors; table at 0x2000 and pending bits at 0x3000 of BAR 0), MSI
    /// (64-bit, 4 vectors, maskable), power management, PCI Express with reset, a capability and an
    /// extended capability that must be hidden, a serial number, and INTA.
    pub(super) fn new() -> Self {
        let mut config = vec![0; 4096];
        let mut put = |at: usize, bytes: &[u8]| config[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x00, &[0x86, 0x80, 0x0e, 0x10, 0x07, 0x04, 0x10, 0x00]);
        put(0x08, &[0x03, 0x00, 0x00, 0x02, 0, 0, 0x80, 0]);
        put(0x10, &[0x0c, 0, 0, 0xfe, 0x01, 0, 0, 0]); // BAR 0: 64-bit, prefetchable
        put(0x18, &[0x01, 0xe0, 0, 0]); // BAR 2: ports
        put(0x1c, &[0x00, 0, 0, 0xfd]); // BAR 3: 32-bit
        put(0x2c, &[0x34, 0x12, 0x78, 0x56]);
        put(0x30, &[0x01, 0, 0, 0xfc]);
        put(0x34, &[0x40, 0, 0, 0, 0, 0, 0, 0, 0x0b, 1]);
        put(0x40, &[0x01, 0x50, 0x03, 0x00, 0x08, 0x00]); // power management
        put(0x50, &[0x05, 0x70, 0x84, 0x01]); // MSI
        put(0x70, &[0x14, 0x80]); // enhanced allocation: hidden
        put(
            0x80,
            &[0x11, 0xa0, 0x04, 0x00, 0x00, 0x20, 0, 0, 0x00, 0x30, 0, 0],
        ); // MSI-X
        put(0xa0, &[0x10, 0x00, 0x02, 0x00, 0, 0, 0, 0x10]); // PCI Express endpoint with reset
        put(0xac, &[0x11, 0x22, 0x33, 0x44]); // its link capabilities
        put(0x100, &[0x10, 0x00, 0x01, 0x14]); // SR-IOV: hidden
        put(0x140, &[0x03, 0x00, 0x01, 0x20, 1, 2, 3, 4, 5, 6, 7, 8]); // serial number
        put(0x200, &[0x15, 0x00, 0x01, 0x00]); // resizable BAR: hidden
        Self {
            now: Mutex::new(config.clone()),
            config,
            bars: [0x8000, 0, 0x40, 0x100, 0, 0],
            log: Log::default(),
        }
    }

    /// The function at 00:01.0, with everything connected.
    pub(super) fn function(self) -> PassthroughFunction {
        let windows = vec![
            BarWindow {
                space: AddressSpace::Memory,
                addresses: MEMORY..MEMORY_END,
            },
            BarWindow {
                space: AddressSpace::Io,
                addresses: 0..PORTS_END,
            },
        ];
        self.behind(windows)
    }

    /// The same, where these addresses are passed on to it.
    pub(super) fn behind(self, windows: Vec<BarWindow>) -> PassthroughFunction {
        let log = self.log.clone();
        let wiring = Wiring {
            bdf: Bdf::new(0, 1, 0).unwrap(),
            windows,
            mapper: Box::new(Mapper(log.clone())),
            controller: Arc::new(Controller(log.clone())),
            pin: Some(Box::new(Pin(event(), event()))),
            acceptance: Some(Box::new(Tables(log.clone()))),
        };
        PassthroughFunction::new(Box::new(self), wiring).unwrap()
    }
}

fn event() -> EventFd {
    EventFd::new(EFD_NONBLOCK).unwrap()
}

impl PhysicalFunction for Fake {
    fn config_bytes(&self) -> u16 {
        u16::try_from(self.config.len()).unwrap()
    }

    fn config_read(&self, register: u16, data: &mut [u8]) -> io::Result<()> {
        let from = usize::from(register);
        let now = self.now.lock().unwrap();
        let bytes = now.get(from..from + data.len());
        data.copy_from_slice(bytes.ok_or(io::ErrorKind::InvalidInput)?);
        Ok(())
    }

    fn config_write(&self, register: u16, data: &[u8]) -> io::Result<()> {
        self.log.push(Call::ConfigWrite(register, data.to_vec()));
        let from = usize::from(register);
        self.now.lock().unwrap()[from..from + data.len()].copy_from_slice(data);
        Ok(())
    }

    fn bar_bytes(&self, bar: BarIndex) -> u64 {
        self.bars[usize::from(bar.number())]
    }

    fn bar_mappable(&self, bar: BarIndex) -> Vec<Span> {
        let end = self.bar_bytes(bar);
        vec![Span { start: 0, end }]
    }

    fn bar_read(&self, bar: BarIndex, offset: u64, data: &mut [u8]) -> io::Result<()> {
        assert!(offset + data.len() as u64 <= self.bar_bytes(bar));
        data.fill(0x5a);
        Ok(())
    }

    fn bar_write(&self, bar: BarIndex, offset: u64, data: &[u8]) -> io::Result<()> {
        assert!(offset + data.len() as u64 <= self.bar_bytes(bar));
        self.log
            .push(Call::BarWrite(bar.number(), offset, data.to_vec()));
        Ok(())
    }

    fn signal(&mut self, signals: Signals<'_>) -> io::Result<()> {
        self.log.push(match signals {
            Signals::Intx { .. } => Call::Intx,
            Signals::Msi(events) => Call::Msi(events.len()),
            Signals::Msix(events) => Call::Msix(events.len()),
        });
        Ok(())
    }

    fn silence(&mut self) -> io::Result<()> {
        self.log.push(Call::Silence);
        self.log.vectors.lock().unwrap().clear();
        Ok(())
    }

    fn reset(&mut self) -> io::Result<()> {
        self.log.push(Call::Reset);
        Ok(())
    }
}

struct Mapper(Log);

impl BarMapper for Mapper {
    fn page_bytes(&self) -> u64 {
        0x1000
    }

    fn map(&mut self, bar: BarIndex, span: Span, at: Gpa) -> io::Result<()> {
        self.0.push(Call::Map(bar.number(), span, at.raw()));
        Ok(())
    }

    fn unmap(&mut self, bar: BarIndex, span: Span) -> io::Result<()> {
        self.0.push(Call::Unmap(bar.number(), span));
        Ok(())
    }
}

struct Tables(Log);

impl Acceptance for Tables {
    fn put_under(&mut self, table: Table) -> Result<(), AcceptanceError> {
        self.0.push(Call::PutUnder(table));
        match *self.0.host.lock().unwrap() {
            Host::Follows | Host::HasLostIt => Ok(()),
            Host::Refuses => Err(AcceptanceError::Refused("no".into())),
            Host::CutsOff => Err(AcceptanceError::CutOff("no".into())),
        }
    }

    fn is_sound(&self) -> bool {
        *self.0.host.lock().unwrap() != Host::HasLostIt
    }
}

struct Controller(Log);

impl MsiController for Controller {
    fn vector(&self, _: Bdf) -> io::Result<Box<dyn MsiVector>> {
        if *self.0.refuse_vectors.lock().unwrap() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let event = event();
        let mut vectors = self.0.vectors.lock().unwrap();
        vectors.push(event.try_clone().unwrap());
        Ok(Box::new(Vector {
            index: vectors.len() - 1,
            event,
            log: self.0.clone(),
        }))
    }
}

struct Vector {
    index: usize,
    event: EventFd,
    log: Log,
}

impl MsiVector for Vector {
    fn event(&self) -> &EventFd {
        &self.event
    }

    fn route(&mut self, message: Option<MsiMessage>) -> io::Result<()> {
        self.log.push(Call::Route(self.index, message));
        Ok(())
    }

    fn is_pending(&self) -> bool {
        // Reading takes the count: put it back.
        let pending = self.event.read().is_ok();
        if pending {
            self.event.write(1).unwrap();
        }
        pending
    }
}

struct Pin(EventFd, EventFd);

impl IntxLine for Pin {
    fn trigger(&self) -> &EventFd {
        &self.0
    }

    fn resample(&self) -> &EventFd {
        &self.1
    }
}
