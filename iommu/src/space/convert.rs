//! The steps of a conversion: see the drawing in [`crate::conversion`].

use super::transaction::{Applied, Failure, Planned};
use super::{AddressSpace, Flow, Statistics};
use crate::addr::{Gpa, PageRange};
use crate::conversion::{Conversion, ConvertError, Converted, Damage, MAX_EXTENTS, PageFlip, Step};
use crate::edit::Edits;
use crate::page_state::{PageState, StateView, Visibility};
use crate::table::{DmaTable, Effect, Health, HostError};

/// One extent on its way from one state to the other.
#[derive(Debug, Clone, Copy)]
struct Passage {
    range: PageRange<Gpa>,
    to: Visibility,
}

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
        let losing = self.plan(range, to.other(), self.states.now());
        let mut done = Applied::new();
        if let Err(Failure { table, source }) = self.apply(&losing, &mut done) {
            return Err(self.refuse(passage, Step::Unmap(table), done, source));
        }
        let gaining = self.plan(range, to, self.states.after(to));
        if let Err(Failure { table, source }) = self.find_full(&gaining) {
            return Err(self.refuse(passage, Step::Room(table), done, source));
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
        if let Err(Failure { table, source }) = self.apply(&gaining, &mut done) {
            return Err(self.condemn(passage, Step::Map(table), done, source));
        }
        self.states.commit(to);
        self.statistics.count(range, to);
        debug_assert!(self.is_settled(range), "a table is wrong about {range}");
        Ok(())
    }

    /// The edits after which every sound table shows this form of `range` as it is in `states`, and no
    /// other table shows any of it.
    fn plan(&self, range: PageRange<Gpa>, form: Visibility, states: StateView<'_>) -> Vec<Planned> {
        let edits = self.tables.iter().map(|(&id, table)| match table.health {
            Health::Sound => {
                let domain = self.domain_of(table);
                let role = table.spec.table;
                let names = self.trusted.alias(role, self.alias).names(range, form);
                let shown = names.filter(|_| role.admits(form));
                let windows = shown.into_iter().flat_map(|names| domain.iovas(names));
                (id, self.plan_table(table, states, windows))
            }
            // What its domain says is no guide to what a failure has left in it.
            Health::Quarantined => (id, Edits::withdrawing(&table.mapped, range)),
        });
        edits.filter(|(_, edits)| !edits.is_empty()).collect()
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

    /// Whether no sound table needs an edit for these pages.
    fn is_settled(&self, range: PageRange<Gpa>) -> bool {
        [Visibility::Private, Visibility::Shared]
            .into_iter()
            .all(|form| self.are_quarantined(&self.plan(range, form, self.states.now())))
    }
}

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
