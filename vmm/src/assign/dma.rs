//! What a container's DMA table can hold.

use std::ops::RangeInclusive;
use std::sync::Arc;

use iommu::domain::Binding;
use iommu::{Iova, PAGE_SIZE, PageRange, Reason, Reserved, Table, TableId, TableSpec};
use vfio::{Container, Type1Table};

use super::chain;
use super::open::Assigned;
use crate::convert::Pages;
use crate::diagnostic::{Code, Diagnostic};

impl Assigned {
    /// Lets the devices reach what the platform lets them: all of DRAM, or the shared pages, now and
    /// after every conversion. Devices that a failed conversion may leave with too much reach are cut
    /// off.
    ///
    /// # Errors
    /// When the IOMMU cannot map it, or the memory may not be locked.
    pub fn connect(&mut self, pages: &Arc<Pages>) -> Result<(), Diagnostic> {
        let Some(container) = &self.container else {
            return Ok(());
        };
        let memory = pages.ram().dma_view().map_err(|error| refused(&error))?;
        let table = Type1Table::new(container.clone(), Arc::new(memory));
        let attached = pages.attach(Box::new(table), spec(container));
        let id = attached.map_err(|error| refused(&error))?;
        let devices: Vec<_> = self
            .devices
            .iter()
            .map(|(_, device)| Arc::clone(device))
            .collect();
        pages.on_damage(Box::new(move |_| {
            for device in &devices {
                device.cut_off();
            }
        }));
        let pages = Arc::clone(pages);
        self.table = Some(Connected { pages, id });
        Ok(())
    }
}

/// A DMA table that follows the pages of a VM. When this goes, the table is empty.
pub(super) struct Connected {
    pages: Arc<Pages>,
    id: TableId,
}

impl Drop for Connected {
    fn drop(&mut self) {
        drop(self.pages.detach(self.id));
    }
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
fn spec(container: &Container) -> TableSpec {
    let ranges = container.iova_ranges().unwrap_or_default();
    let reach = ranges.last().map_or(u64::MAX, |range| *range.end());
    TableSpec {
        table: Table::T0,
        binding: Binding::Identity,
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
