//! The whole function over a device in memory.

use proptest::prelude::*;

use super::decode::{BarWindow, Span};
use super::fake::{Call, Fake, Log, MEMORY};
use super::function::PassthroughFunction;
use crate::irq::MsiMessage;
use crate::pci::{AddressSpace, BarIndex, PciFunction};

const COMMAND: u16 = 4;
const MEMORY_AND_MASTER: u16 = 6;
const MSIX_CONTROL: u16 = 0x82;
const MSI_CONTROL: u16 = 0x52;

fn function() -> (PassthroughFunction, Log) {
    let fake = Fake::new();
    let log = fake.log.clone();
    let function = fake.function();
    (function, log)
}

fn read(function: &mut PassthroughFunction, register: u16) -> u32 {
    let mut data = [0; 4];
    function.config_read(register, &mut data);
    u32::from_le_bytes(data)
}

fn write16(function: &mut PassthroughFunction, register: u16, value: u16) {
    function.config_write(register, &value.to_le_bytes());
}

fn write32(function: &mut PassthroughFunction, register: u16, value: u32) {
    function.config_write(register, &value.to_le_bytes());
}

/// Puts BAR 0 at `at`, with decoding on.
fn place(function: &mut PassthroughFunction, at: u64) {
    write32(function, 0x10, u32::try_from(at & 0xffff_ffff).unwrap());
    write32(function, 0x14, u32::try_from(at >> 32).unwrap());
    write16(function, COMMAND, MEMORY_AND_MASTER);
}

fn bar(number: u8) -> BarIndex {
    BarIndex::new(number).unwrap()
}

fn span(start: u64, end: u64) -> Span {
    Span { start, end }
}

fn command(value: u16) -> Call {
    Call::ConfigWrite(COMMAND, value.to_le_bytes().to_vec())
}

#[test]
fn the_guest_sees_the_ids_and_only_capabilities_that_are_vouched_for() {
    let (mut function, _) = function();
    assert_eq!(read(&mut function, 0), 0x100e_8086);
    assert_eq!(read(&mut function, 8), 0x0200_0003);
    assert_eq!(read(&mut function, 0x0c), 0, "no multi-function bit");
    assert_eq!(read(&mut function, 0x2c), 0x5678_1234);
    assert_eq!(read(&mut function, 0x30), 0, "no expansion ROM");
    let mut at = u16::try_from(read(&mut function, 0x34) & 0xff).unwrap();
    let mut ids = Vec::new();
    while at != 0 {
        let header = read(&mut function, at);
        ids.push(header & 0xff);
        at = u16::try_from(header >> 8 & 0xff).unwrap();
    }
    assert_eq!(ids, [1, 5, 0x11, 0x10]);
    assert_eq!(
        read(&mut function, 0x70),
        0,
        "a hidden capability is not there"
    );
    assert_eq!(
        read(&mut function, 0xa0) >> 16 & 0xf0,
        0x90,
        "an integrated endpoint"
    );
    assert_eq!(read(&mut function, 0xac), 0, "without a link");
}

#[test]
fn the_extended_list_begins_with_an_empty_capability_where_the_first_is_hidden() {
    let (mut function, _) = function();
    assert_eq!(read(&mut function, 0x100), 0x1400_0000);
    assert_eq!(read(&mut function, 0x140), 0x0001_0003, "last of the list");
    assert_eq!(read(&mut function, 0x144), 0x0403_0201);
    assert_eq!(read(&mut function, 0x200), 0);
}

#[test]
fn decoding_maps_all_but_the_table_pages_and_the_device_bars_never_move() {
    let (mut function, log) = function();
    log.take();
    place(&mut function, MEMORY);
    let expected = [
        command(MEMORY_AND_MASTER),
        Call::Map(0, span(0, 0x2000), MEMORY),
        Call::Map(0, span(0x4000, 0x8000), MEMORY + 0x4000),
    ];
    assert_eq!(log.take(), expected);
    // Moving with decoding on goes by way of silent.
    write32(&mut function, 0x10, 0x1001_0000);
    let expected = [
        Call::Unmap(0, span(0, 0x2000)),
        Call::Unmap(0, span(0x4000, 0x8000)),
        Call::Map(0, span(0, 0x2000), MEMORY + 0x1_0000),
        Call::Map(0, span(0x4000, 0x8000), MEMORY + 0x1_4000),
    ];
    assert_eq!(log.take(), expected);
    // Pages go before the device stops to answer.
    write16(&mut function, COMMAND, 0);
    let calls = log.take();
    assert!(matches!(
        calls[..],
        [Call::Unmap(..), Call::Unmap(..), Call::ConfigWrite(4, _)]
    ));
}

