//! Devices that another process of the host serves: vhost-user, by a socket.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kvm::ram::{FilePart, GuestRam};
use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserProtocolFeatures, VhostUserVirtioFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo};

use super::hang_up;
use super::rings::Server;

/// How long a daemon has for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What ccvm uses of the protocol where the daemon has it.
const WANTED: VhostUserProtocolFeatures = VhostUserProtocolFeatures::MQ
    .union(VhostUserProtocolFeatures::CONFIG)
    .union(VhostUserProtocolFeatures::REPLY_ACK);

/// Why a daemon serves nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum UserError {
    /// Nobody listens at the socket.
    #[error("cannot connect to {}", .path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The daemon lacks a part of the protocol.
    #[error("the daemon at {} has no {what}", .path.display())]
    Lacks {
        /// The socket.
        path: PathBuf,
        /// What.
        what: &'static str,
    },
    /// The daemon has fewer queues than the config asks for.
    #[error("the daemon at {} has {has} queues, and the config asks for {asked}", .path.display())]
    Queues {
        /// The socket.
        path: PathBuf,
        /// How many it has.
        has: u64,
        /// How many are needed.
        asked: u64,
    },
    /// The daemon, or the connection to it, fails at another step.
    #[error("the daemon at {} does not {step}", .path.display())]
    Refused {
        /// The socket.
        path: PathBuf,
        /// What.
        step: &'static str,
        /// Why not.
        #[source]
        source: vhost::Error,
    },
}

/// A daemon.
pub(super) struct Daemon {
    frontend: Frontend,
    /// The same socket as the frontend's.
    connection: UnixStream,
    path: PathBuf,
    features: u64,
    protocol: VhostUserProtocolFeatures,
    ram: Arc<GuestRam>,
}

impl Daemon {
    /// Connects to the daemon at `path`, and gives it the memory `ram`, which must be in a file.
    ///
    /// # Errors
    /// When the daemon is not there, or is of another mind.
    pub(super) fn connect(
        path: &Path,
        queues: u64,
        ram: &Arc<GuestRam>,
    ) -> Result<Self, UserError> {
        let stream = UnixStream::connect(path).and_then(|stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok((stream.try_clone()?, stream))
        });
        let (connection, stream) = stream.map_err(|source| UserError::Connect {
            path: path.to_owned(),
            source,
        })?;
        let mut daemon = Self {
            frontend: Frontend::from_stream(stream, queues),
            connection,
            path: path.to_owned(),
            features: 0,
            protocol: VhostUserProtocolFeatures::empty(),
            ram: Arc::clone(ram),
        };
        daemon.agree(queues)?;
        let regions: Vec<_> = ram.file_parts().iter().map(region).collect();
        let table = daemon.frontend.set_mem_table(&regions);
        table.map_err(daemon.refused("take the guest's memory"))?;
        Ok(daemon)
    }

    fn agree(&mut self, queues: u64) -> Result<(), UserError> {
        let owned = self.frontend.set_owner();
        owned.map_err(self.refused("take an owner"))?;
        let features = self.frontend.get_features();
        self.features = features.map_err(self.refused("tell its features"))?;
        if self.features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() == 0 {
            return Err(self.lacks("protocol features"));
        }
        let offered = self.frontend.get_protocol_features();
        let offered = offered.map_err(self.refused("tell its protocol features"))?;
        self.protocol = offered & WANTED;
        let agreed = self.frontend.set_protocol_features(self.protocol);
        agreed.map_err(self.refused("agree on the protocol"))?;
        if self.protocol.contains(VhostUserProtocolFeatures::REPLY_ACK) {
            // So that a refusal is heard where it is made.
            self.frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        }
        if self.protocol.contains(VhostUserProtocolFeatures::MQ) {
            let has = self.frontend.get_queue_num();
            let has = has.map_err(self.refused("tell its queues"))?;
            if has < queues {
                return Err(UserError::Queues {
                    path: self.path.clone(),
                    has,
                    asked: queues,
                });
            }
        }
        Ok(())
    }

    /// The features that the daemon offers.
    #[must_use]
    pub(super) const fn offered(&self) -> u64 {
        self.features
    }

    /// The device's configuration, as the daemon has it.
    ///
    /// # Errors
    /// When the daemon does not tell.
    pub(super) fn config<const N: usize>(&mut self) -> Result<[u8; N], UserError> {
        if !self.protocol.contains(VhostUserProtocolFeatures::CONFIG) {
            return Err(self.lacks("configuration"));
        }
        let bytes = u32::try_from(N).unwrap_or(u32::MAX);
        let flags = VhostUserConfigFlags::empty();
        let answer = self.frontend.get_config(0, bytes, flags, &[0; N]);
        let (_, config) = answer.map_err(self.refused("tell the configuration"))?;
        let config = config.try_into();
        config.map_err(|_| self.lacks("whole configuration"))
    }

    fn refused(&self, step: &'static str) -> impl Fn(vhost::Error) -> UserError + use<> {
        let path = self.path.clone();
        move |source| UserError::Refused {
            path: path.clone(),
            step,
            source,
        }
    }

    fn lacks(&self, what: &'static str) -> UserError {
        UserError::Lacks {
            path: self.path.clone(),
            what,
        }
    }

    fn set_enabled(&mut self, rings: &[usize], enabled: bool) -> vhost::Result<()> {
        let mut rings = rings.iter();
        rings.try_for_each(|ring| self.frontend.set_vring_enable(*ring, enabled))
    }
}

/// What the daemon is told of a part of guest memory.
fn region(part: &FilePart<'_>) -> VhostUserMemoryRegionInfo {
    VhostUserMemoryRegionInfo {
        guest_phys_addr: part.slot.guest,
        memory_size: part.slot.bytes,
        userspace_addr: part.slot.host,
        mmap_offset: 0,
        mmap_handle: part.file.as_raw_fd(),
    }
}

impl Server for Daemon {
    fn backend(&self) -> &impl VhostBackend {
        &self.frontend
    }

    fn connection(&self) -> Option<&UnixStream> {
        Some(&self.connection)
    }

    fn features(&self, agreed: u64) -> u64 {
        agreed | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    /// A daemon takes addresses of this process.
    fn place(&self, address: u64) -> Option<u64> {
        self.ram.slots().iter().find_map(|slot| {
            let offset = address.checked_sub(slot.guest)?;
            let within = (offset < slot.bytes).then_some(offset)?;
            slot.host.checked_add(within)
        })
    }

    fn start(&mut self, rings: &[usize]) -> vhost::Result<()> {
        self.set_enabled(rings, true)
    }

    /// A daemon that is gone has let go.
    fn stop(&mut self, rings: &[usize]) -> vhost::Result<()> {
        match hang_up::has_hung_up(&self.connection) {
            true => Ok(()),
            false => self.set_enabled(rings, false),
        }
    }
}

#[cfg(test)]
mod tests;
