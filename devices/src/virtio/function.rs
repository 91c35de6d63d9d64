//! A virtio device as a PCI function.

use std::sync::Arc;

use zerocopy::IntoBytes;

use super::common::{Image, NO_VECTOR, Register, Selectors, feature_word, unused_ring};
use super::device::VirtioDevice;
use super::feature::{ACCESS_PLATFORM, EVENT_IDX, VERSION_1};
use super::identity::identity;
use super::interrupts::Interrupts;
use super::layout::{self, BAR, Region, WINDOW_DATA};
use super::memory::DeviceMemory;
use super::queue::Queue;
use super::ring::{Ring, RingError, Suppression};
use super::status::{DeviceStatus, Phase, Transition};
use super::virtqueue::{Line, Virtqueue};
use super::wiring::{BuildError, DmaAccess, VirtioWiring};
use crate::pci::registers::{COMMAND, COMMAND_BUS_MASTER, COMMAND_MEMORY};
use crate::pci::{AddressSpace, Bar, BarIndex, ConfigSpace, PciFunction};

/// A virtio device on the guest's root bus.
pub struct VirtioPci<D, M> {
    device: D,
    memory: Arc<M>,
    access: DmaAccess,
    space: ConfigSpace,
    bar: Bar,
    interrupts: Interrupts,
    line: Arc<Line>,
    status: DeviceStatus,
    selectors: Selectors,
    driver_features: u64,
    queues: Vec<Queue<M>>,
    /// What the driver saw of the device's configuration last, and how often that changed.
    seen: Vec<u8>,
    generation: u8,
}

impl<D: VirtioDevice, M: DeviceMemory> VirtioPci<D, M> {
    /// Shows `device` to the guest, in the state after reset.
    ///
    /// # Errors
    /// When the host has no more interrupt vectors.
    pub fn new(device: D, wiring: VirtioWiring<M>) -> Result<Self, BuildError> {
        let sizes = device.queues();
        let too_many = BuildError::TooManyQueues(sizes.len());
        // One vector for each queue, and one for changes of the configuration.
        let vectors = u16::try_from(sizes.len() + 1).ok();
        let msix = vectors.and_then(layout::msix).ok_or(too_many)?;
        let interrupts = Interrupts::new(msix, &wiring.controller, wiring.bdf);
        let interrupts = interrupts.map_err(BuildError::Vectors)?;
        let bar = layout::bar().map_err(BuildError::Bar)?;
        let mut space = identity::<D>();
        layout::install(&mut space, sizes.len(), size_of::<D::Config>());
        msix.install(&mut space);
        bar.install(&mut space);
        let line = Arc::new(Line::new(wiring.bdf, interrupts.sender()));
        let memory = Arc::new(wiring.memory);
        let doorbells = wiring.doorbells.into_iter().map(Some);
        let doorbells = doorbells.chain(std::iter::repeat_with(|| None));
        let queue = |(&most, doorbell)| {
            let ring = Virtqueue::new(Arc::clone(&memory), Arc::clone(&line));
            Queue::new(most, ring, doorbell)
        };
        Ok(Self {
            queues: sizes.iter().zip(doorbells).map(queue).collect(),
            seen: device.config().as_bytes().to_vec(),
            device,
            memory,
            access: wiring.access,
            space,
            bar,
            interrupts,
            line,
            status: DeviceStatus::default(),
            selectors: Selectors::default(),
            driver_features: 0,
            generation: 0,
        })
    }

    /// The device.
    #[must_use]
    pub const fn device(&self) -> &D {
        &self.device
    }

    /// Handles to the rings, for the threads that serve them.
    #[must_use]
    pub fn rings(&self) -> Vec<Virtqueue<M>> {
        self.queues.iter().map(|queue| queue.ring.clone()).collect()
    }

    /// Has the device look at a ring without a notification of the driver, because it has something to
    /// say. Without effect while the driver is not ready, or has not let the function use memory.
    pub fn service(&mut self, queue: usize) {
        if let Some(known) = self.queues.get(queue) {
            self.device.notified(queue, &known.ring);
        }
    }

    /// Takes a notification that no doorbell has caught.
    fn notified(&mut self, queue: usize) {
        if let Some(known) = self.queues.get(queue).filter(|known| !known.has_doorbell()) {
            known.ring.counters().notified(1);
        }
        self.service(queue);
    }

    /// Serves no ring any more, whatever the guest says next; what has been begun is completed first.
    pub fn shut_down(&mut self) {
        self.line.serve(false);
        for queue in &mut self.queues {
            queue.ring.settle();
            queue.place_doorbell(None);
        }
        self.device.pause();
    }

    /// Tells the driver that only a reset helps, because what serves the rings is gone.
    pub fn abandon(&self) {
        self.line.give_up(&RingError::Unserved);
    }

    /// The features that are offered.
    fn features(&self) -> u64 {
        self.device.features() | VERSION_1 | ACCESS_PLATFORM
    }

