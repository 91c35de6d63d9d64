//! Answers for people.

use std::fmt::Write as _;

use vmm::control::protocol::{
    AccessName, Answer, DeviceStatus, DifferenceKind, GuestIommu, Interface, MappingList,
    MemoryMap, Metrics, PageStateName, Plugged, QueueMetrics, RunState, StateList, Status,
    TableDifference, TableHealth, TableName, TableVerification, UnplugState, Unplugged,
    Verification,
};
use vmm::host::facts::{Hex, PciAddress};
use vmm::stats::Conversions;

use crate::table::Table;

/// An answer as text.
pub(super) fn of(answer: &Answer) -> String {
    match answer {
        Answer::Status(answer) => status(answer),
        Answer::Metrics(answer) => metrics(answer),
        Answer::Devices(answer) => devices(&answer.list),
        Answer::Map(answer) => map(answer),
        Answer::Verify(answer) => verify(answer),
        Answer::Convert(answer) => convert(answer),
        Answer::Tdi(answer) => interface(answer),
        Answer::Plug(answer) => plugged(answer),
        Answer::Unplug(answer) => unplugged(answer),
        Answer::Pause(_) => {
            "paused: no vCPU is in the guest; DMA of its devices, and time, go on\n".to_owned()
        }
        Answer::Resume(_) => "running\n".to_owned(),
        Answer::Powerbutton(_) => "pressed: the guest is asked to turn itself off\n".to_owned(),
        Answer::Stop(_) => "the VM ends\n".to_owned(),
        Answer::Error(failure) => format!("{}\n", failure.message),
    }
}

fn status(status: &Status) -> String {
    let state = match status.state {
        RunState::Running => "running",
        RunState::Paused => "paused (DMA of its devices goes on)",
    };
    let shared = status
        .shared_bit
        .map_or_else(String::new, |bit| format!(", shared bit {bit}"));
    let own = status.own_memory_bytes.map_or_else(String::new, |bytes| {
        format!(", and {} KiB of ccvm's own", bytes >> 10)
    });
    let iommu = match status.iommu {
        GuestIommu::None => "none",
        GuestIommu::Virtio => "virtio",
    };
    let mut text = format!(
        "state     {state}, process {}, up {} s\n\
         platform  {}, {} address bits{shared}\n\
         vcpus     {}\n\
         memory    {} MiB{own}\n\
         devices   {}\n\
         iommu     {iommu}\n",
        status.pid,
        status.uptime_ms / 1000,
        status.platform,
        status.ipa_bits,
        status.vcpus,
        status.memory >> 20,
        status.devices,
    );
    let mut line = |name: &str, value: &str| text.push_str(&format!("{name:<8}  {value}\n"));
    if let Some(backend) = &status.dma_backend {
        line("dma", backend);
    }
    if let Some(tsm) = &status.tsm {
        line("tsm", tsm);
    }
    if let Some(watch) = &status.fault_watch {
        let heard = match (&watch.why_not, watch.lost) {
            (Some(why), _) => format!("not seen: {why}"),
            (None, 0) => "watched".to_owned(),
            (None, lost) => format!("watched; {lost} gaps in the kernel's log"),
        };
        line("faults", &heard);
    }
    text
}

fn metrics(metrics: &Metrics) -> String {
    let exits = &metrics.exits;
    let mut text = format!("up          {} s\n", metrics.uptime_ms / 1000);
    if let Some(own) = metrics.own_memory_bytes {
        let _ = writeln!(text, "own memory  {} KiB", own >> 10);
    }
    let _ = writeln!(
        text,
        "exits       {} loads and {} stores of devices, {} reads and {} writes of ports ({} unclaimed), \
         {} calls, {} memory faults, {} interrupted, {} others",
        exits.mmio_read,
        exits.mmio_write,
        exits.port_read,
        exits.port_write,
        exits.unclaimed,
        exits.hypercall,
        exits.memory_fault,
        exits.interrupted,
        exits.other
    );
    text.push_str(&convert(&metrics.conversions));
    for device in &metrics.devices {
        let cut_off = match device.quarantined {
            true => ", cut off",
            false => "",
        };
        let _ = writeln!(
            text,
            "{}  {} mappings, {} within reach, {} faults{cut_off}",
            device.pci,
            device.mappings,
            bytes(device.reach),
            device.faults
        );
    }
    for device in &metrics.emulated {
        let sum = |of: fn(&QueueMetrics) -> u64| device.queues.iter().map(of).sum::<u64>();
        let _ = writeln!(
            text,
            "{} {}  {} requests, {} from the guest, {} to it, {} errors, {} notifications, {} interrupts",
            device.guest,
            device.kind.name(),
            sum(|queue| queue.requests),
            bytes(sum(|queue| queue.bytes_from_guest)),
            bytes(sum(|queue| queue.bytes_to_guest)),
            sum(|queue| queue.errors),
            sum(|queue| queue.notifications),
            sum(|queue| queue.interrupts)
        );
    }
    text
}

