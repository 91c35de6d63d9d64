//! The device tree by which an arm64 kernel finds its machine.
//!
//! Every address is a plain one: a kernel in a Realm adds the shared bit to devices by itself, after
//! it has asked for their state.

mod power_button;

use devices::pci::Bdf;
use iommu::{Gpa, PageRange};
use vm_fdt::{FdtWriter, FdtWriterResult};

use crate::plan::{MmioLayout, PciWindow, PciWindowKind, last_bus};

/// How the guest calls PSCI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PsciConduit {
    /// `hvc`.
    Hvc,
    /// `smc`: a kernel looks for the RMM only where this is the conduit.
    Smc,
}

/// The lines of the interrupt controller (SPIs, counted from 0) and what is wired to them.
pub mod lines {
    /// The serial port.
    pub const SERIAL: u32 = 0;
    /// The real-time clock.
    pub const RTC: u32 = 1;
    /// The first of the four lines that the INTx pins of PCI functions share.
    pub const INTX: u32 = 2;
    /// The GPIO controller.
    pub const GPIO: u32 = 6;
    /// How many lines there are.
    pub const COUNT: u32 = 32;

    /// The line of `pin` (0 for INTA up to 3 for INTD) of device number `device`.
    #[must_use]
    pub const fn intx(device: u8, pin: u8) -> u32 {
        INTX + (device as u32 + pin as u32) % 4
    }
}

/// What the kernel is told of its machine.
#[derive(Debug, Clone, Copy)]
pub struct Board<'a> {
    /// DRAM.
    pub dram: &'a [PageRange<Gpa>],
    /// The platform's devices.
    pub mmio: &'a MmioLayout,
    /// What the PCI root passes on; none: there is no PCI.
    pub pci_windows: &'a [PciWindow],
    /// The affinity (of `MPIDR_EL1`) of each processor.
    pub affinities: &'a [u64],
    /// The IOMMU of its devices.
    pub iommu: Option<Iommu<'a>>,
    /// How it calls PSCI.
    pub psci: PsciConduit,
}

/// A virtio-iommu on the PCI bus.
#[derive(Debug, Clone, Copy)]
pub struct Iommu<'a> {
    /// The function.
    pub function: Bdf,
    /// The functions that it translates for; their requester ids are its endpoints.
    pub endpoints: &'a [Bdf],
}

/// What the kernel is told by its loader.
#[derive(Debug, Clone, Copy)]
pub struct Chosen<'a> {
    /// The command line.
    pub cmdline: &'a str,
    /// Start and length of the initial RAM disk.
    pub initrd: Option<(Gpa, u64)>,
    /// Randomness for address space layout and the random number generator, if it gets any.
    pub seed: Option<&'a [u8; SEED_BYTES]>,
}

/// Where in the page of the serial port the panic notifier answers.
pub const PANIC_OFFSET: u64 = 0x800;

/// How much randomness a kernel gets: 8 bytes for its layout, the rest for its generator.
pub const SEED_BYTES: usize = 72;

const PHANDLE_GIC: u32 = 1;
const PHANDLE_ITS: u32 = 2;
const PHANDLE_CLOCK: u32 = 3;
const PHANDLE_IOMMU: u32 = 4;
const PHANDLE_GPIO: u32 = 5;

// Interrupt specifiers of `arm,gic-v3`: kind, number, trigger.
const SPI: u32 = 0;
const PPI: u32 = 1;
const EDGE_RISING: u32 = 1;
const LEVEL_HIGH: u32 = 4;

