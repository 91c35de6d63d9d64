//! An IOAPIC outside of KVM, for VMs of which KVM does not see the end of interrupts (TDs of Intel TDX): 24
//! inputs that become messages to local APICs (Intel 82093AA; version 0x11).
//!
//! ```text
//!   input ─► redirection entry: masked? ─ no ─► message (address, data) ─► local APIC
//! ```
//! Edges are delivered as they come. An input that is level-triggered by its entry is delivered when it
//! rises and when it is unmasked while high; whether it is still high at the end of the interrupt is not
//! known here, so that devices with lines of that kind are not for such VMs.

use crate::bus::MmioDevice;
use crate::irq::MsiMessage;

/// Inputs.
pub const INPUTS: usize = 24;

/// Bytes of its registers in memory: one page.
pub const BYTES: u64 = 0x1000;

// Registers in memory.
const SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;

// What the window shows, by the number in the select register.
const ID: u8 = 0;
const VERSION: u8 = 1;
const ARBITRATION: u8 = 2;
const FIRST_ENTRY: u8 = 0x10;

/// Version 0x11, and the index of the last entry.
const VERSION_VALUE: u32 = 0x11 | 23 << 16;
const _: () = assert!(VERSION_VALUE as usize >> 16 == INPUTS - 1);

// A redirection entry.
const VECTOR: u64 = 0xff;
const DELIVERY_MODE: u64 = 0x7 << 8;
const LOGICAL: u64 = 1 << 11;
const LEVEL: u64 = 1 << 15;
const MASKED: u64 = 1 << 16;
/// What a guest can set: delivery status and the remote interrupt request are not of them.
const WRITABLE: u64 = 0xff00_0000_0001_afff;

/// Where messages to local APICs go.
const LOCAL_APICS: u64 = 0xfee0_0000;

/// What takes messages to local APICs.
pub type Deliver = Box<dyn Fn(MsiMessage) + Send>;

/// The device.
pub struct Ioapic {
    id: u32,
    select: u8,
    entries: [u64; INPUTS],
    /// Which inputs are high, a bit each.
    high: u32,
    deliver: Deliver,
}

impl Ioapic {
    /// One with all inputs masked and low.
    #[must_use]
    pub fn new(deliver: Deliver) -> Self {
        Self {
            id: 0,
            select: 0,
            entries: [MASKED; INPUTS],
            high: 0,
            deliver,
        }
    }

    /// Drives `input`, which is below [`INPUTS`]: there is no other.
    pub fn drive(&mut self, input: usize, high: bool) {
        let Some(bit) = u32::try_from(input).ok().and_then(|n| 1_u32.checked_shl(n)) else {
            return;
        };
        let rises = high && self.high & bit == 0;
        match high {
            true => self.high |= bit,
            false => self.high &= !bit,
        }
        if let Some(entry) = self.entries.get(input).filter(|_| rises) {
            self.signal(*entry);
        }
    }

    fn signal(&self, entry: u64) {
        if entry & MASKED == 0 {
            (self.deliver)(message(entry));
        }
    }

    fn window(&self) -> u32 {
        match self.select {
            ID | ARBITRATION => self.id,
            VERSION => VERSION_VALUE,
            _ => {
                let selected = self.selected();
                let half =
                    selected.and_then(|(entry, half)| Some(self.entries.get(entry)? >> half));
                let [a, b, c, d, ..] = half.unwrap_or(0).to_le_bytes();
                u32::from_le_bytes([a, b, c, d])
            }
        }
    }

    fn set_window(&mut self, value: u32) {
        const ID_BITS: u32 = 0xf << 24;
        if self.select == ID {
            self.id = value & ID_BITS;
        }
        let Some((number, half)) = self.selected() else {
            return;
        };
        let Some(entry) = self.entries.get_mut(number) else {
            return;
        };
        let before = *entry;
        let kept = before & !(u64::from(u32::MAX) << half);
        *entry = (kept | u64::from(value) << half) & WRITABLE;
        let now = *entry;
        // A level that has waited for its mask to go.
        let unmasked = before & MASKED != 0 && now & MASKED == 0;
        if unmasked && now & LEVEL != 0 && self.high >> number & 1 != 0 {
            self.signal(now);
        }
    }

    /// The entry that is selected, and how far up its half begins.
    fn selected(&self) -> Option<(usize, u32)> {
        let register = self.select.checked_sub(FIRST_ENTRY)?;
        let entry = usize::from(register / 2);
        (entry < INPUTS).then_some((entry, u32::from(register % 2) * 32))
    }
}

