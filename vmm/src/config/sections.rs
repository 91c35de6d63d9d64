//! `[vm]`, `[boot]` and `[[device]]`, from the file's tree to the parts of a [`VmSpec`].

use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::Table;
use super::locations::Locations;
use super::reader::{Located, Reported, Section};
use super::spec::{BootSpec, DeviceSpec, DmaMode, DmaRule};
use super::{VmSpec, values};
use crate::diagnostic::{Code, Diagnostic, Place};
use crate::platform::Platform;

const PLATFORMS: [(&str, Option<Platform>); 8] = [
    ("auto", None),
    ("none", Some(Platform::None)),
    ("emulated-realm", Some(Platform::EmulatedRealm)),
    ("cca", Some(Platform::Cca)),
    ("pkvm", Some(Platform::Pkvm)),
    ("sw-protected", Some(Platform::SwProtected)),
    ("snp", Some(Platform::Snp)),
    ("tdx", Some(Platform::Tdx)),
];
const DMA_RULES: [(&str, DmaRule); 2] = [("strict", DmaRule::Strict), ("bounce", DmaRule::Bounce)];
const DMA_MODES: [(&str, DmaMode); 2] = [
    ("direct", DmaMode::Direct),
    ("translated", DmaMode::Translated),
];

/// The most vCPUs that KVM gives a VM on arm64.
const MOST_VCPUS: u32 = 512;

/// Reads the tables of a config, and remembers what it found where.
pub(super) struct Sections<'b> {
    base: &'b Path,
    pub(super) findings: Vec<Diagnostic>,
    pub(super) locations: Locations,
}

/// The values of `[vm]`.
struct VmPart {
    platform: Option<Platform>,
    vcpus: u32,
    memory: u64,
    dma_rule: Option<DmaRule>,
}

impl<'b> Sections<'b> {
    /// Paths in the config count from `base`.
    pub(super) fn new(base: &'b Path) -> Self {
        Self {
            base,
            findings: Vec::new(),
            locations: Locations::default(),
        }
    }

    /// The spec, when `[vm]` and `[boot]` are understood. Devices that are not are left out: that
    /// makes a plan easier, never harder, so what a plan still complains of is true.
    pub(super) fn document(&mut self, document: &DeTable<'_>) -> Option<VmSpec> {
        let root = Section::new(Table::Root, 0..0, document, &mut self.findings);
        let vm = self.vm(&root);
        let boot = root.raw("boot").map(|raw| self.boot(raw)).transpose();
        let devices = root
            .raw("device")
            .map_or_else(Vec::new, |raw| self.devices(raw));
        let (vm, boot) = (vm.ok()?, boot.ok()?);
        Some(VmSpec {
            platform: vm.platform,
            vcpus: vm.vcpus,
            memory: vm.memory,
            dma_rule: vm.dma_rule,
            boot,
            devices,
        })
    }

    fn vm(&mut self, root: &Section<'_>) -> Result<VmPart, Reported> {
        let Some(raw) = root.raw("vm") else {
            self.findings.push(
                Diagnostic::error(Code::MissingKey, "the config has no `[vm]` table")
                    .with_help("add `[vm]` with `memory = \"512 MiB\"`"),
            );
            return Err(Reported);
        };
        let vm = self.table(Table::Vm, raw)?;
        self.locations.record_vm(vm.header());
        let findings = &mut self.findings;
        let platform = vm.optional("platform", findings, |v| values::one_of(v, &PLATFORMS));
        let vcpus = vm.optional("vcpus", findings, |v| values::integer(v, 1..=MOST_VCPUS));
        let memory = vm.required("memory", "\"512 MiB\"", findings, values::memory);
        let dma_rule = vm.optional("dma-rule", findings, |v| values::one_of(v, &DMA_RULES));
        Ok(VmPart {
            platform: self.keep(Place::Vm("platform"), platform?).flatten(),
            vcpus: self.keep(Place::Vm("vcpus"), vcpus?).unwrap_or(1),
            memory: self.keep_one(Place::Vm("memory"), memory?),
            dma_rule: self.keep(Place::Vm("dma-rule"), dma_rule?),
        })
    }

