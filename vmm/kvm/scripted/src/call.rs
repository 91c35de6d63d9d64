//! The calls of `linux/kvm.h` that this kernel knows, by number.
//!
//! A number is `direction << 30 | size << 16 | 0xae << 8 | nr`: it holds the size of the structure, so
//! that a structure of another size is another call.

macro_rules! calls {
    ($($name:ident = $number:literal;)*) => {
        $(pub(crate) const $name: u64 = $number;)*

        /// The name of a call.
        pub(crate) fn name(number: u64) -> Option<&'static str> {
            match number {
                $($number => Some(stringify!($name)),)*
                _ => None,
            }
        }
    };
}

calls! {
    GET_API_VERSION = 0xae00;
    CREATE_VM = 0xae01;
    CHECK_EXTENSION = 0xae03;
    GET_VCPU_MMAP_SIZE = 0xae04;
    GET_SUPPORTED_CPUID = 0xc008_ae05;
    CREATE_VCPU = 0xae41;
    SET_USER_MEMORY_REGION = 0x4020_ae46;
    SET_TSS_ADDR = 0xae47;
    SET_IDENTITY_MAP_ADDR = 0x4008_ae48;
    SET_USER_MEMORY_REGION2 = 0x40a0_ae49;
    CREATE_IRQCHIP = 0xae60;
    IRQ_LINE = 0x4008_ae61;
    SET_GSI_ROUTING = 0x4008_ae6a;
    RUN = 0xae80;
    GET_REGS = 0x8090_ae81;
    SET_REGS = 0x4090_ae82;
    GET_SREGS = 0x8138_ae83;
    SET_SREGS = 0x4138_ae84;
    SET_MSRS = 0x4008_ae89;
    SET_CPUID2 = 0x4008_ae90;
    SET_TSC_KHZ = 0xaea2;
    ENABLE_CAP = 0x4068_aea3;
    SIGNAL_MSI = 0x4020_aea5;
    GET_ONE_REG = 0x4010_aeab;
    SET_ONE_REG = 0x4010_aeac;
    ARM_VCPU_INIT = 0x4020_aeae;
    ARM_PREFERRED_TARGET = 0x8020_aeaf;
    MEMORY_ENCRYPT_OP = 0xc008_aeba;
    ARM_VCPU_FINALIZE = 0x4004_aec2;
    SET_MEMORY_ATTRIBUTES = 0x4020_aed2;
    SET_MEMORY_ATTRIBUTES2 = 0xc080_aed2;
    CREATE_GUEST_MEMFD = 0xc040_aed4;
    ARM_RMI_POPULATE = 0xc020_aed7;
    CREATE_DEVICE = 0xc00c_aee0;
    SET_DEVICE_ATTR = 0x4018_aee1;
    HAS_DEVICE_ATTR = 0x4018_aee3;
}