/// What an entry sends (Intel SDM, 12.11): destination and mode in the address, vector and delivery in the
/// data.
fn message(entry: u64) -> MsiMessage {
    const LOGICAL_MODE: u64 = 1 << 2;
    const REDIRECTION_HINT: u64 = 1 << 3;
    let destination = entry >> 56;
    // Bits 55:48 are those of an extended destination, which KVM does not promise here.
    let logical = match entry & LOGICAL {
        0 => 0,
        _ => LOGICAL_MODE | REDIRECTION_HINT,
    };
    let data = entry & (VECTOR | DELIVERY_MODE | LEVEL);
    // Asserted, where it is a level.
    let asserted = (entry & LEVEL) >> 1;
    let [low, high, ..] = (data | asserted).to_le_bytes();
    MsiMessage {
        address: LOCAL_APICS | destination << 12 | logical,
        data: u16::from_le_bytes([low, high]).into(),
    }
}

impl MmioDevice for Ioapic {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let value = match offset {
            SELECT => self.select.into(),
            WINDOW => self.window(),
            _ => 0,
        };
        data.fill(0);
        for (to, from) in data.iter_mut().zip(value.to_le_bytes()) {
            *to = from;
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        match (offset, data) {
            (SELECT, [select, ..]) => self.select = *select,
            // Its registers have 32 bits, and are accessed as a whole.
            (WINDOW, [a, b, c, d]) => self.set_window(u32::from_le_bytes([*a, *b, *c, *d])),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;

    use super::*;

    type Sent = Arc<Mutex<Vec<(u64, u32)>>>;

    fn ioapic() -> (Ioapic, Sent) {
        let sent = Sent::default();
        let log = Arc::clone(&sent);
        let deliver = move |message: MsiMessage| {
            log.lock().unwrap().push((message.address, message.data));
        };
        (Ioapic::new(Box::new(deliver)), sent)
    }

    fn set(ioapic: &mut Ioapic, register: u8, value: u32) {
        ioapic.write(SELECT, &[register]);
        ioapic.write(WINDOW, &value.to_le_bytes());
    }

    fn get(ioapic: &mut Ioapic, register: u8) -> u32 {
        ioapic.write(SELECT, &[register, 0, 0, 0]);
        let mut bytes = [0; 4];
        ioapic.read(WINDOW, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn sent(sent: &Sent) -> Vec<(u64, u32)> {
        std::mem::take(&mut *sent.lock().unwrap())
    }

    #[test]
    fn it_is_an_ioapic_with_24_masked_inputs() {
        let (mut ioapic, messages) = ioapic();
        assert_eq!(get(&mut ioapic, VERSION), 0x0017_0011);
        assert_eq!(get(&mut ioapic, 0x10 + 2 * 23), 1 << 16);
        assert_eq!(get(&mut ioapic, 0x10 + 2 * 24), 0);
        ioapic.drive(4, true);
        ioapic.drive(INPUTS, true);
        ioapic.drive(usize::MAX, true);
        assert_eq!(sent(&messages), []);
    }

    #[test]
    fn an_edge_is_a_message_to_whom_its_entry_says() {
        let (mut ioapic, messages) = ioapic();
        set(&mut ioapic, 0x10 + 2 * 4 + 1, 3 << 24);
        set(&mut ioapic, 0x10 + 2 * 4, 0x31);
        ioapic.drive(4, true);
        ioapic.drive(4, true);
        assert_eq!(sent(&messages), [(0xfee0_3000, 0x31)], "one edge");
        ioapic.drive(4, false);
        set(&mut ioapic, 0x10 + 2 * 4, 1 << 11 | 0x32);
        ioapic.drive(4, true);
        assert_eq!(
            sent(&messages),
            [(0xfee0_300c, 0x32)],
            "a logical destination"
        );
        ioapic.drive(4, false);
        set(&mut ioapic, 0x10 + 2 * 4, 1 << 16 | 0x32);
        ioapic.drive(4, true);
        assert_eq!(sent(&messages), []);
    }

    #[test]
    fn a_level_that_is_high_comes_when_it_is_unmasked() {
        let (mut ioapic, messages) = ioapic();
        set(&mut ioapic, 0x10, 1 << 16 | 1 << 15 | 0x40);
        ioapic.drive(0, true);
        assert_eq!(sent(&messages), []);
        set(&mut ioapic, 0x10, 1 << 15 | 0x40);
        assert_eq!(sent(&messages), [(0xfee0_0000, 0xc040)]);
        set(&mut ioapic, 0x10, 1 << 15 | 0x40);
        assert_eq!(sent(&messages), [], "it was not masked");
    }

    proptest! {
        #[test]
        fn whatever_is_written_no_message_leaves_the_local_apics(
            writes in prop::collection::vec((0_u64..0x20, prop::collection::vec(any::<u8>(), 0..9)), 0..64),
            inputs in prop::collection::vec((0_usize..40, any::<bool>()), 0..64),
        ) {
            let (mut ioapic, messages) = ioapic();
            for (offset, data) in &writes {
                ioapic.write(*offset, data);
                ioapic.read(*offset, &mut data.clone());
            }
            for (input, high) in inputs {
                ioapic.drive(input, high);
            }
            for (address, data) in sent(&messages) {
                prop_assert_eq!(address & !0xf_ffff, LOCAL_APICS);
                prop_assert!(data <= 0xffff);
            }
        }
    }
}
