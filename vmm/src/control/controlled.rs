//! What commands act on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use devices::passthrough::tdi::{InterfaceReport, Nonce};
use devices::passthrough::{InterfaceStatus, TrustedDma};
use devices::pci::Bdf;
use iommu::{Health, Mapping, Table, TableId};

use super::hotplug::Wanted;
use super::inspect::{Part, Seen, states, timed};
use super::protocol::{
    Answer, Command, DeviceStatus, Devices, Done, ErrorCode, Failure, FaultWatch, GuestIommu,
    Interface, InterfaceMmio, MemoryMap, RunState, Status, TdiAction, Verification,
};
use crate::assign::{Attached, InterfaceError, Interfaces};
use crate::causes::chain;
use crate::config::spec::DmaMode;
use crate::convert::Pages;
use crate::emulate::Counted;
use crate::fault_watch::FaultTally;
use crate::host::facts::{Hex, PciAddress};
use crate::own_memory::own_memory;
use crate::plan::VmPlan;
use crate::platform::Platform;
use crate::power_button::PowerButton;
use crate::report::document::Dma;
use crate::run::{EndOfRun, Ending, Pause};
use crate::stats::Stats;

/// How many extents of a list are shown when nobody says.
const USUAL_LIMIT: u32 = 64;
/// How many extents of a list are shown at most.
const MOST: u32 = 65536;

/// A running VM, for those who ask about it and those who end it.
pub struct Controlled {
    /// What it was launched by.
    pub plan: VmPlan,
    /// Its counters.
    pub stats: Arc<Stats>,
    /// Its memory.
    pub pages: Arc<Pages>,
    /// What holds its vCPUs.
    pub pause: Pause,
    /// What asks its guest to turn itself off.
    pub button: PowerButton,
    /// Its devices.
    pub devices: ControlledDevices,
    /// Its emulated devices.
    pub emulated: Vec<Counted>,
    /// What its devices were refused.
    pub faults: FaultTally,
    /// Its end.
    pub end: Arc<EndOfRun>,
}

/// Assigned devices, for those who ask about them.
pub struct ControlledDevices {
    attached: Arc<Mutex<Attached>>,
    interfaces: Arc<Interfaces>,
    /// Of the locks by this socket, for the starts by this socket.
    nonces: BTreeMap<Bdf, Nonce>,
}

/// An assigned device, as it is while somebody asks.
pub(super) struct Device {
    pub(super) host: PciAddress,
    pub(super) guest: Bdf,
    slot: Option<u8>,
    dma: Dma,
    table: TableId,
    groups: Vec<String>,
}

impl ControlledDevices {
    /// Of a VM that has none.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self::new(&Arc::default())
    }

    /// The devices of a VM.
    #[must_use]
    pub fn new(attached: &Arc<Mutex<Attached>>) -> Self {
        let devices = attached.lock().unwrap_or_else(PoisonError::into_inner);
        Self {
            interfaces: Arc::clone(devices.interfaces()),
            attached: Arc::clone(attached),
            nonces: BTreeMap::new(),
        }
    }

    /// Those on the guest's bus. The lock comes before those of functions and pages.
    pub(super) fn attached(&self) -> MutexGuard<'_, Attached> {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that there are now: of the config, in its order, then those that have come since.
    fn list(&self) -> Vec<Device> {
        let attached = self.attached();
        let mut list = Vec::new();
        for group in attached.groups() {
            let device = |planned: &crate::plan::PlannedDevice| Device {
                host: planned.pci,
                guest: planned.guest,
                slot: attached.slot_of(planned.guest),
                dma: match planned.dma {
                    DmaMode::Translated => Dma::Translated,
                    DmaMode::Direct => Dma::Direct,
                },
                table: group.table(),
                groups: group.host_groups().to_vec(),
            };
            let members = group.members().iter();
            list.extend(members.map(|member| device(member.planned())));
        }
        list
    }

    fn backend(&self) -> Option<&'static str> {
        let attached = self.attached();
        let group = attached.groups().first();
        group.map(|group| group.backend().name())
    }

    /// The device that somebody calls `name`: `0000:00:04.0` on the host, `00:01.0` on the guest's bus.
    pub(super) fn find(&self, name: &str) -> Result<Device, Failure> {
        let mut devices = self.list().into_iter();
        let found = devices
            .find(|device| device.host.to_string() == name || device.guest.to_string() == name);
        found.ok_or_else(|| {
            let message = format!("the VM has no device {name}; `devices` lists them");
            Failure::new(ErrorCode::NoSuchDevice, message)
        })
    }

    /// The tables, each with the devices behind it.
    fn tables(&self) -> BTreeMap<TableId, Vec<PciAddress>> {
        let mut tables: BTreeMap<TableId, Vec<PciAddress>> = BTreeMap::new();
        for device in self.list() {
            tables.entry(device.table).or_default().push(device.host);
        }
        tables
    }
}

