//! Accesses of devices that the host's IOMMU has refused, as the host's kernel logs them.

use anyhow::Context as _;

use crate::arch::Arch;
use crate::case::Host;

impl Host<'_> {
    /// How many accesses of devices the host's IOMMU has refused, as far as its kernel has logged them;
    /// of all devices, or of the one at an address.
    ///
    /// # Errors
    /// When the machine dies.
    pub fn refused_accesses(&mut self, address: Option<&str>) -> anyhow::Result<u32> {
        // Intel's driver leaves the segment out.
        let (word, address) = match self.arch {
            Arch::Arm64 => ("F_TRANSLATION", address.unwrap_or_default()),
            Arch::X86_64 => (
                "DMAR: .*fault addr",
                address.map_or("", |address| address.trim_start_matches("0000:")),
            ),
        };
        let count = format!("dmesg | grep '{word}' | grep -c '{address}' || true");
        let count = self.machine.read(&count)?;
        count.parse().context("no count of refused accesses")
    }

    /// Waits until the host's kernel is ready to log a fault of the IOMMU: it logs ten in five seconds at
    /// most, and those of a test before count.
    ///
    /// # Errors
    /// When the machine dies.
    pub fn await_fault_log(&mut self) -> anyhow::Result<()> {
        self.machine.read("sleep 6").map(drop)
    }
}
