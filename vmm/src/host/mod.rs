//! What a host offers: recorded as JSON, or read from this machine.

mod checked;
mod document;
pub mod facts;
mod live;

pub use document::from_json;
pub use facts::HostFacts;
pub use live::read;