#[test]
fn a_bar_outside_of_the_windows_is_silent() {
    let (mut function, log) = function();
    log.take();
    for at in [0, MEMORY - 0x8000, 0x4000_0000, 0xffff_ffff_ffff_8000] {
        place(&mut function, at);
        let claimed = function.claims(AddressSpace::Memory, at, 4);
        assert_eq!(claimed, None, "{at:#x}");
    }
    assert!(
        log.take()
            .iter()
            .all(|call| matches!(call, Call::ConfigWrite(..)))
    );
}

#[test]
fn small_bars_and_ports_are_trapped_and_reach_the_device() {
    let (mut function, log) = function();
    write32(&mut function, 0x1c, 0x1000_0100);
    write32(&mut function, 0x18, 0x1000);
    write16(&mut function, COMMAND, 3);
    log.take();
    let memory = function.claims(AddressSpace::Memory, MEMORY + 0x1fc, 4);
    assert_eq!(memory, Some((bar(3), 0xfc)));
    assert_eq!(
        function.claims(AddressSpace::Memory, MEMORY + 0x1fd, 4),
        None
    );
    assert_eq!(
        function.claims(AddressSpace::Io, 0x1004, 2),
        Some((bar(2), 4))
    );
    function.bar_write(bar(3), 0xfc, &[1, 2, 3, 4]);
    assert_eq!(log.take(), [Call::BarWrite(3, 0xfc, vec![1, 2, 3, 4])]);
    let mut data = [0; 4];
    function.bar_read(bar(3), 0, &mut data);
    assert_eq!(data, [0x5a; 4]);
}

#[test]
fn the_pin_is_on_until_it_is_disabled_or_messages_take_over() {
    let (mut function, log) = function();
    assert_eq!(function.interrupt_pin(), 1);
    assert_eq!(log.take(), [command(0), Call::Intx]);
    write16(&mut function, COMMAND, 1 << 10);
    assert_eq!(log.take(), [command(1 << 10), Call::Silence]);
    write16(&mut function, COMMAND, 0);
    assert_eq!(log.take(), [command(0), Call::Intx]);
    write16(&mut function, MSI_CONTROL, 1);
    let first = MsiMessage {
        address: 0,
        data: 0,
    };
    assert_eq!(
        log.take(),
        [Call::Silence, Call::Route(0, Some(first)), Call::Msi(1)]
    );
    write16(&mut function, MSI_CONTROL, 0);
    assert_eq!(log.take(), [Call::Silence, Call::Intx]);
}

/// Programs MSI-X vector `index` and leaves it masked or not.
fn program(function: &mut PassthroughFunction, index: u64, data: u32, masked: bool) {
    let at = 0x2000 + index * 16;
    function.bar_write(bar(0), at, &0x0808_0040_u64.to_le_bytes());
    function.bar_write(bar(0), at + 8, &data.to_le_bytes());
    function.bar_write(bar(0), at + 12, &u32::from(masked).to_le_bytes());
}

#[test]
fn msix_vectors_that_are_programmed_first_are_enabled_in_one_call() {
    let (mut function, log) = function();
    write16(&mut function, MSIX_CONTROL, 0xc000);
    log.take();
    // As Linux does: all masked at once while the table is filled.
    for index in 0..3 {
        program(
            &mut function,
            index,
            10 + u32::try_from(index).unwrap(),
            true,
        );
    }
    log.take();
    function.bar_write(bar(0), 0x2000 + 12, &[0; 4]);
    assert_eq!(log.take(), [], "still masked by the function mask");
    write16(&mut function, MSIX_CONTROL, 0x8000);
    let message = |data| MsiMessage {
        address: 0x0808_0040,
        data,
    };
    assert_eq!(log.take(), [Call::Route(0, Some(message(10)))]);
    function.bar_write(bar(0), 0x2020 + 12, &[0; 4]);
    assert_eq!(log.take(), [Call::Route(2, Some(message(12)))]);
    function.bar_write(bar(0), 0x2000 + 12, &[1, 0, 0, 0]);
    assert_eq!(log.take(), [Call::Route(0, None)]);
}

#[test]
fn an_interrupt_of_a_masked_vector_is_pending_and_not_lost() {
    let (mut function, log) = function();
    write16(&mut function, MSIX_CONTROL, 0x8000);
    program(&mut function, 1, 7, true);
    log.fire(1);
    let mut pending = [0; 8];
    function.bar_read(bar(0), 0x3000, &mut pending);
    assert_eq!(pending, [0b10, 0, 0, 0, 0, 0, 0, 0]);
    program(&mut function, 1, 7, false);
    function.bar_read(bar(0), 0x3000, &mut pending);
    assert_eq!(pending, [0; 8]);
}

