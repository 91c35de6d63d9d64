//! On which NUMA nodes of the host memory comes from.
#![expect(unsafe_code, reason = "no wrapper of this system call is kept well")]

use std::io;

use hostcall::gate;

/// The most nodes that Linux can be built for.
pub const MOST_NODES: u32 = 1024;

/// `MPOL_BIND` of `linux/mempolicy.h`: from these nodes, or not at all.
const BIND: libc::c_ulong = 2;
const WORD: u32 = libc::c_ulong::BITS;
const WORDS: usize = (MOST_NODES / WORD) as usize;

/// Has this thread, and all that it starts from now on, take memory from `nodes` only.
///
/// That holds for every page that one of them is the first to touch, guest memory in whatever form and
/// the kernel's memory for the VM among it, so that nothing has to follow when guest pages are replaced.
///
/// # Errors
/// When a node does not exist, has no memory, or is not this process's to use; or the kernel knows of no
/// nodes.
pub fn bind_to_nodes(nodes: &[u32]) -> io::Result<()> {
    let mut mask: [libc::c_ulong; WORDS] = [0; WORDS];
    for node in nodes {
        let word = usize::try_from(node / WORD).ok();
        let word = word.and_then(|word| mask.get_mut(word));
        *word.ok_or(io::ErrorKind::InvalidInput)? |= 1 << (node % WORD);
    }
    gate("set_mempolicy")?;
    // The kernel takes the number of bits less one.
    let bits = libc::c_ulong::from(MOST_NODES) + 1;
    // SAFETY: the kernel reads as many bits of the mask as it is told that there are, one less, and
    // keeps no reference to it.
    let outcome = unsafe { libc::syscall(libc::SYS_set_mempolicy, BIND, mask.as_ptr(), bits) };
    match outcome {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_node_that_there_is_not_is_refused_and_one_that_there_is_binds_the_thread() {
        // Of a thread of its own: the policy is one of threads.
        let outcome = thread::spawn(|| {
            let absent = bind_to_nodes(&[MOST_NODES - 1]).map_err(|error| error.raw_os_error());
            let beyond = bind_to_nodes(&[MOST_NODES]).is_err();
            let bound = bind_to_nodes(&[0]);
            let maps = std::fs::read_to_string("/proc/thread-self/numa_maps");
            (absent, beyond, bound, maps)
        });
        let (absent, beyond, bound, maps) = outcome.join().unwrap();
        assert!(beyond);
        match maps {
            Ok(maps) => {
                assert_eq!(absent, Err(Some(libc::EINVAL)));
                bound.unwrap();
                assert!(maps.lines().any(|line| line.contains(" bind:0 ")), "{maps}");
            }
            // A kernel without NUMA.
            Err(_) => assert_eq!(absent, Err(Some(libc::ENOSYS))),
        }
    }
}
