//! The device with the guest's real IOMMU behind it, over a host that agrees to everything.

mod statuses;

use iommu::fault::{FaultAccess, FaultEvent, FaultReason};
use iommu::request::{EndpointId, Request};
use iommu::viommu::{PROBE_SIZE, Viommu};
use iommu::wire::{self, Config, Status, feature, kind};
use iommu::{
    Access, AddressSpace, Alias, DmaTable, Gpa, HostError, Iova, PAGE_SIZE, PageRange, Reason,
    Reserved, Table, TableSpec, Visibility,
};
use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::{EVENTS, FaultQueue, IommuBackend, MOST_WAITING, VirtioIommu};
use crate::virtio::driver::{BUFFERS, Driver, NEXT, WRITE};

const ENDPOINT: u32 = 0x18;
const ALL: u64 = 0b111_0111;
/// Where the driver reads its answers.
const ANSWER: u64 = BUFFERS + 0x1000;

/// A host's table in which every mapping succeeds.
struct Agreeable;

impl DmaTable for Agreeable {
    fn map(&mut self, _: PageRange<Iova>, _: Gpa, _: Access) -> Result<(), HostError> {
        Ok(())
    }

    fn unmap(&mut self, _: PageRange<Iova>) -> Result<(), HostError> {
        Ok(())
    }
}

/// One device, 64 pages of memory, IOVAs below 4 GiB of which one page is reserved.
struct Backend {
    viommu: Viommu,
    space: AddressSpace<Agreeable>,
}

impl Default for Backend {
    fn default() -> Self {
        let dram = PageRange::new(Gpa::new(0), 64 * PAGE_SIZE).unwrap();
        let mut space = AddressSpace::new([dram], Visibility::Shared, Alias::InPlace).unwrap();
        let input = PageRange::new(Iova::new(0), 1 << 32).unwrap();
        let mut viommu = Viommu::new(input, false);
        let window = PageRange::new(Iova::new(0x800_0000), PAGE_SIZE).unwrap();
        let reserved = Reserved::new([(window, Reason::Msi)]);
        let spec = TableSpec {
            table: Table::T0,
            binding: viommu.unattached(),
            reserved: reserved.clone(),
            reach: Iova::new((1 << 32) - 1),
            entry_limit: None,
        };
        let table = space.attach(Agreeable, spec);
        let endpoint = EndpointId(ENDPOINT);
        viommu.add(endpoint, table.unwrap(), reserved).unwrap();
        Self { viommu, space }
    }
}

impl IommuBackend for Backend {
    fn config(&self) -> Config {
        self.viommu.config(!0)
    }

    fn probe(&self, endpoint: EndpointId) -> Option<Vec<u8>> {
        self.viommu.probe(endpoint)
    }

    fn apply(&mut self, request: Request) -> Status {
        self.viommu.apply(&mut self.space, request).status
    }

    fn set_bypass(&mut self, bypass: bool) {
        assert_eq!(self.viommu.set_bypass(&mut self.space, bypass), []);
    }

    fn reset(&mut self) {
        assert_eq!(self.viommu.reset(&mut self.space), []);
    }
}

type Guest = Driver<VirtioIommu<Backend>>;

fn guest() -> (Guest, FaultQueue) {
    let faults = FaultQueue::default();
    let device = VirtioIommu::new(Backend::default(), faults.clone());
    (Driver::ready(device, ALL), faults)
}

/// Sends a request and returns how many bytes of the answer were written.
fn send(guest: &mut Guest, request: &[u8], room: u32) -> u32 {
    guest.put(BUFFERS, request);
    guest.put(ANSWER, &[0xee; 600]);
    let length = u32::try_from(request.len()).unwrap();
    guest.describe(0, &[(BUFFERS, length, NEXT, 1), (ANSWER, room, WRITE, 0)]);
    guest.offer(0, 0);
    guest.notify(0);
    let (head, written) = guest.last_used(0);
    assert_eq!(head, 0);
    written
}

/// The status of a request that gets one.
fn status(guest: &mut Guest, request: &[u8]) -> u8 {
    assert_eq!(send(guest, request, 4), 4);
    let tail = guest.get(ANSWER, 4);
    assert_eq!(tail[1..], [0; 3]);
    tail[0]
}

fn attach(domain: u32, endpoint: u32, flags: u32) -> Vec<u8> {
    let attach = wire::Attach {
        domain: domain.into(),
        endpoint: endpoint.into(),
        flags: flags.into(),
        reserved: 0.into(),
    };
    [&[kind::ATTACH, 0, 0, 0], attach.as_bytes()].concat()
}

