//! Copying the boot files into guest memory, with what the kernel is told.

use std::fs::File;
use std::io::Seek;

use iommu::{Gpa, PageRange};
use kvm::x86_64::{GDT, LongMode, ProtectedMode};
use linux_loader::configurator::linux::LinuxBootConfigurator;
use linux_loader::configurator::pvh::PvhBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use linux_loader::loader::elf::start_info::{
    hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use linux_loader::loader::{BzImage, Elf, KernelLoader};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use super::memory_map::{Entry as MapEntry, memory_map};
use super::placement::{Entry, LinuxPlacement};
use super::{Image, low_memory, reset};
use crate::boot::BootFiles;
use crate::boot::igvm;

/// Bytes of randomness that a kernel gets.
pub const SEED_BYTES: usize = 32;

/// What the kernel is told by its loader.
#[derive(Debug, Clone, Copy)]
pub struct Told<'a> {
    /// DRAM.
    pub dram: &'a [PageRange<Gpa>],
    /// Configuration space of PCI, if there is any.
    pub ecam: Option<PageRange<Gpa>>,
    /// The ACPI tables, for [`low_memory::ACPI`].
    pub acpi: &'a [u8],
    /// Randomness for the random number generator. A measured guest gets none: it would change its
    /// measurement from run to run, and its host's numbers are nothing that it could trust.
    pub seed: Option<&'a [u8; SEED_BYTES]>,
    /// What an SNP guest needs besides.
    pub encrypted: Option<&'a Encrypted<'a>>,
}

/// What an SNP guest is told that starts without firmware.
#[derive(Debug, Clone, Copy)]
pub struct Encrypted<'a> {
    /// The number of the address bit that says encrypted.
    pub bit: u8,
    /// What its processors are, for [`low_memory::SNP_CPUID`].
    pub cpuid: &'a [u8; 4096],
}

/// What was put in memory.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// How the first processor starts.
    pub start: Start,
    /// Where: first bytes and lengths. What is between is zeros.
    pub parts: Vec<(Gpa, u64)>,
}

/// How the first processor starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// In 64-bit mode.
    Long(LongMode),
    /// By PVH.
    Protected(ProtectedMode),
}

