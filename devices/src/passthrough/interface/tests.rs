//! An interface over a device in memory: what its guest writes while it is locked.

use iommu::Table;
use proptest::prelude::*;

use super::super::fake::{Call, Fake, Host, Log, MEMORY};
use super::*;
use crate::pci::PciFunction;

const NONCE: Nonce = Nonce([7; 32]);
const COMMAND: u16 = 4;
const MEMORY_AND_MASTER: u16 = 6;
const POWER: u16 = 0x44;
const DEVICE_CONTROL: u16 = 0xa8;

fn read(function: &mut PassthroughFunction, register: u16) -> u32 {
    let mut data = [0; 4];
    function.config_read(register, &mut data);
    u32::from_le_bytes(data)
}

fn write(function: &mut PassthroughFunction, register: u16, value: u16) {
    function.config_write(register, &value.to_le_bytes());
}

/// Power management as [`Fake`] has it: leaving D3hot is no reset.
const KEEPS_STATE: u8 = 8;

/// With BAR 0 at [`MEMORY`] and DMA on, locked; nothing in the log. A change of its power state loses
/// its state.
fn locked() -> (PassthroughFunction, Log) {
    locked_with(0)
}

fn locked_with(power: u8) -> (PassthroughFunction, Log) {
    let mut fake = Fake::new();
    fake.config[usize::from(POWER)] = power;
    fake.now.lock().unwrap()[usize::from(POWER)] = power;
    let log = fake.log.clone();
    let mut function = fake.function();
    function.config_write(0x10, &u32::try_from(MEMORY).unwrap().to_le_bytes());
    write(&mut function, COMMAND, MEMORY_AND_MASTER);
    function.lock_interface(NONCE).unwrap();
    log.take();
    (function, log)
}

fn running() -> (PassthroughFunction, Log) {
    let (mut function, log) = locked();
    function.set_trusted_dma(TrustedDma::Enabled).unwrap();
    function.start_interface(&NONCE).unwrap();
    assert_eq!(log.take(), [Call::PutUnder(Table::T1)]);
    (function, log)
}

fn state(function: &PassthroughFunction) -> TdiState {
    function.interface().unwrap().state
}

#[test]
fn private_pages_are_in_reach_from_start_to_stop() {
    let (mut function, log) = running();
    assert_eq!(function.interface().unwrap().table, Table::T1);
    function.stop_interface().unwrap();
    assert_eq!(log.take(), [Call::PutUnder(Table::T0)]);
    assert_eq!(state(&function), TdiState::Unlocked);
}

#[test]
fn a_running_interface_whose_guest_has_not_enabled_dma_reaches_shared_pages_only() {
    let (mut function, log) = locked();
    function.start_interface(&NONCE).unwrap();
    assert_eq!(log.take(), []);
    function.set_trusted_dma(TrustedDma::Enabled).unwrap();
    function.set_trusted_dma(TrustedDma::Disabled).unwrap();
    assert_eq!(
        log.take(),
        [Call::PutUnder(Table::T1), Call::PutUnder(Table::T0)]
    );
    assert_eq!(state(&function), TdiState::Run);
}

#[test]
fn an_accept_that_the_host_refuses_leaves_the_interface_locked_and_can_be_tried_again() {
    let (mut function, log) = locked();
    function.set_trusted_dma(TrustedDma::Enabled).unwrap();
    *log.host.lock().unwrap() = Host::Refuses;
    function.start_interface(&NONCE).unwrap_err();
    let status = function.interface().unwrap();
    assert_eq!((status.state, status.table), (TdiState::Locked, Table::T0));
    *log.host.lock().unwrap() = Host::Follows;
    function.start_interface(&NONCE).unwrap();
    assert_eq!(state(&function), TdiState::Run);
}

