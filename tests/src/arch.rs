//! The architectures that there is a testbed for.

/// An architecture: the emulated host and its guests share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Arch {
    /// 64-bit Arm.
    #[value(name = "arm64")]
    Arm64,
    /// 64-bit x86.
    #[value(name = "x86_64")]
    X86_64,
}

impl Arch {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Arm64, Self::X86_64];

    /// The architecture of this machine, which plays the host itself with `--on-host`.
    #[must_use]
    pub const fn of_this_machine() -> Option<Self> {
        if cfg!(target_arch = "aarch64") {
            Some(Self::Arm64)
        } else if cfg!(target_arch = "x86_64") {
            Some(Self::X86_64)
        } else {
            None
        }
    }

    /// Whether this machine has it.
    #[must_use]
    pub fn is_here(self) -> bool {
        Self::of_this_machine() == Some(self)
    }

    /// The name that this project uses.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Arm64 => "arm64",
            Self::X86_64 => "x86_64",
        }
    }

    /// The name that `uname -m`, the emulator and ccvm's facts use.
    #[must_use]
    pub const fn machine(self) -> &'static str {
        match self {
            Self::Arm64 => "aarch64",
            Self::X86_64 => "x86_64",
        }
    }

    /// The name that the distribution uses.
    #[must_use]
    pub const fn debian(self) -> &'static str {
        match self {
            Self::Arm64 => "arm64",
            Self::X86_64 => "amd64",
        }
    }

    /// The name that the kernel's build uses.
    #[must_use]
    pub const fn linux(self) -> &'static str {
        match self {
            Self::Arm64 => "arm64",
            Self::X86_64 => "x86",
        }
    }

    /// The compiler's target for programs of the emulated host.
    #[must_use]
    pub const fn target(self) -> &'static str {
        match self {
            Self::Arm64 => "aarch64-unknown-linux-gnu",
            Self::X86_64 => "x86_64-unknown-linux-gnu",
        }
    }

    /// The prefix of the C compiler and its tools for it on this machine.
    #[must_use]
    pub fn cross_prefix(self) -> &'static str {
        match self {
            here if here.is_here() => "",
            Self::Arm64 => "aarch64-linux-gnu-",
            Self::X86_64 => "x86_64-linux-gnu-",
        }
    }

    /// The program that emulates a host of it.
    #[must_use]
    pub const fn emulator(self) -> &'static str {
        match self {
            Self::Arm64 => "qemu-system-aarch64",
            Self::X86_64 => "qemu-system-x86_64",
        }
    }

    /// The distribution's package of the program that emulates a host of it.
    #[must_use]
    pub const fn emulator_package(self) -> &'static str {
        match self {
            Self::Arm64 => "qemu-system-arm",
            Self::X86_64 => "qemu-system-x86",
        }
    }
}

/// Wherever there is a testbed.
pub const EVERY: &[Arch] = &Arch::ALL;
/// For what arm64 alone has: Realms, and a bare-metal guest that plays tricks.
pub const ARM64: &[Arch] = &[Arch::Arm64];

/// For what the tests do on x86_64 alone, since arm64 has a Realm for it.
pub const X86_64: &[Arch] = &[Arch::X86_64];

impl std::fmt::Display for Arch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
