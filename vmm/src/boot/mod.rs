//! What the guest boots: a kernel, an initial RAM disk and a command line, checked before anything
//! is touched.

pub mod aarch64;
pub mod initrd;

use std::io;
use std::path::{Path, PathBuf};

use iommu::{Gpa, PageRange};
use linux_loader::cmdline::Cmdline;

use crate::config::spec::BootSpec;
use crate::diagnostic::{Code, Diagnostic, Place};

use aarch64::placement::Sizes;
use aarch64::{Image, Placement};
use initrd::Initrd;

/// The longest command line that an arm64 kernel takes, with the byte that ends it.
const COMMAND_LINE_BYTES: usize = 2048;

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
pub struct BootFiles {
    /// The kernel.
    pub kernel: Image,
    /// The initial RAM disk.
    pub initrd: Option<Initrd>,
    /// The kernel's command line.
    pub cmdline: String,
}

impl BootFiles {
    /// Opens and checks the files of `spec`.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn open(spec: &BootSpec) -> Result<Self, Vec<Diagnostic>> {
        let mut findings = Vec::new();
        let kernel = Image::open(&spec.kernel).map_err(|error| {
            let codes = FileCodes {
                unreadable: Code::KernelUnreadable,
                unlike: Code::NotAKernel,
                damaged: Code::KernelDamaged,
            };
            let finding = error.diagnose("kernel", codes);
            findings.push(match error {
                FileError::Unlike { .. } => finding.with_help(
                    "name an arm64 Image, an Image.gz, or the vmlinuz of a distribution (EFI zboot)",
                ),
                FileError::Unreadable { .. } | FileError::Damaged { .. } => finding,
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
        let cmdline = checked_cmdline(&spec.cmdline).map_err(|finding| findings.push(finding));
        match (kernel, initrd, cmdline) {
            (Ok(kernel), Ok(initrd), Ok(cmdline)) => Ok(Self {
                kernel,
                initrd,
                cmdline,
            }),
            _ => Err(findings),
        }
    }

    /// Adds `word` to the command line; returns whether there was room.
    pub fn append(&mut self, word: &str) -> bool {
        let separator = if self.cmdline.is_empty() { "" } else { " " };
        let Ok(cmdline) = checked_cmdline(&format!("{}{separator}{word}", self.cmdline)) else {
            return false;
        };
        self.cmdline = cmdline;
        true
    }

    /// Finds a place for all of them in `dram`.
    ///
    /// # Errors
    /// When one does not fit.
    pub fn place(&self, dram: &[PageRange<Gpa>]) -> Result<Placement, Vec<Diagnostic>> {
        let sizes = Sizes {
            text_offset: self.kernel.text_offset(),
            kernel: self.kernel.memory_bytes(),
            initrd: self.initrd.as_ref().map(Initrd::bytes),
        };
        Placement::find(dram, sizes).map_err(|error| {
            let finding = Diagnostic::error(Code::BootFilesTooLarge, error.to_string());
            vec![
                finding
                    .on(Place::Vm("memory"))
                    .with_help("give the VM more memory"),
            ]
        })
    }
}

/// `text` as a kernel takes it: printable, not too long, trimmed.
fn checked_cmdline(text: &str) -> Result<String, Diagnostic> {
    let refused = |error: &dyn std::fmt::Display| {
        let message = format!("the kernel does not take this command line: {error}");
        Diagnostic::error(Code::CommandLine, message).on(Place::Boot("cmdline"))
    };
    let mut cmdline = Cmdline::new(COMMAND_LINE_BYTES).map_err(|error| refused(&error))?;
    if !text.trim().is_empty() {
        cmdline.insert_str(text).map_err(|error| refused(&error))?;
    }
    let cmdline = cmdline.as_cstring().map_err(|error| refused(&error))?;
    cmdline.into_string().map_err(|error| refused(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(spec: &BootSpec) -> Vec<Code> {
        let findings = BootFiles::open(spec).unwrap_err();
        findings.iter().map(|finding| finding.code).collect()
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let spec = BootSpec {
            kernel: "/nonexistent/Image".into(),
            initrd: Some("/nonexistent/initrd".into()),
            cmdline: "x".repeat(COMMAND_LINE_BYTES),
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
        assert_eq!(checked_cmdline("").unwrap(), "");
        assert_eq!(checked_cmdline("  ").unwrap(), "");
        let line = "root=/dev/sda1 \"dyndbg=file a.c +p\" -- single";
        assert_eq!(checked_cmdline(line).unwrap(), line);
        assert!(checked_cmdline("quiet\nroot").is_err());
    }
}
