//! A running VM under control: commands over a socket of this host, one line of JSON each way.
//!
//! ```text
//! ccvm ctl ─► socket ─► line ─► protocol: Request ─► Controlled (pages, vCPUs, devices, end)
//!                                                        │
//! ccvm ctl ◄─ socket ◄─ line ◄─ protocol: Response ◄─────┘      all of it in one thread
//! ```
//!
//! Who may open the socket may do with the VM what they like: it belongs to the user who started
//! ccvm, and to nobody else. Requests are checked all the same, and their number and size have
//! bounds.

mod client;
mod connection;
mod controlled;
mod hotplug;
mod inspect;
mod line;
mod metrics;
pub mod protocol;
mod server;
mod socket;

#[cfg(test)]
mod tests;

pub use client::{Client, ClientError};
pub use controlled::{Controlled, ControlledDevices};
pub use server::{ControlError, ControlThread};
pub use socket::{ControlSocket, SocketError};
