//! Disks: an image file, what the guest sees of it, and threads for each queue.

mod image;
mod lock;
mod looks;
mod server;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use devices::virtio::block::VirtioBlock;

use super::EmulateError;
use super::site::{Function, Site};
use super::worker::Worker;
use crate::config::spec::{DiskSerial, DiskSpec};
use crate::diagnostic::{Diagnostic, Place};

use image::Image;
pub use looks::look_at_disk;
use server::QueueServer;

/// How many requests of a queue are in hand at a time: each has a thread.
const IN_HAND: usize = 4;

/// A disk whose image is open and locked.
pub(super) struct OpenDisk {
    path: PathBuf,
    serial: Option<DiskSerial>,
    queues: u16,
    image: Image,
}

impl OpenDisk {
    /// Opens the image of `spec`; `place` tells where a key of it is.
    ///
    /// # Errors
    /// When it cannot be used, with what would help.
    pub(super) fn open(
        spec: &DiskSpec,
        place: impl Fn(&'static str) -> Place,
    ) -> Result<Self, Diagnostic> {
        Ok(Self {
            path: spec.path.clone(),
            serial: spec.serial.clone(),
            queues: spec.queues.get(),
            image: Image::open(spec).map_err(|error| error.diagnose(spec, place))?,
        })
    }

    /// Makes the disk's function, and starts what serves its queues.
    pub(super) fn attach(
        self,
        site: &Site<'_>,
    ) -> Result<(Function<VirtioBlock>, Vec<Worker>), EmulateError> {
        let doorbells = site.doorbells(self.queues.into())?;
        let (rung, heard) = (doorbells.events()?, doorbells.events()?);
        let device = VirtioBlock::new(self.image.geometry(), rung);
        let image = Arc::new(self.image);
        let serial = self.serial.as_ref().map_or("", DiskSerial::as_str);
        let queues: Vec<_> = heard
            .into_iter()
            .map(|event| (event, device.queue(Arc::clone(&image), serial)))
            .collect();
        let what = format!("the disk {}", self.path.display());
        let function = site.function(&what, device, doorbells)?;
        let mut workers = Vec::new();
        for (index, ((event, queue), ring)) in queues.into_iter().zip(function.rings()).enumerate()
        {
            let servers = QueueServer::several(IN_HAND, &event, queue, &ring);
            for (thread, server) in servers
                .map_err(EmulateError::Worker)?
                .into_iter()
                .enumerate()
            {
                let name = format!("disk{:02x}.{index}.{thread}", site.guest.requester_id());
                let worker = Worker::start(name, site.end, [Box::new(server) as Box<_>]);
                workers.push(worker.map_err(EmulateError::Worker)?);
            }
        }
        Ok((Arc::new(Mutex::new(function)), workers))
    }
}