fn detach(domain: u32, endpoint: u32) -> Vec<u8> {
    let detach = wire::Detach {
        domain: domain.into(),
        endpoint: endpoint.into(),
        reserved: 0.into(),
    };
    [&[kind::DETACH, 0, 0, 0], detach.as_bytes()].concat()
}

fn map(domain: u32, virt: (u64, u64), phys: u64, flags: u32) -> Vec<u8> {
    let map = wire::Map {
        domain: domain.into(),
        virt_start: virt.0.into(),
        virt_end: virt.1.into(),
        phys_start: phys.into(),
        flags: flags.into(),
    };
    [&[kind::MAP, 0, 0, 0], map.as_bytes()].concat()
}

fn unmap(domain: u32, virt: (u64, u64)) -> Vec<u8> {
    let unmap = wire::Unmap {
        domain: domain.into(),
        virt_start: virt.0.into(),
        virt_end: virt.1.into(),
        reserved: 0.into(),
    };
    [&[kind::UNMAP, 0, 0, 0], unmap.as_bytes()].concat()
}

fn probe(endpoint: u32) -> Vec<u8> {
    let probe = wire::Probe {
        endpoint: endpoint.into(),
        reserved: [0; 64],
    };
    [&[kind::PROBE, 0, 0, 0], probe.as_bytes()].concat()
}

#[test]
fn a_request_that_cannot_be_answered_goes_back_unwritten() {
    let (mut guest, _) = guest();
    assert_eq!(send(&mut guest, &attach(1, ENDPOINT, 0), 3), 0);
    assert_eq!(send(&mut guest, &attach(1, ENDPOINT, 0)[..19], 4), 0);
    assert_eq!(send(&mut guest, &[6; 40], 4), 0);
    assert_eq!(send(&mut guest, &[kind::PROBE], 516), 0);
    assert_eq!(guest.get(ANSWER, 4), [0xee; 4]);
    // The first of them was not done either.
    assert_eq!(
        status(&mut guest, &unmap(1, (0, 0xfff))),
        Status::NoEntry as u8
    );
}

#[test]
fn a_request_whose_answer_would_be_lost_is_not_done() {
    let (mut guest, _) = guest();
    guest.put(BUFFERS, &attach(1, ENDPOINT, 0));
    guest.describe(0, &[(BUFFERS, 20, NEXT, 1), (1 << 40, 4, WRITE, 0)]);
    guest.offer(0, 0);
    guest.notify(0);
    assert_eq!(guest.last_used(0), (0, 0));
    let domain = unmap(1, (0, 0xfff));
    assert_eq!(status(&mut guest, &domain), Status::NoEntry as u8);
}

#[test]
fn a_probe_tells_the_reserved_windows() {
    let (mut guest, _) = guest();
    assert_eq!(
        send(&mut guest, &probe(ENDPOINT), PROBE_SIZE + 4),
        PROBE_SIZE + 4
    );
    let answer = guest.get(ANSWER, 516);
    assert_eq!(answer[..8], [1, 0, 20, 0, 1, 0, 0, 0]);
    assert_eq!(answer[8..16], 0x800_0000_u64.to_le_bytes());
    assert_eq!(answer[16..24], 0x800_0fff_u64.to_le_bytes());
    assert_eq!(answer[24..], [0; 492]);

    assert_eq!(send(&mut guest, &probe(7), PROBE_SIZE + 4), PROBE_SIZE + 4);
    assert_eq!(guest.get(ANSWER + 512, 1), [Status::NoEntry as u8]);
    // Less room than probe_size: no property, and the status at the end.
    assert_eq!(send(&mut guest, &probe(ENDPOINT), 104), 104);
    let answer = guest.get(ANSWER, 104);
    assert_eq!(answer[..100], [0; 100]);
    assert_eq!(answer[100], Status::Invalid as u8);
}

#[test]
fn flags_of_features_that_the_driver_did_not_accept_are_invalid() {
    let device = VirtioIommu::new(Backend::default(), FaultQueue::default());
    let mut guest = Driver::ready(device, feature::MAP_UNMAP);
    let invalid = Status::Invalid as u8;
    assert_eq!(status(&mut guest, &attach(1, ENDPOINT, 1)), invalid);
    assert_eq!(status(&mut guest, &attach(1, ENDPOINT, 0)), 0);
    assert_eq!(status(&mut guest, &map(1, (0, 0xfff), 0, 7)), invalid);
    guest.bar_write(0x1024, &[1]);
    assert_eq!(
        guest.bar_read(0x1024),
        [0],
        "bypass is not the driver's to set"
    );
}

