//! Sockets between guest and host, by the host's kernel: `/dev/vhost-vsock`.

use std::io;
use std::sync::Arc;

use kvm::ram::{GuestMemory, GuestRam, RamSlot};
use vhost::vhost_kern::vsock::Vsock;
use vhost::vsock::VhostVsock;
use vhost::{VhostBackend, VhostUserMemoryRegionInfo};

use super::rings::Server;

/// Why there are no sockets.
#[derive(Debug, thiserror::Error)]
pub(super) enum VsockError {
    /// The host has no vhost-vsock, or does not let this process have it.
    #[error("cannot open /dev/vhost-vsock")]
    Open(#[source] io::Error),
    /// Another VM has the context id.
    #[error("the context id {0} is in use")]
    InUse(u32),
    /// The kernel refuses another step.
    #[error("vhost-vsock does not {step}")]
    Refused {
        /// What.
        step: &'static str,
        /// Why not.
        #[source]
        source: vhost::Error,
    },
}

/// The kernel's side of the socket device.
pub(super) struct KernelVsock {
    kernel: Vsock<Arc<GuestMemory>>,
    features: u64,
    /// Guest memory stays while the kernel may use it.
    _ram: Arc<GuestRam>,
}

impl KernelVsock {
    /// Sockets for a guest with the context id `cid` and the memory `ram`.
    ///
    /// # Errors
    /// When the kernel does not offer that.
    pub(super) fn open(cid: u32, ram: &Arc<GuestRam>) -> Result<Self, VsockError> {
        let refused = |step| move |source| VsockError::Refused { step, source };
        let kernel = Vsock::new(Arc::new(ram.memory().clone())).map_err(|error| match error {
            vhost::Error::VhostOpen(source) => VsockError::Open(source),
            source => refused("open")(source),
        })?;
        kernel.set_owner().map_err(refused("take an owner"))?;
        let features = kernel
            .get_features()
            .map_err(refused("tell its features"))?;
        let regions: Vec<_> = ram.slots().iter().map(region).collect();
        let table = kernel.set_mem_table(&regions);
        table.map_err(refused("take the guest's memory"))?;
        kernel
            .set_guest_cid(cid.into())
            .map_err(|error| match error {
                vhost::Error::IoctlError(source) if source.kind() == io::ErrorKind::AddrInUse => {
                    VsockError::InUse(cid)
                }
                source => refused("take the context id")(source),
            })?;
        Ok(Self {
            kernel,
            features,
            _ram: Arc::clone(ram),
        })
    }

    /// The features that the kernel offers.
    #[must_use]
    pub(super) const fn offered(&self) -> u64 {
        self.features
    }
}

/// What the kernel is told of a range of guest memory.
fn region(slot: &RamSlot) -> VhostUserMemoryRegionInfo {
    VhostUserMemoryRegionInfo {
        guest_phys_addr: slot.guest,
        memory_size: slot.bytes,
        userspace_addr: slot.host,
        mmap_offset: 0,
        mmap_handle: -1,
    }
}

impl Server for KernelVsock {
    fn backend(&self) -> &impl VhostBackend {
        &self.kernel
    }

    /// The crate looks for the address in guest memory itself.
    fn place(&self, address: u64) -> Option<u64> {
        Some(address)
    }

    fn start(&mut self, _: &[usize]) -> vhost::Result<()> {
        self.kernel.start()
    }

    fn stop(&mut self, _: &[usize]) -> vhost::Result<()> {
        self.kernel.stop()
    }
}