    fn boot(&mut self, raw: &Spanned<DeValue<'_>>) -> Result<BootSpec, Reported> {
        let boot = self.table(Table::Boot, raw)?;
        self.locations.record_boot(boot.header());
        let findings = &mut self.findings;
        let kernel = boot.required("kernel", "\"Image\"", findings, values::path);
        let initrd = boot.optional("initrd", findings, values::path);
        let cmdline = boot.optional("cmdline", findings, values::plain_text);
        let cmdline = self.keep(Place::Boot("cmdline"), cmdline?);
        Ok(BootSpec {
            kernel: self
                .base
                .join(self.keep_one(Place::Boot("kernel"), kernel?)),
            initrd: self
                .keep(Place::Boot("initrd"), initrd?)
                .map(|initrd| self.base.join(initrd)),
            cmdline: cmdline.unwrap_or_default(),
        })
    }

    fn devices(&mut self, raw: &Spanned<DeValue<'_>>) -> Vec<DeviceSpec> {
        let mut devices = Vec::new();
        match raw.get_ref() {
            DeValue::Array(array) => {
                for raw in array.iter() {
                    devices.extend(self.device(raw, &devices));
                }
            }
            DeValue::Table(_) => {
                self.findings.push(
                    Diagnostic::error(Code::InvalidValue, "`device` is one table, not a list")
                        .with_help("write `[[device]]`, once for each device")
                        .at(raw.span()),
                );
                devices.extend(self.device(raw, &devices));
            }
            other => self.not_a_table(Table::Device, other, raw.span()),
        }
        devices
    }

    fn device(&mut self, raw: &Spanned<DeValue<'_>>, before: &[DeviceSpec]) -> Option<DeviceSpec> {
        let device = self.table(Table::Device, raw).ok()?;
        let findings = &mut self.findings;
        let pci = device.required("pci", "\"0000:00:04.0\"", findings, values::pci_address);
        let dma_bits = device.optional("dma-bits", findings, |v| values::integer(v, 24..=64));
        let dma = device.optional("dma", findings, |v| values::one_of(v, &DMA_MODES));
        let pci = pci.ok()?;
        if let Some(twin) = before.iter().position(|earlier| earlier.pci == pci.value) {
            self.findings.push(self.duplicate(&pci, twin));
            return None;
        }
        let (dma_bits, dma) = (dma_bits.ok()?, dma.ok()?);
        let index = before.len();
        self.locations
            .record(Place::Device(index, None), pci.span.clone());
        let at = |key| Place::Device(index, Some(key));
        let dma_bits = self.keep(at("dma-bits"), dma_bits);
        Some(DeviceSpec {
            pci: self.keep_one(at("pci"), pci),
            dma_bits: dma_bits.and_then(|bits| u8::try_from(bits).ok()),
            dma: self.keep(at("dma"), dma).unwrap_or(DmaMode::Direct),
        })
    }

    fn duplicate(&self, pci: &Located<crate::host::facts::PciAddress>, twin: usize) -> Diagnostic {
        let finding = Diagnostic::error(
            Code::DuplicateDevice,
            format!("device {} is assigned twice", pci.value),
        )
        .with_help("remove one of the two tables")
        .about(pci.value)
        .at(pci.span.clone());
        match self.locations.span(Place::Device(twin, None)) {
            Some(first) => finding.related(first, "assigned here first"),
            None => finding,
        }
    }

    /// The entries of `raw` under the keys of `table`.
    fn table<'t>(
        &mut self,
        table: Table,
        raw: &'t Spanned<DeValue<'t>>,
    ) -> Result<Section<'t>, Reported> {
        match raw.get_ref() {
            DeValue::Table(entries) => {
                Ok(Section::new(table, raw.span(), entries, &mut self.findings))
            }
            other => {
                self.not_a_table(table, other, raw.span());
                Err(Reported)
            }
        }
    }

    fn not_a_table(&mut self, table: Table, value: &DeValue<'_>, span: Range<usize>) {
        let header = table.header();
        self.findings.push(
            Diagnostic::error(
                Code::InvalidValue,
                format!("{header} is {}, and must be a table", values::kind(value)),
            )
            .at(span),
        );
    }

    fn keep<T>(&mut self, place: Place, found: Option<Located<T>>) -> Option<T> {
        found.map(|found| self.keep_one(place, found))
    }

    fn keep_one<T>(&mut self, place: Place, found: Located<T>) -> T {
        self.locations.record(place, found.span);
        found.value
    }
}
