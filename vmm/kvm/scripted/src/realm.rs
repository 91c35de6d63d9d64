//! What a Realm takes at which stage.
//!
//! ```text
//!   EnableCap:   none ── create ──► new ── activate ──► active      (configure: in none only)
//!   the others:  none ── populate ─► new ── KVM_RUN ───► active     (populate: before active)
//! ```

use std::fmt::Write as _;

use crate::host::{Form, u32_at, u64_at};
use crate::vm::{VmState, Written};
use crate::{Errno, process};

/// `1 << KVM_ARM_VCPU_REC`.
pub(crate) const REC: u32 = 1 << 8;

/// `KVM_CAP_ARM_RME` where the form is [`Form::EnableCap`].
pub(crate) const CAPABILITY: u32 = 300;

/// How much one populate call does before it returns with its progress.
const PROGRESS: u64 = 1 << 20;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    None,
    New,
    Active,
}

/// The Realm of a VM.
#[derive(Debug, Default)]
pub(crate) struct Realm {
    stage: Stage,
    /// Where pages are RAM.
    ram: Vec<(u64, u64)>,
    populated: Vec<(u64, u64)>,
}

impl Realm {
    pub(crate) fn is_created(&self) -> bool {
        self.stage == Stage::New
    }

    /// Enters the guest, if it may be entered.
    pub(crate) fn enter(&mut self, form: Form) -> Result<(), Errno> {
        match (form, self.stage) {
            (Form::None | Form::SwProtected, _) | (_, Stage::Active) => {}
            (Form::EarlyPopulate | Form::Populate | Form::PrivateFiles, Stage::New) => {
                self.stage = Stage::Active;
            }
            (
                Form::EnableCap
                | Form::EarlyPopulate
                | Form::Populate
                | Form::PrivateFiles
                | Form::Snp
                | Form::Tdx,
                _,
            ) => {
                return Err(libc::EINVAL);
            }
        }
        Ok(())
    }

    /// Notes that a range has content. A page takes it once.
    fn fill(&mut self, at: u64, bytes: u64) -> Result<(), Errno> {
        let end = at.checked_add(bytes).ok_or(libc::EINVAL)?;
        let meets = |(start, stop): &(u64, u64)| *start < end && at < *stop;
        if self.populated.iter().any(meets) {
            return Err(libc::EEXIST);
        }
        self.populated.push((at, end));
        Ok(())
    }
}

/// A register that the RMM takes from the host: pc and x0 to x30.
pub(crate) fn may_set(id: u64) -> bool {
    const CORE: u64 = 0x6030_0000_0010_0000;
    const PC: u64 = CORE + 0x40;
    id == PC || (CORE..CORE + 2 * 31).contains(&id) && id.is_multiple_of(2)
}

/// `struct kvm_enable_cap`: capability, flags, four arguments.
pub(crate) fn enable_cap(vm: &mut VmState, argument: u64) -> Result<Vec<Written>, Errno> {
    let bytes: [u8; 104] = process::copy_in(argument)?;
    if vm.form() != Form::EnableCap || u32_at(&bytes, 0) != CAPABILITY || u32_at(&bytes, 4) != 0 {
        return Err(libc::EINVAL);
    }
    let (command, at) = (u64_at(&bytes, 8), u64_at(&bytes, 16));
    match (command, vm.realm.stage) {
        (0, Stage::None) => configure(&process::copy_in(at)?)?,
        (1, Stage::None) => vm.realm.stage = Stage::New,
        (2, Stage::New) => {
            let bytes: [u8; 32] = process::copy_in(at)?;
            let (base, size) = (u64_at(&bytes, 0), u64_at(&bytes, 8));
            is_whole(base, size)?;
            vm.realm.ram.push((base, base.saturating_add(size)));
        }
        (3, Stage::New) => {
            let bytes: [u8; 32] = process::copy_in(at)?;
            let (base, size) = (u64_at(&bytes, 0), u64_at(&bytes, 8));
            is_whole(base, size)?;
            let end = base.saturating_add(size);
            let mut ram = vm.realm.ram.iter();
            if u32_at(&bytes, 16) & !1 != 0 || !ram.any(|ram| ram.0 <= base && end <= ram.1) {
                return Err(libc::EINVAL);
            }
            let slot = vm.slot(base).ok_or(libc::EINVAL)?;
            let source = slot.host.saturating_add(base - slot.at);
            return fill(vm, base, size, source);
        }
        // Stricter than a kernel, which lets vCPUs be without a REC for good.
        (4, Stage::New) if vm.vcpus.values().all(|vcpu| vcpu.finalized) => {
            vm.realm.stage = Stage::Active;
        }
        (0..=4, _) => return Err(libc::EBUSY),
        _ => return Err(libc::EINVAL),
    }
    Ok(Vec::new())
}

