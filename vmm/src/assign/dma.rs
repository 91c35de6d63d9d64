//! The DMA tables of the groups: what each can hold, and who is cut off when one is lost.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use iommu::{Iova, PAGE_SIZE, PageRange, Reason, Reserved, Table, TableId, TableSpec};
use vfio::{Container, IoasError, PinnedTable};

use super::device::Device;
use super::group::{Group, OpenGroup};
use super::open::Assigned;
use super::virtual_iommu::{Front, Ready};
use crate::causes::chain;
use crate::convert::{HostTable, Pages};
use crate::diagnostic::{Code, Diagnostic};
use crate::plan::VmPlan;

/// The planned devices, reaching what they may, and on no bus yet.
pub struct Connected {
    // Edits the tables of the groups.
    pub(super) iommu: Option<Ready>,
    pub(super) groups: Vec<Group>,
    pub(super) fences: Fences,
}

/// The devices behind each table, for the day that one is lost. Clones are handles to the same.
#[derive(Clone, Default)]
pub(super) struct Fences(Arc<Mutex<BTreeMap<TableId, Vec<Arc<Device>>>>>);

impl Fences {
    /// Watches over the devices of `group`.
    pub(super) fn watch(&self, group: &Group) {
        let devices = group.devices().cloned().collect();
        self.devices().insert(group.table(), devices);
    }

    /// The devices of `group` go.
    pub(super) fn forget(&self, group: &Group) {
        self.devices().remove(&group.table());
    }

    fn cut_off(&self, tables: &[TableId]) {
        let devices = self.devices();
        let lost = tables.iter().filter_map(|table| devices.get(table));
        lost.flatten().for_each(|device| device.cut_off());
    }

    fn devices(&self) -> MutexGuard<'_, BTreeMap<TableId, Vec<Arc<Device>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Assigned {
    /// Lets the devices reach what the platform lets them: all of DRAM, or the shared pages, now and
    /// after every conversion; or what the guest has its IOMMU let them. Devices whose table a failed conversion may leave with too much reach
    /// are cut off.
    ///
    /// # Errors
    /// When the IOMMU cannot map it, or the memory may not be locked.
    pub fn connect(self, plan: &VmPlan, pages: &Arc<Pages>) -> Result<Connected, Diagnostic> {
        let front = Front::of(plan);
        let groups = self.groups.into_iter();
        let groups = groups.map(|opened| opened.connect(&front, pages));
        let groups: Vec<Group> = groups.collect::<Result<_, Diagnostic>>()?;
        let fences = Fences::default();
        groups.iter().for_each(|group| fences.watch(group));
        let watching = fences.clone();
        pages.on_quarantine(Box::new(move |tables| watching.cut_off(tables)));
        let iommu = front.translate(pages, &groups)?;
        Ok(Connected {
            iommu,
            groups,
            fences,
        })
    }
}

impl OpenGroup {
    /// Lets the devices reach what the platform lets them.
    pub(super) fn connect(self, front: &Front, pages: &Arc<Pages>) -> Result<Group, Diagnostic> {
        let memory = pages.ram().dma_view().map_err(|error| refused(&error))?;
        let container = &self.container;
        let spec = spec(container, front);
        let reserved = spec.reserved.clone();
        let promised = match front.translates() {
            false => pages.space().identity_addresses(&reserved),
            true => whole_pages(container),
        };
        promise(container, &promised).map_err(|error| not_promised(&self, &error))?;
        let table = PinnedTable::new(container.clone(), Arc::new(memory));
        Ok(Group {
            table: Filled::new(pages, Box::new(table), spec)?,
            reserved,
            promised,
            opened: self,
        })
    }
}

/// A DMA table that follows the pages of a VM. When this goes, the table is empty.
pub(super) struct Filled {
    pages: Arc<Pages>,
    id: TableId,
}

impl Filled {
    fn new(pages: &Arc<Pages>, table: HostTable, spec: TableSpec) -> Result<Self, Diagnostic> {
        let id = pages.attach(table, spec).map_err(|error| refused(&error))?;
        let pages = Arc::clone(pages);
        Ok(Self { pages, id })
    }

