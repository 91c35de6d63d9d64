//! A host made of memory, a naive oracle that knows every page, and a driver that runs both beside
//! an [`AddressSpace`](crate::AddressSpace) and compares.

mod driver;
mod event;
mod host;
mod oracle;

pub use driver::{Driver, Mismatch};
pub use event::{Event, Operation};
pub use host::{Fault, Faults, ModelMemory, ModelTable};
