use std::sync::Mutex;

use proptest::prelude::*;
use vmm_sys_util::eventfd::EFD_NONBLOCK;

use super::*;
use crate::pci::{Bar, BarKind, Root};

/// A vector whose messages are counted by its event.
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

struct Controller(EventFd);

impl MsiController for Controller {
    fn vector(&self, _: Bdf) -> io::Result<Box<dyn MsiVector>> {
        Ok(Box::new(Vector(self.0.try_clone()?)))
    }
}

/// A card with one BAR of memory, of 4 KiB.
struct Card {
    space: ConfigSpace,
    bar: Bar,
    resets: u32,
}

impl Card {
    fn new() -> Self {
        let kind = BarKind::Memory32 {
            prefetchable: false,
        };
        let bar = Bar::new(BarIndex::new(0).unwrap(), kind, 0x1000).unwrap();
        let mut space = ConfigSpace::default();
        space.emulate(0, [0x86, 0x80, 0x34, 0x12], [0; 4]);
        bar.install(&mut space);
        Self {
            space,
            bar,
            resets: 0,
        }
    }
}

impl PciFunction for Card {
    fn config_read(&mut self, register: u16, data: &mut [u8]) {
        self.space.read(register, data, |_, _| {});
    }
    fn config_write(&mut self, register: u16, data: &[u8]) {
        self.space.write(register, data, |_, _| {});
    }
    fn claims(&self, _: AddressSpace, address: u64, bytes: u64) -> Option<(BarIndex, u64)> {
        let offset = address.checked_sub(self.bar.address(&self.space))?;
        (offset + bytes <= self.bar.size()).then_some((self.bar.index(), offset))
    }
    fn bar_read(&mut self, _: BarIndex, _: u64, data: &mut [u8]) {
        data.fill(0x5a);
    }
    fn bar_write(&mut self, _: BarIndex, _: u64, _: &[u8]) {}
    fn lose_power(&mut self) {
        self.resets += 1;
    }
}

/// A port at 00:04.0 on a bus, and what it signals.
struct Bench {
    port: Arc<Mutex<RootPort>>,
    root: Root,
    messages: EventFd,
    released: Arc<EventFd>,
}

const IDENTITY: PortIdentity = PortIdentity {
    bdf: Bdf::from_requester_id(4 << 3),
    slot: 2,
    bus: 1,
};

impl Bench {
    fn new() -> Self {
        let messages = EventFd::new(EFD_NONBLOCK).unwrap();
        let released = Arc::new(EventFd::new(EFD_NONBLOCK).unwrap());
        let controller = Controller(messages.try_clone().unwrap());
        let port = RootPort::new(IDENTITY, &controller, Arc::clone(&released)).unwrap();
        let port = Arc::new(Mutex::new(port));
        let mut root = Root::default();
        root.insert(IDENTITY.bdf, Arc::<Mutex<RootPort>>::clone(&port))
            .unwrap();
        Self {
            port,
            root,
            messages,
            released,
        }
    }

    /// As Linux sets a slot with an attention button up: messages, that button and the link.
    fn listen(&self) {
        self.write(MSI + 4, &0xfee0_0000_u32.to_le_bytes());
        self.write(MSI + 2, &[1, 0]);
        let control = BUTTON | SLOT_INTERRUPT | SLOT_LINK_ENABLED | SLOT_POWER_OFF;
        self.write(SLOT_CONTROL, &control.to_le_bytes());
    }

    fn power(&self, on: bool) {
        let control = self.word(SLOT_CONTROL) & !SLOT_POWER_OFF;
        let control = control | if on { 0 } else { SLOT_POWER_OFF };
        self.write(SLOT_CONTROL, &control.to_le_bytes());
    }

    fn indicate(&self, indicator: u16) {
        let control = self.word(SLOT_CONTROL) & !SLOT_INDICATOR | indicator;
        self.write(SLOT_CONTROL, &control.to_le_bytes());
    }

    fn ask(&self) -> SlotState {
        self.port.lock().unwrap().ask()
    }

    fn write(&self, register: u16, data: &[u8]) {
        self.port.lock().unwrap().config_write(register, data);
    }

    fn word(&self, register: u16) -> u16 {
        let mut data = [0; 2];
        self.port.lock().unwrap().config_read(register, &mut data);
        u16::from_le_bytes(data)
    }

    /// The events of slot status, cleared as a guest does.
    fn events(&self) -> u16 {
        let status = self.word(SLOT_STATUS);
        self.write(SLOT_STATUS, &status.to_le_bytes());
        status & EVENTS
    }

    /// Whether a message was sent since the last call.
    fn interrupted(&self) -> bool {
        self.messages.read().is_ok()
    }