#[test]
fn bypass_can_be_set_and_survives_a_reset() {
    let (mut guest, _) = guest();
    guest.bar_write(0x1024, &[2]);
    guest.bar_write(0x1020, &[1]);
    assert_eq!(guest.bar_read(0x1024), [0]);
    guest.bar_write(0x1024, &[1]);
    assert_eq!(guest.bar_read(0x1024), [1]);
    assert_eq!(status(&mut guest, &attach(1, ENDPOINT, 0)), 0);
    guest.write8(20, 0);
    assert_eq!(guest.bar_read(0x1024), [1]);
}

#[test]
fn a_reset_takes_devices_out_of_their_domains() {
    let (mut guest, _) = guest();
    assert_eq!(status(&mut guest, &attach(1, ENDPOINT, 0)), 0);
    guest.write8(20, 0);
    guest.restart(ALL);
    let not_attached = Status::Invalid as u8;
    assert_eq!(status(&mut guest, &detach(1, ENDPOINT)), not_attached);
}

fn fault(address: u64) -> FaultEvent {
    FaultEvent {
        reason: FaultReason::Mapping,
        access: FaultAccess::Write,
        endpoint: EndpointId(ENDPOINT),
        address: Some(Iova::new(address)),
    }
}

#[test]
fn faults_go_into_the_drivers_buffers() {
    let (mut guest, faults) = guest();
    guest.describe(1, &[(ANSWER, 24, WRITE, 0), (ANSWER + 64, 23, WRITE, 0)]);
    guest.offer(1, 1);
    guest.offer(1, 0);
    guest.notify(1);
    assert_eq!(guest.used_index(1), 0);
    faults.report(fault(0x1234));
    guest.function.service(EVENTS);
    // The first buffer is too small, so it goes back empty.
    assert_eq!(guest.used_index(1), 2);
    assert_eq!(guest.last_used(1), (0, 24));
    let report = guest.get(ANSWER, 24);
    assert_eq!(report[..12], [2, 0, 0, 0, 2, 1, 0, 0, 0x18, 0, 0, 0]);
    assert_eq!(report[16..], 0x1234_u64.to_le_bytes());
    assert_eq!(guest.vectors.signalled(2), 1);
}

#[test]
fn faults_wait_for_buffers_and_too_many_are_dropped() {
    let (mut guest, faults) = guest();
    for address in 0..MOST_WAITING as u64 + 3 {
        faults.report(fault(address));
    }
    guest.function.service(EVENTS);
    assert_eq!((guest.used_index(1), faults.dropped()), (0, 3));
    guest.describe(1, &[(ANSWER, 24, WRITE, 0)]);
    guest.offer(1, 0);
    guest.notify(1);
    assert_eq!(guest.used_index(1), 1);
    assert_eq!(guest.get(ANSWER + 16, 8), [0; 8]);
    faults.report(fault(0));
    assert_eq!(faults.dropped(), 3, "there is room for one again");
}

proptest! {
    #[test]
    fn any_request_gets_a_status_or_nothing(
        requests in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 0..80), 0_u8..8, 0_u32..520),
            1..20,
        ),
    ) {
        let (mut guest, _) = guest();
        for (mut request, kind, room) in requests {
            if let Some(first) = request.first_mut() {
                *first = kind;
            }
            let written = send(&mut guest, &request, room);
            if written != 0 {
                prop_assert!(written >= 4 && written <= room);
                let status = guest.get(ANSWER + u64::from(written) - 4, 4);
                prop_assert!(matches!(status[0], 0 | 2..=8));
            }
            prop_assert_eq!(guest.read8(20), 15);
        }
    }

    #[test]
    fn any_descriptors_leave_the_device_alive_or_in_need_of_a_reset(
        table in prop::collection::vec(any::<u8>(), 256),
        heads in prop::collection::vec(0_u16..17, 1..8),
    ) {
        let (mut guest, _) = guest();
        guest.put(0x1000, &table);
        for head in heads {
            guest.offer(0, head);
        }
        guest.notify(0);
        let status = guest.read8(20);
        prop_assert!(status == 15 || status == 15 | 64);
        guest.write8(20, 0);
        prop_assert_eq!(guest.read8(20), 0);
    }
}
