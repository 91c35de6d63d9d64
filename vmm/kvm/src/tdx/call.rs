//! Calls of a TD that KVM leaves to this process: `KVM_EXIT_TDX`.
//!
//! ```text
//! kvm_run.tdx   0: flags   8: number   16: status   24, 32, ...: arguments and results
//! ```

use crate::vcpu::RunPage;

/// `KVM_EXIT_TDX`.
pub(crate) const EXIT_TDX: u32 = 40;

/// Which call it is (Intel GHCI, `TDG.VP.VMCALL` leaves).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TdCallKind {
    /// `GetTdVmCallInfo`: which calls beyond the basic ones there are.
    Info,
    /// `GetQuote`: a report of the TD is to be made a quote.
    Quote,
    /// Any other.
    Other(u64),
}

/// What the TD is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum TdStatus {
    /// `TDG.VP.VMCALL_SUCCESS`.
    Success = 0,
    /// `TDG.VP.VMCALL_SUBFUNC_UNSUPPORTED`.
    Unsupported = 0x8000_0000_0000_0003,
}

/// A call that waits for its answer. One that gets none is answered by what KVM has put there.
#[derive(Clone, Copy)]
pub struct TdCall<'a>(&'a RunPage);

// Which 64-bit field of the exit.
const NUMBER: usize = 1;
const STATUS: usize = 2;

impl<'a> TdCall<'a> {
    /// The call for which the vCPU of `page` has stopped.
    pub(crate) fn of(page: &'a RunPage) -> Self {
        Self(page)
    }

    /// Which it is.
    #[must_use]
    pub fn kind(&self) -> TdCallKind {
        const INFO: u64 = 0x1_0000;
        const QUOTE: u64 = 0x1_0002;
        match self.0.exit_u64::<NUMBER>() {
            INFO => TdCallKind::Info,
            QUOTE => TdCallKind::Quote,
            other => TdCallKind::Other(other),
        }
    }

    /// Tells the TD how its call went, when it runs next.
    pub fn answer(self, status: TdStatus) {
        self.0.set_exit_u64::<STATUS>(status as u64);
    }

    /// Tells a TD that has asked for them that there are no calls beyond the basic ones.
    pub fn answer_no_more_calls(self) {
        // R11 to R14.
        self.0.set_exit_u64::<4>(0);
        self.0.set_exit_u64::<5>(0);
        self.0.set_exit_u64::<6>(0);
        self.0.set_exit_u64::<7>(0);
        self.answer(TdStatus::Success);
    }
}

impl std::fmt::Debug for TdCall<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("TdCall").field(&self.kind()).finish()
    }
}
