//! Where in DRAM the kernel, its device tree and the initial RAM disk go.
//!
//! ```text
//! DRAM range:  | text_offset | kernel ... | device tree (2 MiB) | initrd ... |   free   |
//!              ^ 2 MiB                    ^ 2 MiB               ^ 4 KiB
//! ```
//! Each goes to the first range with room for it, so that they follow one another in the first range
//! unless the layout has a small one there.

use iommu::addr::PAGE_SIZE;
use iommu::{Gpa, PageRange};

use crate::boot::room::{DoesNotFit, Item, Piece, take};

/// A kernel is loaded at its text offset above a multiple of this: 2 MiB.
pub const KERNEL_ALIGNMENT: u64 = 2 << 20;

/// Room for the device tree, which must not exceed it nor cross a multiple of it: 2 MiB.
pub const FDT_BYTES: u64 = 2 << 20;

/// Kernel and initial RAM disk lie in one window of this size, aligned to 1 GiB: 32 GiB.
const WINDOW_BYTES: u64 = 32 << 30;
const WINDOW_ALIGNMENT: u64 = 1 << 30;

/// Where everything goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// The 2 MiB boundary below the kernel.
    pub kernel_base: Gpa,
    /// First byte of the kernel, and where it is entered.
    pub kernel: Gpa,
    /// First byte of the device tree, which has [`FDT_BYTES`].
    pub fdt: Gpa,
    /// First byte of the initial RAM disk, if there is one.
    pub initrd: Option<Gpa>,
}

/// What is to be placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// How far above a 2 MiB boundary the kernel goes: less than 2 MiB.
    pub text_offset: u64,
    /// How much memory the kernel takes from there on.
    pub kernel: u64,
    /// Length of the initial RAM disk; `None` without one.
    pub initrd: Option<u64>,
}

impl Placement {
    /// Finds a place in `dram` (ascending, disjoint) for all of them.
    ///
    /// # Errors
    /// When one of them fits nowhere.
    pub fn find(dram: &[PageRange<Gpa>], sizes: Sizes) -> Result<Self, DoesNotFit> {
        let mut free: Vec<Piece> = dram.iter().map(Piece::of).collect();
        let with_offset = sizes.text_offset.saturating_add(sizes.kernel);
        let kernel = Item::anywhere("kernel", with_offset, KERNEL_ALIGNMENT);
        let kernel_base = take(&mut free, kernel)?;
        let fdt = take(
            &mut free,
            Item::anywhere("device tree", FDT_BYTES, FDT_BYTES),
        )?;
        let mut window = within_window(&free, kernel_base);
        let initrd = sizes
            .initrd
            .map(|bytes| {
                let limits = " after the kernel, within 32 GiB of it";
                take(
                    &mut window,
                    Item {
                        limits,
                        ..Item::anywhere("initrd", bytes, PAGE_SIZE)
                    },
                )
            })
            .transpose()?;
        Ok(Self {
            kernel_base: Gpa::new(kernel_base),
            kernel: Gpa::new(kernel_base.saturating_add(sizes.text_offset)),
            fdt: Gpa::new(fdt),
            initrd: initrd.map(Gpa::new),
        })
    }
}

/// The parts of `free` that are in the window which begins at the gigabyte of the kernel.
fn within_window(free: &[Piece], kernel_base: u64) -> Vec<Piece> {
    let start = kernel_base - kernel_base % WINDOW_ALIGNMENT;
    let end = start.saturating_add(WINDOW_BYTES);
    free.iter()
        .filter_map(|piece| piece.within(start, end))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn range(start: u64, bytes: u64) -> PageRange<Gpa> {
        PageRange::new(Gpa::new(start), bytes).unwrap()
    }

    fn sizes(kernel: u64, initrd: Option<u64>) -> Sizes {
        Sizes {
            text_offset: 0,
            kernel,
            initrd,
        }
    }

    #[test]
    fn everything_follows_in_the_first_range() {
        let dram = [range(1 << 30, 512 * MIB), range(8 << 30, 512 * MIB)];
        let placed = Placement::find(&dram, sizes(33 * MIB + 5, Some(7 * MIB + 1))).unwrap();
        assert_eq!(placed.kernel_base, Gpa::new(1 << 30));
        assert_eq!(placed.kernel, placed.kernel_base);
        assert_eq!(placed.fdt, Gpa::new((1 << 30) + 34 * MIB));
        assert_eq!(placed.initrd, Some(Gpa::new((1 << 30) + 36 * MIB)));
    }

    #[test]
    fn a_small_first_range_is_passed_over_for_what_it_cannot_hold() {
        let dram = [range(0, 4 * MIB), range(64 * MIB, 64 * MIB)];
        let placed = Placement::find(&dram, sizes(16 * MIB, Some(4096))).unwrap();
        assert_eq!(placed.kernel_base, Gpa::new(64 * MIB));
        assert_eq!(placed.fdt, Gpa::new(0));
        assert_eq!(placed.initrd, Some(Gpa::new(2 * MIB)));
    }

    #[test]
    fn an_old_kernel_keeps_its_text_offset() {
        let old = Sizes {
            text_offset: 0x8_0000,
            ..sizes(MIB, None)
        };
        let placed = Placement::find(&[range(0x4000_0000, 64 * MIB)], old).unwrap();
        assert_eq!(placed.kernel, Gpa::new(0x4008_0000));
    }

    #[test]
    fn what_does_not_fit_is_named_with_what_is_free() {
        let dram = [range(0, 64 * MIB)];
        let error = Placement::find(&dram, sizes(100 * MIB, None)).unwrap_err();
        assert_eq!(
            (error.what, error.bytes, error.free),
            ("kernel", 100 * MIB, 64 * MIB)
        );
        let error = Placement::find(&dram, sizes(32 * MIB, Some(31 * MIB))).unwrap_err();
        assert_eq!(
            (error.what, error.bytes, error.free),
            ("initrd", 31 * MIB, 30 * MIB)
        );
        let error = Placement::find(&dram, sizes(u64::MAX, None)).unwrap_err();
        assert_eq!(error.what, "kernel");
    }

    #[test]
    fn the_initrd_stays_within_32_gib_of_the_kernel() {
        let dram = [range(1 << 30, 64 * MIB), range(40 << 30, 1 << 30)];
        let error = Placement::find(&dram, sizes(32 * MIB, Some(100 * MIB))).unwrap_err();
        assert_eq!((error.what, error.free), ("initrd", 30 * MIB));
        let dram = [range(1 << 30, 64 * MIB), range(20 << 30, 1 << 30)];
        let placed = Placement::find(&dram, sizes(32 * MIB, Some(100 * MIB))).unwrap();
        assert_eq!(placed.initrd, Some(Gpa::new(20 << 30)));
    }
}
