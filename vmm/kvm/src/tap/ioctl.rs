//! The ioctls of tap interfaces (`linux/if_tun.h`).
#![expect(unsafe_code, reason = "tap interfaces are set up by ioctl")]

use std::ffi::{CStr, c_char, c_int, c_short, c_ulong};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use hostcall::gate;

use super::{QueueUse, TapName};

/// Whether an interface has one queue or can have several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// One.
    Single,
    /// Several.
    Multi,
}

/// `struct ifreq` of the kernel, as far as these ioctls use it: the flags are the first of a union.
#[repr(C)]
struct Request {
    name: [c_char; libc::IFNAMSIZ],
    flags: c_short,
    rest: [u8; 22],
}

const _: () = assert!(size_of::<Request>() == size_of::<libc::ifreq>());

impl Request {
    fn new(name: &str, flags: c_int) -> Self {
        let mut request = Self {
            name: [0; libc::IFNAMSIZ],
            // Every flag of a tap interface is in the lower 16 bits.
            flags: c_short::from_ne_bytes(low_half(flags)),
            rest: [0; 22],
        };
        // The last byte stays zero.
        let room = request.name.iter_mut().take(libc::IFNAMSIZ - 1);
        for (to, from) in room.zip(name.bytes()) {
            *to = c_char::from_ne_bytes([from]);
        }
        request
    }

    fn flags(&self) -> c_int {
        c_int::from(u16::from_ne_bytes(self.flags.to_ne_bytes()))
    }
}

fn low_half(flags: c_int) -> [u8; 2] {
    let [a, b, ..] = flags.to_le_bytes();
    u16::from_le_bytes([a, b]).to_ne_bytes()
}

/// Makes `file` a queue of the tap interface `name`.
pub(super) fn attach(file: &OwnedFd, name: &TapName, kind: Kind) -> io::Result<()> {
    let several = match kind {
        Kind::Single => 0,
        Kind::Multi => libc::IFF_MULTI_QUEUE,
    };
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | several;
    let mut request = Request::new(name.as_str(), flags);
    gate("TUNSETIFF")?;
    // SAFETY: the kernel reads and writes one `struct ifreq`, which `request` has the size of.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })
}

/// The name of the tap interface that `file` is a queue of, and whether frames have a header.
pub(super) fn identify(file: &OwnedFd) -> io::Result<(TapName, bool)> {
    let mut request = Request::new("", 0);
    gate("TUNGETIFF")?;
    // SAFETY: the kernel writes one `struct ifreq`, which `request` has the size of.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNGETIFF, &raw mut request) })?;
    let bytes = request.name.map(|c| c.to_ne_bytes()[0]);
    let name = CStr::from_bytes_until_nul(&bytes).ok();
    let name = name.and_then(|name| name.to_str().ok()?.parse().ok());
    let is_tap = request.flags() & libc::IFF_TAP != 0;
    match name.filter(|_| is_tap) {
        Some(name) => Ok((name, request.flags() & libc::IFF_VNET_HDR != 0)),
        None => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// Sets how many bytes the header in front of each frame has.
pub(super) fn set_header_bytes(file: &OwnedFd, bytes: c_int) -> io::Result<()> {
    gate("TUNSETVNETHDRSZ")?;
    // SAFETY: the kernel reads one int.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const bytes) })
}

/// Has the fields of the header in the byte order of virtio.
pub(super) fn set_little_endian(file: &OwnedFd) -> io::Result<()> {
    let on: c_int = 1;
    gate("TUNSETVNETLE")?;
    // SAFETY: the kernel reads one int.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETLE, &raw const on) })
}

/// Sets what the reader of frames does itself.
pub(super) fn set_offloads(file: &OwnedFd, offloads: u32) -> io::Result<()> {
    gate("TUNSETOFFLOAD")?;
    let offloads = c_ulong::from(offloads);
    // SAFETY: the argument is a number, not an address.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD, offloads) })
}

/// Sets whether the host sends frames by the queue.
pub(super) fn set_queue(file: &OwnedFd, queue: QueueUse) -> io::Result<()> {
    let flag = match queue {
        QueueUse::Used => libc::IFF_ATTACH_QUEUE,
        QueueUse::Unused => libc::IFF_DETACH_QUEUE,
    };
    let request = Request::new("", flag);
    gate("TUNSETQUEUE")?;
    // SAFETY: the kernel reads one `struct ifreq`, which `request` has the size of.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETQUEUE, &raw const request) })
}

/// Another descriptor of the file that has `number` in this process.
pub(super) fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the number is only given to the kernel, for one call: where no file has it, the kernel
    // says so, and where one has, the copy is of that one.
    let file = unsafe { BorrowedFd::borrow_raw(number) };
    file.try_clone_to_owned()
}

fn check(result: c_int) -> io::Result<()> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