/// Writes the device tree.
///
/// # Errors
/// When a string has a zero byte in it: the command line, which `BootFiles` has checked for that.
pub fn write(board: &Board<'_>, chosen: &Chosen<'_>) -> FdtWriterResult<Vec<u8>> {
    let mut fdt = FdtWriter::new()?;
    let root = fdt.begin_node("")?;
    fdt.property_string("compatible", "linux,dummy-virt")?;
    fdt.property_string("model", "ccvm")?;
    fdt.property_u32("#address-cells", 2)?;
    fdt.property_u32("#size-cells", 2)?;
    fdt.property_u32("interrupt-parent", PHANDLE_GIC)?;
    // Devices of this machine and the processors see the same memory through the same caches.
    fdt.property_null("dma-coherent")?;
    self::chosen(&mut fdt, board, chosen)?;
    memory(&mut fdt, board)?;
    processors(&mut fdt, board)?;
    psci(&mut fdt, board.psci)?;
    timer(&mut fdt)?;
    interrupt_controller(&mut fdt, board.mmio)?;
    clock(&mut fdt)?;
    serial(&mut fdt, board.mmio)?;
    panic_notifier(&mut fdt, board.mmio)?;
    rtc(&mut fdt, board.mmio)?;
    power_button::write(&mut fdt, board.mmio.gpio)?;
    if !board.pci_windows.is_empty() {
        pci(&mut fdt, board)?;
    }
    fdt.end_node(root)?;
    fdt.finish()
}

fn chosen(fdt: &mut FdtWriter, board: &Board<'_>, chosen: &Chosen<'_>) -> FdtWriterResult<()> {
    let node = fdt.begin_node("chosen")?;
    fdt.property_string("bootargs", chosen.cmdline)?;
    fdt.property_string(
        "stdout-path",
        &format!("/{}", name("serial", board.mmio.serial)),
    )?;
    if let Some((start, bytes)) = chosen.initrd {
        fdt.property_u64("linux,initrd-start", start.raw())?;
        fdt.property_u64("linux,initrd-end", start.raw().saturating_add(bytes))?;
    }
    if let Some(seed) = chosen.seed {
        let (layout, generator) = seed.split_at(8);
        fdt.property("kaslr-seed", layout)?;
        fdt.property("rng-seed", generator)?;
    }
    fdt.end_node(node)
}

fn memory(fdt: &mut FdtWriter, board: &Board<'_>) -> FdtWriterResult<()> {
    for range in board.dram {
        let node = fdt.begin_node(&name("memory", *range))?;
        fdt.property_string("device_type", "memory")?;
        fdt.property_array_u64("reg", &reg(*range))?;
        fdt.end_node(node)?;
    }
    Ok(())
}

fn processors(fdt: &mut FdtWriter, board: &Board<'_>) -> FdtWriterResult<()> {
    let cpus = fdt.begin_node("cpus")?;
    fdt.property_u32("#address-cells", 2)?;
    fdt.property_u32("#size-cells", 0)?;
    for affinity in board.affinities {
        let cpu = fdt.begin_node(&format!("cpu@{affinity:x}"))?;
        fdt.property_string("device_type", "cpu")?;
        fdt.property_string("compatible", "arm,armv8")?;
        fdt.property_string("enable-method", "psci")?;
        fdt.property_u64("reg", *affinity)?;
        fdt.end_node(cpu)?;
    }
    fdt.end_node(cpus)
}

fn psci(fdt: &mut FdtWriter, conduit: PsciConduit) -> FdtWriterResult<()> {
    let node = fdt.begin_node("psci")?;
    let compatible = vec!["arm,psci-1.0".to_owned(), "arm,psci-0.2".to_owned()];
    fdt.property_string_list("compatible", compatible)?;
    let method = match conduit {
        PsciConduit::Hvc => "hvc",
        PsciConduit::Smc => "smc",
    };
    fdt.property_string("method", method)?;
    fdt.end_node(node)
}

fn timer(fdt: &mut FdtWriter) -> FdtWriterResult<()> {
    // Secure physical, physical, virtual, hypervisor: as KVM numbers them.
    const LINES: [u32; 4] = [13, 14, 11, 10];
    let node = fdt.begin_node("timer")?;
    fdt.property_string("compatible", "arm,armv8-timer")?;
    let interrupts: Vec<u32> = LINES
        .iter()
        .flat_map(|line| [PPI, *line, LEVEL_HIGH])
        .collect();
    fdt.property_array_u32("interrupts", &interrupts)?;
    fdt.property_null("always-on")?;
    fdt.end_node(node)
}