impl Controlled {
    /// Carries out a command.
    pub(super) fn answer(&mut self, command: &Command) -> Result<Answer, Failure> {
        match command {
            Command::Status {} => Ok(Answer::Status(self.status())),
            Command::Metrics {} => self.metrics().map(Answer::Metrics),
            Command::Devices {} => self.list_devices().map(Answer::Devices),
            Command::Map {
                device,
                from,
                limit,
            } => {
                let part = Part {
                    from: from.map_or(0, |from| from.0),
                    limit: usize::try_from(limit.unwrap_or(USUAL_LIMIT).min(MOST))
                        .unwrap_or(usize::MAX),
                };
                self.map(device.as_deref(), part).map(Answer::Map)
            }
            Command::Verify {} => Ok(Answer::Verify(self.verify())),
            Command::Convert {} => Ok(Answer::Convert(self.pages.statistics().into())),
            Command::Tdi { action, device } => self.tdi(*action, device).map(Answer::Tdi),
            Command::Plug {
                device,
                slot,
                dma_bits,
            } => {
                let (pci, slot, dma_bits) = (*device, *slot, *dma_bits);
                let wanted = Wanted {
                    pci,
                    slot,
                    dma_bits,
                };
                self.plug(wanted).map(Answer::Plug)
            }
            Command::Unplug { device, force } => self.unplug(device, *force).map(Answer::Unplug),
            Command::Pause {} => match self.pause.pause() {
                Ok(()) => Ok(Answer::Pause(Done {})),
                Err(stuck) => Err(Failure::new(ErrorCode::Failed, stuck.to_string())),
            },
            Command::Resume {} => {
                self.pause.resume();
                Ok(Answer::Resume(Done {}))
            }
            Command::Powerbutton {} => {
                self.button.press();
                Ok(Answer::Powerbutton(Done {}))
            }
            Command::Stop {} => {
                self.end.end(Ending::Stopped);
                Ok(Answer::Stop(Done {}))
            }
        }
    }

    fn status(&self) -> Status {
        let plan = &self.plan;
        let confidential = plan.platform().is_confidential();
        let devices = self.devices.list().len();
        let assigned = devices > 0;
        let hearing = self.faults.hearing();
        Status {
            pid: std::process::id(),
            platform: plan.platform(),
            ipa_bits: plan.ipa_bits(),
            shared_bit: plan.shared_bit(),
            vcpus: plan.vcpus(),
            memory: plan.memory(),
            state: self.state(),
            uptime_ms: millis(self.stats.uptime()),
            own_memory_bytes: own_memory(self.pages.ram()),
            devices: u32::try_from(devices).unwrap_or(u32::MAX),
            dma_backend: self.devices.backend().map(str::to_owned),
            iommu: match plan.iommu() {
                Some(_) => GuestIommu::Virtio,
                None => GuestIommu::None,
            },
            // A Realm's is the RMM's, of which ccvm knows nothing.
            tsm: (confidential && assigned && plan.platform() != Platform::Cca)
                .then(|| self.devices.interfaces.tsm().to_string()),
            fault_watch: assigned.then(|| FaultWatch {
                active: hearing.deaf.is_none(),
                why_not: hearing.deaf,
                lost: hearing.lost,
            }),
        }
    }

    pub(super) fn state(&self) -> RunState {
        match self.pause.is_paused() {
            true => RunState::Paused,
            false => RunState::Running,
        }
    }

    pub(super) fn list_devices(&self) -> Result<Devices, Failure> {
        let list = self.devices.list();
        let list = list.iter().map(|device| self.device(device));
        Ok(Devices {
            list: list.collect::<Result<_, _>>()?,
        })
    }

    fn device(&self, device: &Device) -> Result<DeviceStatus, Failure> {
        let interfaces = &self.devices.interfaces;
        let interface = interfaces.status(device.guest)?;
        let faults = self.faults.of(device.host);
        let in_force = self.in_force(device.table);
        let space = self.pages.space();
        let twin = space.twin(device.table).filter(|_| in_force == Table::T1);
        let host_table = twin.unwrap_or(device.table);
        let mapped = space.mapped(host_table);
        let reach = mapped.map_or(0, |mapped| {
            let sizes = mapped.iter().map(|mapping: Mapping| mapping.iova.bytes());
            sizes.fold(0, u64::saturating_add)
        });
        let mappings = mapped.map_or(0, |mapped| mapped.len());
        Ok(DeviceStatus {
            pci: device.host,
            guest: device.guest.to_string(),
            slot: device.slot,
            groups: device.groups.clone(),
            dma: device.dma,
            interface: interface.map(|status| describe(&status)),
            table: in_force.into(),
            health: space
                .health(host_table)
                .unwrap_or(Health::Quarantined)
                .into(),
            mappings: u64::try_from(mappings).unwrap_or(u64::MAX),
            reach,
            faults: faults.count,
            last_fault: faults.last.map(|fault| Hex(fault.address)),
        })
    }