    /// Whether the driver's choice of features is one that the device can work with.
    fn features_are_right(&self) -> bool {
        let needed = match self.access {
            DmaAccess::Any => VERSION_1,
            DmaAccess::Platform => VERSION_1 | ACCESS_PLATFORM,
        };
        let chosen = self.driver_features;
        chosen & !self.features() == 0 && chosen & needed == needed && self.device.accepts(chosen)
    }

    fn write_status(&mut self, value: u8) {
        let right = self.features_are_right();
        match self.status.write(value, || right) {
            Transition::None => {}
            Transition::Reset => self.reset(),
            Transition::GoLive => self.device.activate(self.driver_features),
        }
    }

    fn reset(&mut self) {
        self.line.reset();
        for queue in &mut self.queues {
            queue.reset();
        }
        self.device.reset();
        self.selectors = Selectors::default();
        self.driver_features = 0;
    }

    /// Makes what serves the rings follow the registers.
    fn follow(&mut self) {
        if self.line.is_broken() {
            self.status.need_reset();
        }
        let command = self.space.u16(COMMAND);
        let serving = self.status.phase() == Phase::Live && command & COMMAND_BUS_MASTER != 0;
        let before = self.line.serve(serving);
        if before && !serving {
            for queue in &self.queues {
                queue.ring.settle();
            }
            self.device.pause();
        }
        if !before && serving {
            // The driver may have filled rings before it said that it is ready.
            for queue in 0..self.queues.len() {
                self.service(queue);
            }
        }
    }

    /// Has the doorbells where the guest has the BAR.
    fn move_doorbells(&mut self) {
        let decodes = self.space.u16(COMMAND) & COMMAND_MEMORY != 0;
        let base = decodes.then(|| self.bar.address(&self.space));
        for (index, queue) in self.queues.iter_mut().enumerate() {
            let at = base.and_then(|base| base.checked_add(layout::notify_at(index)));
            queue.place_doorbell(at);
        }
    }

    fn enable_selected(&mut self) {
        let phase = self.status.phase();
        let Some(queue) = self.queues.get_mut(usize::from(self.selectors.queue)) else {
            return;
        };
        if queue.enabled || !matches!(phase, Phase::Negotiated | Phase::Live) {
            return;
        }
        let suppression = match self.driver_features & EVENT_IDX {
            0 => Suppression::Flags,
            _ => Suppression::EventIndex,
        };
        let memory = self.memory.hold();
        match Ring::new(&queue.registers, queue.most, suppression, &memory) {
            Ok(ring) => queue.enable(ring),
            Err(error) => self.line.give_up(&error),
        }
    }

    fn write_common(&mut self, offset: usize, data: &[u8]) {
        if let (8, Some((low, high))) = (data.len(), data.split_at_checked(4)) {
            self.write_common(offset, low);
            self.write_common(offset.saturating_add(4), high);
            return;
        }
        let Some(register) = Register::at(offset, data.len()) else {
            return;
        };
        let mut bytes = [0; 4];
        for (byte, data) in bytes.iter_mut().zip(data) {
            *byte = *data;
        }
        let [first, second, ..] = bytes;
        let (word, long) = (
            u16::from_le_bytes([first, second]),
            u32::from_le_bytes(bytes),
        );
        match register {
            Register::DeviceFeatureSelect => self.selectors.device_feature = long,
            Register::DriverFeatureSelect => self.selectors.driver_feature = long,
            Register::DriverFeature => self.choose_features(long),
            Register::ConfigVector => self.line.set_config_vector(self.vector(word)),
            Register::Status => self.write_status(first),
            Register::QueueSelect => self.selectors.queue = word,
            Register::QueueEnable if word == 1 => self.enable_selected(),
            Register::QueueEnable => {}
            _ => self.write_queue(register, word, long),
        }
    }

    /// Takes 32 features of the driver's choice; once they are agreed they stay.
    fn choose_features(&mut self, word: u32) {
        if self.status.phase() >= Phase::Negotiated {
            return;
        }
        let half = match self.selectors.driver_feature {
            0 => super::common::Half::Low,
            1 => super::common::Half::High,
            _ => return,
        };
        self.driver_features = half.replace(self.driver_features, word);
    }

    /// What a vector register reads as after `vector` is written.
    fn vector(&self, vector: u16) -> u16 {
        self.interrupts.valid(vector).unwrap_or(NO_VECTOR)
    }

    fn write_queue(&mut self, register: Register, word: u16, long: u32) {
        let vector = self.vector(word);
        let Some(queue) = self.queues.get_mut(usize::from(self.selectors.queue)) else {
            return;
        };
        if register == Register::QueueVector {
            queue.ring.set_vector(vector);
            return;
        }
        // A ring that is in use stays where it is.
        if queue.enabled {
            return;
        }
        let setup = &mut queue.registers;
        match register {
            Register::QueueSize if word.is_power_of_two() && word <= queue.most => {
                setup.size = word;
            }
            Register::Descriptors(half) => {
                setup.descriptors = half.replace(setup.descriptors, long)
            }
            Register::Available(half) => setup.available = half.replace(setup.available, long),
            Register::Used(half) => setup.used = half.replace(setup.used, long),
            _ => {}
        }
    }