#[test]
fn a_device_that_was_cut_off_is_in_error_and_stopping_tries_to_take_pages_away() {
    for wanted in [Table::T1, Table::T0] {
        let (mut function, log) = match wanted {
            Table::T1 => locked(),
            Table::T0 => running(),
        };
        *log.host.lock().unwrap() = Host::CutsOff;
        match wanted {
            Table::T1 => {
                function.set_trusted_dma(TrustedDma::Enabled).unwrap();
                function.start_interface(&NONCE).unwrap_err();
            }
            Table::T0 => {
                function.stop_interface().unwrap_err();
            }
        }
        assert_eq!(state(&function), TdiState::Error);
        log.take();
        *log.host.lock().unwrap() = Host::Follows;
        function.stop_interface().unwrap();
        assert_eq!(log.take(), [Call::PutUnder(Table::T0)]);
        assert_eq!(state(&function), TdiState::Unlocked);
    }
}

#[test]
fn a_device_that_a_conversion_has_cut_off_runs_no_more() {
    let (mut function, log) = running();
    function.check_interface();
    assert_eq!(state(&function), TdiState::Run);
    *log.host.lock().unwrap() = Host::HasLostIt;
    function.check_interface();
    let status = function.interface().unwrap();
    assert_eq!((status.state, status.table), (TdiState::Error, Table::T0));
}

#[test]
fn finding_the_size_of_a_bar_disturbs_no_locked_interface() {
    let (mut function, log) = running();
    let command = read(&mut function, COMMAND);
    write(&mut function, COMMAND, 4);
    function.config_write(0x10, &u32::MAX.to_le_bytes());
    assert_eq!(read(&mut function, 0x10), 0xffff_800c, "the size shows");
    assert_eq!(read(&mut function, COMMAND) & 0xffff, 4, "as written");
    assert!(function.claims(AddressSpace::Memory, MEMORY, 4).is_some());
    function.config_write(0x10, &u32::try_from(MEMORY).unwrap().to_le_bytes());
    write(&mut function, COMMAND, MEMORY_AND_MASTER);
    assert_eq!(read(&mut function, COMMAND), command);
    assert_eq!(log.take(), [], "nothing has reached the device");
    let status = function.interface().unwrap();
    assert_eq!((status.state, status.withheld), (TdiState::Run, 3));
}

#[test]
fn a_bar_that_was_moved_while_locked_moves_when_it_is_stopped() {
    let (mut function, _) = running();
    function.config_write(0x10, &0x1800_0000_u32.to_le_bytes());
    let there =
        |function: &PassthroughFunction, at| function.claims(AddressSpace::Memory, at, 4).is_some();
    assert!(there(&function, MEMORY) && !there(&function, 0x1800_0000));
    let report = function.interface_report().unwrap();
    assert_eq!(report.mmio[0].first_page, MEMORY);
    function.stop_interface().unwrap();
    assert!(!there(&function, MEMORY) && there(&function, 0x1800_0000));
}

#[test]
fn a_power_state_and_control_bits_reach_the_device_when_nothing_is_locked_any_more() {
    let (mut function, log) = running();
    write(&mut function, POWER, 0x1003);
    // Error reporting is free, no snoop is not.
    write(&mut function, DEVICE_CONTROL, 0x0803);
    assert_eq!(read(&mut function, POWER) & 3, 3);
    assert_eq!(read(&mut function, DEVICE_CONTROL) & 0xffff, 0x0803);
    assert_eq!(
        log.take(),
        [
            Call::ConfigWrite(POWER, vec![0x00, 0x10]),
            Call::ConfigWrite(DEVICE_CONTROL, vec![0x03, 0x00]),
        ]
    );
    function.stop_interface().unwrap();
    let calls = log.take();
    assert_eq!(calls[0], Call::PutUnder(Table::T0));
    assert!(calls.contains(&Call::ConfigWrite(DEVICE_CONTROL + 1, vec![0x08])));
    assert!(calls.contains(&Call::ConfigWrite(POWER, vec![0x03])));
}

#[test]
fn a_power_state_that_loses_nothing_is_the_guests_to_choose() {
    let (mut function, log) = locked_with(KEEPS_STATE);
    write(&mut function, POWER, 0x000b);
    assert!(
        log.take()
            .contains(&Call::ConfigWrite(POWER, vec![0x0b, 0]))
    );
    assert_eq!(state(&function), TdiState::Locked);
}