fn devices(list: &[DeviceStatus]) -> String {
    if list.is_empty() {
        return "no devices are assigned\n".to_owned();
    }
    let mut table = Table::new([
        "DEVICE",
        "GUEST",
        "GROUP",
        "INTERFACE",
        "TABLE",
        "MAPPINGS",
        "REACH",
        "FAULTS",
    ]);
    for device in list {
        let state = device.interface.as_ref().map(|it| it.state.clone());
        let mut in_force = table_name(device.table).to_owned();
        if device.health == TableHealth::Quarantined {
            in_force.push_str(" out of use");
        }
        let faults = match device.last_fault {
            Some(Hex(address)) => format!("{}, last at {address:#x}", device.faults),
            None => device.faults.to_string(),
        };
        table.row([
            device.pci.to_string(),
            device.guest.clone(),
            device.groups.join(","),
            state.unwrap_or_else(|| "-".to_owned()),
            in_force,
            device.mappings.to_string(),
            bytes(device.reach),
            faults,
        ]);
    }
    table.to_string()
}

fn plugged(plugged: &Plugged) -> String {
    let Plugged {
        pci, guest, slot, ..
    } = plugged;
    let mut text =
        format!("{pci} is in slot {slot}; the guest sees it at {guest} when it takes it\n");
    for warning in &plugged.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    text
}

fn unplugged(unplugged: &Unplugged) -> String {
    let pci = unplugged.pci;
    match unplugged.state {
        UnplugState::Asked => format!("{pci}: the guest is asked to give it up\n"),
        UnplugState::Leaving => format!("{pci}: the guest is giving it up\n"),
        UnplugState::Gone => format!("{pci} is the host's again\n"),
    }
}

fn map(map: &MemoryMap) -> String {
    let mut text = format!("pages\n{}", states(&map.states));
    for table in &map.tables {
        for (name, list) in [(TableName::T0, &table.t0), (TableName::T1, &table.t1)] {
            let in_force = match name == table.in_force {
                true => ", in force",
                false => "",
            };
            let (devices, name) = (names(&table.devices), table_name(name));
            let list = mappings(list);
            text.push_str(&format!("\n{devices} {name}{in_force}\n{list}"));
        }
    }
    text
}

fn states(list: &StateList) -> String {
    let mut text = String::new();
    for extent in &list.extents {
        let state = match extent.state {
            PageStateName::Private => "private",
            PageStateName::Shared => "shared",
            PageStateName::Converting => "converting",
            PageStateName::Quarantined => "out of use",
        };
        let range = range(extent.start.0, extent.size);
        let _ = writeln!(text, "  {range}  {:>9}  {state}", bytes(extent.size));
    }
    text + &left_out(list.left_out)
}

fn mappings(list: &MappingList) -> String {
    let mut text = String::new();
    for extent in &list.extents {
        let access = match extent.access {
            AccessName::Read => "r",
            AccessName::Write => "w",
            AccessName::ReadWrite => "rw",
        };
        let range = range(extent.iova.0, extent.size);
        let (size, gpa) = (bytes(extent.size), extent.gpa.0);
        let _ = writeln!(text, "  {range}  {size:>9}  -> {gpa:#x} {access}");
    }
    if list.extents.is_empty() && list.left_out == 0 {
        text.push_str("  nothing\n");
    }
    text + &left_out(list.left_out)
}

fn left_out(count: u64) -> String {
    match count {
        0 => String::new(),
        count => format!("  {count} more above: see --from and --limit\n"),
    }
}

