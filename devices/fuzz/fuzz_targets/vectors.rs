//! Interrupts that go nowhere.

use std::io;

use devices::irq::{MsiController, MsiMessage, MsiVector};
use devices::pci::Bdf;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

pub struct Vectors;

impl MsiController for Vectors {
    fn vector(&self, _: Bdf) -> io::Result<Box<dyn MsiVector>> {
        Ok(Box::new(Vector(EventFd::new(EFD_NONBLOCK)?)))
    }
}

struct Vector(EventFd);

impl MsiVector for Vector {
    fn event(&self) -> &EventFd {
        &self.0
    }
    fn route(&mut self, _: Option<MsiMessage>) -> io::Result<()> {
        Ok(())
    }
    fn is_pending(&self) -> bool {
        false
    }
}
