//! Which I/O virtual addresses an IOMMU group can map, asked of a type1 container that lives for
//! the length of the question.
//!
//! ```text
//! open /dev/vfio/vfio ─► open /dev/vfio/GROUP ─► viable? ─► into the container ─► type1 ─► info
//!                            EBUSY: someone uses it            (both are closed again)
//! ```
#![expect(unsafe_code, reason = "VFIO is asked by ioctl")]

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::AsRawFd;

use hostcall::gate;
use vfio_bindings::bindings::vfio::{
    VFIO_BASE, VFIO_GROUP_FLAGS_VIABLE, VFIO_IOMMU_INFO_CAPS, VFIO_IOMMU_INFO_PGSIZES,
    VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, VFIO_TYPE,
    VFIO_TYPE1v2_IOMMU, vfio_group_status,
};
use vmm_sys_util::ioctl::{ioctl_with_mut_ptr, ioctl_with_mut_ref, ioctl_with_ref, ioctl_with_val};
use vmm_sys_util::ioctl_io_nr;

ioctl_io_nr!(SET_IOMMU, VFIO_TYPE.into(), VFIO_BASE + 2);
ioctl_io_nr!(GROUP_GET_STATUS, VFIO_TYPE.into(), VFIO_BASE + 3);
ioctl_io_nr!(GROUP_SET_CONTAINER, VFIO_TYPE.into(), VFIO_BASE + 4);
ioctl_io_nr!(IOMMU_GET_INFO, VFIO_TYPE.into(), VFIO_BASE + 12);

const SET_CONTAINER: &str = "VFIO_GROUP_SET_CONTAINER";
const SET_TYPE: &str = "VFIO_SET_IOMMU";
const GET_INFO: &str = "VFIO_IOMMU_GET_INFO";
const GET_STATUS: &str = "VFIO_GROUP_GET_STATUS";

/// Bytes of `struct vfio_iommu_type1_info` up to the capability chain.
const INFO_BYTES: usize = 24;
/// More than any chain that a kernel makes; an answer that claims more is not believed.
const INFO_BYTES_MAX: usize = 64 * 1024;

/// Why the ranges of a group cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum IovaError {
    /// A device node cannot be opened.
    #[error("cannot open {path}")]
    Open {
        /// The node.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The group is open elsewhere: most likely a VM runs with its devices.
    #[error("IOMMU group {group} is in use")]
    Busy {
        /// The group.
        group: u32,
    },
    /// A device of the group has a driver that is not VFIO's.
    #[error("IOMMU group {group} has a device with a host driver")]
    NotViable {
        /// The group.
        group: u32,
    },
    /// An ioctl fails.
    #[error("{operation} of IOMMU group {group} fails")]
    Ioctl {
        /// Which, by its name in the kernel.
        operation: &'static str,
        /// The group.
        group: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel's answer makes no sense, or lacks the ranges (Linux before 5.4).
    #[error("the kernel does not tell the IOVA ranges of IOMMU group {group}")]
    NoAnswer {
        /// The group.
        group: u32,
    },
}

/// The IOVA ranges that the IOMMU maps for a group whose devices are all free for VFIO.
///
/// Reserved regions are already taken out of them. The devices are not touched: no device is
/// opened, and a group that someone uses is refused by the kernel.
///
/// # Errors
/// When the group is in use, not viable, not accessible, or the kernel does not tell.
pub fn iova_ranges(group: u32) -> Result<Vec<RangeInclusive<u64>>, IovaError> {
    let container = open("/dev/vfio/vfio", group)?;
    let member = open(&format!("/dev/vfio/{group}"), group)?;
    require_viable(&member, group)?;
    let failed = |operation| {
        move |source| IovaError::Ioctl {
            operation,
            group,
            source,
        }
    };

    let container_fd = container.as_raw_fd();
    gate(SET_CONTAINER).map_err(failed(SET_CONTAINER))?;
    // SAFETY: the kernel reads one int, which outlives the call.
    let result = unsafe { ioctl_with_ref(&member, GROUP_SET_CONTAINER(), &container_fd) };
    checked(result).map_err(failed(SET_CONTAINER))?;
    gate(SET_TYPE).map_err(failed(SET_TYPE))?;
    // SAFETY: the argument is a number, not a pointer.
    let result = unsafe { ioctl_with_val(&container, SET_IOMMU(), VFIO_TYPE1v2_IOMMU.into()) };
    checked(result).map_err(failed(SET_TYPE))?;

    let info = type1_info(&container).map_err(failed(GET_INFO))?;
    parse_ranges(&info).ok_or(IovaError::NoAnswer { group })
}

fn open(path: &str, group: u32) -> Result<File, IovaError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|source| match source.kind() {
            io::ErrorKind::ResourceBusy => IovaError::Busy { group },
            _ => IovaError::Open {
                path: path.to_owned(),
                source,
            },
        })
}

