//! What the guest boots: a kernel, an initial RAM disk and a command line, checked before anything
//! is touched.

pub mod aarch64;
pub mod firmware;
pub mod igvm;
pub mod initrd;
mod room;
pub mod segment;
pub mod x86_64;

use std::io;
use std::path::{Path, PathBuf};

use iommu::{Gpa, PageRange};
use linux_loader::cmdline::Cmdline;

use crate::config::spec::{BootSpec, HotplugSpec};
use crate::diagnostic::{Code, Diagnostic, Place};
use crate::plan::VmPlan;
use crate::platform::{Platform, emulated_realm};

use firmware::Firmware;
use initrd::Initrd;
pub use room::DoesNotFit;
use x86_64::no_pci;

/// A kernel of one architecture: how it is told from other files, and where it goes.
pub trait Kernel: Sized {
    /// Where it and the initial RAM disk go.
    type Placement;

    /// The longest command line that it takes, with the byte that ends it.
    const COMMAND_LINE_BYTES: usize;

    /// What an operator can name instead of a file that is no such kernel.
    const FORMS: &'static str;

    /// Opens and checks the file at `path`.
    ///
    /// # Errors
    /// When it cannot be read, is no such kernel, or is damaged.
    fn open(path: &Path) -> Result<Self, FileError>;

    /// Whether a guest of this platform can boot it.
    ///
    /// # Errors
    /// Why not, after the name of the file, and what can.
    fn suits(&self, platform: Platform) -> Result<(), Unsuitable> {
        let _ = platform;
        Ok(())
    }

    /// Whether an initial RAM disk is loaded beside it.
    fn takes_initrd(&self) -> bool {
        true
    }

    /// Whether it is told a command line.
    fn takes_command_line(&self) -> bool {
        true
    }

    /// Whether there is room for all that it is told of the VM of `plan`.
    ///
    /// # Errors
    /// What does not fit, as a sentence.
    fn can_be_told(&self, plan: &VmPlan, cmdline: &str) -> Result<(), String> {
        let _ = (plan, cmdline);
        Ok(())
    }

    /// How long its file is, for who loads that as it is.
    fn file_bytes(&self) -> u64 {
        0
    }

    /// Finds a place in `dram` (ascending, disjoint) for the kernel, for what comes with it, and for
    /// an initial RAM disk of `initrd` bytes.
    ///
    /// # Errors
    /// When one of them fits nowhere.
    fn place(
        &self,
        dram: &[PageRange<Gpa>],
        initrd: Option<u64>,
    ) -> Result<Self::Placement, DoesNotFit>;
}

/// A kernel that the guests of a platform cannot boot: why, and which they can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsuitable {
    /// As a sentence that begins with the kernel.
    pub why: &'static str,
    /// What the operator can do.
    pub help: &'static str,
}

/// What is wrong with a boot file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be opened or read.
    #[error("cannot read {}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is something else than it should be.
    #[error("{} is not {expected}: {found}", .path.display())]
    Unlike {
        /// The file.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
        /// What it is instead.
        found: &'static str,
    },
    /// It is a whole guest, of a kind that ccvm does not start.
    #[error("{} cannot be started: {why}", .path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// What it asks for.
        why: String,
    },
    /// It ends too early, or its compressed content does not decode.
    #[error("{} is damaged: {what}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// In which way.
        what: String,
    },
}

impl FileError {
    pub(crate) fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Unreadable {
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn damaged(path: &Path, what: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            what: what.into(),
        }
    }

    /// The finding for the operator about the key of `[boot]` that names the file.
    fn diagnose(&self, key: &'static str, codes: FileCodes) -> Diagnostic {
        let code = match self {
            Self::Unreadable { .. } => codes.unreadable,
            Self::Unlike { .. } => codes.unlike,
            Self::Damaged { .. } => codes.damaged,
            Self::Refused { .. } => Code::GuestFileRefused,
        };
        let message = match std::error::Error::source(self) {
            Some(source) => format!("{self}: {source}"),
            None => self.to_string(),
        };
        Diagnostic::error(code, message).on(Place::Boot(key))
    }
}

/// Which code each kind of [`FileError`] has for one file.
#[derive(Clone, Copy)]
struct FileCodes {
    unreadable: Code,
    unlike: Code,
    damaged: Code,
}

/// Everything that `[boot]` names, opened and found good.
#[derive(Debug)]
pub struct BootFiles<K> {
    /// The kernel.
    pub kernel: K,
    /// The initial RAM disk.
    pub initrd: Option<Initrd>,
    /// The kernel's command line.
    pub cmdline: String,
    /// The firmware that starts the kernel, on platforms that need one.
    pub firmware: Option<Firmware>,
}