    fn insert(&self) -> Arc<Mutex<Card>> {
        let card = Arc::new(Mutex::new(Card::new()));
        let inserted = Arc::<Mutex<Card>>::clone(&card);
        self.port.lock().unwrap().insert(inserted).unwrap();
        card
    }

    /// The ids of function 0 of a device on a bus.
    fn ids(&self, bus: u8, device: u8) -> u32 {
        let mut data = [0; 4];
        let id = Bdf::new(bus, device, 0).unwrap().requester_id();
        let ecam = self.root.ecam();
        ecam.lock().unwrap().read(u64::from(id) << 12, &mut data);
        u32::from_le_bytes(data)
    }
}

#[test]
fn a_port_is_a_bridge_with_a_slot_and_no_windows_but_memory() {
    let bench = Bench::new();
    assert_eq!(bench.word(0x0a), 0x0604);
    assert_eq!(bench.word(HEADER_TYPE) & 0x7f, 1);
    assert_eq!(bench.word(EXPRESS + 2), 0x0142);
    assert_eq!(bench.word(EXPRESS + 0x16) >> 3, 2, "the number of the slot");
    for (register, sticks) in [(0x1c, 0), (0x20, 0xfff0), (0x24, 0), (0x26, 0)] {
        bench.write(register, &[0xff; 2]);
        assert_eq!(bench.word(register), sticks, "{register:#x}");
    }
}

#[test]
fn a_card_answers_only_while_it_has_power() {
    let bench = Bench::new();
    bench.listen();
    let card = bench.insert();
    assert_eq!(bench.ids(1, 0), u32::MAX);
    assert_eq!(bench.word(LINK_STATUS), 0);
    bench.power(true);
    assert_eq!(bench.ids(1, 0), 0x1234_8086);
    assert_eq!(
        bench.ids(1, 1),
        u32::MAX,
        "there is one device behind a port"
    );
    assert_eq!(bench.ids(2, 0), u32::MAX);
    assert_eq!(bench.word(LINK_STATUS), LINK | LINK_ACTIVE);
    let window = bench.root.window(AddressSpace::Memory, 0);
    let mut data = [0; 4];
    window.lock().unwrap().read(0x10, &mut data);
    assert_eq!(data, [0x5a; 4]);
    bench.power(false);
    assert_eq!(bench.ids(1, 0), u32::MAX);
    window.lock().unwrap().read(0x10, &mut data);
    assert_eq!(data, [0xff; 4]);
    assert_eq!(card.lock().unwrap().resets, 1);
}

#[test]
fn a_card_follows_the_number_of_its_bus_and_a_slot_elsewhere_takes_none() {
    let bench = Bench::new();
    bench.insert();
    bench.power(true);
    bench.write(BUS_NUMBERS, &[0, 7, 7]);
    assert_eq!(bench.ids(1, 0), u32::MAX);
    assert_eq!(bench.ids(7, 0), 0x1234_8086);
    let mut port = bench.port.lock().unwrap();
    port.remove();
    let refused = port.insert(Arc::new(Mutex::new(Card::new())));
    assert_eq!(refused, Err(SlotError::Renumbered { now: 7, planned: 1 }));
}

#[test]
fn a_guest_is_interrupted_once_for_events_that_it_has_not_cleared() {
    let bench = Bench::new();
    bench.listen();
    bench.insert();
    assert!(bench.interrupted());
    assert_eq!(bench.word(SLOT_STATUS) & PRESENT, PRESENT);
    bench.power(true);
    assert!(!bench.interrupted(), "the button is not cleared yet");
    assert_eq!(bench.events(), BUTTON | PRESENCE_CHANGED | LINK_CHANGED);
    assert_eq!(bench.events(), 0);
    assert_eq!(bench.port.lock().unwrap().ask(), SlotState::Leaving);
    assert!(bench.interrupted());
    assert_eq!(bench.events(), BUTTON);
    bench.power(false);
    assert!(bench.interrupted());
    assert_eq!(bench.events(), LINK_CHANGED);
}

#[test]
fn an_event_before_the_guest_listens_interrupts_when_it_does() {
    let bench = Bench::new();
    bench.insert();
    assert!(!bench.interrupted());
    bench.listen();
    assert!(bench.interrupted());
}

#[test]
fn a_card_that_was_asked_for_is_released_when_it_loses_power_and_comes_again() {
    let bench = Bench::new();
    bench.listen();
    for round in 0..3 {
        bench.insert();
        assert!(bench.interrupted(), "round {round}");
        let events = bench.events();
        assert_eq!(events & BUTTON, BUTTON, "round {round}");
        bench.power(true);
        bench.port.lock().unwrap().ask();
        bench.events();
        assert!(bench.released.read().is_err());
        bench.power(false);
        assert_eq!(bench.released.read().unwrap(), 1);
        assert_eq!(bench.port.lock().unwrap().state(), SlotState::Released);
        bench.events();
        assert!(bench.port.lock().unwrap().remove().is_some());
        assert_eq!(bench.events(), PRESENCE_CHANGED);
        bench.messages.read().ok();
    }
}