fn require_viable(member: &File, group: u32) -> Result<(), IovaError> {
    let failed = |source| IovaError::Ioctl {
        operation: GET_STATUS,
        group,
        source,
    };
    gate(GET_STATUS).map_err(failed)?;
    let mut status = vfio_group_status { argsz: 8, flags: 0 };
    // SAFETY: the kernel writes a `vfio_group_status`, which is what it is given.
    let result = unsafe { ioctl_with_mut_ref(member, GROUP_GET_STATUS(), &mut status) };
    checked(result).map_err(failed)?;
    if status.flags & VFIO_GROUP_FLAGS_VIABLE == 0 {
        return Err(IovaError::NotViable { group });
    }
    Ok(())
}

/// `struct vfio_iommu_type1_info` with its capability chain, as bytes.
pub(crate) fn type1_info(container: &impl AsRawFd) -> io::Result<Vec<u8>> {
    let size = ask(container, INFO_BYTES)?
        .get(..4)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(INFO_BYTES, |bytes| {
            usize::try_from(u32::from_ne_bytes(bytes)).unwrap_or(INFO_BYTES)
        });
    ask(container, size.clamp(INFO_BYTES, INFO_BYTES_MAX))
}

/// One `VFIO_IOMMU_GET_INFO` with room for `bytes` bytes of answer.
fn ask(container: &impl AsRawFd, bytes: usize) -> io::Result<Vec<u8>> {
    gate(GET_INFO)?;
    let mut words = vec![0_u64; bytes.div_ceil(8)];
    let room = words.len().saturating_mul(8);
    let argsz = u32::try_from(room).map_err(io::Error::other)?;
    let mut first = [0_u8; 8];
    first[..4].copy_from_slice(&argsz.to_ne_bytes());
    if let Some(word) = words.first_mut() {
        *word = u64::from_ne_bytes(first);
    }
    // SAFETY: the kernel writes at most `argsz` bytes, the length of `words`, and 8-byte alignment
    // is that of the structure.
    let result = unsafe { ioctl_with_mut_ptr(container, IOMMU_GET_INFO(), words.as_mut_ptr()) };
    checked(result)?;
    Ok(words.iter().flat_map(|word| word.to_ne_bytes()).collect())
}

fn checked(result: i32) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Finds the IOVA range capability in a `vfio_iommu_type1_info` and its chain.
pub(crate) fn parse_ranges(info: &[u8]) -> Option<Vec<RangeInclusive<u64>>> {
    parse_range_list(capability(info, VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE)?)
}

/// The sizes of pages that the IOMMU maps, a bit each.
pub(crate) fn parse_page_sizes(info: &[u8]) -> Option<u64> {
    let flags = u32_at(info, 4)?;
    let sizes = u64::from_ne_bytes(bytes_at(info, 8)?);
    (flags & VFIO_IOMMU_INFO_PGSIZES != 0).then_some(sizes)
}

/// How many more mappings the container takes, from a `vfio_iommu_type1_info` and its chain
/// (Linux 5.9 and newer: the module parameter `dma_entry_limit` less those in use).
pub(crate) fn parse_entries_left(info: &[u8]) -> Option<u32> {
    u32_at(capability(info, VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL)?, 8)
}

/// The bytes from the header of the capability `wanted` on.
fn capability(info: &[u8], wanted: u32) -> Option<&[u8]> {
    let flags = u32_at(info, 4)?;
    if flags & VFIO_IOMMU_INFO_CAPS == 0 {
        return None;
    }
    let mut offset = usize::try_from(u32_at(info, 16)?).ok()?;
    // Each capability has a header of 8 bytes: a longer walk is a loop.
    for _ in 0..info.len() / 8 {
        let id = u16::from_ne_bytes(bytes_at(info, offset)?);
        if u32::from(id) == wanted {
            return info.get(offset..);
        }
        offset = usize::try_from(u32_at(info, offset.checked_add(4)?)?).ok()?;
        if offset == 0 {
            return None;
        }
    }
    None
}

