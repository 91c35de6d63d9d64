//! Sub-commands of `KVM_ENABLE_CAP`: `args[0]` names one, `args[1]` points at its argument.

use iommu::{Gpa, PageRange};
use kvm_bindings::kvm_enable_cap;

use super::{RealmHash, RealmParameters};
use crate::error::ioctl;
use crate::{Error, Vm};

/// `KVM_CAP_ARM_RME` of these series. Other kernels may have given the number to something else.
const CAPABILITY: u32 = 300;

/// What to do, `KVM_CAP_ARM_RME_*`.
#[derive(Clone, Copy)]
#[repr(u64)]
enum Command {
    Configure = 0,
    Create = 1,
    InitRipas = 2,
    Populate = 3,
    Activate = 4,
}

/// `struct arm_rme_config`.
#[repr(C)]
struct Configuration {
    item: u32,
    value: [u8; 256],
}
const _: () = assert!(size_of::<Configuration>() == 260);

/// `ARM_RME_CONFIG_RPV`: the personalization value, 64 bytes.
const PERSONALIZATION: u32 = 0;
/// `ARM_RME_CONFIG_HASH_ALGO`: a `u32`.
const HASH: u32 = 1;

/// `struct arm_rme_init_ripas`.
#[repr(C)]
struct InitRipas {
    base: u64,
    size: u64,
    reserved: [u64; 2],
}
const _: () = assert!(size_of::<InitRipas>() == 32);

/// `struct arm_rme_populate_realm`.
#[repr(C)]
struct Populate {
    base: u64,
    size: u64,
    flags: u32,
    reserved: [u32; 3],
}
const _: () = assert!(size_of::<Populate>() == 32);

/// `KVM_ARM_RME_POPULATE_FLAGS_MEASURE`.
const MEASURE: u32 = 1;

/// Sets how a Realm is measured, and its personalization value if it has one.
pub(super) fn configure(vm: &Vm, parameters: &RealmParameters) -> Result<(), Error> {
    choose_hash(vm, parameters.hash)?;
    if let Some(personalization) = &parameters.personalization {
        let operation = "set the personalization value of a Realm";
        let configuration = configuration(PERSONALIZATION, personalization);
        command(vm, operation, Command::Configure, &configuration)?;
    }
    Ok(())
}

/// Sets how a Realm is measured.
pub(super) fn choose_hash(vm: &Vm, hash: RealmHash) -> Result<(), Error> {
    let algorithm: u32 = match hash {
        RealmHash::Sha256 => 0,
        RealmHash::Sha512 => 1,
    };
    let configuration = configuration(HASH, &algorithm.to_ne_bytes());
    let operation = "set the hash algorithm of a Realm";
    command(vm, operation, Command::Configure, &configuration)
}

fn configuration(item: u32, value: &[u8]) -> Configuration {
    let mut configuration = Configuration {
        item,
        value: [0; 256],
    };
    for (to, from) in configuration.value.iter_mut().zip(value) {
        *to = *from;
    }
    configuration
}

/// Makes the Realm and its RAM.
pub(super) fn build(vm: &Vm, dram: &[PageRange<Gpa>]) -> Result<(), Error> {
    command_alone(vm, "create a Realm", Command::Create)?;
    for range in dram {
        let ripas = InitRipas {
            base: range.start().raw(),
            size: range.bytes(),
            reserved: [0; 2],
        };
        let operation = "make guest memory the RAM of a Realm";
        command(vm, operation, Command::InitRipas, &ripas)?;
    }
    Ok(())
}

/// Copies `range` from the memory of its slot, and measures it.
pub(super) fn populate(vm: &Vm, range: PageRange<Gpa>) -> Result<(), Error> {
    let populate = Populate {
        base: range.start().raw(),
        size: range.bytes(),
        flags: MEASURE,
        reserved: [0; 3],
    };
    let operation = "load a part of a Realm";
    command(vm, operation, Command::Populate, &populate)
}

/// Ends the measurement.
pub(super) fn activate(vm: &Vm) -> Result<(), Error> {
    command_alone(vm, "activate a Realm", Command::Activate)
}

/// Gives a command with its argument, which the kernel only reads.
fn command<T>(
    vm: &Vm,
    operation: &'static str,
    command: Command,
    argument: &T,
) -> Result<(), Error> {
    let address = std::ptr::from_ref(argument).expose_provenance() as u64;
    give(vm, operation, command, address)
}

fn command_alone(vm: &Vm, operation: &'static str, command: Command) -> Result<(), Error> {
    give(vm, operation, command, 0)
}

fn give(vm: &Vm, operation: &'static str, command: Command, argument: u64) -> Result<(), Error> {
    let capability = kvm_enable_cap {
        cap: CAPABILITY,
        args: [command as u64, argument, 0, 0],
        ..Default::default()
    };
    ioctl("KVM_ENABLE_CAP", operation, || {
        vm.fd().enable_cap(&capability)
    })
}
