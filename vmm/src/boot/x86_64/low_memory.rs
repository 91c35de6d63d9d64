//! What lies below 1 MiB, where a PC has always had it, and where a kernel looks for nothing else.

use iommu::Gpa;

/// The descriptor table of the boot processor.
pub const GDT: Gpa = Gpa::new(0x500);
/// What a PVH kernel is told (`struct hvm_start_info`), and its modules behind it.
pub const START_INFO: Gpa = Gpa::new(0x6000);
/// The modules: the initial RAM disk.
pub const MODULES: Gpa = Gpa::new(0x6040);
/// The memory map of a PVH kernel.
pub const MEMORY_MAP: Gpa = Gpa::new(0x6080);
/// What other kernels are told (`struct boot_params`), one page.
pub const BOOT_PARAMS: Gpa = Gpa::new(0x7000);
/// Randomness, by a `struct setup_data`.
pub const SETUP_DATA: Gpa = Gpa::new(0x8000);
/// Page tables: one top table, one for its first entry, and four for 4 GiB in pages of 2 MiB.
pub const PAGE_TABLES: Gpa = Gpa::new(0x9000);
/// What an SNP guest's processors are: a page that the security processor checks.
pub const SNP_CPUID: Gpa = Gpa::new(0x1_0000);
/// An SNP guest's keys: a page that the security processor fills.
pub const SNP_SECRETS: Gpa = Gpa::new(0x1_1000);
/// Where an SNP guest finds the two pages before (`struct cc_blob_sev_info`).
pub const CC_BLOB: Gpa = Gpa::new(0x1_2000);
/// The end of what an SNP guest keeps for good, from [`SNP_CPUID`] on.
pub const SNP_END: Gpa = Gpa::new(0x1_3000);
/// The command line.
pub const COMMAND_LINE: Gpa = Gpa::new(0x2_0000);
/// The end of memory that is free for all.
pub const CONVENTIONAL_END: Gpa = Gpa::new(0x9_fc00);
/// The ACPI tables.
pub const ACPI: Gpa = Gpa::new(0xe_0000);
/// Where firmware would begin: a processor in real mode that is to start over goes there.
pub const RESET_VECTOR: Gpa = Gpa::new(0xf_fff0);
/// The end of all this: from here on memory is the kernel's.
pub const END: Gpa = Gpa::new(0x10_0000);
/// How many bytes of ACPI tables there can be.
pub const ACPI_BYTES: usize = 0x1_fff0;
