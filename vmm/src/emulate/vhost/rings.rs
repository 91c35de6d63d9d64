//! Handing rings over, in the words that the kernel and daemons have in common.

use std::io;
use std::os::unix::net::UnixStream;

use devices::virtio::feature::ACCESS_PLATFORM;
use devices::virtio::vhost::{HandedRing, RingHost};
use vhost::{VhostBackend, VringConfigData};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// What differs between those who serve.
pub(super) trait Server: Send {
    /// What the words go to.
    fn backend(&self) -> &impl VhostBackend;

    /// What hangs up when the server is gone; `None` if it does not go before this process does.
    fn connection(&self) -> Option<&UnixStream> {
        None
    }

    /// The features to agree on, given those that driver and device have agreed on.
    fn features(&self, agreed: u64) -> u64 {
        agreed
    }

    /// How the server names what the guest has at `address`; `None` if that is not guest memory.
    fn place(&self, address: u64) -> Option<u64>;

    /// Has the rings of these numbers served from now on.
    ///
    /// # Errors
    /// When the server does not.
    fn start(&mut self, rings: &[usize]) -> vhost::Result<()>;

    /// Has them served no more.
    ///
    /// # Errors
    /// When the server does not stop.
    fn stop(&mut self, rings: &[usize]) -> vhost::Result<()>;
}

/// The rings of a device, and who serves them.
pub(super) struct Served<S> {
    server: S,
    /// Signalled by the guest's notifications: one for each ring.
    kicks: Vec<EventFd>,
    /// For a ring whose interrupts nobody wants.
    unheard: EventFd,
    /// Where each ring was left.
    bases: Vec<u16>,
    /// The numbers of those that are served now.
    running: Vec<usize>,
}

impl<S: Server> Served<S> {
    /// `server` for rings whose notifications signal `kicks`.
    ///
    /// # Errors
    /// When the process has no more descriptors.
    pub(super) fn new(server: S, kicks: Vec<EventFd>) -> io::Result<Self> {
        Ok(Self {
            server,
            unheard: EventFd::new(EFD_NONBLOCK)?,
            bases: vec![0; kicks.len()],
            kicks,
            running: Vec::new(),
        })
    }

    /// As [`Server::connection`], of its own.
    ///
    /// # Errors
    /// When the process has no more descriptors.
    pub(super) fn connection(&self) -> io::Result<Option<UnixStream>> {
        self.server
            .connection()
            .map(UnixStream::try_clone)
            .transpose()
    }

    fn hand_over(&mut self, features: u64, rings: &[HandedRing]) -> vhost::Result<()> {
        // Memory is named by guest-physical address: there is no other translation.
        let features = self.server.features(features & !ACCESS_PLATFORM);
        self.server.backend().set_features(features)?;
        for ring in rings {
            self.hand_over_one(ring)?;
            self.running.push(ring.index);
        }
        self.server.start(&self.running)
    }

    fn hand_over_one(&self, ring: &HandedRing) -> vhost::Result<()> {
        let (index, setup) = (ring.index, ring.setup);
        let place = |address| self.server.place(address);
        let place = |address| place(address).ok_or(vhost::Error::InvalidQueue);
        let data = VringConfigData {
            queue_max_size: setup.size,
            queue_size: setup.size,
            flags: 0,
            desc_table_addr: place(setup.descriptors)?,
            used_ring_addr: place(setup.used)?,
            avail_ring_addr: place(setup.available)?,
            log_addr: None,
        };
        let kick = self.kicks.get(index).ok_or(vhost::Error::InvalidQueue)?;
        let base = self.bases.get(index).copied().unwrap_or_default();
        let backend = self.server.backend();
        backend.set_vring_num(index, setup.size)?;
        backend.set_vring_addr(index, &data)?;
        backend.set_vring_base(index, base)?;
        backend.set_vring_call(index, ring.interrupt.as_ref().unwrap_or(&self.unheard))?;
        backend.set_vring_kick(index, kick)
    }
}

impl<S: Server> RingHost for Served<S> {
    fn start(&mut self, features: u64, rings: Vec<HandedRing>) -> io::Result<()> {
        self.hand_over(features, &rings).map_err(|error| {
            self.stop();
            io::Error::other(error)
        })
    }

    fn wake(&mut self, ring: usize) {
        if let Some(kick) = self.kicks.get(ring) {
            // An eventfd refuses only when its count is at the limit: then it is signalled anyway.
            let _ = kick.write(1);
        }
    }

    fn stop(&mut self) {
        let running = std::mem::take(&mut self.running);
        if let Err(error) = self.server.stop(&running) {
            tracing::error!("a device's rings are not let go of: {error}");
        }
        for index in running {
            let left = self.server.backend().get_vring_base(index);
            let left = left.ok().and_then(|left| u16::try_from(left).ok());
            if let (Some(base), Some(left)) = (self.bases.get_mut(index), left) {
                *base = left;
            }
        }
    }

    fn forget(&mut self) {
        self.bases.fill(0);
    }
}