fn interrupt_controller(fdt: &mut FdtWriter, mmio: &MmioLayout) -> FdtWriterResult<()> {
    const MAINTENANCE: u32 = 9;
    let gic = fdt.begin_node(&name("interrupt-controller", mmio.gic_distributor))?;
    fdt.property_string("compatible", "arm,gic-v3")?;
    let parts = [reg(mmio.gic_distributor), reg(mmio.gic_redistributors)];
    fdt.property_array_u64("reg", parts.as_flattened())?;
    fdt.property_null("interrupt-controller")?;
    fdt.property_u32("#interrupt-cells", 3)?;
    fdt.property_array_u32("interrupts", &[PPI, MAINTENANCE, LEVEL_HIGH])?;
    fdt.property_phandle(PHANDLE_GIC)?;
    fdt.property_u32("#address-cells", 2)?;
    fdt.property_u32("#size-cells", 2)?;
    fdt.property_null("ranges")?;
    let its = fdt.begin_node(&name("msi-controller", mmio.gic_its))?;
    fdt.property_string("compatible", "arm,gic-v3-its")?;
    fdt.property_array_u64("reg", &reg(mmio.gic_its))?;
    fdt.property_null("msi-controller")?;
    fdt.property_u32("#msi-cells", 1)?;
    fdt.property_phandle(PHANDLE_ITS)?;
    fdt.end_node(its)?;
    fdt.end_node(gic)
}

fn clock(fdt: &mut FdtWriter) -> FdtWriterResult<()> {
    let node = fdt.begin_node("apb-pclk")?;
    fdt.property_string("compatible", "fixed-clock")?;
    fdt.property_u32("#clock-cells", 0)?;
    fdt.property_u32("clock-frequency", 24_000_000)?;
    fdt.property_string("clock-output-names", "clk24mhz")?;
    fdt.property_phandle(PHANDLE_CLOCK)?;
    fdt.end_node(node)
}

fn serial(fdt: &mut FdtWriter, mmio: &MmioLayout) -> FdtWriterResult<()> {
    // The clock from which a 16550 has made 115200 baud since the first PC.
    const CLOCK_HZ: u32 = 1_843_200;
    let node = fdt.begin_node(&name("serial", mmio.serial))?;
    fdt.property_string("compatible", "ns16550a")?;
    fdt.property_array_u64("reg", &[mmio.serial.start().raw(), PANIC_OFFSET])?;
    fdt.property_u32("reg-shift", 0)?;
    fdt.property_u32("reg-io-width", 1)?;
    fdt.property_u32("clock-frequency", CLOCK_HZ)?;
    fdt.property_u32("current-speed", 115_200)?;
    fdt.property_array_u32("interrupts", &[SPI, lines::SERIAL, EDGE_RISING])?;
    fdt.end_node(node)
}

fn panic_notifier(fdt: &mut FdtWriter, mmio: &MmioLayout) -> FdtWriterResult<()> {
    let at = mmio.serial.start().raw().saturating_add(PANIC_OFFSET);
    let node = fdt.begin_node(&format!("pvpanic@{at:x}"))?;
    fdt.property_string("compatible", "qemu,pvpanic-mmio")?;
    fdt.property_array_u64("reg", &[at, 2])?;
    fdt.end_node(node)
}

fn rtc(fdt: &mut FdtWriter, mmio: &MmioLayout) -> FdtWriterResult<()> {
    let node = fdt.begin_node(&name("rtc", mmio.rtc))?;
    let compatible = vec!["arm,pl031".to_owned(), "arm,primecell".to_owned()];
    fdt.property_string_list("compatible", compatible)?;
    fdt.property_array_u64("reg", &reg(mmio.rtc))?;
    fdt.property_array_u32("interrupts", &[SPI, lines::RTC, LEVEL_HIGH])?;
    fdt.property_u32("clocks", PHANDLE_CLOCK)?;
    fdt.property_string("clock-names", "apb_pclk")?;
    fdt.end_node(node)
}

