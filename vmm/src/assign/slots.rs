//! BAR pages as memory slots of the VM.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use devices::passthrough::{BarMapper, Span};
use devices::pci::BarIndex;
use iommu::Gpa;
use kvm::{Access, Ipa, SlotId, Vm};

use super::device::Device;
use super::to_io;

/// Places BAR pages of one device in the VM.
pub(super) struct BarSlots {
    vm: Vm,
    device: Arc<Device>,
    /// A Realm reaches devices at their shared address.
    shared_bit: Option<u8>,
    slots: BTreeMap<(BarIndex, Span), SlotId>,
}

impl BarSlots {
    /// Nothing is placed.
    pub(super) fn new(vm: Vm, device: Arc<Device>, shared_bit: Option<u8>) -> Self {
        Self {
            vm,
            device,
            shared_bit,
            slots: BTreeMap::new(),
        }
    }
}

impl BarMapper for BarSlots {
    fn page_bytes(&self) -> u64 {
        rustix::param::page_size() as u64
    }

    fn map(&mut self, bar: BarIndex, span: Span, at: Gpa) -> io::Result<()> {
        let memory = Arc::new(self.device.map(bar, span)?);
        let at = Ipa::shared(at, self.shared_bit);
        let slot = self.vm.add_memory(at, memory, Access::ReadWrite);
        let slot = slot.map_err(to_io)?;
        self.slots.insert((bar, span), slot);
        Ok(())
    }

    fn unmap(&mut self, bar: BarIndex, span: Span) -> io::Result<()> {
        let Some(&slot) = self.slots.get(&(bar, span)) else {
            return Ok(());
        };
        self.vm.remove_memory(slot).map_err(to_io)?;
        self.slots.remove(&(bar, span));
        Ok(())
    }
}
