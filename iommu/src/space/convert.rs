//! The steps of a conversion: see the drawing in [`crate::conversion`].

use super::{AddressSpace, DmaTable, Edits, Flow, Health, Statistics, TableId, Undo};
use crate::addr::{Gpa, Iova, PageRange};
use crate::conversion::{Conversion, ConvertError, Converted, Damage, MAX_EXTENTS, PageFlip, Step};
use crate::page_state::{PageState, StateView, Visibility};
use crate::table::{Effect, HostError};

/// One extent on its way from one state to the other.
#[derive(Debug, Clone, Copy)]
struct Passage {
    range: PageRange<Gpa>,
    to: Visibility,
}

/// Edits of one table.
type Planned = (TableId, Edits);

/// What has been done to tables so far, in order.
type Applied = Vec<(TableId, Undo)>;

impl<T: DmaTable> AddressSpace<T> {
    /// Converts the pages of a request that are not in the asked-for state yet, extent by extent: at
    /// most [`MAX_EXTENTS`] of them. Each extent, of whatever length, costs one flip, one discard, and
    /// one call for each name by which a table loses or gains it. Where a mapping must be cut, its
    /// remains cost a call each as well.
    ///
    /// # Errors
    /// [`ConvertError`] says how far the conversion came, and whether the rest is as before or out of
    /// use.
    pub fn convert(
        &mut self,
        conversion: Conversion,
        memory: &mut dyn PageFlip,
    ) -> Result<Converted, ConvertError> {
        let request = conversion.range();
        let to = conversion.to();
        let mut converted = Converted {
            end: request.start(),
            pages: 0,
            extents: 0,
        };
        while let Ok(rest) = PageRange::from_bounds(converted.end, request.end()) {
            let Some((range, state)) = self.states.first_settled(rest) else {
                break;
            };
            if state == PageState::Quarantined {
                return Err(ConvertError::Quarantined { range });
            }
            if state != to.into() {
                if converted.extents == MAX_EXTENTS {
                    break;
                }
                self.convert_extent(Passage { range, to }, memory)?;
                converted.pages = converted.pages.saturating_add(range.pages());
                converted.extents = converted.extents.saturating_add(1);
            }
            converted.end = range.end();
        }
        Ok(converted)
    }

    fn convert_extent(
        &mut self,
        passage: Passage,
        memory: &mut dyn PageFlip,
    ) -> Result<(), ConvertError> {
        let Passage { range, to } = passage;
        self.states.begin(range);
        let losing = self.plan(range, self.states.now());
        let mut done = Applied::new();
        if let Some(table) = self.full_table(&losing) {
            return Err(self.refuse_full(passage, table, done));
        }
        if let Err((table, source)) = self.apply(losing, &mut done) {
            return Err(self.refuse(passage, Step::Unmap(table), done, source));
        }
        let gaining = self.plan(range, self.states.after(to));
        if let Some(table) = self.full_table(&gaining) {
            return Err(self.refuse_full(passage, table, done));
        }
        if let Err(source) = memory.flip(range, to) {
            return Err(match source.effect() {
                Effect::None => self.refuse(passage, Step::Flip, done, source),
                Effect::Unknown => self.condemn(passage, Step::Flip, Applied::new(), source),
            });
        }
        if let Err(source) = memory.discard(range, to.other()) {
            return Err(self.condemn(passage, Step::Discard, Applied::new(), source));
        }
        let mut done = Applied::new();
        if let Err((table, source)) = self.apply(gaining, &mut done) {
            return Err(self.condemn(passage, Step::Map(table), done, source));
        }
        self.states.commit(to);
        self.statistics.count(range, to);
        debug_assert!(self.is_settled(range), "a table is wrong about {range}");
        Ok(())
    }

    /// The edits after which every table shows `range` as it is in `states`.
    fn plan(&self, range: PageRange<Gpa>, states: StateView<'_>) -> Vec<Planned> {
        let windows: Vec<PageRange<Iova>> = self
            .alias
            .names(range)
            .flat_map(|names| self.domain.iovas(names))
            .collect();
        let edits = self.tables.iter().map(|(&id, table)| {
            let view = table.view(&self.domain, self.alias, states);
            let windows = windows.iter().copied();
            (id, Edits::between(&table.mapped, view, windows))
        });
        edits.filter(|(_, edits)| !edits.is_empty()).collect()
    }

