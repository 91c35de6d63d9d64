//! What a TD takes at which stage (`arch/x86/kvm/vmx/tdx.c` of Linux).
//!
//! ```text
//!   VM:    none ── INIT_VM ─► initialized ── FINALIZE_VM ─► finalized (KVM_RUN)
//!   vCPU:  none ── SET_CPUID2, INIT_VCPU ─► initialized (INIT_MEM_REGION)
//! ```

use std::collections::BTreeSet;
use std::ffi::c_int;

use crate::host::{u32_at, u64_at};
use crate::vm::{VmState, Written};
use crate::x86::{Leaf, read_leaves, write_leaves};
use crate::{Errno, process};

const CAPABILITIES: u32 = 0;
const INIT_VM: u32 = 1;
const INIT_VCPU: u32 = 2;
const INIT_MEM_REGION: u32 = 3;
const FINALIZE_VM: u32 = 4;
const GET_CPUID: u32 = 5;
const PAGE: u64 = 4096;

/// What can be configured: SEPT_VE_DISABLE; x87, SSE, AVX; some bits of two leaves.
const ATTRIBUTES: u64 = 1 << 28;
const XFAM: u64 = 7;
const CONFIGURABLE: [Leaf; 2] = [
    [1, 0, 0, 0, 1 << 24, 0],
    [0x8000_0008, 0, 0x00ff_0000, 0, 0, 0],
];
/// What the module tells the guest of its processors.
const KNOWN_TO_GUEST: [Leaf; 3] = [
    [0, 0, 0x21, 0x756e_6547, 0x6c65_746e, 0x4965_6e69],
    [1, 0, 0xc_06f2, 0x800, 1 << 21, 0],
    [2, 0, 0, 0, 0, 0],
];

/// How much is loaded before a signal comes.
const PROGRESS: u64 = 1 << 20;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    None,
    Initialized,
    Finalized,
}

/// The TD of a VM.
#[derive(Debug, Default)]
pub(crate) struct Td {
    stage: Stage,
    vcpus: BTreeSet<u64>,
    filled: Vec<(u64, u64)>,
}

impl Td {
    pub(crate) fn is_initialized(&self) -> bool {
        self.stage != Stage::None
    }

    pub(crate) fn is_finalized(&self) -> bool {
        self.stage == Stage::Finalized
    }
}

/// `struct kvm_tdx_cmd`: id, flags, data, status.
fn request(argument: u64) -> Result<(u32, u32, u64), Errno> {
    let bytes: [u8; 24] = process::copy_in(argument)?;
    match u64_at(&bytes, 16) {
        0 => Ok((u32_at(&bytes, 0), u32_at(&bytes, 4), u64_at(&bytes, 8))),
        _ => Err(libc::EINVAL),
    }
}

/// A sub-command of a VM.
pub(crate) fn vm_op(vm: &mut VmState, argument: u64) -> Result<Vec<Written>, Errno> {
    match (request(argument)?, vm.td.stage) {
        ((CAPABILITIES, 0, data), _) => {
            process::write(data, &[ATTRIBUTES, XFAM].map(u64::to_ne_bytes).concat())?;
            write_leaves(data.saturating_add(256 * 8), &CONFIGURABLE)?;
        }
        ((INIT_VM, 0, data), Stage::None) => {
            init_vm(data)?;
            if !vm.vcpus.is_empty() {
                return Err(libc::EBUSY);
            }
            vm.td.stage = Stage::Initialized;
        }
        ((FINALIZE_VM, 0, 0), Stage::Initialized) => {
            // Stricter than a kernel, which takes a TD without content and vCPUs.
            if vm.td.filled.is_empty() || vm.td.vcpus.len() != vm.vcpus.len() {
                return Err(libc::EINVAL);
            }
            vm.td.stage = Stage::Finalized;
        }
        _ => return Err(libc::EINVAL),
    }
    Ok(Vec::new())
}

/// `struct kvm_tdx_init_vm`: attributes, XFAM, digests and reserved words up to 256 bytes, leaves.
fn init_vm(data: u64) -> Result<(), Errno> {
    let bytes: [u8; 256] = process::copy_in(data)?;
    let (attributes, xfam) = (u64_at(&bytes, 0), u64_at(&bytes, 8));
    let leaves = read_leaves(data.saturating_add(256))?;
    let rest_is_zero = bytes.iter().skip(16).all(|byte| *byte == 0);
    let sizes = leaves.iter().find(|leaf| leaf[0] == 0x8000_0008);
    let width = sizes.map_or(0, |leaf| leaf[2] >> 16 & 0xff);
    let configurable = leaves.iter().all(|leaf| {
        let mut masks = CONFIGURABLE.iter();
        masks.any(|mask| {
            let known = mask[..2] == leaf[..2];
            known
                && leaf
                    .iter()
                    .zip(mask)
                    .skip(2)
                    .all(|(value, mask)| value & !mask == 0)
        })
    });
    let known = attributes & !ATTRIBUTES == 0 && xfam & !XFAM == 0;
    match known && rest_is_zero && configurable && matches!(width, 48 | 52) {
        true => Ok(()),
        false => Err(libc::EINVAL),
    }
}

