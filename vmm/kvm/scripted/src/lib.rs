//! For tests: a kernel that answers KVM's calls from a script, for hosts that no test machine is.
//!
//! ```text
//!   code under test ─► kvm-ioctls ─► ioctl() ─┬─ a file of this kernel ─► Host: checks, answers, notes
//!                      open("/dev/kvm") ──────┘
//!                                             └─ any other file ────────► the real kernel
//! ```
//! A program that links this crate has its `open` and `ioctl` instead of libc's. So what is checked is
//! what a kernel would get: numbers, bytes and their order, below every wrapper. Files of this kernel
//! are memory files: mapping a vCPU's page and punching holes in a guest_memfd work as they are.
//!
//! It knows what the two forms of the interface for Realms demand, as far as that was seen of kernels
//! that have them; where it is stricter than they are, a comment says so. It runs no guest.
#![expect(unsafe_code, reason = "stands in for two functions of libc")]

mod call;
mod files;
mod host;
mod note;
mod process;
mod realm;
mod snp;
mod tdx;
mod vm;
mod x86;

use std::ffi::{CStr, c_char, c_int, c_ulong, c_void};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use host::{Exit, Form, Host};

/// The kernel of this process, while a test has one.
static HOST: Mutex<Option<Host>> = Mutex::new(None);
/// Tests that have one take turns: files are the process's.
static TURN: Mutex<()> = Mutex::new(());

/// How long a vCPU without anything to do is away.
const NAP: Duration = Duration::from_millis(2);

/// The number of an error, as in `errno`.
pub(crate) type Errno = i32;

/// The kernel, for the test that started it.
pub struct Kernel {
    _turn: MutexGuard<'static, ()>,
}

impl Kernel {
    /// Has KVM be that of `host`, until this is dropped.
    #[must_use]
    pub fn start(host: Host) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        *installed() = Some(host);
        Self { _turn: turn }
    }

    /// What was called so far, a line each.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let host = installed();
        host.as_ref()
            .map_or_else(Vec::new, |host| host.notes.clone())
    }

    /// Makes the `nth` call from now on fail with this error, counted from 1.
    pub fn fail(&self, nth: usize, errno: i32) {
        if let Some(host) = installed().as_mut() {
            host.fails = Some((host.notes.len().saturating_add(nth), errno));
        }
    }

    /// The same, with what the security processor or the TDX module has to say of it.
    pub fn fail_below(&self, nth: usize, errno: i32, status: u64) {
        self.fail(nth, errno);
        if let Some(host) = installed().as_mut() {
            host.status = status;
        }
    }

    /// The words of the exit's structure that the process answered with, as the `KVM_RUN` after it found
    /// them, of each exit in turn.
    #[must_use]
    pub fn answers(&self) -> Vec<[u64; 8]> {
        let host = installed();
        host.as_ref()
            .map_or_else(Vec::new, |host| host.answers.clone())
    }

    /// How many files of this kernel the process has open.
    #[must_use]
    pub fn open_files(&self) -> usize {
        installed().as_ref().map_or(0, |host| host.files.open())
    }

    /// Has a `KVM_RUN` of the vCPU with this index return like this, after those that were given before.
    /// One that has none left does not return but for signals, and is not noted.
    pub fn exit(&self, vcpu: u64, exit: Exit) {
        if let Some(host) = installed().as_mut() {
            host.exits.entry(vcpu).or_default().push_back(exit);
        }
    }

    /// As [`private`].
    #[must_use]
    pub fn private(&self, at: u64) -> Option<u8> {
        private(at)
    }
}

/// Adds a line of a test's own to the calls, to see their order.
pub fn note(line: String) {
    if let Some(host) = installed().as_mut() {
        host.notes.push(line);
    }
}

/// What the private memory at the guest-physical address `at` holds: `None` where there is none, or a
/// hole.
#[must_use]
pub fn private(at: u64) -> Option<u8> {
    installed().as_ref().and_then(|host| host.private(at))
}

impl Drop for Kernel {
    fn drop(&mut self) {
        *installed() = None;
    }
}

fn installed() -> MutexGuard<'static, Option<Host>> {
    HOST.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Instead of libc's.
///
/// # Safety
/// As for libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ioctl(fd: c_int, request: c_ulong, argument: c_ulong) -> c_int {
    let ours = installed()
        .as_mut()
        .and_then(|host| host.answer(fd, request, argument));
    match ours {
        Some(Err(host::IDLE)) if request == call::RUN => {
            std::thread::sleep(NAP);
            returned(Err(host::IDLE))
        }
        Some(answer) => returned(answer),
        None => {
            // SAFETY: the caller's promise, passed on.
            let done = unsafe { libc::syscall(libc::SYS_ioctl, fd, request, argument) };
            c_int::try_from(done).unwrap_or(-1)
        }
    }
}

/// Instead of libc's, which programs in Rust use for devices of KVM only: the standard library has
/// another name for it.
///
/// # Safety
/// As for libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: c_int) -> c_int {
    // SAFETY: the caller's promise: it is a string with an end.
    let name = unsafe { CStr::from_ptr(path) };
    let device = match name.to_bytes() {
        b"/dev/kvm" => Some(files::Kind::Kvm),
        b"/dev/sev" => Some(files::Kind::SecurityProcessor),
        _ => None,
    };
    if let Some(device) = device
        && let Some(host) = installed().as_mut()
    {
        return returned(host.open(device));
    }
    let path: *const c_void = path.cast();
    // SAFETY: the caller's promise, passed on.
    let done = unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, flags, mode) };
    c_int::try_from(done).unwrap_or(-1)
}

fn returned(answer: Result<c_int, Errno>) -> c_int {
    match answer {
        Ok(value) => value,
        Err(errno) => {
            process::set_errno(errno);
            -1
        }
    }
}