/// `struct arm_rme_config`: the personalization value, or one of two hash algorithms.
fn configure(bytes: &[u8; 260]) -> Result<(), Errno> {
    match (u32_at(bytes, 0), u32_at(bytes, 4)) {
        (0, _) | (1, 0 | 1) => Ok(()),
        _ => Err(libc::EINVAL),
    }
}

/// `struct kvm_arm_rmi_populate`: base, size, source, flags, reserved; the first three move on.
pub(crate) fn populate(vm: &mut VmState, argument: u64) -> Result<Vec<Written>, Errno> {
    // What KVM of arm64 says of a call that it does not know.
    if !matches!(
        vm.form(),
        Form::EarlyPopulate | Form::Populate | Form::PrivateFiles
    ) {
        return Err(libc::EINVAL);
    }
    let bytes: [u8; 32] = process::copy_in(argument)?;
    let [base, size, source] = [0, 8, 16].map(|offset| u64_at(&bytes, offset));
    if u32_at(&bytes, 24) & !1 != 0 || u32_at(&bytes, 28) != 0 {
        return Err(libc::EINVAL);
    }
    is_whole(base, size)?;
    if !vm.is_private(base) {
        return Err(libc::EINVAL);
    }
    match vm.realm.stage {
        Stage::Active => return Err(libc::EBUSY),
        Stage::None | Stage::New => vm.realm.stage = Stage::New,
    }
    let done = size.min(PROGRESS);
    let written = fill(vm, base, done, source)?;
    let rest = [base + done, size - done, source + done];
    process::write(argument, &rest.map(u64::to_ne_bytes).concat())?;
    Ok(written)
}

fn is_whole(base: u64, size: u64) -> Result<(), Errno> {
    match base.is_multiple_of(4096) && size.is_multiple_of(4096) && base.checked_add(size).is_some()
    {
        true => Ok(()),
        false => Err(libc::EINVAL),
    }
}

/// Copies pages into the private form of their slot.
fn fill(vm: &mut VmState, base: u64, size: u64, source: u64) -> Result<Vec<Written>, Errno> {
    let (file, offset) = vm.place(base).ok_or(libc::EINVAL)?;
    let mut bytes = vec![0; usize::try_from(size).map_err(|_| libc::ENOMEM)?];
    process::read(source, &mut bytes)?;
    vm.realm.fill(base, size)?;
    Ok(vec![(file, offset, bytes)])
}

/// A command of [`enable_cap`] as text.
pub(crate) fn describe(command: u64, argument: u64) -> Result<String, Errno> {
    let name = match command {
        0 => "configure",
        1 => "create",
        2 => "init-ripas",
        3 => "populate",
        4 => "activate",
        _ => "?",
    };
    let mut text = name.to_owned();
    let words: Vec<u64> = match command {
        0 => {
            let bytes: [u8; 260] = process::copy_in(argument)?;
            let words = bytes.chunks(4).map(|word| u64::from(u32_at(word, 0)));
            words.collect()
        }
        2 | 3 => {
            let bytes: [u8; 32] = process::copy_in(argument)?;
            bytes.chunks(8).map(|word| u64_at(word, 0)).collect()
        }
        _ => vec![argument],
    };
    let used = words
        .iter()
        .rposition(|word| *word != 0)
        .map_or(0, |last| last + 1);
    for word in words.iter().take(used) {
        // Writing to a string does not fail.
        let _ = write!(text, " {word:#x}");
    }
    Ok(text)
}