    fn common(&self) -> Image {
        let selected = usize::from(self.selectors.queue);
        let queue = self.queues.get(selected);
        let setup = queue.map_or(unused_ring(0), |queue| queue.registers);
        let Selectors {
            device_feature,
            driver_feature,
            ..
        } = self.selectors;
        Image {
            device_feature_select: device_feature.into(),
            device_feature: feature_word(self.features(), device_feature).into(),
            driver_feature_select: driver_feature.into(),
            driver_feature: feature_word(self.driver_features, driver_feature).into(),
            config_msix_vector: self.line.config_vector().into(),
            num_queues: u16::try_from(self.queues.len()).unwrap_or(0).into(),
            device_status: self.status.bits(),
            config_generation: self.generation,
            queue_select: self.selectors.queue.into(),
            queue_size: setup.size.into(),
            queue_msix_vector: queue.map_or(NO_VECTOR, |queue| queue.ring.vector()).into(),
            queue_enable: u16::from(queue.is_some_and(|queue| queue.enabled)).into(),
            queue_notify_off: queue.map_or(0, |_| self.selectors.queue).into(),
            queue_desc: setup.descriptors.into(),
            queue_driver: setup.available.into(),
            queue_device: setup.used.into(),
        }
    }

    /// Fills `data` from the device's configuration. A driver that reads a value which has changed sees
    /// another generation afterwards.
    fn read_device(&mut self, offset: usize, data: &mut [u8]) {
        let config = self.device.config();
        copy(config.as_bytes(), offset, data);
        if config.as_bytes() != self.seen {
            self.seen = config.as_bytes().to_vec();
            self.generation = self.generation.wrapping_add(1);
        }
    }

    fn read(&mut self, offset: u64, data: &mut [u8]) {
        self.follow();
        data.fill(0);
        match Region::at(offset) {
            Some((Region::Common, at)) => copy(self.common().as_bytes(), at, data),
            Some((Region::Isr, 0)) => {
                copy(&[self.line.take_isr()], 0, data);
            }
            Some((Region::Device, at)) => self.read_device(at, data),
            Some((Region::MsixTable, at)) => self.interrupts.read_table(at, data),
            Some((Region::MsixPending, at)) => self.interrupts.read_pending(at, data),
            Some((Region::Isr | Region::Notify, _)) | None => {}
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        match Region::at(offset) {
            Some((Region::Common, at)) => self.write_common(at, data),
            Some((Region::Device, at)) => self.device.write_config(at, data),
            Some((Region::Notify, at)) => self.notified(at / layout::NOTIFY_MULTIPLIER as usize),
            Some((Region::MsixTable, at)) => self.interrupts.write_table(at, data, &self.space),
            Some((Region::Isr | Region::MsixPending, _)) | None => {}
        }
        self.follow();
    }
}

/// Copies what there is of `bytes` from `offset` on; the rest of `data` stays.
fn copy(bytes: &[u8], offset: usize, data: &mut [u8]) {
    for (data, byte) in data.iter_mut().zip(bytes.iter().skip(offset)) {
        *data = *byte;
    }
}

/// Whether an access to configuration space begins in the window onto the BAR.
fn is_window(register: u16) -> bool {
    (WINDOW_DATA..WINDOW_DATA + 4).contains(&register)
}

impl<D: VirtioDevice, M: DeviceMemory> PciFunction for VirtioPci<D, M> {
    fn config_read(&mut self, register: u16, data: &mut [u8]) {
        if is_window(register)
            && let Some((offset, bytes)) = layout::window(&self.space)
        {
            let mut value = [0; 4];
            if let Some(value) = value.get_mut(..bytes) {
                self.read(offset, value);
            }
            self.space.set(WINDOW_DATA, value);
        }
        self.space.read(register, data, |_, _| {});
    }

    fn config_write(&mut self, register: u16, data: &[u8]) {
        self.space.write(register, data, |_, _| {});
        if is_window(register)
            && let Some((offset, bytes)) = layout::window(&self.space)
        {
            let value = self.space.u32(WINDOW_DATA).to_le_bytes();
            if let Some(value) = value.get(..bytes) {
                self.write(offset, value);
            }
        }
        self.interrupts.apply(&self.space);
        self.move_doorbells();
        self.follow();
    }

    fn claims(&self, space: AddressSpace, address: u64, bytes: u64) -> Option<(BarIndex, u64)> {
        let decodes = self.space.u16(COMMAND) & COMMAND_MEMORY != 0;
        let offset = address.checked_sub(self.bar.address(&self.space))?;
        let end = offset.checked_add(bytes)?;
        let hit = decodes && space == self.bar.space() && end <= self.bar.size();
        hit.then_some((self.bar.index(), offset))
    }

    fn bar_read(&mut self, bar: BarIndex, offset: u64, data: &mut [u8]) {
        if bar == BAR {
            self.read(offset, data);
        }
    }

    fn bar_write(&mut self, bar: BarIndex, offset: u64, data: &[u8]) {
        if bar == BAR {
            self.write(offset, data);
        }
    }
}
