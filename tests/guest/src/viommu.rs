//! The virtual IOMMU (virtio 1.2, section 5.13), driven by polling: one request at a time, or many.

use crate::machine::Machine;
use crate::memory::{ShareError, Shared, Spare};
use crate::mmio;
use crate::virtio::{self, Descriptor, NEXT, Place, Queue, Virtio, WRITABLE};

const KIND: u16 = 23;

/// Features of the device that this driver takes where they are offered: all but the bypass that new
/// devices do not offer.
const FEATURES: u64 = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 6;

/// Answers to requests.
pub mod answer {
    pub const OK: u8 = 0;
    pub const INVALID: u8 = 4;
    pub const RANGE: u8 = 5;
    pub const NO_ENTRY: u8 = 6;
    pub const FAULT: u8 = 7;
    pub const NO_MEMORY: u8 = 8;
}

/// Flags of MAP.
pub mod access {
    pub const READ: u32 = 1;
    pub const BOTH: u32 = 3;
    pub const DEVICE: u32 = 4;
}

/// Pages of the two rings, of requests, of answers and of fault reports.
const PAGES: u64 = 2 * Place::PAGES + 3;
const REQUESTS_PAGE: u64 = 2 * Place::PAGES;
const ANSWERS_PAGE: u64 = REQUESTS_PAGE + 1;
const REPORTS_PAGE: u64 = REQUESTS_PAGE + 2;

/// Bytes of a request or an answer in its page.
const SLOT: u64 = 128;
/// Bytes of the longest request, PROBE, and the padding after it.
const LONGEST: usize = 80;
/// Requests that can be made at once.
pub const BATCH: usize = 32;
const TAIL: u32 = 4;
/// Where a report is, and how many can wait.
const REPORT: u64 = 64;
const REPORTS: u16 = 16;
/// What no answer is.
const UNWRITTEN: u8 = 0xee;

/// The bytes of a request.
#[derive(Clone, Copy)]
pub struct Request {
    bytes: [u8; LONGEST],
    length: usize,
}

impl Request {
    /// A request of this type, of this many bytes, zeros but for some.
    pub fn new(kind: u8, length: usize, fields: &[(usize, &[u8])]) -> Self {
        let mut bytes = [0; LONGEST];
        bytes[0] = kind;
        for (at, field) in fields {
            bytes[*at..at + field.len()].copy_from_slice(field);
        }
        Self { bytes, length }
    }

    /// Puts an endpoint into a domain.
    pub fn attach(domain: u32, endpoint: u32, flags: u32) -> Self {
        let fields: [(usize, &[u8]); 3] = [
            (4, &domain.to_le_bytes()),
            (8, &endpoint.to_le_bytes()),
            (12, &flags.to_le_bytes()),
        ];
        Self::new(1, 20, &fields)
    }

    /// Takes an endpoint out of a domain.
    pub fn detach(domain: u32, endpoint: u32) -> Self {
        let fields: [(usize, &[u8]); 2] =
            [(4, &domain.to_le_bytes()), (8, &endpoint.to_le_bytes())];
        Self::new(2, 20, &fields)
    }

    /// Maps `bytes` bytes from `virt` on to `phys`.
    pub fn map(domain: u32, virt: u64, bytes: u64, phys: u64, flags: u32) -> Self {
        let last = virt.wrapping_add(bytes).wrapping_sub(1);
        let fields: [(usize, &[u8]); 5] = [
            (4, &domain.to_le_bytes()),
            (8, &virt.to_le_bytes()),
            (16, &last.to_le_bytes()),
            (24, &phys.to_le_bytes()),
            (32, &flags.to_le_bytes()),
        ];
        Self::new(3, 36, &fields)
    }

    /// Unmaps `bytes` bytes from `virt` on.
    pub fn unmap(domain: u32, virt: u64, bytes: u64) -> Self {
        let last = virt.wrapping_add(bytes).wrapping_sub(1);
        let fields: [(usize, &[u8]); 3] = [
            (4, &domain.to_le_bytes()),
            (8, &virt.to_le_bytes()),
            (16, &last.to_le_bytes()),
        ];
        Self::new(4, 28, &fields)
    }

    /// The same with other bytes at `at`.
    pub fn with(mut self, at: usize, field: &[u8]) -> Self {
        self.bytes[at..at + field.len()].copy_from_slice(field);
        self
    }

    /// The same, cut to its first `length` bytes.
    pub fn cut(mut self, length: usize) -> Self {
        self.length = length;
        self
    }
}

/// What the device made of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It wrote this status.
    Status(u8),
    /// It gave the request back with nothing written.
    Unwritten,
    /// It did not give it back: it wants to be reset.
    NeedsReset,
    /// It did nothing at all.
    Silent,
}

/// An access of a device that was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// 1: no domain; 2: no mapping.
    pub reason: u8,
    /// 1: read; 2: write; 0x100: the address is known.
    pub flags: u32,
    /// Whose.
    pub endpoint: u32,
    /// Where.
    pub address: u64,
}

/// The device.
pub struct Viommu {
    /// The device without its rings.
    pub virtio: Virtio,
    /// The ring of requests.
    pub requests: Queue,
    events: Queue,
    memory: Shared,
}

impl Viommu {
    /// The machine's IOMMU, reset and ready.
    pub fn find(machine: &Machine<'_>, spare: &mut Spare) -> Result<Self, ShareError> {
        let virtio = Virtio::find(machine, KIND)?;
        let memory = spare.share(machine, PAGES)?;
        let [requests, events] = Self::enable(&virtio, memory)?;
        let mut viommu = Self {
            virtio,
            requests,
            events,
            memory,
        };
        viommu.offer_reports();
        Ok(viommu)
    }

