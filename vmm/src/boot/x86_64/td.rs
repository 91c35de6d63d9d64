//! Loading a TD: its firmware, the kernel that the firmware starts, and what both are told.

use iommu::{Gpa, PageRange};
use vm_memory::GuestMemoryBackend;

use super::acpi::Machine;
use super::hob::{self, Resource};
use super::load::{LoadError, read_into, write};
use super::{Image, acpi};
use crate::boot::firmware::Firmware;
use crate::boot::firmware::fit::Fit;
use crate::boot::{BootFiles, Kernel as _};

/// What the firmware and the kernel are told.
#[derive(Debug, Clone, Copy)]
pub struct Told<'a> {
    /// DRAM, ascending.
    pub dram: &'a [PageRange<Gpa>],
    /// Where devices are.
    pub devices: &'a [PageRange<Gpa>],
    /// What the machine is.
    pub machine: Machine<'a>,
}

/// Puts the firmware, the kernel and what they are told where `fit` says.
///
/// # Errors
/// When a file has shrunk since it was checked, or cannot be read, or there is too much to tell.
pub fn load<M: GuestMemoryBackend>(
    memory: &M,
    files: &BootFiles<Image>,
    firmware: &Firmware,
    fit: &Fit<'_>,
    told: &Told<'_>,
) -> Result<(), LoadError> {
    for section in &fit.loaded {
        let at = section.range.start();
        write(memory, "firmware", at, firmware.content(section))?;
    }
    let (kernel, bytes) = (fit.kernel.start(), files.kernel.file_bytes());
    let read = read_into(memory, kernel, files.kernel.file(), bytes);
    read.map_err(|source| LoadError::File {
        what: "kernel",
        at: kernel,
        source,
    })?;
    let mut command_line = files.cmdline.clone().into_bytes();
    command_line.push(0);
    write(memory, "command line", fit.cmdline.start(), &command_line)?;
    let resources = resources(told, fit);
    let list = hob::list(
        fit.hob,
        &hob::Told {
            resources: &resources,
            acpi: &acpi::separate(&told.machine),
            kernel,
        },
    )?;
    write(memory, "hand-off blocks", fit.hob.start(), &list)
}

/// What the TD finds where, ascending: memory that is loaded, memory that it has yet to accept, devices.
fn resources(told: &Told<'_>, fit: &Fit<'_>) -> Vec<(PageRange<Gpa>, Resource)> {
    let mut loaded: Vec<_> = fit.loaded.iter().map(|section| section.range).collect();
    loaded.sort_by_key(|range| range.start());
    let mut all = Vec::new();
    for dram in told.dram {
        let mut at = dram.start();
        let within = loaded.iter().filter_map(|range| range.intersection(*dram));
        for range in within {
            let before = PageRange::from_bounds(at, range.start());
            all.extend(before.ok().map(|before| (before, Resource::Unaccepted)));
            all.push((range, Resource::Memory));
            at = range.end();
        }
        let rest = PageRange::from_bounds(at, dram.end());
        all.extend(rest.ok().map(|rest| (rest, Resource::Unaccepted)));
    }
    let devices = told.devices.iter();
    all.extend(devices.map(|range| (*range, Resource::Devices)));
    all.sort_by_key(|(range, _)| range.start());
    all
}
