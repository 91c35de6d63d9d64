//! Doorbells follow the BAR that they are in.

use std::io;
use std::sync::{Arc, Mutex};

use vm_memory::{GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::*;
use crate::doorbell::Doorbell;
use crate::pci::Bdf;
use crate::virtio::driver::Vectors;
use crate::virtio::{VirtioPci, VirtioWiring};

/// Notes where it was placed.
struct Noted(EventFd, Arc<Mutex<Vec<Option<u64>>>>);

impl Doorbell for Noted {
    fn event(&self) -> &EventFd {
        &self.0
    }

    fn place(&mut self, address: Option<u64>) -> io::Result<()> {
        self.1.lock().unwrap().push(address);
        Ok(())
    }
}

type Places = Arc<Mutex<Vec<Option<u64>>>>;

fn function() -> (VirtioPci<Echo, GuestMemoryMmap>, [Places; 2]) {
    let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
    let places = [Places::default(), Places::default()];
    let doorbell = |places: &Places| {
        let event = EventFd::new(EFD_NONBLOCK).unwrap();
        Box::new(Noted(event, Arc::clone(places))) as Box<dyn Doorbell>
    };
    let wiring = VirtioWiring {
        bdf: Bdf::new(0, 1, 0).unwrap(),
        controller: Arc::new(Vectors::default()),
        memory,
        access: DmaAccess::Any,
        doorbells: places.iter().map(doorbell).collect(),
    };
    (VirtioPci::new(Echo::default(), wiring).unwrap(), places)
}

fn taken(places: &[Places; 2]) -> [Vec<Option<u64>>; 2] {
    let take = |places: &Places| std::mem::take(&mut *places.lock().unwrap());
    [take(&places[0]), take(&places[1])]
}

#[test]
fn each_queue_has_its_doorbell_where_the_bar_is_while_the_bar_decodes() {
    let (mut function, places) = function();
    function.config_write(0x10, &0x1000_0000_u32.to_le_bytes());
    assert_eq!(
        taken(&places),
        [vec![], vec![]],
        "memory is not decoded yet"
    );
    function.config_write(0x04, &2_u16.to_le_bytes());
    assert_eq!(
        taken(&places),
        [vec![Some(0x1000_2000)], vec![Some(0x1000_2004)]]
    );
    function.config_write(0x3c, &[7]);
    assert_eq!(taken(&places), [vec![], vec![]], "nothing has moved");
    function.config_write(0x14, &1_u32.to_le_bytes());
    assert_eq!(
        taken(&places),
        [vec![Some(0x1_1000_2000)], vec![Some(0x1_1000_2004)]]
    );
    function.config_write(0x04, &0_u16.to_le_bytes());
    assert_eq!(taken(&places), [vec![None], vec![None]]);
}

#[test]
fn a_function_that_is_shut_down_has_no_doorbell() {
    let (mut function, places) = function();
    function.config_write(0x10, &0x1000_0000_u32.to_le_bytes());
    function.config_write(0x04, &2_u16.to_le_bytes());
    taken(&places);
    function.shut_down();
    assert_eq!(taken(&places), [vec![None], vec![None]]);
}