/// `struct vfio_iommu_type1_info_cap_iova_range`: header, count, padding, pairs of inclusive bounds.
fn parse_range_list(capability: &[u8]) -> Option<Vec<RangeInclusive<u64>>> {
    let count = usize::try_from(u32_at(capability, 8)?).ok()?;
    let pairs = capability.get(16..)?.get(..count.checked_mul(16)?)?;
    pairs
        .chunks_exact(16)
        .map(|pair| {
            let start = u64::from_ne_bytes(bytes_at(pair, 0)?);
            let end = u64::from_ne_bytes(bytes_at(pair, 8)?);
            (start <= end).then_some(start..=end)
        })
        .collect()
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes_at(bytes, offset)?))
}

fn bytes_at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..offset.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer with a migration capability (2) before the ranges, as Linux gives it.
    fn answer(ranges: &[(u64, u64)]) -> Vec<u8> {
        let mut info = Vec::new();
        for word in [0_u32, 0b11, 0x4020_1000, 0, 24, 0] {
            info.extend(word.to_ne_bytes());
        }
        info.extend(2_u16.to_ne_bytes());
        info.extend(1_u16.to_ne_bytes());
        info.extend(32_u32.to_ne_bytes());
        info.extend(1_u16.to_ne_bytes());
        info.extend(1_u16.to_ne_bytes());
        info.extend(0_u32.to_ne_bytes());
        info.extend(u32::try_from(ranges.len()).unwrap().to_ne_bytes());
        info.extend(0_u32.to_ne_bytes());
        for (start, end) in ranges {
            info.extend(start.to_ne_bytes());
            info.extend(end.to_ne_bytes());
        }
        info
    }

    #[test]
    fn the_ranges_of_an_smmu_with_its_msi_window_are_found() {
        let info = answer(&[(0, 0x7ff_ffff), (0x810_0000, 0xffff_ffff_ffff)]);
        let ranges = parse_ranges(&info).unwrap();
        assert_eq!(ranges, [0..=0x7ff_ffff, 0x810_0000..=0xffff_ffff_ffff]);
    }

    #[test]
    fn page_sizes_are_told_where_the_kernel_says_so() {
        let mut info = answer(&[]);
        assert_eq!(parse_page_sizes(&info), Some(0x4020_1000));
        info[4..8].copy_from_slice(&0b10_u32.to_ne_bytes());
        assert_eq!(parse_page_sizes(&info), None);
    }

    #[test]
    fn the_entries_left_are_found_where_the_kernel_says() {
        let mut info = answer(&[(0, 0xfff)]);
        assert_eq!(parse_entries_left(&info), None);
        // The capability before the ranges becomes DMA_AVAIL; its value lies behind the header,
        // so the ranges move up by one capability of 16 bytes.
        info[24..26].copy_from_slice(&3_u16.to_ne_bytes());
        info[28..32].copy_from_slice(&40_u32.to_ne_bytes());
        info.splice(32..32, 65535_u64.to_ne_bytes());
        assert_eq!(parse_entries_left(&info), Some(65535));
        assert_eq!(parse_ranges(&info), Some(vec![0..=0xfff]));
    }

    #[test]
    fn every_shortened_answer_is_refused() {
        let info = answer(&[(0, 0xfff), (0x2000, 0x2fff)]);
        for length in 0..info.len() {
            assert_eq!(parse_ranges(&info[..length]), None, "{length} bytes");
        }
    }

    #[test]
    fn a_chain_that_loops_or_leaves_the_answer_is_refused() {
        let mut looping = answer(&[]);
        looping[28..32].copy_from_slice(&24_u32.to_ne_bytes());
        assert_eq!(parse_ranges(&looping), None);
        let mut outside = answer(&[]);
        outside[28..32].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert_eq!(parse_ranges(&outside), None);
    }

    #[test]
    fn a_range_that_ends_before_it_starts_is_refused() {
        assert_eq!(parse_ranges(&answer(&[(2, 1)])), None);
        let mut too_many = answer(&[(0, 1)]);
        too_many[40..44].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert_eq!(parse_ranges(&too_many), None);
    }

    #[test]
    fn a_group_that_is_not_there_is_named() {
        let error = iova_ranges(u32::MAX).unwrap_err();
        assert!(matches!(error, IovaError::Open { .. }), "{error}");
    }
}
