//! Page states, DMA tables and conversions of a confidential VM with assigned devices.
//!
//! Pure: no I/O, no threads, no clock, no `unsafe`. [`AddressSpace`] owns the host's DMA tables behind
//! the [`DmaTable`] trait, keeps each of them at what [`desired`] calls for, and takes the pages of
//! the guest from one state to the other without a moment in which a device reaches what it must not.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)
)]

pub mod addr;
pub mod alias;
pub mod conversion;
pub mod domain;
pub mod edit;
pub mod fault;
pub mod mapping;
#[cfg(any(test, feature = "model"))]
pub mod model;
pub mod page_state;
pub mod range_map;
pub mod request;
pub mod reserved;
pub mod space;
pub mod table;
pub mod view;
pub mod viommu;
pub mod wire;

pub use addr::{Gpa, Iova, Ipa, PAGE_SIZE, PageRange};
pub use alias::{Alias, SharedBit};
pub use conversion::{Conversion, ConvertError, Converted, PageFlip, RequestError};
pub use domain::{Binding, Domain, DomainId, Translation};
pub use edit::{Edit, Edits};
pub use fault::{FaultAccess, FaultEvent, FaultReason};
pub use mapping::{Access, Mapped, Mapping};
pub use page_state::{PageState, PageStates, Visibility};
pub use reserved::{Reason, Reserved};
pub use space::{AddressSpace, Statistics};
pub use table::{DmaTable, Effect, Health, Holdings, HostError, TableId, TableSpec};
pub use view::{DmaView, Mirror, PrivatePages, Table, Trusted, desired};
