//! Random numbers of the host's kernel, for keys, nonces and seeds.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

/// `N` bytes that nobody can guess.
///
/// # Errors
/// When the kernel has no such call.
pub(crate) fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    fill(&mut bytes)?;
    Ok(bytes)
}

/// Fills `bytes` with what nobody can guess.
///
/// # Errors
/// When the kernel has no such call.
pub(crate) fn fill(bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        filled += getrandom(rest, GetRandomFlags::empty())?;
    }
    Ok(())
}
