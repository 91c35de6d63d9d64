//! What a host offers: recorded as JSON, or read from this machine.

pub mod binding;
mod checked;
pub mod class;
mod dependents;
mod document;
mod encrypted;
pub mod facts;
mod function;
mod live;
mod parse;
#[cfg(test)]
mod recorded;
mod register;
mod remembered;
mod roots;

pub use document::from_json;
pub use facts::HostFacts;
pub use live::read;
pub use roots::Roots;
