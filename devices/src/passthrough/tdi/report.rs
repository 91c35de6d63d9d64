//! The interface report (PCI Express Base 6.x, 11.3.11): what the guest is told of a locked interface.

use crate::pci::BarIndex;

/// A report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceReport {
    /// What the interface can do.
    pub info: InterfaceInfo,
    /// Message control of MSI-X; zero without.
    pub msix_control: u16,
    /// Control of the lightweight notification requester; zero without.
    pub lnr_control: u16,
    /// Control of the TPH requester; zero without.
    pub tph_control: u32,
    /// Its memory, in order of base address registers and within them of addresses.
    pub mmio: Vec<MmioRange>,
    /// What the vendor adds.
    pub device_specific: Vec<u8>,
}

/// What an interface can do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InterfaceInfo {
    /// It takes no firmware update while locked.
    pub no_firmware_update: bool,
    /// It does DMA without a PASID.
    pub dma_without_pasid: bool,
    /// It does DMA with a PASID.
    pub dma_with_pasid: bool,
    /// It uses address translation services.
    pub ats: bool,
    /// It uses page requests.
    pub prs: bool,
}

/// A range of pages of its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MmioRange {
    /// The address of the first page, a multiple of 4 KiB, with the reporting offset added.
    pub first_page: u64,
    /// How many pages.
    pub pages: u32,
    /// What they are.
    pub attributes: MmioAttributes,
    /// The base address register that decodes them: the range id.
    pub bar: BarIndex,
}

/// What pages of an interface's memory are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MmioAttributes {
    /// They hold the MSI-X table.
    pub msix_table: bool,
    /// They hold the MSI-X pending bits.
    pub msix_pba: bool,
    /// They answer to everybody, in every state.
    pub non_tee: bool,
    /// The TSM may change the attribute before.
    pub updatable: bool,
}

/// The bits that are set, the first for bit 0.
fn bits<const N: usize>(set: [bool; N]) -> u16 {
    let weighted = set.into_iter().zip(0_u32..);
    weighted.fold(0, |bits, (set, at)| bits | u16::from(set) << at)
}

impl InterfaceInfo {
    /// `INTERFACE_INFO`.
    #[must_use]
    pub fn to_bits(self) -> u16 {
        bits([
            self.no_firmware_update,
            self.dma_without_pasid,
            self.dma_with_pasid,
            self.ats,
            self.prs,
        ])
    }
}

impl MmioAttributes {
    /// `RANGE_ATTRIBUTES` without the range id.
    #[must_use]
    pub fn to_bits(self) -> u16 {
        bits([self.msix_table, self.msix_pba, self.non_tee, self.updatable])
    }
}

impl InterfaceReport {
    /// The report as `GET_DEVICE_INTERFACE_REPORT` gives it, all portions in one.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(20 + self.mmio.len() * 16 + self.device_specific.len());
        bytes.extend(self.info.to_bits().to_le_bytes());
        bytes.extend([0; 2]);
        bytes.extend(self.msix_control.to_le_bytes());
        bytes.extend(self.lnr_control.to_le_bytes());
        bytes.extend(self.tph_control.to_le_bytes());
        bytes.extend(length(self.mmio.len()));
        for range in &self.mmio {
            bytes.extend(range.first_page.to_le_bytes());
            bytes.extend(range.pages.to_le_bytes());
            bytes.extend(range.attributes.to_bits().to_le_bytes());
            bytes.extend(u16::from(range.bar.number()).to_le_bytes());
        }
        bytes.extend(length(self.device_specific.len()));
        bytes.extend(&self.device_specific);
        bytes
    }
}

fn length(count: usize) -> [u8; 4] {
    u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_the_layout_of_the_specification() {
        let range = |first_page, pages, attributes| MmioRange {
            first_page,
            pages,
            attributes,
            bar: BarIndex::new(4).unwrap(),
        };
        let table = MmioAttributes {
            msix_table: true,
            non_tee: true,
            ..MmioAttributes::default()
        };
        let report = InterfaceReport {
            info: InterfaceInfo {
                dma_without_pasid: true,
                prs: true,
                ..InterfaceInfo::default()
            },
            msix_control: 0x8004,
            lnr_control: 0x0102,
            tph_control: 0x0a0b_0c0d,
            mmio: vec![
                range(0x1234_5000, 2, MmioAttributes::default()),
                range(0x1234_7000, 1, table),
            ],
            device_specific: b"abc".to_vec(),
        };
        let expected: &[&[u8]] = &[
            &[
                0x12, 0, 0, 0, 0x04, 0x80, 0x02, 0x01, 0x0d, 0x0c, 0x0b, 0x0a,
            ],
            &[2, 0, 0, 0],
            &[0, 0x50, 0x34, 0x12, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 4, 0],
            &[0, 0x70, 0x34, 0x12, 0, 0, 0, 0, 1, 0, 0, 0, 5, 0, 4, 0],
            &[3, 0, 0, 0, b'a', b'b', b'c'],
        ];
        assert_eq!(report.to_bytes(), expected.concat());
    }
}