fn verify(verification: &Verification) -> String {
    let mut text = String::new();
    for table in &verification.tables {
        text.push_str(&verified(table));
    }
    let verdict = match verification.clean {
        true => "clean",
        false => "NOT CLEAN",
    };
    let (took, held_up) = (verification.took_us, verification.held_up_us);
    let _ = writeln!(
        text,
        "{verdict}; {} checked in {took} us, of which conversions waited for {held_up} us",
        verification.tables.len()
    );
    text
}

fn verified(table: &TableVerification) -> String {
    let count = |number: Option<u64>| number.map_or_else(|| "?".to_owned(), |n| n.to_string());
    let mut text = format!(
        "{} {}: {} mappings recorded, {} held, {} by the kernel's count; T0 {} extents, T1 {}\n",
        names(&table.devices),
        table_name(table.table),
        table.recorded,
        count(table.held),
        count(table.counted),
        table.t0_extents,
        table.t1_extents,
    );
    if table.health == TableHealth::Quarantined {
        text.push_str("  out of use: a call to the host failed, and its devices were cut off\n");
    }
    for difference in &table.differences {
        text.push_str(&self::difference(difference));
    }
    if table.left_out > 0 {
        let _ = writeln!(text, "  {} more differences", table.left_out);
    }
    text
}

fn difference(difference: &TableDifference) -> String {
    let kind = match difference.kind {
        DifferenceKind::Missing => "missing",
        DifferenceKind::Surplus => "surplus",
        DifferenceKind::Lost => "not held by the kernel",
        DifferenceKind::Leaked => "held by the kernel for no reason",
        DifferenceKind::Count => "the kernel counts another number of mappings",
        DifferenceKind::Unmirrored => "in T0 and not in T1",
    };
    let place = match (difference.iova, difference.size) {
        (Some(Hex(iova)), Some(size)) => format!("{} ", range(iova, size)),
        _ => String::new(),
    };
    let target = difference
        .gpa
        .map_or_else(String::new, |Hex(gpa)| format!(" -> {gpa:#x}"));
    format!("  {place}{kind}{target}\n")
}

fn convert(conversions: &Conversions) -> String {
    let Conversions {
        shared_extents,
        shared_pages,
        private_extents,
        private_pages,
        refused,
        damaged,
        dma_maps,
        dma_unmaps,
    } = conversions;
    format!(
        "to shared   {shared_pages} pages in {shared_extents} extents\n\
         to private  {private_pages} pages in {private_extents} extents\n\
         refused     {refused}\n\
         damaged     {damaged}\n\
         DMA calls   {dma_maps} to map, {dma_unmaps} to unmap\n"
    )
}

fn interface(interface: &Interface) -> String {
    let mut text = format!("state     {}\n", interface.state);
    if let Some(by) = &interface.failed_by {
        let _ = writeln!(text, "failed by {by}");
    }
    let _ = writeln!(
        text,
        "locked    {} times; {} writes of the guest kept back",
        interface.locks, interface.withheld
    );
    if let Some(us) = interface.took_us {
        let _ = writeln!(text, "took      {us} us");
    }
    for mmio in &interface.mmio {
        let range = range(mmio.start.0, mmio.size);
        let open = match mmio.non_tee {
            true => ", answers to everybody",
            false => "",
        };
        let _ = writeln!(text, "BAR {}     {range}{open}", mmio.bar);
    }
    text
}

const fn table_name(table: TableName) -> &'static str {
    match table {
        TableName::T0 => "T0",
        TableName::T1 => "T1",
    }
}

fn names(devices: &[PciAddress]) -> String {
    let names: Vec<String> = devices.iter().map(ToString::to_string).collect();
    names.join(" ")
}

/// Both bounds, inclusive.
fn range(start: u64, size: u64) -> String {
    let last = start.saturating_add(size.saturating_sub(1));
    format!("{start:#012x}..={last:#012x}")
}

/// A number of bytes in the largest unit that it is a whole number of.
fn bytes(count: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let whole = units
        .iter()
        .find(|(shift, _)| count != 0 && count.trailing_zeros() >= *shift);
    match whole {
        Some((shift, unit)) => format!("{} {unit}", count >> shift),
        None => format!("{count} B"),
    }
}