#[test]
fn msi_pending_bits_are_read_from_the_capability() {
    let (mut function, log) = function();
    write16(&mut function, MSI_CONTROL, 1 | 1 << 4);
    write32(&mut function, 0x60, 0b10);
    log.fire(1);
    assert_eq!(read(&mut function, 0x64), 0b10);
}

#[test]
fn the_devices_own_vector_table_is_out_of_reach() {
    let (mut function, log) = function();
    log.take();
    let mut data = [0; 8];
    function.bar_read(bar(0), 0x2000, &mut data);
    assert_eq!(data, [0; 8], "as after reset, not the device's");
    function.bar_read(bar(0), 0x204c, &mut data);
    assert_eq!(data, [0xff; 8], "half in the table");
    function.bar_write(bar(0), 0x204c, &[0; 8]);
    function.bar_write(bar(0), 0x3000, &[0; 8]);
    function.bar_write(bar(0), 0x2000, &[0; 16]);
    assert_eq!(log.take(), []);
    function.bar_write(bar(0), 0x2050, &[1]);
    assert_eq!(log.take(), [Call::BarWrite(0, 0x2050, vec![1])]);
}

#[test]
fn when_the_host_has_no_vectors_nothing_is_on_and_the_next_write_tries_again() {
    let (mut function, log) = function();
    log.take();
    *log.refuse_vectors.lock().unwrap() = true;
    write16(&mut function, MSIX_CONTROL, 0x8000);
    assert_eq!(log.take(), [Call::Silence]);
    *log.refuse_vectors.lock().unwrap() = false;
    program(&mut function, 0, 1, false);
    assert!(log.take().contains(&Call::Msix(1)));
}

#[test]
fn leaving_d0_takes_the_pages_out_of_the_guest_first() {
    let (mut function, log) = function();
    place(&mut function, MEMORY);
    log.take();
    write16(&mut function, 0x44, 3);
    let calls = log.take();
    assert!(matches!(
        calls[..],
        [Call::Unmap(..), Call::Unmap(..), Call::ConfigWrite(0x44, _)]
    ));
    assert_eq!(function.claims(AddressSpace::Memory, MEMORY, 4), None);
    write16(&mut function, 0x44, 0);
    let calls = log.take();
    assert!(matches!(
        calls[..],
        [Call::ConfigWrite(0x44, _), Call::Map(..), Call::Map(..)]
    ));
}

