//! What can happen to an address space, decoded from bytes: random ones, or a fuzzer's.

use super::host::Fault;
use crate::domain::{Binding, DomainId};
use crate::mapping::Access;
use crate::page_state::Visibility;
use crate::view::Table;

/// One event, and the host calls that fail meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// What happens.
    pub operation: Operation,
    /// The number of a host call, counted from the event's first, and how it fails.
    pub faults: [Option<(u32, Fault)>; 2],
}

/// What happens. Pages are counted in 4 KiB; a table is named by its place among those attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the arguments of the calls")]
pub enum Operation {
    /// A device arrives.
    Attach {
        role: Table,
        binding: Binding,
        limited: bool,
    },
    /// A device goes.
    Detach { table: usize },
    /// A device is accepted, stopped, reset or in error.
    Switch { table: usize, role: Table },
    /// The guest attaches a device to a domain, or detaches it.
    Bind { table: usize, binding: Binding },
    /// The guest names a domain for the first time.
    Create { domain: DomainId },
    /// The guest's last device leaves a domain.
    Remove { domain: DomainId },
    /// The guest maps.
    Map {
        domain: DomainId,
        iova: u64,
        pages: u64,
        name: u64,
        access: Access,
    },
    /// The guest unmaps.
    Unmap {
        domain: DomainId,
        iova: u64,
        pages: u64,
    },
    /// The guest converts.
    Convert {
        start: u64,
        pages: u64,
        to: Visibility,
    },
}

impl Event {
    /// Bytes in an encoded event.
    pub const BYTES: usize = 8;

    /// The event that these bytes stand for; all bytes stand for one.
    #[must_use]
    pub fn decode(bytes: [u8; Self::BYTES]) -> Self {
        let [kind, what, a, b, c, d, fault, second] = bytes;
        let table = usize::from(what >> 4);
        let domain = DomainId::new(u32::from(what % 2));
        let role = if what & 4 == 0 { Table::T0 } else { Table::T1 };
        let binding = match a % 4 {
            0 | 1 => Binding::Identity,
            2 => Binding::Blocked,
            _ => Binding::Domain(domain),
        };
        let page = |byte: u8, pages: u8| u64::from(byte.checked_rem(pages).unwrap_or(0));
        let (iova, pages) = (page(a, 48), page(b, 9));
        let operation = match kind % 16 {
            0 => Operation::Attach {
                role,
                binding,
                limited: b % 4 == 0,
            },
            1 => Operation::Detach { table },
            2 | 3 => Operation::Switch { table, role },
            4 => Operation::Bind { table, binding },
            5 => Operation::Create { domain },
            6 => Operation::Remove { domain },
            7 | 8 => Operation::Map {
                domain,
                iova,
                pages,
                name: page(c, 56).saturating_add(if d % 2 == 0 { 64 } else { 0 }),
                access: [Access::Read, Access::Write, Access::ReadWrite]
                    .into_iter()
                    .nth(usize::from(d % 3))
                    .unwrap_or(Access::ReadWrite),
            },
            9 => Operation::Unmap {
                domain,
                iova,
                pages: page(b, 32),
            },
            _ => Operation::Convert {
                start: page(a, 60),
                pages: if d % 4 == 0 { page(b, 32) } else { page(b, 5) },
                to: if c % 2 == 0 {
                    Visibility::Shared
                } else {
                    Visibility::Private
                },
            },
        };
        Self {
            operation,
            faults: [decode_fault(fault), decode_fault(second)],
        }
    }
}

/// Three bytes in four stand for no fault.
fn decode_fault(byte: u8) -> Option<(u32, Fault)> {
    let kind = match byte % 16 {
        0 | 1 => Fault::Refuse,
        2 => Fault::Lose,
        3 => Fault::Do,
        _ => return None,
    };
    Some((u32::from(byte >> 4), kind))
}
