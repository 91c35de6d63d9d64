//! Which pages of the host guest RAM is made of.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

use hostcall::gate;
use rustix::fs::MemfdFlags;

use super::mapping::HUGE_PAGE;

/// The pages of the host that guest RAM is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HostPages {
    /// Pages of the host's usual size, and huge ones as it finds them.
    #[default]
    Transparent,
    /// Pages of 2 MiB from the host's pool, which nobody else can have then.
    Huge2M,
    /// Pages of 1 GiB from the host's pool.
    Huge1G,
}

impl HostPages {
    /// Bytes of a page of the host's pool; `None` where the pool is not asked.
    #[must_use]
    pub const fn pool_page(self) -> Option<u64> {
        match self {
            Self::Transparent => None,
            Self::Huge2M => Some(2 << 20),
            Self::Huge1G => Some(1 << 30),
        }
    }

    /// The alignment that guest RAM needs in this process.
    pub(super) fn alignment(self) -> usize {
        let page = self.pool_page().and_then(|page| page.try_into().ok());
        page.unwrap_or(HUGE_PAGE)
    }

    /// A file of `bytes` bytes of such pages, where they come from the pool.
    pub(super) fn file(self, bytes: u64) -> io::Result<Option<OwnedFd>> {
        let size = match self {
            Self::Transparent => return Ok(None),
            Self::Huge2M => MemfdFlags::HUGE_2MB,
            Self::Huge1G => MemfdFlags::HUGE_1GB,
        };
        gate("memfd_create")?;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | size;
        let file = rustix::fs::memfd_create("guest-ram", flags)?;
        rustix::fs::ftruncate(&file, bytes)?;
        Ok(Some(file))
    }
}

impl fmt::Display for HostPages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Transparent => "pages",
            Self::Huge2M => "huge pages of 2 MiB",
            Self::Huge1G => "huge pages of 1 GiB",
        })
    }
}
