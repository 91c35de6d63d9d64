//! The root complex: finds the function that a configuration or window access is for.
//!
//! ECAM (PCI Express Base, 7.2.2): bits 27:20 bus, 19:15 device, 14:12 function, 11:0 register.
//! Functions are on bus 0, or behind a bridge there. An access that no function answers reads as ones, as
//! on the wire.
//!
//! Lock order: the bus's lock on the ECAM or window device, then one function's, then that of the card in
//! its slot.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::bar::{AddressSpace, BarIndex};
use super::bdf::Bdf;
use crate::bus::{MmioDevice, SharedDevice};

/// The header type of a function, and its bit for devices with several functions.
const HEADER_TYPE: u16 = 0x0e;
const MULTI_FUNCTION: u8 = 1 << 7;

/// A function on the root bus.
pub trait PciFunction: Send {
    /// Fills `data` with what the guest reads from `register` (0..4096) of configuration space on.
    fn config_read(&mut self, register: u16, data: &mut [u8]);
    /// Takes what the guest writes from `register` of configuration space on.
    fn config_write(&mut self, register: u16, data: &[u8]);
    /// The BAR that decodes all `bytes` bytes at `address`, and the offset into it.
    fn claims(&self, space: AddressSpace, address: u64, bytes: u64) -> Option<(BarIndex, u64)>;
    /// Fills `data` with what the guest reads at `offset` of a BAR.
    fn bar_read(&mut self, bar: BarIndex, offset: u64, data: &mut [u8]);
    /// Takes what the guest writes at `offset` of a BAR.
    fn bar_write(&mut self, bar: BarIndex, offset: u64, data: &[u8]);
    /// The function on another bus that this one, a bridge, passes configuration accesses on to.
    fn behind(&self, _id: Bdf) -> Option<SharedFunction> {
        None
    }
    /// Its slot loses power: back to the state after reset.
    fn lose_power(&mut self) {}
}

/// A shared handle to a function.
pub type SharedFunction = Arc<Mutex<dyn PciFunction>>;

/// A function that no other thread can touch meanwhile.
type Locked<'a> = MutexGuard<'a, dyn PciFunction + 'static>;

/// Two functions cannot have one address.
#[derive(Debug, thiserror::Error)]
#[error("PCI slot {0} is taken")]
pub struct SlotTaken(pub Bdf);

/// The functions of bus 0, and what is behind them.
#[derive(Default, Clone)]
pub struct Root {
    functions: BTreeMap<Bdf, SharedFunction>,
}

impl Root {
    /// Puts `function` at `bdf`.
    ///
    /// # Errors
    /// When there is a function already.
    pub fn insert(&mut self, bdf: Bdf, function: SharedFunction) -> Result<(), SlotTaken> {
        if self.functions.contains_key(&bdf) {
            return Err(SlotTaken(bdf));
        }
        self.functions.insert(bdf, function);
        Ok(())
    }

    /// The device that answers in the ECAM range, 1 MiB for each bus from 0 on, for the functions
    /// inserted so far and what is behind them.
    #[must_use]
    pub fn ecam(&self) -> SharedDevice {
        Arc::new(Mutex::new(Ecam(self.clone())))
    }

    /// The device that answers in a window onto `space` whose first byte has the address `base`
    /// there: for memory the guest-physical address of the window, for I/O ports usually 0.
    #[must_use]
    pub fn window(&self, space: AddressSpace, base: u64) -> SharedDevice {
        Arc::new(Mutex::new(Window {
            root: self.clone(),
            space,
            base,
        }))
    }

    /// Whether the device at an ECAM offset has several functions.
    fn has_siblings(&self, offset: u64) -> bool {
        let device = offset >> 15;
        let functions = self.functions.keys();
        let of_device = functions.filter(|bdf| u64::from(bdf.requester_id() >> 3) == device);
        of_device.count() > 1
    }

    /// The function at an offset of the ECAM, and the register of it.
    fn at(&self, offset: u64) -> Option<(SharedFunction, u16)> {
        let id = Bdf::from_requester_id(u16::try_from(offset >> 12).ok()?);
        let register = u16::try_from(offset & 0xfff).ok()?;
        let function = match id.bus() {
            0 => self.functions.get(&id).cloned(),
            _ => self
                .functions
                .values()
                .find_map(|function| lock(function).behind(id)),
        };
        Some((function?, register))
    }
}

/// A function that panicked has left consistent-enough registers behind: the guest's problem.
fn lock(function: &SharedFunction) -> Locked<'_> {
    function.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Configuration space by MMIO.
struct Ecam(Root);

impl MmioDevice for Ecam {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let Some((function, register)) = self.0.at(offset) else {
            return data.fill(0xff);
        };
        lock(&function).config_read(register, data);
        // Which functions a device has is a matter of the bus, not of function 0.
        let header_type = HEADER_TYPE.checked_sub(register).map(usize::from);
        if let Some(byte) = header_type.and_then(|at| data.get_mut(at))
            && self.0.has_siblings(offset)
        {
            *byte |= MULTI_FUNCTION;
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let Some((function, register)) = self.0.at(offset) {
            lock(&function).config_write(register, data);
        }
    }
}

