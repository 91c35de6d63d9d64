//! The MADT: the processors by the ids of their local APICs, and the IOAPIC.

use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::{Aml, AmlSink};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{Immutable, IntoBytes};

use super::{OEM, OEM_REVISION, OEM_TABLE};

const LOCAL_APIC: u32 = 0xfee0_0000;
const IOAPIC: u32 = 0xfec0_0000;

/// The first id that an entry for a local APIC cannot name: there it means all of them.
const FIRST_X2APIC_ID: u32 = 0xff;

/// The MADT of a machine with this many processors.
pub(super) fn madt(vcpus: u32) -> MADT {
    let local = LocalInterruptController::Address(LOCAL_APIC);
    let mut madt = MADT::new(OEM, OEM_TABLE, OEM_REVISION, local);
    for id in 0..vcpus {
        match u8::try_from(id) {
            Ok(short) if id < FIRST_X2APIC_ID => {
                let status = EnabledStatus::Enabled;
                madt.add_structure(ProcessorLocalApic::new(short, short, status));
            }
            _ => madt.add_structure(LocalX2Apic::enabled(id)),
        }
    }
    madt.add_structure(IoApic::new(0, IOAPIC, 0));
    madt
}

/// A processor by its x2APIC id (ACPI 6.5, 5.2.12.12).
#[repr(C, packed)]
#[derive(Debug, Clone, Copy, IntoBytes, Immutable)]
struct LocalX2Apic {
    kind: u8,
    length: u8,
    reserved: U16,
    id: U32,
    flags: U32,
    processor: U32,
}

impl LocalX2Apic {
    const KIND: u8 = 9;
    const BYTES: u8 = 16;
    const ENABLED: u32 = 1;

    fn enabled(id: u32) -> Self {
        Self {
            kind: Self::KIND,
            length: Self::BYTES,
            reserved: 0.into(),
            id: id.into(),
            flags: Self::ENABLED.into(),
            processor: id.into(),
        }
    }
}

impl Aml for LocalX2Apic {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(self.as_bytes());
    }
}