/// What a sub-command of a vCPU writes to files of this kernel, and how it ends.
type Done = (Vec<Written>, Result<c_int, Errno>);

/// A sub-command of a vCPU.
pub(crate) fn vcpu_op(vm: &mut VmState, index: u64, argument: u64) -> Result<Done, Errno> {
    if vm.td.stage != Stage::Initialized {
        return Err(libc::EINVAL);
    }
    let nothing = (Vec::new(), Ok(0));
    match request(argument)? {
        (GET_CPUID, 0, data) => {
            write_leaves(data, &KNOWN_TO_GUEST)?;
            Ok(nothing)
        }
        (INIT_VCPU, 0, _) => {
            let has_cpuid = vm.vcpus.get(&index).is_some_and(|vcpu| vcpu.has_cpuid);
            match has_cpuid && vm.td.vcpus.insert(index) {
                true => Ok(nothing),
                false => Err(libc::EINVAL),
            }
        }
        (INIT_MEM_REGION, 0 | 1, data) if vm.td.vcpus.contains(&index) => load(vm, data),
        _ => Err(libc::EINVAL),
    }
}

/// `struct kvm_tdx_init_mem_region`: source, address, number of pages; all move on.
fn load(vm: &mut VmState, data: u64) -> Result<Done, Errno> {
    let bytes: [u8; 24] = process::copy_in(data)?;
    let [source, at, pages] = [0, 8, 16].map(|offset| u64_at(&bytes, offset));
    let length = pages.checked_mul(PAGE).ok_or(libc::EINVAL)?;
    let aligned = source.is_multiple_of(PAGE) && at.is_multiple_of(PAGE);
    if !aligned || length == 0 {
        return Err(libc::EINVAL);
    }
    let done = length.min(PROGRESS);
    let end = at.checked_add(done).ok_or(libc::EINVAL)?;
    let (file, offset) = vm.empty_place(at, end, &vm.td.filled)?;
    vm.td.filled.push((at, end));
    let mut content = vec![0; usize::try_from(done).map_err(|_| libc::ENOMEM)?];
    process::read(source, &mut content)?;
    let rest = [source + done, at + done, (length - done) / PAGE];
    process::write(data, &rest.map(u64::to_ne_bytes).concat())?;
    let answer = if done == length {
        Ok(0)
    } else {
        Err(libc::EINTR)
    };
    Ok((vec![(file, offset, content)], answer))
}

/// A sub-command as text.
pub(crate) fn describe(argument: u64, source: impl Fn(u64) -> String) -> Result<String, Errno> {
    let bytes: [u8; 24] = process::copy_in(argument)?;
    let (id, flags, data) = (u32_at(&bytes, 0), u32_at(&bytes, 4), u64_at(&bytes, 8));
    Ok(match id {
        CAPABILITIES => "TDX_CAPABILITIES".to_owned(),
        INIT_VM => {
            let init: [u8; 16] = process::copy_in(data)?;
            let leaves = read_leaves(data.saturating_add(256))?;
            let sizes = leaves.iter().find(|leaf| leaf[0] == 0x8000_0008);
            let width = sizes.map_or(0, |leaf| leaf[2] >> 16 & 0xff);
            format!(
                "TDX_INIT_VM attributes {:#x} xfam {:#x} leaves {} gpaw {width}",
                u64_at(&init, 0),
                u64_at(&init, 8),
                leaves.len()
            )
        }
        INIT_VCPU => format!("TDX_INIT_VCPU rcx {data:#x}"),
        INIT_MEM_REGION => {
            let region: [u8; 24] = process::copy_in(data)?;
            let [from, at, pages] = [0, 8, 16].map(|offset| u64_at(&region, offset));
            format!(
                "TDX_INIT_MEM_REGION flags {flags} at {at:#x} pages {pages:#x} from {}",
                source(from)
            )
        }
        FINALIZE_VM => "TDX_FINALIZE_VM".to_owned(),
        GET_CPUID => "TDX_GET_CPUID".to_owned(),
        other => format!("sub-command {other}"),
    })
}