/// A window onto memory or I/O space.
struct Window {
    root: Root,
    space: AddressSpace,
    base: u64,
}

impl Window {
    /// The function and BAR that decode an access, if any.
    fn find(&self, offset: u64, bytes: usize) -> Option<(Locked<'_>, BarIndex, u64)> {
        let address = self.base.checked_add(offset)?;
        let bytes = u64::try_from(bytes).ok()?;
        self.root.functions.values().find_map(|function| {
            let function = lock(function);
            let (bar, offset) = function.claims(self.space, address, bytes)?;
            Some((function, bar, offset))
        })
    }
}

impl MmioDevice for Window {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let Some((mut function, bar, offset)) = self.find(offset, data.len()) {
            function.bar_read(bar, offset, data);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let Some((mut function, bar, offset)) = self.find(offset, data.len()) {
            function.bar_write(bar, offset, data);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::HostBridge;

    /// One 16-byte BAR of memory at 0x1000.
    struct Scratch([u8; 16]);

    impl PciFunction for Scratch {
        fn config_read(&mut self, register: u16, data: &mut [u8]) {
            data.fill(u8::try_from(register & 0xff).unwrap());
        }
        fn config_write(&mut self, _: u16, _: &[u8]) {}
        fn claims(&self, space: AddressSpace, address: u64, bytes: u64) -> Option<(BarIndex, u64)> {
            let offset = address.checked_sub(0x1000)?;
            let hit = space == AddressSpace::Memory && offset + bytes <= 16;
            hit.then_some((BarIndex::new(0)?, offset))
        }
        fn bar_read(&mut self, _: BarIndex, offset: u64, data: &mut [u8]) {
            let at = usize::try_from(offset).unwrap();
            data.copy_from_slice(&self.0[at..at + data.len()]);
        }
        fn bar_write(&mut self, _: BarIndex, offset: u64, data: &[u8]) {
            let at = usize::try_from(offset).unwrap();
            self.0[at..at + data.len()].copy_from_slice(data);
        }
    }

    fn root() -> Root {
        let mut root = Root::default();
        let bridge = Arc::new(Mutex::new(HostBridge::default()));
        root.insert(Bdf::new(0, 0, 0).unwrap(), bridge).unwrap();
        let scratch = Arc::new(Mutex::new(Scratch([0; 16])));
        root.insert(Bdf::new(0, 1, 0).unwrap(), scratch).unwrap();
        root
    }

    fn read(device: &SharedDevice, offset: u64) -> u32 {
        let mut data = [0; 4];
        device.lock().unwrap().read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn each_function_answers_at_its_own_4_kib_and_nothing_elsewhere() {
        let ecam = root().ecam();
        assert_eq!(read(&ecam, 0), 0x0008_1b36);
        assert_eq!(read(&ecam, 8), 0x0600_0000);
        assert_eq!(read(&ecam, 1 << 15 | 0x40), 0x4040_4040);
        assert_eq!(read(&ecam, 1 << 12), u32::MAX);
        assert_eq!(read(&ecam, 1 << 20), u32::MAX);
        assert_eq!(read(&ecam, u64::MAX), u32::MAX);
    }

    #[test]
    fn functions_of_one_device_are_announced_as_such() {
        let mut root = root();
        assert_eq!(read(&root.ecam(), 0x0c), 0);
        let second = Arc::new(Mutex::new(HostBridge::default()));
        root.insert(Bdf::new(0, 0, 3).unwrap(), second).unwrap();
        assert_eq!(read(&root.ecam(), 0x0c), 0x0080_0000);
        assert_eq!(read(&root.ecam(), 0x3 << 12 | 0x0c), 0x0080_0000);
        assert_eq!(read(&root.ecam(), 0x10), 0);
    }

    #[test]
    fn a_window_passes_on_what_a_bar_decodes() {
        let root = root();
        let memory = root.window(AddressSpace::Memory, 0x800);
        memory.lock().unwrap().write(0x808, &[1, 2, 3, 4]);
        assert_eq!(read(&memory, 0x808), 0x0403_0201);
        assert_eq!(read(&memory, 0x80e), u32::MAX);
        assert_eq!(read(&memory, 0), u32::MAX);
        assert_eq!(read(&memory, u64::MAX), u32::MAX);
        let ports = root.window(AddressSpace::Io, 0);
        assert_eq!(read(&ports, 0x1008), u32::MAX);
    }

    #[test]
    fn two_functions_cannot_have_one_address() {
        let mut root = root();
        let bridge = Arc::new(Mutex::new(HostBridge::default()));
        assert!(root.insert(Bdf::new(0, 1, 0).unwrap(), bridge).is_err());
    }
}
