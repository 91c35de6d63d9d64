//! PCI as the guest sees it: addresses, configuration space, base address registers, MSI-X and the
//! root complex (ECAM).

mod bdf;

pub use bdf::Bdf;