#[test]
fn a_function_level_reset_puts_registers_and_device_back() {
    let (mut function, log) = function();
    place(&mut function, MEMORY);
    write16(&mut function, MSIX_CONTROL, 0x8000);
    program(&mut function, 0, 1, false);
    log.take();
    write16(&mut function, 0xa8, 1 << 15);
    let calls = log.take();
    let order = [
        Call::Silence,
        Call::Unmap(0, span(0, 0x2000)),
        Call::Unmap(0, span(0x4000, 0x8000)),
        Call::Reset,
        command(0),
        Call::Intx,
    ];
    assert_eq!(calls, order);
    assert_eq!(read(&mut function, 4) & 0xffff, 0);
    assert_eq!(read(&mut function, 0x10), 0xc);
    let mut entry = [0; 16];
    function.bar_read(bar(0), 0x2000, &mut entry);
    assert_eq!(entry, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
}

#[test]
fn at_the_end_nothing_of_the_device_is_left_in_the_guest() {
    let (mut function, log) = function();
    place(&mut function, MEMORY);
    log.take();
    function.shut_down();
    place(&mut function, MEMORY);
    assert_eq!(read(&mut function, 0), u32::MAX);
    drop(function);
    let calls = log.take();
    assert!(matches!(
        calls[..],
        [Call::Silence, Call::Unmap(..), Call::Unmap(..), Call::Reset]
    ));
}

#[test]
fn a_function_that_loses_power_is_as_after_reset_and_can_be_taken_again() {
    let (mut function, log) = function();
    place(&mut function, MEMORY);
    log.take();
    function.lose_power();
    let calls = log.take();
    let order = [
        Call::Silence,
        Call::Unmap(0, span(0, 0x2000)),
        Call::Unmap(0, span(0x4000, 0x8000)),
        Call::Reset,
    ];
    assert!(calls.starts_with(&order), "{calls:?}");
    assert_eq!(read(&mut function, 4) & 0xffff, 0);
    assert_eq!(function.claims(AddressSpace::Memory, MEMORY, 4), None);
    place(&mut function, MEMORY);
    assert!(function.claims(AddressSpace::Memory, MEMORY, 4).is_some());
    function.shut_down();
    log.take();
    function.lose_power();
    assert_eq!(log.take(), []);
}

#[test]
fn a_bar_of_ports_is_hidden_where_no_ports_are_passed_on() {
    let mut function = Fake::new().behind(vec![BarWindow {
        space: AddressSpace::Memory,
        addresses: MEMORY..MEMORY + 0x10_0000,
    }]);
    write32(&mut function, 0x18, u32::MAX);
    assert_eq!(read(&mut function, 0x18), 0);
    write32(&mut function, 0x1c, u32::MAX);
    assert_eq!(read(&mut function, 0x1c), 0xffff_ff00);
}

#[test]
fn a_table_outside_of_its_bar_is_refused() {
    let mut fake = Fake::new();
    fake.bars[0] = 0x2000;
    let layout =
        super::filter::Layout::of(&fake.config, |bar| fake.bars[usize::from(bar.number())]);
    let refused = matches!(layout, Err(super::BuildError::MsixTable(at)) if at == bar(0));
    assert!(refused);
}

/// An access of a guest.
#[derive(Debug, Clone)]
enum Access {
    ConfigRead(u16, usize),
    ConfigWrite(u16, Vec<u8>),
    Memory(u64, Vec<u8>),
    Fire(usize),
}

fn access() -> impl Strategy<Value = Access> {
    let data = prop::collection::vec(any::<u8>(), 0..9);
    let register = prop_oneof![0_u16..0x110, any::<u16>()];
    let address = prop_oneof![0_u64..0x9000, any::<u64>()];
    prop_oneof![
        1 => (register.clone(), 0_usize..9).prop_map(|(register, length)| Access::ConfigRead(register, length)),
        4 => (register, data.clone()).prop_map(|(register, data)| Access::ConfigWrite(register, data)),
        2 => (address, data).prop_map(|(offset, data)| Access::Memory(offset, data)),
        1 => (0_usize..5).prop_map(Access::Fire),
    ]
}

proptest! {
    #[test]
    fn no_access_panics_moves_the_devices_bars_or_changes_what_is_read_only(
        accesses in prop::collection::vec(access(), 0..200),
    ) {
        let (mut function, log) = function();
        // A device whose own registers the guest may change through power management would be in
        // D3 most of the time: start it placed.
        place(&mut function, MEMORY);
        for access in accesses {
            match access {
                Access::ConfigRead(register, length) => {
                    function.config_read(register, &mut vec![0; length]);
                }
                Access::ConfigWrite(register, data) => function.config_write(register, &data),
                Access::Memory(offset, data) => {
                    let address = MEMORY.wrapping_add(offset);
                    let bytes = data.len() as u64;
                    if let Some((bar, offset)) = function.claims(AddressSpace::Memory, address, bytes) {
                        function.bar_write(bar, offset, &data);
                        function.bar_read(bar, offset, &mut vec![0; data.len()]);
                    }
                }
                Access::Fire(vector) => log.fire_if_there(vector),
            }
        }
        for call in log.take() {
            if let Call::ConfigWrite(register, data) = &call {
                let end = register + u16::try_from(data.len()).unwrap();
                prop_assert!(end <= 0x10 || *register >= 0x2c, "{call:?}");
                prop_assert!(!(0x50..0x68).contains(register), "MSI is the host's: {call:?}");
                prop_assert!(!(0x80..0x8c).contains(register), "MSI-X is the host's: {call:?}");
                prop_assert!(!(0x100..0x140).contains(register), "hidden: {call:?}");
            }
        }
        prop_assert_eq!(read(&mut function, 0x10) & 0x7fff, 0xc);
        prop_assert_eq!(read(&mut function, 0x18) & 0x3f, 1);
        prop_assert_eq!(read(&mut function, 0x1c) & 0xff, 0);
        prop_assert_eq!(read(&mut function, 0x30), 0);
        prop_assert_eq!(read(&mut function, 0x3c) >> 8 & 0xff, 1);
        prop_assert_eq!(read(&mut function, 0x84), 0x2000);
        prop_assert_eq!(read(&mut function, 0x80) & 0x3fff_ffff, 0x0004_a011);
        prop_assert_eq!(read(&mut function, 0x50) & 0xff8e_ffff, 0x0184_8005);
    }
}