/// As Linux' driver shows it: on while a card has power, blinking between.
const INDICATOR_ON: u16 = 0b01 << 8;

#[test]
fn a_guest_that_gives_a_card_up_does_not_see_it_asked_for_again() {
    let bench = Bench::new();
    bench.listen();
    bench.insert();
    bench.power(true);
    bench.indicate(INDICATOR_ON);
    bench.events();
    bench.messages.read().ok();
    bench.ask();
    assert_eq!(bench.events(), BUTTON);
    bench.indicate(SLOT_INDICATOR_BLINKS);
    assert!(bench.interrupted());
    assert_eq!(bench.ask(), SlotState::Leaving);
    assert!(!bench.interrupted());
    assert_eq!(bench.events(), 0);
    bench.power(false);
    bench.indicate(SLOT_INDICATOR_OFF);
    assert_eq!(bench.events(), LINK_CHANGED);
    assert_eq!(bench.released.read().unwrap(), 1);
}

#[test]
fn a_press_that_the_guest_has_not_seen_is_repeated() {
    let bench = Bench::new();
    bench.listen();
    bench.insert();
    bench.power(true);
    bench.indicate(INDICATOR_ON);
    for _ in 0..2 {
        bench.events();
        bench.messages.read().ok();
        bench.ask();
        assert!(bench.interrupted());
        assert_eq!(bench.events(), BUTTON);
    }
}

#[test]
fn a_card_asked_for_while_it_comes_is_asked_for_when_it_has_come() {
    let bench = Bench::new();
    bench.listen();
    bench.insert();
    bench.power(true);
    bench.indicate(SLOT_INDICATOR_BLINKS);
    bench.events();
    bench.messages.read().ok();
    assert_eq!(bench.ask(), SlotState::Leaving);
    assert!(!bench.interrupted());
    bench.indicate(INDICATOR_ON);
    assert!(bench.interrupted());
    assert_eq!(bench.events(), BUTTON);
    bench.indicate(SLOT_INDICATOR_BLINKS);
    bench.indicate(INDICATOR_ON);
    assert_eq!(bench.events(), 0, "pressed once");
}

#[test]
fn a_card_that_is_torn_out_is_told_by_its_link() {
    let bench = Bench::new();
    bench.listen();
    let card = bench.insert();
    bench.power(true);
    bench.events();
    bench.messages.read().ok();
    assert!(bench.port.lock().unwrap().remove().is_some());
    assert_eq!(card.lock().unwrap().resets, 1);
    assert!(bench.interrupted());
    assert_eq!(bench.events(), PRESENCE_CHANGED | LINK_CHANGED);
    assert_eq!(bench.ids(1, 0), u32::MAX);
    assert!(bench.port.lock().unwrap().remove().is_none());
}

#[test]
fn a_slot_takes_one_card() {
    let bench = Bench::new();
    bench.insert();
    let second = Arc::new(Mutex::new(Card::new()));
    let refused = bench.port.lock().unwrap().insert(second);
    assert_eq!(refused, Err(SlotError::Taken));
}

/// Registers that a guest only reads, whatever it writes.
fn fixed(bench: &Bench) -> Vec<u16> {
    let registers = [0x00, 0x02, 0x08, 0x0a, 0x0e, 0x1c, 0x24, 0x34, 0x3d - 1];
    let express = (EXPRESS..SLOT_CONTROL).step_by(2);
    let express = express.filter(|register| *register != LINK_STATUS);
    let all = registers.into_iter().chain(express);
    // The interrupt line, below the pin, is scratch space.
    all.map(|register| match register {
        0x3c => bench.word(register) & 0xff00,
        _ => bench.word(register),
    })
    .collect()
}

proptest! {
    #[test]
    fn whatever_a_guest_writes_a_card_is_there_until_the_host_takes_it(
        writes in prop::collection::vec(
            (0_u16..0x110, prop::collection::vec(any::<u8>(), 0..9)), 0..60,
        ),
    ) {
        let bench = Bench::new();
        bench.insert();
        let before = fixed(&bench);
        for (register, data) in &writes {
            bench.write(*register, data);
            let powered = bench.word(SLOT_CONTROL) & SLOT_POWER_OFF == 0;
            let port = bench.port.lock().unwrap();
            prop_assert!(matches!(port.state(), SlotState::Off | SlotState::On));
            prop_assert_eq!(port.state().has_power(), powered);
            drop(port);
            prop_assert_eq!(bench.word(SLOT_STATUS) & PRESENT, PRESENT);
        }
        prop_assert_eq!(fixed(&bench), before);
        prop_assert!(bench.released.read().is_err());
    }
}