#[test]
fn a_guest_that_ends_dma_or_resets_its_device_ends_its_trust_first() {
    type Write = fn(&mut PassthroughFunction);
    let writes: [(Write, Call); 2] = [
        (
            |function| write(function, COMMAND, 2),
            Call::ConfigWrite(COMMAND, vec![2, 0]),
        ),
        (
            |function| write(function, DEVICE_CONTROL, 0x8000),
            Call::Reset,
        ),
    ];
    for (guest_writes, reaches_the_device) in writes {
        let (mut function, log) = running();
        guest_writes(&mut function);
        assert_eq!(state(&function), TdiState::Error);
        let calls = log.take();
        assert_eq!(calls[0], Call::PutUnder(Table::T0));
        assert!(calls[1..].contains(&reaches_the_device), "{calls:?}");
        assert!(function.lock_interface(NONCE).is_err(), "not before a stop");
        function.stop_interface().unwrap();
        function.lock_interface(NONCE).unwrap();
    }
}

#[test]
fn message_interrupts_go_on_while_locked() {
    let (mut function, log) = running();
    write(&mut function, 0x52, 1);
    assert!(log.take().contains(&Call::Msi(1)));
    write(&mut function, 0x52, 0);
    write(&mut function, 0x82, 0x8000);
    assert!(log.take().contains(&Call::Msix(1)));
    assert_eq!(state(&function), TdiState::Run);
    assert_eq!(function.interface().unwrap().withheld, 0);
}

#[test]
fn the_report_tells_of_every_page_and_of_the_pages_with_msix_structures() {
    let (function, _) = locked();
    let report = function.interface_report().unwrap();
    assert_eq!(report.info.to_bits(), 2);
    assert_eq!(report.msix_control, 4);
    let ranges: Vec<_> = report
        .mmio
        .iter()
        .map(|range| {
            let bits = range.attributes.to_bits();
            (
                range.bar.number(),
                range.first_page.wrapping_sub(MEMORY),
                range.pages,
                bits,
            )
        })
        .collect();
    let bar_3 = 0_u64.wrapping_sub(MEMORY);
    let expected = [
        (0, 0, 2, 4),
        (0, 0x2000, 1, 5),
        (0, 0x3000, 1, 6),
        (0, 0x4000, 4, 4),
    ];
    assert_eq!(ranges[..4], expected);
    assert_eq!(ranges[4], (3, bar_3, 1, 4), "never placed");
}

#[test]
fn bars_that_overlap_cannot_be_locked() {
    let (mut function, _) = locked();
    function.stop_interface().unwrap();
    function.config_write(0x1c, &u32::try_from(MEMORY).unwrap().to_le_bytes());
    let refused = function.lock_interface(NONCE).unwrap_err();
    assert!(matches!(
        refused,
        InterfaceError::Refused(Refusal::InvalidDeviceConfiguration)
    ));
    assert_eq!(state(&function), TdiState::Unlocked);
}

proptest! {
    /// Whatever a guest writes: no guarded bit of a locked device changes, its BARs answer where they
    /// did, and private pages are in reach exactly while it runs.
    #[test]
    fn no_write_changes_a_locked_device(
        writes in prop::collection::vec((0_u16..0x100, prop::collection::vec(any::<u8>(), 1..5)), 1..40),
    ) {
        let (mut function, log) = running();
        for (register, data) in writes {
            function.config_write(register, &data);
            let status = function.interface().unwrap();
            prop_assert_eq!(status.table == Table::T1, status.state == TdiState::Run);
            let calls = log.take();
            if !status.state.is_locked() {
                prop_assert_eq!(&calls[0], &Call::PutUnder(Table::T0));
                break;
            }
            prop_assert!(function.claims(AddressSpace::Memory, MEMORY, 4).is_some());
            for call in calls {
                if let Call::ConfigWrite(register, data) = call {
                    let byte = |at: u16| {
                        let index = at.checked_sub(register).map(usize::from);
                        index.and_then(|index| data.get(index)).copied()
                    };
                    prop_assert_eq!(byte(POWER).map_or(0, |byte| byte & 3), 0);
                    prop_assert_eq!(byte(DEVICE_CONTROL + 1).map_or(0, |byte| byte & 0x8b), 0);
                    prop_assert_eq!(byte(COMMAND).map_or(6, |byte| byte & 6), 6);
                }
            }
        }
    }
}
