//! What only x86-64 vCPUs stop for: I/O ports, calls of the guest to KVM, and a fault too many.

use devices::bus::Unclaimed;
use kvm::tdx::{TdCallKind, TdStatus};
use kvm::x86_64::ArchExit;
use kvm::{Fault, Ipa};

use super::{Processor, UNCLAIMED, World, lost_memory};
use crate::run::Ending;

/// Minus `KVM_ENOSYS`.
const NO_SUCH_CALL: i64 = -1000;

/// Answers `exit`.
pub(super) fn answer(world: &World, exit: ArchExit<'_>) -> Option<Ending> {
    let exits = &world.stats.exits;
    match exit {
        ArchExit::PortRead { port, width, data } => {
            exits.port_read.add_one();
            for value in data.chunks_mut(width.bytes()) {
                if let Err(Unclaimed) = world.ports.read(port, value) {
                    value.fill(0xff);
                    unclaimed(world, "in", port);
                }
            }
            None
        }
        ArchExit::PortWrite { port, width, data } => {
            exits.port_write.add_one();
            for value in data.chunks(width.bytes()) {
                if let Err(Unclaimed) = world.ports.write(port, value) {
                    unclaimed(world, "out", port);
                }
            }
            None
        }
        ArchExit::Hypercall {
            function,
            arguments,
            result,
        } => {
            exits.hypercall.add_one();
            let platform = world.page_exits.as_ref();
            let answer = platform.and_then(|exits| exits.hypercall(function, arguments));
            *result = answer.unwrap_or(NO_SUCH_CALL).cast_unsigned();
            None
        }
        ArchExit::TdCall(call) => {
            exits.hypercall.add_one();
            match call.kind() {
                TdCallKind::Info => call.answer_no_more_calls(),
                // No quoting service is at hand here: a guest can have its report quoted elsewhere.
                TdCallKind::Quote | TdCallKind::Other(_) => call.answer(TdStatus::Unsupported),
            }
            None
        }
        // Kernels reset their machine by it where all else has failed, and have no other way to tell of it.
        ArchExit::TripleFault => {
            tracing::warn!(
                "a vCPU of the guest has stopped in a triple fault, which resets the VM"
            );
            Some(Ending::Reboot)
        }
    }
}

/// No port without a device is worth an answer: as on a bus, `in` reads ones and `out` is lost.
fn unclaimed(world: &World, what: &str, port: u16) {
    world.stats.exits.unclaimed.add_one();
    if let Some(skipped) = UNCLAIMED.permit() {
        tracing::debug!(skipped, "{what} at port {port:#x}: nothing answers there");
    }
}

impl Processor {
    /// The host has lost memory that it owes the guest.
    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "on arm64 the vCPU can be told"
    )]
    pub(super) fn no_memory(&self, fault: Option<Fault>) -> Result<Option<Ending>, kvm::Error> {
        Ok(Some(lost_memory(fault)))
    }

    /// Says that an access was refused; what it reads is ones.
    pub(super) fn refuse(&self, what: &str, at: Ipa) -> Result<(), kvm::Error> {
        self.log_refusal(what, at)
    }
}
