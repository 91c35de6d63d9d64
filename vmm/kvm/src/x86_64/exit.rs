//! The exits that only x86-64 vCPUs have.

use kvm_ioctls::VcpuExit;

use crate::tdx::{EXIT_TDX, TdCall};
use crate::vcpu::RunPage;

/// How many bytes of a port one access touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortWidth {
    /// `inb`, `outb`.
    Byte,
    /// `inw`, `outw`.
    Word,
    /// `inl`, `outl`.
    Double,
}

impl PortWidth {
    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Byte => 1,
            Self::Word => 2,
            Self::Double => 4,
        }
    }

    /// KVM has no other widths than these.
    const fn of(bytes: u8) -> Self {
        match bytes {
            2 => Self::Word,
            4 => Self::Double,
            _ => Self::Byte,
        }
    }
}

/// An exit of an x86-64 vCPU.
#[derive(Debug)]
pub enum ArchExit<'a> {
    /// `in`, or `ins` for several values one after the other from one port. What is put in `data`,
    /// little endian, is what the guest reads.
    PortRead {
        /// The port.
        port: u16,
        /// The length of each value.
        width: PortWidth,
        /// The answers.
        data: &'a mut [u8],
    },
    /// `out`, or `outs` for several values one after the other to one port.
    PortWrite {
        /// The port.
        port: u16,
        /// The length of each value.
        width: PortWidth,
        /// The values, little endian.
        data: &'a [u8],
    },
    /// `vmcall` or `vmmcall`, for a function that KVM hands on.
    Hypercall {
        /// The function, a `KVM_HC_*`.
        function: u64,
        /// Its arguments: rbx, rcx, rdx, rsi.
        arguments: [u64; 4],
        /// What the guest finds in rax when the vCPU runs next: a number, or minus an error number.
        result: &'a mut u64,
    },
    /// A fault while a double fault was delivered: a processor resets its machine then.
    TripleFault,
    /// A TD calls for something that is neither a device nor a page.
    TdCall(TdCall<'a>),
}

/// `kvm_run.io.size`: which byte of the exit.
const IO_SIZE: usize = 1;

/// What `exit` means, if it is one of these; `page` is the run page of the vCPU that it came from.
pub(crate) fn decode<'a>(exit: VcpuExit<'a>, page: &'a RunPage) -> Option<ArchExit<'a>> {
    match exit {
        VcpuExit::IoIn(port, data) => Some(ArchExit::PortRead {
            port,
            width: PortWidth::of(page.exit_u8::<IO_SIZE>()),
            data,
        }),
        VcpuExit::IoOut(port, data) => Some(ArchExit::PortWrite {
            port,
            width: PortWidth::of(page.exit_u8::<IO_SIZE>()),
            data,
        }),
        VcpuExit::Hypercall(call) => {
            let [first, second, third, fourth, ..] = call.args;
            Some(ArchExit::Hypercall {
                function: call.nr,
                arguments: [first, second, third, fourth],
                result: call.ret,
            })
        }
        VcpuExit::Shutdown => Some(ArchExit::TripleFault),
        VcpuExit::Unsupported(EXIT_TDX) => Some(ArchExit::TdCall(TdCall::of(page))),
        _ => None,
    }
}