impl<K: Kernel> BootFiles<K> {
    /// Opens and checks the files of `spec`.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn open(spec: &BootSpec) -> Result<Self, Vec<Diagnostic>> {
        let mut findings = Vec::new();
        let kernel = K::open(&spec.kernel).map_err(|error| {
            let codes = FileCodes {
                unreadable: Code::KernelUnreadable,
                unlike: Code::NotAKernel,
                damaged: Code::KernelDamaged,
            };
            let finding = error.diagnose("kernel", codes);
            findings.push(match error {
                FileError::Unlike { .. } => finding.with_help(K::FORMS),
                FileError::Unreadable { .. }
                | FileError::Damaged { .. }
                | FileError::Refused { .. } => finding,
            });
        });
        let initrd = spec.initrd.as_deref().map(Initrd::open).transpose();
        let initrd = initrd.map_err(|error| {
            let codes = FileCodes {
                unreadable: Code::InitrdUnreadable,
                unlike: Code::InitrdDamaged,
                damaged: Code::InitrdDamaged,
            };
            findings.push(error.diagnose("initrd", codes));
        });
        let cmdline = checked_cmdline(&spec.cmdline, K::COMMAND_LINE_BYTES)
            .map_err(|finding| findings.push(finding));
        let firmware = spec.firmware.as_deref().map(Firmware::open).transpose();
        let firmware = firmware.map_err(|error| {
            let codes = FileCodes {
                unreadable: Code::FirmwareUnreadable,
                unlike: Code::NotFirmware,
                damaged: Code::NotFirmware,
            };
            findings.push(error.diagnose("firmware", codes));
        });
        if let Ok(kernel) = &kernel {
            findings.extend(not_taken(kernel, spec));
        }
        match (kernel, initrd, cmdline, firmware) {
            (Ok(kernel), Ok(initrd), Ok(cmdline), Ok(firmware)) if findings.is_empty() => {
                Ok(Self {
                    kernel,
                    initrd,
                    cmdline,
                    firmware,
                })
            }
            _ => Err(findings),
        }
    }

    /// Adds `word` to the command line; returns whether there was room.
    pub fn append(&mut self, word: &str) -> bool {
        let separator = if self.cmdline.is_empty() { "" } else { " " };
        let longer = format!("{}{separator}{word}", self.cmdline);
        let Ok(cmdline) = checked_cmdline(&longer, K::COMMAND_LINE_BYTES) else {
            return false;
        };
        self.cmdline = cmdline;
        true
    }

    /// Adds to the command line what a guest of this plan needs for its devices, or to know that it has none.
    pub fn complete(&mut self, plan: &VmPlan) {
        if !self.kernel.takes_command_line() {
            return;
        }
        let has_dma =
            !plan.devices().is_empty() || !plan.functions().is_empty() || !plan.ports().is_empty();
        let bounces = match plan.platform() {
            Platform::Cca | Platform::EmulatedRealm => has_dma,
            Platform::None
            | Platform::Pkvm
            | Platform::SwProtected
            | Platform::Snp
            | Platform::Tdx => false,
        };
        let mut words: Vec<String> = Vec::new();
        if bounces {
            let memory = plan.dram().iter().map(|range| range.bytes()).sum();
            words.extend(emulated_realm::cmdline::addition(&self.cmdline, memory));
            let passthrough = emulated_realm::cmdline::passthrough(&self.cmdline);
            words.extend(plan.iommu().and(passthrough).map(str::to_owned));
        }
        words.extend(no_pci::addition(&self.cmdline, plan).map(str::to_owned));
        words.extend(slot_window(plan));
        words.extend(awake_ports(&self.cmdline, plan).map(str::to_owned));
        for word in words {
            match self.append(&word) {
                true => tracing::info!("added {word} to the kernel's command line"),
                false => tracing::warn!("no room for {word} on the kernel's command line"),
            }
        }
    }

    /// Finds a place for all of them in the memory of `plan`.
    ///
    /// # Errors
    /// When one does not fit, or the kernel is none for the platform.
    pub fn place(&self, plan: &VmPlan) -> Result<K::Placement, Vec<Diagnostic>> {
        self.kernel.suits(plan.platform()).map_err(|unsuitable| {
            let finding = Diagnostic::error(Code::NotAKernel, unsuitable.why);
            vec![finding.on(Place::Boot("kernel")).with_help(unsuitable.help)]
        })?;
        self.check_firmware(plan)?;
        let told = self.kernel.can_be_told(plan, &self.cmdline);
        told.map_err(|message| {
            let finding = Diagnostic::error(Code::GuestFileRefused, message);
            vec![finding.on(Place::Boot("kernel"))]
        })?;
        let initrd = self.initrd.as_ref().map(Initrd::bytes);
        self.kernel.place(plan.dram(), initrd).map_err(|error| {
            let finding = Diagnostic::error(Code::BootFilesTooLarge, error.to_string());
            vec![
                finding
                    .on(Place::Vm("memory"))
                    .with_help("give the VM more memory"),
            ]
        })
    }
}