    pub(super) fn id(&self) -> TableId {
        self.id
    }

    pub(super) fn pages(&self) -> &Arc<Pages> {
        &self.pages
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        drop(self.pages.detach(self.id));
    }
}

/// All that `container` can map: what a guest may choose from.
fn whole_pages(container: &Container) -> Vec<PageRange<Iova>> {
    let pages = |range: RangeInclusive<u64>| {
        let start = range.start().checked_next_multiple_of(PAGE_SIZE)?;
        let end = range.end().checked_add(1)? / PAGE_SIZE * PAGE_SIZE;
        PageRange::from_bounds(Iova::new(start), Iova::new(end)).ok()
    };
    let ranges = container.iova_ranges().unwrap_or_default();
    ranges.into_iter().filter_map(pages).collect()
}

/// Has the kernel keep the addresses of the plan mappable, whatever devices come: without that, a
/// device that is added to the address space may take windows out of it.
pub(super) fn promise(
    container: &Container,
    addresses: &[PageRange<Iova>],
) -> Result<(), IoasError> {
    match container {
        // All devices of a container are opened before it is filled, and none later.
        Container::Type1(_) => Ok(()),
        Container::Iommufd(ioas) => ioas.allow(addresses),
    }
}

fn not_promised(opened: &OpenGroup, error: &IoasError) -> Diagnostic {
    let names = opened
        .members
        .iter()
        .map(|member| member.planned.pci.to_string());
    let names: Vec<String> = names.collect();
    let message = format!(
        "the IOMMU of {} cannot map all addresses of the plan: {}",
        names.join(", "),
        chain(error)
    );
    let help = "the host's IOMMU has changed since ccvm read its facts, or reports too much";
    Diagnostic::error(Code::DmaPlanNotPinned, message).with_help(help)
}

fn refused(error: &dyn std::error::Error) -> Diagnostic {
    let message = format!(
        "assigned devices cannot be given guest memory: {}",
        chain(error)
    );
    let help = "guest memory of a VM with assigned devices is locked in RAM: see that there is \
         enough of it, and that `ulimit -l` allows it";
    Diagnostic::error(Code::DmaTableNotFilled, message).with_help(help)
}

/// The table of `container`, which holds all its devices: what the kernel says it can map.
fn spec(container: &Container, front: &Front) -> TableSpec {
    let ranges = container.iova_ranges().unwrap_or_default();
    let reach = ranges.last().map_or(u64::MAX, |range| *range.end());
    TableSpec {
        table: Table::T0,
        binding: front.binding(),
        reserved: Reserved::new(gaps(&ranges).map(|gap| (gap, Reason::Host))),
        reach: Iova::new(reach),
        entry_limit: container
            .entries_left()
            .and_then(|entries| usize::try_from(entries).ok()),
    }
}

/// The windows below the last of `ranges`, which ascend, that are in none of them.
fn gaps(ranges: &[RangeInclusive<u64>]) -> impl Iterator<Item = PageRange<Iova>> {
    let ends = ranges.iter().map(|range| range.end().saturating_add(1));
    let starts = ranges.iter().map(|range| *range.start());
    std::iter::once(0)
        .chain(ends)
        .zip(starts)
        .filter_map(|(from, to)| {
            // Outwards to whole pages: a page that is only partly mappable is not.
            let from = Iova::new(from / PAGE_SIZE * PAGE_SIZE);
            let to = Iova::new(to.checked_next_multiple_of(PAGE_SIZE)?);
            PageRange::from_bounds(from, to).ok()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_between_mappable_ranges_is_reserved() {
        let ranges = [0x1000..=0x7ff_ffff, 0x810_0000..=0xffff_ffff_ffff];
        let reserved: Vec<_> = gaps(&ranges).map(|gap| gap.to_string()).collect();
        assert_eq!(reserved, ["0x0..0x1000", "0x8000000..0x8100000"]);
        assert_eq!(gaps(&[0..=u64::MAX]).count(), 0);
        assert_eq!(gaps(&[]).count(), 0);
    }
}