/// The PCI root (`pci-host-ecam-generic`, PCI bus binding to Open Firmware).
fn pci(fdt: &mut FdtWriter, board: &Board<'_>) -> FdtWriterResult<()> {
    let node = fdt.begin_node(&name("pcie", board.mmio.ecam))?;
    fdt.property_string("compatible", "pci-host-ecam-generic")?;
    fdt.property_string("device_type", "pci")?;
    fdt.property_u32("#address-cells", 3)?;
    fdt.property_u32("#size-cells", 2)?;
    fdt.property_u32("#interrupt-cells", 1)?;
    fdt.property_array_u32("bus-range", &[0, last_bus(board.mmio.ecam).into()])?;
    fdt.property_u32("linux,pci-domain", 0)?;
    fdt.property_array_u64("reg", &reg(board.mmio.ecam))?;
    let ranges: Vec<u32> = board.pci_windows.iter().flat_map(window).collect();
    fdt.property_array_u32("ranges", &ranges)?;
    fdt.property_null("dma-coherent")?;
    // Every requester id is a device id of the ITS.
    fdt.property_array_u32("msi-map", &[0, PHANDLE_ITS, 0, 0x1_0000])?;
    // Four device numbers and four pins: from there on the lines repeat.
    const DEVICE_MASK: u32 = 3 << 11;
    fdt.property_array_u32("interrupt-map-mask", &[DEVICE_MASK, 0, 0, 7])?;
    fdt.property_array_u32("interrupt-map", &interrupt_map())?;
    if let Some(iommu) = &board.iommu {
        fdt.property_array_u32("iommu-map", &iommu_map(iommu))?;
        self::iommu(fdt, iommu)?;
    }
    fdt.end_node(node)
}

/// The function that is the IOMMU, for the driver to be found by those that it translates for
/// (binding `virtio,pci-iommu`).
fn iommu(fdt: &mut FdtWriter, iommu: &Iommu<'_>) -> FdtWriterResult<()> {
    let function = iommu.function;
    let name = format!("iommu@{:x},{:x}", function.device(), function.function());
    let node = fdt.begin_node(&name)?;
    fdt.property_string("compatible", "virtio,pci-iommu")?;
    fdt.property_array_u32(
        "reg",
        &[u32::from(function.requester_id()) << 8, 0, 0, 0, 0],
    )?;
    fdt.property_u32("#iommu-cells", 1)?;
    fdt.property_phandle(PHANDLE_IOMMU)?;
    fdt.end_node(node)
}

/// Each endpoint by itself: the IOMMU must not translate for itself, nor for the root.
fn iommu_map(iommu: &Iommu<'_>) -> Vec<u32> {
    let entry = |endpoint: &Bdf| {
        let id = u32::from(endpoint.requester_id());
        [id, PHANDLE_IOMMU, id, 1]
    };
    iommu.endpoints.iter().flat_map(entry).collect()
}

/// A window as an entry of `ranges`: PCI address (3 cells), processor address, length.
fn window(window: &PciWindow) -> [u32; 7] {
    const IO: u32 = 0x0100_0000;
    const MEM32: u32 = 0x0200_0000;
    const MEM64: u32 = 0x0300_0000;
    let start = window.range.start().raw();
    let (space, pci) = match window.kind {
        PciWindowKind::Io => (IO, 0),
        PciWindowKind::Mem32 => (MEM32, start),
        PciWindowKind::Mem64 => (MEM64, start),
    };
    let [pci_high, pci_low] = cells(pci);
    let [start_high, start_low] = cells(start);
    let [bytes_high, bytes_low] = cells(window.range.bytes());
    [
        space, pci_high, pci_low, start_high, start_low, bytes_high, bytes_low,
    ]
}

fn interrupt_map() -> Vec<u32> {
    let mut map = Vec::new();
    for device in 0..4 {
        for pin in 0..4 {
            let address =
                Bdf::new(0, device, 0).map_or(0, |bdf| u32::from(bdf.requester_id()) << 8);
            // Pins count from 1 in a device tree.
            map.extend([address, 0, 0, u32::from(pin) + 1]);
            map.extend([PHANDLE_GIC, 0, 0]);
            map.extend([SPI, lines::intx(device, pin), LEVEL_HIGH]);
        }
    }
    map
}

fn name(kind: &str, range: PageRange<Gpa>) -> String {
    format!("{kind}@{:x}", range.start().raw())
}

fn reg(range: PageRange<Gpa>) -> [u64; 2] {
    [range.start().raw(), range.bytes()]
}

/// A 64-bit number as two cells.
fn cells(value: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = value.to_be_bytes();
    [
        u32::from_be_bytes([a, b, c, d]),
        u32::from_be_bytes([e, f, g, h]),
    ]
}

#[cfg(test)]
mod tests;
