//! What KVM says of a vCPU that it cannot run any further (`include/uapi/linux/kvm.h`, `struct kvm_run`).

use std::fmt;

use super::run_page::RunPage;

/// `KVM_INTERNAL_ERROR_EMULATION`.
const EMULATION: u64 = 1;
/// `KVM_INTERNAL_ERROR_DELIVERY_EV`.
const DELIVERY: u64 = 3;
/// `KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES`.
const HAS_INSTRUCTION: u64 = 1 << 0;
/// How many bytes an instruction of x86-64 has at most.
const LONGEST: usize = 15;

/// Why KVM gave up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GaveUp {
    /// `KVM_EXIT_FAIL_ENTRY`: the processor does not take the guest's state; its own word for why.
    Entry(u64),
    /// An instruction that KVM cannot stand in for, as far as it has it.
    Emulation(Instruction),
    /// Any other `KVM_EXIT_INTERNAL_ERROR`: its kind, and the first that goes with it.
    Internal {
        /// A `KVM_INTERNAL_ERROR_*`.
        kind: u64,
        /// For instance why the processor stopped.
        datum: Option<u64>,
    },
    /// Of a Realm, `ENXIO`: KVM could not map a page for it, or the RMM did not run it.
    Realm,
}

/// The bytes at the program counter; none where KVM has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    bytes: [u8; LONGEST],
    length: usize,
}

impl Instruction {
    /// A byte with the length, which KVM fills up to 15, and the bytes.
    fn of(words: [u64; 2]) -> Self {
        let [low, high] = words.map(u64::to_le_bytes);
        let mut bytes = [0; LONGEST];
        for (byte, given) in bytes.iter_mut().zip(low.iter().skip(1).chain(&high)) {
            *byte = *given;
        }
        let length = usize::from(low[0]).min(LONGEST);
        Self { bytes, length }
    }
}

impl GaveUp {
    /// What a `KVM_EXIT_FAIL_ENTRY` says.
    pub(super) fn at_entry(page: &RunPage) -> Self {
        Self::Entry(page.exit_u64::<0>())
    }

    /// What a `KVM_EXIT_INTERNAL_ERROR` says.
    pub(super) fn inside(page: &RunPage) -> Self {
        let words = [
            page.exit_u64::<0>(),
            page.exit_u64::<1>(),
            page.exit_u64::<2>(),
            page.exit_u64::<3>(),
        ];
        Self::of_words(words)
    }

    /// Whether there was an event for the guest that KVM could not deliver
    /// (`KVM_INTERNAL_ERROR_DELIVERY_EV`).
    #[must_use]
    pub const fn is_undelivered_event(&self) -> bool {
        matches!(self, Self::Internal { kind: DELIVERY, .. })
    }

    /// The error's kind and the number of its data, each of 32 bits, then data.
    fn of_words([head, first, second, third]: [u64; 4]) -> Self {
        let (kind, count) = (head & u64::from(u32::MAX), head >> 32);
        match kind {
            EMULATION if count >= 3 && first & HAS_INSTRUCTION != 0 => {
                Self::Emulation(Instruction::of([second, third]))
            }
            EMULATION => Self::Emulation(Instruction::of([0, 0])),
            kind => Self::Internal {
                kind,
                datum: (count > 0).then_some(first),
            },
        }
    }
}

impl fmt::Display for GaveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entry(reason) => write!(f, "the processor refuses its state ({reason:#x})"),
            Self::Emulation(Instruction { bytes, length }) => {
                f.write_str("KVM cannot emulate an instruction")?;
                for (index, byte) in bytes.iter().take(*length).enumerate() {
                    let before = if index == 0 { ": " } else { " " };
                    write!(f, "{before}{byte:02x}")?;
                }
                Ok(())
            }
            Self::Internal { kind, datum } => {
                let what = match *kind {
                    2 => "one exception came while another was dealt with",
                    DELIVERY => "an event could not be delivered",
                    4 => "the processor stopped for a reason that KVM does not know",
                    _ => "an error of KVM's own",
                };
                write!(f, "{what} (KVM's internal error {kind}")?;
                match datum {
                    Some(datum) => write!(f, ", {datum:#x})"),
                    None => f.write_str(")"),
                }
            }
            Self::Realm => f.write_str(
                "it has no page for the Realm, or the RMM does not run it (KVM_RUN failed with \
                 ENXIO; the host's kernel log says more)",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_that_cannot_be_emulated_is_shown_by_its_bytes() {
        let bytes = u64::from_le_bytes([15, 0x0f, 0x01, 0xd9, 0x90, 0, 0, 0]);
        let told =
            GaveUp::of_words([(4 << 32) | 1, HAS_INSTRUCTION, bytes, 0xff << 56]).to_string();
        assert_eq!(
            told,
            "KVM cannot emulate an instruction: 0f 01 d9 90 00 00 00 00 00 00 00 00 00 00 ff"
        );
        let told = GaveUp::of_words([1, HAS_INSTRUCTION, bytes, 0]).to_string();
        assert_eq!(told, "KVM cannot emulate an instruction");
    }

    #[test]
    fn other_errors_are_told_by_their_kind() {
        let told = GaveUp::of_words([(1 << 32) | 4, 0x7b, 0, 0]).to_string();
        assert!(
            told.ends_with("does not know (KVM's internal error 4, 0x7b)"),
            "{told}"
        );
        let told = GaveUp::of_words([99, 1, 0, 0]).to_string();
        assert_eq!(told, "an error of KVM's own (KVM's internal error 99)");
    }
}