impl<K: Kernel> BootFiles<K> {
    /// Whether the platform of `plan` has firmware, and this one starts the kernel.
    fn check_firmware(&self, plan: &VmPlan) -> Result<(), Vec<Diagnostic>> {
        let finding = |code, key, message: String, help: &str| {
            let finding = Diagnostic::error(code, message);
            Err(vec![finding.on(Place::Boot(key)).with_help(help)])
        };
        let platform = plan.platform();
        let firmware = match (platform, &self.firmware) {
            (Platform::Tdx, Some(firmware)) => firmware,
            (Platform::Tdx, None) => {
                let message = "a TD starts in firmware, and none is named".to_owned();
                let help = "add `firmware = \"...\"`: a TDVF that takes a kernel, such as td-shim";
                return finding(Code::FirmwareAbsent, "kernel", message, help);
            }
            (_, None) => return Ok(()),
            (_, Some(_)) => {
                let message =
                    format!("a VM with platform '{platform}' boots its kernel without firmware");
                let help = "leave `firmware` out";
                return finding(Code::FirmwareUnused, "firmware", message, help);
            }
        };
        if self.initrd.is_some() {
            let message = "the firmware of a TD takes no initial RAM disk".to_owned();
            let help = "build it into the kernel (CONFIG_INITRAMFS_SOURCE), and leave `initrd` out";
            return finding(Code::NotFirmware, "initrd", message, help);
        }
        let cmdline = (self.cmdline.len() as u64).saturating_add(1);
        let fit = firmware.fit(plan.dram(), self.kernel.file_bytes(), cmdline);
        fit.map(drop).or_else(|misfit| {
            let message = format!("the firmware {misfit}");
            let help = "take a TDVF that fits, such as a td-shim that was built for it";
            finding(Code::NotFirmware, "firmware", message, help)
        })
    }
}

/// What of `spec` would go nowhere with this kernel.
fn not_taken<K: Kernel>(kernel: &K, spec: &BootSpec) -> Vec<Diagnostic> {
    let refused = |key, what: &str| {
        let message = format!("the kernel file has its own {what}, and takes no other");
        let finding = Diagnostic::error(Code::GuestFileRefused, message).on(Place::Boot(key));
        finding.with_help(format!("leave `{key}` out, or build it into the file"))
    };
    let initrd = spec.initrd.is_some() && !kernel.takes_initrd();
    let initrd = initrd.then(|| refused("initrd", "initial RAM disk"));
    let cmdline = !spec.cmdline.trim().is_empty() && !kernel.takes_command_line();
    let cmdline = cmdline.then(|| refused("cmdline", "command line"));
    initrd.into_iter().chain(cmdline).collect()
}

/// What tells Linux how much memory each slot has, where that is not what it gives one unasked: it places
/// windows of bridges itself.
fn slot_window(plan: &VmPlan) -> Option<String> {
    let window = plan.port_window();
    let unusual = !plan.ports().is_empty() && window != HotplugSpec::USUAL_WINDOW;
    unusual.then(|| format!("pci=hpmmiosize={}M", window >> 20))
}

/// What keeps Linux from putting ports to sleep when their card has gone, which silences their slots: it then
/// waits for a wake-up signal, for which a port without power management has no register
/// (`pciehp_runtime_suspend`, drivers/pci/hotplug/pciehp_core.c). An operator who says something about it is
/// left alone.
fn awake_ports(cmdline: &str, plan: &VmPlan) -> Option<&'static str> {
    let mut words = cmdline.split_whitespace();
    let silent = !words.any(|word| word.starts_with("pcie_port_pm="));
    (silent && !plan.ports().is_empty()).then_some("pcie_port_pm=off")
}

/// `text` as a kernel takes it: printable, not too long, trimmed.
fn checked_cmdline(text: &str, most_bytes: usize) -> Result<String, Diagnostic> {
    let refused = |error: &dyn std::fmt::Display| {
        let message = format!("the kernel does not take this command line: {error}");
        Diagnostic::error(Code::CommandLine, message).on(Place::Boot("cmdline"))
    };
    let mut cmdline = Cmdline::new(most_bytes).map_err(|error| refused(&error))?;
    if !text.trim().is_empty() {
        cmdline.insert_str(text).map_err(|error| refused(&error))?;
    }
    let cmdline = cmdline.as_cstring().map_err(|error| refused(&error))?;
    cmdline.into_string().map_err(|error| refused(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aarch64::Image;

    const MOST_BYTES: usize = Image::COMMAND_LINE_BYTES;

    fn codes(spec: &BootSpec) -> Vec<Code> {
        let findings = BootFiles::<Image>::open(spec).unwrap_err();
        findings.iter().map(|finding| finding.code).collect()
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let spec = BootSpec {
            kernel: "/nonexistent/Image".into(),
            initrd: Some("/nonexistent/initrd".into()),
            cmdline: "x".repeat(MOST_BYTES),
            firmware: None,
        };
        let all = [
            Code::KernelUnreadable,
            Code::InitrdUnreadable,
            Code::CommandLine,
        ];
        assert_eq!(codes(&spec), all);
    }

    #[test]
    fn a_command_line_may_be_empty_and_keeps_its_quotes() {
        assert_eq!(checked_cmdline("", MOST_BYTES).unwrap(), "");
        assert_eq!(checked_cmdline("  ", MOST_BYTES).unwrap(), "");
        let line = "root=/dev/sda1 \"dyndbg=file a.c +p\" -- single";
        assert_eq!(checked_cmdline(line, MOST_BYTES).unwrap(), line);
        assert!(checked_cmdline("quiet\nroot", MOST_BYTES).is_err());
    }
}
