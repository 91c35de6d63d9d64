//! The yardstick: one access that exits to ccvm and does nothing there.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::sync::atomic::Ordering;

use anyhow::{Context as _, bail};
use vm_memory::mmap::MmapRegion;
use vm_memory::{Bytes, FileOffset, VolatileMemory};

/// The notification addresses of the virtio IOMMU's BAR: reading them has no effect.
const NOTIFY: usize = 0x2000;
const BAR_BYTES: usize = 0x4000;

/// The BAR of the virtio IOMMU.
pub(crate) struct VirtioFunction(MmapRegion);

impl VirtioFunction {
    /// Finds the function in sysfs and maps its BAR.
    ///
    /// # Errors
    /// When there is none, or the kernel lets nobody map it (`iomem=relaxed` on its command line does).
    pub(crate) fn find() -> anyhow::Result<Self> {
        for entry in fs::read_dir("/sys/bus/pci/devices")? {
            let path = entry?.path();
            if is(&path, "vendor", "0x1af4") && is(&path, "device", "0x1057") {
                let bar = OpenOptions::new()
                    .read(true)
                    .write(true)
                    .open(path.join("resource0"))?;
                let region = MmapRegion::from_file(FileOffset::new(bar, 0), BAR_BYTES);
                return Ok(Self(region.context("the virtio IOMMU cannot be mapped")?));
            }
        }
        bail!("there is no virtio IOMMU")
    }

    /// One exit.
    pub(crate) fn read(&self) -> anyhow::Result<()> {
        let slice = self.0.as_volatile_slice();
        let value: u32 = slice.load(NOTIFY, Ordering::Relaxed)?;
        std::hint::black_box(value);
        Ok(())
    }
}

fn is(function: &Path, file: &str, value: &str) -> bool {
    fs::read_to_string(function.join(file)).is_ok_and(|text| text.trim() == value)
}