/// Why a boot file could not be copied into guest memory.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The kernel.
    #[error("cannot load the kernel")]
    Kernel(#[source] linux_loader::loader::Error),
    /// A file as it is.
    #[error("cannot load the {what} at {at}")]
    File {
        /// What it is.
        what: &'static str,
        /// Where it was to go.
        at: Gpa,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What the kernel is told.
    #[error("cannot write what the kernel is told")]
    Told(#[source] linux_loader::configurator::Error),
    /// Something of fixed size.
    #[error("cannot write the {what} at {at}")]
    Write {
        /// What.
        what: &'static str,
        /// Where.
        at: Gpa,
        /// Why not.
        #[source]
        source: vm_memory::GuestMemoryError,
    },
    /// The ACPI tables do not fit.
    #[error(transparent)]
    Acpi(#[from] super::acpi::TooLarge),
    /// Firmware has no room for what it is told.
    #[error(transparent)]
    HandOff(#[from] super::hob::TooLarge),
    /// A guest that is a file has no room for what it is told.
    #[error(transparent)]
    Parameter(#[from] igvm::NoRoom),
    /// The protocol has no room for so many ranges.
    #[error("{0} ranges of memory are more than a kernel can be told of")]
    TooManyRanges(usize),
}

/// Puts the files where `placement` says, with all that the kernel is told.
///
/// # Errors
/// When a file has shrunk since it was checked, or cannot be read.
pub fn load<M: GuestMemoryBackend>(
    memory: &M,
    files: &BootFiles<Image>,
    told: &Told<'_>,
    placement: LinuxPlacement,
) -> Result<Loaded, LoadError> {
    let mut parts = vec![(Gpa::new(0), low_memory::END.raw())];
    let mut initrd = None;
    if let (Some(at), Some(file)) = (placement.initrd, &files.initrd) {
        let read = read_into(memory, at, file.file(), file.bytes());
        read.map_err(|source| LoadError::File {
            what: "initrd",
            at,
            source,
        })?;
        initrd = Some((at, file.bytes()));
        parts.push((at, file.bytes()));
    }
    let mut command_line = files.cmdline.clone().into_bytes();
    command_line.push(0);
    write(
        memory,
        "command line",
        low_memory::COMMAND_LINE,
        &command_line,
    )?;
    write(memory, "ACPI tables", low_memory::ACPI, told.acpi)?;
    write(memory, "reset code", low_memory::RESET_VECTOR, &reset::CODE)?;
    let kept = told
        .encrypted
        .and_then(|_| PageRange::from_bounds(low_memory::SNP_CPUID, low_memory::SNP_END).ok());
    let map = memory_map(told.dram, told.ecam, kept);
    let mut kernel_file = files.kernel.file();
    let start = match placement.entry {
        Entry::Long { kernel, entry } => {
            let at = Some(guest(kernel));
            let loaded = BzImage::load(memory, at, &mut kernel_file, None);
            let loaded = loaded.map_err(LoadError::Kernel)?;
            parts.push((kernel, loaded.kernel_end.saturating_sub(kernel.raw())));
            let header = loaded.setup_header.unwrap_or_default();
            long_mode(memory, header, &map, initrd, told)?;
            Start::Long(LongMode {
                entry: entry.raw(),
                argument: low_memory::BOOT_PARAMS.raw(),
                page_tables: low_memory::PAGE_TABLES.raw(),
                gdt: low_memory::GDT.raw(),
            })
        }
        Entry::Pvh { entry } => {
            let loaded = Elf::load(memory, None, &mut kernel_file, None);
            loaded.map_err(LoadError::Kernel)?;
            pvh(memory, &map, initrd)?;
            Start::Protected(ProtectedMode {
                entry,
                argument: below_4_gib(low_memory::START_INFO),
            })
        }
    };
    Ok(Loaded { start, parts })
}

/// What a kernel finds that is entered in 64-bit mode.
fn long_mode<M: GuestMemoryBackend>(
    memory: &M,
    header: setup_header,
    map: &[MapEntry],
    initrd: Option<(Gpa, u64)>,
    told: &Told<'_>,
) -> Result<(), LoadError> {
    /// A loader without a number of its own.
    const UNKNOWN_LOADER: u8 = 0xff;
    let mut parameters = boot_params {
        acpi_rsdp_addr: low_memory::ACPI.raw(),
        hdr: header,
        ..Default::default()
    };
    parameters.hdr.type_of_loader = UNKNOWN_LOADER;
    parameters.hdr.cmd_line_ptr = below_4_gib(low_memory::COMMAND_LINE);
    let further = further(memory, told)?;
    parameters.hdr.setup_data = match further {
        None => 0,
        Some(_) => low_memory::SETUP_DATA.raw(),
    };
    if let Some((at, bytes)) = initrd {
        parameters.hdr.ramdisk_image = below_4_gib(at);
        // It is below 4 GiB as a whole.
        parameters.hdr.ramdisk_size = u32::try_from(bytes).unwrap_or(u32::MAX);
    }
    let too_many = || LoadError::TooManyRanges(map.len());
    parameters.e820_entries = u8::try_from(map.len()).map_err(|_| too_many())?;
    let mut table = parameters.e820_table;
    let room = table.get_mut(..map.len()).ok_or_else(too_many)?;
    for (place, entry) in room.iter_mut().zip(map) {
        *place = boot_e820_entry {
            addr: entry.start,
            size: entry.bytes,
            r#type: entry.kind as u32,
        };
    }
    parameters.e820_table = table;
    if let Some(further) = &further {
        write(memory, "further data", low_memory::SETUP_DATA, further)?;
    }
    let encrypted = told.encrypted.map_or(0, |told| 1 << (told.bit & 63));
    write(
        memory,
        "page tables",
        low_memory::PAGE_TABLES,
        &page_tables(encrypted),
    )?;
    let gdt = GDT.map(u64::to_le_bytes);
    write(memory, "descriptors", low_memory::GDT, gdt.as_flattened())?;
    let written = BootParams::new(&parameters, guest(low_memory::BOOT_PARAMS));
    LinuxBootConfigurator::write_bootparams(&written, memory).map_err(LoadError::Told)
}

/// What a kernel finds that is entered by PVH.
fn pvh<M: GuestMemoryBackend>(
    memory: &M,
    map: &[MapEntry],
    initrd: Option<(Gpa, u64)>,
) -> Result<(), LoadError> {
    const MAGIC: u32 = 0x336e_c578;
    const VERSION: u32 = 1;
    let entry = |entry: &MapEntry| hvm_memmap_table_entry {
        addr: entry.start,
        size: entry.bytes,
        type_: entry.kind as u32,
        reserved: 0,
    };
    let entries: Vec<_> = map.iter().map(entry).collect();
    let room = low_memory::BOOT_PARAMS.raw() - low_memory::MEMORY_MAP.raw();
    let count = u32::try_from(size_of_val(entries.as_slice()));
    let fits = count.is_ok_and(|bytes| u64::from(bytes) <= room);
    let (true, Ok(count)) = (fits, u32::try_from(entries.len())) else {
        return Err(LoadError::TooManyRanges(map.len()));
    };
    let module = |(at, bytes): (Gpa, u64)| hvm_modlist_entry {
        paddr: at.raw(),
        size: bytes,
        ..Default::default()
    };
    let modules: Vec<_> = initrd.into_iter().map(module).collect();
    let information = hvm_start_info {
        magic: MAGIC,
        version: VERSION,
        nr_modules: u32::from(initrd.is_some()),
        modlist_paddr: initrd.map_or(0, |_| low_memory::MODULES.raw()),
        cmdline_paddr: low_memory::COMMAND_LINE.raw(),
        rsdp_paddr: low_memory::ACPI.raw(),
        memmap_paddr: low_memory::MEMORY_MAP.raw(),
        memmap_entries: count,
        ..Default::default()
    };
    let mut written = BootParams::new(&information, guest(low_memory::START_INFO));
    written.set_sections(&entries, guest(low_memory::MEMORY_MAP));
    if !modules.is_empty() {
        written.set_modules(&modules, guest(low_memory::MODULES));
    }
    PvhBootConfigurator::write_bootparams(&written, memory).map_err(LoadError::Told)
}

/// The one `struct setup_data` that a kernel gets, if it gets any, with what it points at.
fn further<M: GuestMemoryBackend>(
    memory: &M,
    told: &Told<'_>,
) -> Result<Option<Vec<u8>>, LoadError> {
    const RANDOM_SEED: u32 = 9;
    const CC_BLOB: u32 = 7;
    if let Some(encrypted) = told.encrypted {
        write(memory, "CPUID page", low_memory::SNP_CPUID, encrypted.cpuid)?;
        write(memory, "CC blob", low_memory::CC_BLOB, &cc_blob())?;
        let blob = below_4_gib(low_memory::CC_BLOB);
        return Ok(Some(setup_data(CC_BLOB, &blob.to_le_bytes())));
    }
    Ok(told.seed.map(|seed| setup_data(RANDOM_SEED, seed)))
}

/// `struct setup_data` with this content, and no other after it.
fn setup_data(kind: u32, content: &[u8]) -> Vec<u8> {
    // A few bytes.
    let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
    let mut data = 0_u64.to_le_bytes().to_vec();
    data.extend(kind.to_le_bytes());
    data.extend(length.to_le_bytes());
    data.extend(content);
    data
}

/// `struct cc_blob_sev_info` (`arch/x86/include/asm/sev.h` of Linux): where the secrets and the CPUID page
/// are.
fn cc_blob() -> Vec<u8> {
    const MAGIC: u32 = 0x4544_4d41;
    const PAGE: u64 = 4096;
    let mut blob = MAGIC.to_le_bytes().to_vec();
    // Version and a reserved half.
    blob.extend(0_u32.to_le_bytes());
    for page in [low_memory::SNP_SECRETS, low_memory::SNP_CPUID] {
        blob.extend(page.raw().to_le_bytes());
        // The length, and a reserved half.
        blob.extend(PAGE.to_le_bytes());
    }
    blob
}

/// The first 4 GiB at their own addresses, in pages of 2 MiB; `encrypted` has the bit that says so, where
/// there is one.
fn page_tables(encrypted: u64) -> Vec<u8> {
    const TABLE: u64 = 4096;
    const GIGABYTES: u64 = 4;
    const PRESENT_WRITABLE: u64 = 0b11;
    const LARGE: u64 = 1 << 7;
    let common = PRESENT_WRITABLE | encrypted;
    let table = |number: u64| (low_memory::PAGE_TABLES.raw() + number * TABLE) | common;
    let top = (0..512).map(|entry| match entry {
        0 => table(1),
        _ => 0,
    });
    let directories = (0..512).map(|entry| match entry {
        0..GIGABYTES => table(2 + entry),
        _ => 0,
    });
    let pages = (0..512 * GIGABYTES).map(|page| page << 21 | common | LARGE);
    let entries = top.chain(directories).chain(pages);
    entries.flat_map(u64::to_le_bytes).collect()
}

pub(super) fn write<M: GuestMemoryBackend>(
    memory: &M,
    what: &'static str,
    at: Gpa,
    bytes: &[u8],
) -> Result<(), LoadError> {
    let written = memory.write_slice(bytes, guest(at));
    written.map_err(|source| LoadError::Write { what, at, source })
}

pub(super) fn read_into<M: GuestMemoryBackend>(
    memory: &M,
    at: Gpa,
    mut file: &File,
    bytes: u64,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    file.rewind()?;
    memory.read_exact_volatile_from(guest(at), &mut file, usize::try_from(bytes)?)?;
    Ok(())
}

fn guest(at: Gpa) -> GuestAddress {
    GuestAddress(at.raw())
}

/// An address that its placement has put below 4 GiB.
fn below_4_gib(at: Gpa) -> u32 {
    u32::try_from(at.raw()).unwrap_or(u32::MAX)
}
