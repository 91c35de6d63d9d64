//! What conversions cost at the least: the kernel calls of one, in a bare loop.
//!
//! ```text
//! floor SHARED_BIT [GROUP]...   shared pages have a second name (arm64): see aliased.rs
//! floor private [GROUP]...      private pages are in a guest_memfd (x86-64): see private.rs
//!
//! GROUP is the IOMMU group of a device that is bound to vfio-pci: a container of type1 for each
//! ```
//! Prints `share_4k_us=` and so on: what the guest's own figure is compared with.
#![expect(clippy::print_stdout, reason = "prints its figures")]

mod aliased;
mod calls;
mod containers;
#[cfg(target_arch = "x86_64")]
mod private;

use std::io;
use std::time::{Duration, Instant};

use calls::GIB;

/// One extent of guest memory, private at first, whose state changes there and back.
trait Extent {
    /// All that makes it shared.
    fn share(&mut self) -> io::Result<()>;
    /// All that makes it private again.
    fn unshare(&mut self) -> io::Result<()>;
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let kind = arguments.next().ok_or(io::ErrorKind::InvalidInput)?;
    let groups: Vec<String> = arguments.collect();
    for (name, bytes, rounds) in [("4k", 4096, 256), ("2m", 2 << 20, 32), ("1g", GIB, 2)] {
        let mut extent = extent(&kind, &groups, bytes)?;
        let (mut share, mut unshare) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..rounds {
            let begin = Instant::now();
            extent.share()?;
            let middle = Instant::now();
            extent.unshare()?;
            share += middle - begin;
            unshare += middle.elapsed();
        }
        println!("share_{name}_us={}", share.as_micros() / rounds);
        println!("unshare_{name}_us={}", unshare.as_micros() / rounds);
    }
    Ok(())
}

fn extent(kind: &str, groups: &[String], bytes: usize) -> io::Result<Box<dyn Extent>> {
    #[cfg(target_arch = "x86_64")]
    if kind == "private" {
        return Ok(Box::new(private::Private::new(groups, bytes)?));
    }
    let bit = kind.parse().map_err(|_| io::ErrorKind::InvalidInput)?;
    Ok(Box::new(aliased::Aliased::new(bit, groups, bytes)?))
}
