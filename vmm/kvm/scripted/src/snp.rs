//! What a guest of SEV-SNP takes at which stage (`arch/x86/kvm/svm/sev.c` of Linux).
//!
//! ```text
//!   none ── INIT2 ─► initialized ── LAUNCH_START ─► started ── LAUNCH_FINISH ─► finished
//!                    (vCPUs)                        (LAUNCH_UPDATE)             (KVM_RUN)
//! ```

use crate::host::{u32_at, u64_at};
use crate::vm::{VmState, Written};
use crate::{Errno, process};

const INIT2: u32 = 22;
const START: u32 = 100;
const UPDATE: u32 = 101;
const FINISH: u32 = 102;

const NORMAL: u8 = 1;
const ZERO: u8 = 3;
const CPUID: u8 = 6;
const PAGE: u64 = 4096;

/// How much one update does before it returns with its progress.
const PROGRESS: u64 = 16 << 20;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    None,
    Initialized,
    Started,
    Finished,
}

/// The guest of a VM.
#[derive(Debug, Default)]
pub(crate) struct Snp {
    stage: Stage,
    filled: Vec<(u64, u64)>,
}

impl Snp {
    pub(crate) fn is_initialized(&self) -> bool {
        self.stage != Stage::None
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.stage == Stage::Finished
    }
}

/// `struct kvm_sev_cmd`: id, padding, data, error, file.
pub(crate) fn encrypt_op(
    vm: &mut VmState,
    argument: u64,
    device: bool,
) -> Result<Vec<Written>, Errno> {
    let bytes: [u8; 24] = process::copy_in(argument)?;
    let (id, data) = (u32_at(&bytes, 0), u64_at(&bytes, 8));
    match (id, vm.snp.stage) {
        (INIT2, Stage::None) => {
            let init: [u8; 48] = process::copy_in(data)?;
            // Stricter than a kernel, which takes features and flags that this VMM does not use.
            let plain = u64_at(&init, 0) == 0 && u32_at(&init, 8) == 0;
            if !plain || !vm.vcpus.is_empty() {
                return Err(libc::EINVAL);
            }
            vm.snp.stage = Stage::Initialized;
        }
        (_, Stage::None) => return Err(libc::EINVAL),
        (START, Stage::Initialized) if device => {
            const ALWAYS_SET: u64 = 1 << 17;
            const KNOWN: u64 = 0x1b_ffff;
            let start: [u8; 64] = process::copy_in(data)?;
            let policy = u64_at(&start, 0);
            if policy & ALWAYS_SET == 0 || policy & !KNOWN != 0 {
                return Err(libc::EINVAL);
            }
            vm.snp.stage = Stage::Started;
        }
        (UPDATE, Stage::Started) if device => return update(vm, data),
        (FINISH, Stage::Started) if device => {
            let finish: [u8; 88] = process::copy_in(data)?;
            if finish.iter().any(|byte| *byte != 0) {
                return Err(libc::EINVAL);
            }
            vm.snp.stage = Stage::Finished;
        }
        _ => return Err(libc::EINVAL),
    }
    Ok(Vec::new())
}

/// `struct kvm_sev_snp_launch_update`: page number, source, length, type; the first three move on.
fn update(vm: &mut VmState, data: u64) -> Result<Vec<Written>, Errno> {
    let bytes: [u8; 64] = process::copy_in(data)?;
    let [page, source, length] = [0, 8, 16].map(|at| u64_at(&bytes, at));
    let kind = bytes[24];
    let at = page.checked_mul(PAGE).ok_or(libc::EINVAL)?;
    let known = matches!(kind, NORMAL | ZERO..=CPUID);
    if !known || length == 0 || !length.is_multiple_of(PAGE) || bytes[25..].iter().any(|b| *b != 0)
    {
        return Err(libc::EINVAL);
    }
    let done = length.min(PROGRESS);
    let end = at.checked_add(done).ok_or(libc::EINVAL)?;
    let (file, offset) = vm.empty_place(at, end, &vm.snp.filled)?;
    vm.snp.filled.push((at, end));
    let mut written = Vec::new();
    if kind != ZERO {
        let mut content = vec![0; usize::try_from(done).map_err(|_| libc::ENOMEM)?];
        process::read(source, &mut content)?;
        written.push((file, offset, content));
    }
    let moved = if kind == ZERO { source } else { source + done };
    let rest = [page + done / PAGE, moved, length - done];
    process::write(data, &rest.map(u64::to_ne_bytes).concat())?;
    Ok(written)
}

/// A sub-command as text.
pub(crate) fn describe(argument: u64, source: impl Fn(u64) -> String) -> Result<String, Errno> {
    let bytes: [u8; 24] = process::copy_in(argument)?;
    let data = u64_at(&bytes, 8);
    Ok(match u32_at(&bytes, 0) {
        INIT2 => {
            let init: [u8; 48] = process::copy_in(data)?;
            let version = u32_at(&init, 12) & 0xffff;
            format!("SEV_INIT2 features {:#x} ghcb {version}", u64_at(&init, 0))
        }
        START => format!(
            "SNP_LAUNCH_START policy {:#x}",
            u64_at(&process::copy_in::<64>(data)?, 0)
        ),
        UPDATE => {
            let update: [u8; 64] = process::copy_in(data)?;
            let [page, from, length] = [0, 8, 16].map(|at| u64_at(&update, at));
            let kind = update[24];
            let from = match from {
                0 => String::new(),
                from => format!(" from {}", source(from)),
            };
            format!(
                "SNP_LAUNCH_UPDATE type {kind} at {:#x} {length:#x}{from}",
                page.saturating_mul(PAGE)
            )
        }
        FINISH => "SNP_LAUNCH_FINISH".to_owned(),
        other => format!("sub-command {other}"),
    })
}