    /// The first table that the host would not let hold what is planned for it.
    fn full_table(&self, planned: &[Planned]) -> Option<TableId> {
        let full = planned.iter().find(|(id, edits)| {
            let table = self.tables.get(id);
            table.is_some_and(|table| table.health == Health::Sound && !table.has_room(edits))
        });
        full.map(|&(id, _)| id)
    }

    fn apply(
        &mut self,
        planned: Vec<Planned>,
        done: &mut Applied,
    ) -> Result<(), (TableId, HostError)> {
        for (id, edits) in planned {
            if let Some(table) = self.tables.get_mut(&id) {
                done.push((id, table.apply(&edits).map_err(|error| (id, error))?));
            }
        }
        Ok(())
    }

    fn undo(&mut self, done: Applied) {
        for (id, undo) in done.into_iter().rev() {
            if let Some(table) = self.tables.get_mut(&id) {
                table.undo(undo);
            }
        }
    }

    /// Ends a conversion before its flip: the pages are as before.
    fn refuse(
        &mut self,
        passage: Passage,
        step: Step,
        done: Applied,
        source: HostError,
    ) -> ConvertError {
        let Passage { range, to } = passage;
        self.undo(done);
        self.states.abort();
        let tables = self.newly_quarantined();
        if tables.is_empty() {
            self.statistics.refused = self.statistics.refused.saturating_add(1);
            debug_assert!(self.is_settled(range), "a table is wrong about {range}");
            return ConvertError::Refused {
                range,
                step,
                source,
            };
        }
        self.statistics.damaged = self.statistics.damaged.saturating_add(1);
        let pages = false;
        let damage = Damage { pages, tables };
        ConvertError::Damaged {
            range,
            to,
            step,
            damage,
            source,
        }
    }

    /// Ends a conversion before its flip for want of an entry in a table.
    fn refuse_full(&mut self, passage: Passage, table: TableId, done: Applied) -> ConvertError {
        let full = HostError::without_effect("adding a mapping", TableFull(table));
        self.refuse(passage, Step::Room(table), done, full)
    }

    /// Ends a conversion after its flip: neither the pages nor the table that failed are of use.
    fn condemn(
        &mut self,
        passage: Passage,
        step: Step,
        done: Applied,
        source: HostError,
    ) -> ConvertError {
        let Passage { range, to } = passage;
        self.undo(done);
        if let Step::Map(id) = step
            && let Some(table) = self.tables.get_mut(&id)
        {
            table.health = Health::Quarantined;
        }
        self.states.condemn();
        self.statistics.damaged = self.statistics.damaged.saturating_add(1);
        let damage = Damage {
            pages: true,
            tables: self.newly_quarantined(),
        };
        ConvertError::Damaged {
            range,
            to,
            step,
            damage,
            source,
        }
    }

    /// Tables that were quarantined since this was last asked.
    fn newly_quarantined(&mut self) -> Vec<TableId> {
        let tables = self.tables.iter_mut();
        let mut fresh = Vec::new();
        for (&id, table) in tables.filter(|(_, table)| table.health == Health::Quarantined) {
            if !std::mem::replace(&mut table.reported, true) {
                fresh.push(id);
            }
        }
        fresh
    }

    /// Whether no sound table needs an edit for these pages.
    fn is_settled(&self, range: PageRange<Gpa>) -> bool {
        let open = self.plan(range, self.states.now());
        open.iter()
            .all(|(id, _)| self.health(*id) == Some(Health::Quarantined))
    }
}

/// The host's limit on mappings is reached.
#[derive(Debug, thiserror::Error)]
#[error("{0} holds as many mappings as the host allows")]
struct TableFull(TableId);

impl Statistics {
    fn count(&mut self, range: PageRange<Gpa>, to: Visibility) {
        let flow: &mut Flow = match to {
            Visibility::Private => &mut self.to_private,
            Visibility::Shared => &mut self.to_shared,
        };
        flow.pages = flow.pages.saturating_add(range.pages());
        flow.extents = flow.extents.saturating_add(1);
    }
}