    /// Resets the device: every endpoint leaves its domain.
    pub fn restart(&mut self) -> Result<(), &'static str> {
        let [requests, events] = Self::enable(&self.virtio, self.memory)?;
        self.requests = requests;
        self.events = events;
        self.offer_reports();
        Ok(())
    }

    fn enable(virtio: &Virtio, memory: Shared) -> Result<[Queue; 2], &'static str> {
        let wanted = virtio::VERSION_1 | virtio::ACCESS_PLATFORM | FEATURES;
        virtio.reset()?;
        if !virtio.negotiate(virtio.features() & wanted)? {
            return Err("the IOMMU does not take the features that it offers");
        }
        let queues = [(0, 0), (1, Place::PAGES)].map(|(number, page)| {
            let place = Place::of(memory, page);
            place.clear();
            virtio.enable(number, place)
        });
        virtio.go_live();
        Ok(queues)
    }

    fn offer_reports(&mut self) {
        for number in 0..REPORTS {
            self.offer_report(number);
        }
        self.events.notify();
    }

    fn offer_report(&mut self, number: u16) {
        let descriptor = Descriptor {
            address: self.memory.page(REPORTS_PAGE) + u64::from(number) * REPORT,
            length: REPORT as u32,
            flags: WRITABLE,
            next: 0,
        };
        self.events.describe(number, descriptor);
        self.events.offer(number);
    }

    /// The next fault that the device reports, if there is one.
    pub fn fault(&mut self) -> Option<Fault> {
        let used = self.events.take()?;
        let at = self.memory.page(REPORTS_PAGE) + u64::from(used.head) * REPORT;
        let fault = Fault {
            reason: mmio::read8(at),
            flags: mmio::read32(at + 4),
            endpoint: mmio::read32(at + 8),
            address: mmio::read64(at + 16),
        };
        self.offer_report(used.head as u16);
        self.events.notify();
        Some(fault)
    }

    /// Where the request is that [`Self::ask`] makes.
    pub fn request_address(&self) -> u64 {
        self.memory.page(REQUESTS_PAGE)
    }

    /// Where the device puts the answer to it.
    pub fn answer_address(&self) -> u64 {
        self.memory.page(ANSWERS_PAGE)
    }

    /// Puts a request into memory, without telling the device.
    pub fn put(&self, slot: usize, request: &Request) {
        let at = self.request_address() + slot as u64 * SLOT;
        let (words, _) = request.bytes.as_chunks::<8>();
        for (at, word) in (at..).step_by(8).zip(words) {
            mmio::write64(at, u64::from_le_bytes(*word));
        }
        mmio::write8(self.answer_address() + slot as u64 * SLOT, UNWRITTEN);
    }

    /// Makes a request.
    pub fn ask(&mut self, request: &Request) -> Answer {
        self.put(0, request);
        self.describe(0, request.length as u32, TAIL);
        self.requests.offer(0);
        self.send(0)
    }

    /// Asks for an endpoint's properties; returns the status, and where they are.
    pub fn probe(&mut self, endpoint: u32) -> (Answer, u64) {
        const PROBE_SIZE: u64 = 0x20;
        let properties = self.virtio.config32(PROBE_SIZE);
        let request = Request::new(5, 72, &[(4, &endpoint.to_le_bytes())]);
        self.put(0, &request);
        self.describe(0, 72, properties + TAIL);
        self.requests.offer(0);
        (self.send(properties.into()), self.answer_address())
    }

    /// Makes many requests at once; returns how many of them got `status`.
    pub fn ask_all(&mut self, requests: &[Request], status: u8) -> usize {
        for (slot, request) in requests.iter().enumerate().take(BATCH) {
            self.put(slot, request);
            self.describe(slot as u16, request.length as u32, TAIL);
            self.requests.offer(2 * slot as u16);
        }
        self.requests.notify();
        let done = requests.iter().take(BATCH).filter(|_| {
            let used = self.requests.wait();
            used.is_some_and(|used| {
                let slot = u64::from(used.head / 2);
                mmio::read8(self.memory.page(ANSWERS_PAGE) + slot * SLOT) == status
            })
        });
        done.count()
    }

    /// Describes the request in a slot by two descriptors.
    fn describe(&self, slot: u16, readable: u32, writable: u32) {
        let offset = u64::from(slot) * SLOT;
        let request = Descriptor {
            address: self.request_address() + offset,
            length: readable,
            flags: NEXT,
            next: 2 * slot + 1,
        };
        let answer = Descriptor {
            address: self.answer_address() + offset,
            length: writable,
            flags: WRITABLE,
            next: 0,
        };
        self.requests.describe(2 * slot, request);
        self.requests.describe(2 * slot + 1, answer);
    }

    /// Tells the device of the chain that has been offered; its status is `offset` bytes into the answer.
    pub fn send(&mut self, offset: u64) -> Answer {
        mmio::write8(self.answer_address() + offset, UNWRITTEN);
        self.requests.notify();
        // The device answers before the notification returns.
        match self.requests.take() {
            Some(used) if used.written == 0 => Answer::Unwritten,
            Some(_) => Answer::Status(mmio::read8(self.answer_address() + offset)),
            None if self.virtio.status() & virtio::status::NEEDS_RESET != 0 => Answer::NeedsReset,
            None => Answer::Silent,
        }
    }
}