    fn map(&self, device: Option<&str>, part: Part) -> Result<MemoryMap, Failure> {
        let only = device.map(|name| self.devices.find(name)).transpose()?;
        let only = only.map(|device| device.table);
        let tables = self.devices.tables();
        let tables = tables
            .iter()
            .filter(|(table, _)| only.is_none_or(|only| only == **table));
        let mut maps = Vec::new();
        for (table, devices) in tables {
            let snapshot = self.pages.space().snapshot(*table);
            let seen = snapshot.as_ref().map(|snapshot| Seen { devices, snapshot });
            let in_force = self.in_force(*table);
            maps.extend(seen.map(|seen| seen.map(in_force, part)));
        }
        let page_states = self.pages.space().states().clone();
        Ok(MemoryMap {
            states: states(page_states.settled(), part),
            tables: maps,
        })
    }

    fn verify(&self) -> Verification {
        let begun = Instant::now();
        let mut held_up = Duration::ZERO;
        let mut tables = Vec::new();
        for (table, devices) in self.devices.tables() {
            let twin = self.pages.space().twin(table);
            for host_table in std::iter::once(table).chain(twin) {
                let (snapshot, took) = timed(|| self.pages.space().snapshot(host_table));
                held_up = held_up.max(took);
                let devices = &devices;
                let seen = snapshot.as_ref().map(|snapshot| Seen { devices, snapshot });
                tables.extend(seen.map(|seen| seen.verify()));
            }
        }
        Verification {
            clean: tables.iter().all(|table| table.is_clean()),
            held_up_us: micros(held_up),
            took_us: micros(begun.elapsed()),
            tables,
        }
    }

    /// Which table the devices of `table` are under.
    fn in_force(&self, table: TableId) -> Table {
        let mut devices = self.devices.list().into_iter();
        let device = devices.find(|device| device.table == table);
        let interface =
            device.and_then(|device| self.devices.interfaces.status(device.guest).ok()?);
        let role = || self.pages.space().role(table).unwrap_or(Table::T0);
        interface.map_or_else(role, |status| status.table)
    }

    fn tdi(&mut self, action: TdiAction, name: &str) -> Result<Interface, Failure> {
        let guest = self.devices.find(name)?.guest;
        let interfaces = &self.devices.interfaces;
        let mut took = None;
        let mut report = None;
        match action {
            TdiAction::Lock => {
                let nonce = interfaces.lock(guest)?;
                self.devices.nonces.insert(guest, nonce);
            }
            TdiAction::Start => {
                let nonce = self.devices.nonces.get(&guest).ok_or_else(|| {
                    let message = format!("{name} has not been locked by way of this socket");
                    Failure::new(ErrorCode::WrongState, message)
                })?;
                took = Some(interfaces.accept(guest, nonce)?);
            }
            TdiAction::Stop => took = Some(interfaces.stop(guest)?),
            TdiAction::Report => report = Some(interfaces.report(guest)?),
        }
        let status = self.devices.interfaces.status(guest)?;
        let mut interface = status.map_or_else(|| Err(no_interface()), |it| Ok(describe(&it)))?;
        interface.took_us = took.map(micros);
        interface.mmio = report.map_or_else(Vec::new, |report| mmio(&report));
        Ok(interface)
    }
}

fn describe(status: &InterfaceStatus) -> Interface {
    Interface {
        state: status.state.name().to_owned(),
        trusted_dma: status.dma == TrustedDma::Enabled,
        locks: status.locks,
        withheld: status.withheld,
        failed_by: status.failed_by.map(|incident| format!("{incident:?}")),
        took_us: None,
        mmio: Vec::new(),
    }
}

fn mmio(report: &InterfaceReport) -> Vec<InterfaceMmio> {
    let ranges = report.mmio.iter().map(|range| InterfaceMmio {
        bar: range.bar.number(),
        start: Hex(range.first_page),
        size: u64::from(range.pages) * iommu::PAGE_SIZE,
        non_tee: range.attributes.non_tee,
    });
    ranges.collect()
}

fn no_interface() -> Failure {
    let message = "the device has no interface: its VM has no private memory to protect";
    Failure::new(ErrorCode::WrongState, message)
}

impl From<InterfaceError> for Failure {
    fn from(error: InterfaceError) -> Self {
        use devices::passthrough::InterfaceError as Inner;
        let code = match &error {
            InterfaceError::NoDevice(_) => ErrorCode::NoSuchDevice,
            InterfaceError::SharedTable { .. }
            | InterfaceError::Interface(Inner::NoInterface | Inner::Refused(_)) => {
                ErrorCode::WrongState
            }
            InterfaceError::Random(_) | InterfaceError::Interface(Inner::Host(_)) => {
                ErrorCode::Failed
            }
        };
        Self::new(code, chain(&error))
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
