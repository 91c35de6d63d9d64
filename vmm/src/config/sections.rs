//! `[vm]`, `[boot]` and lists of tables, from the file's tree to the parts of a [`VmSpec`].

use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use vfio::BackendKind;

use super::keys::Table;
use super::locations::Locations;
use super::reader::{Located, Reported, Section};
use super::spec::{BootSpec, DeviceSpec, DmaIsolation, DmaMode, DmaRule, HotplugSpec, IommuChoice};
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
const IOMMUS: [(&str, IommuChoice); 3] = [
    ("auto", IommuChoice::Auto),
    ("none", IommuChoice::None),
    ("virtio", IommuChoice::Virtio),
];
const DMA_BACKENDS: [(&str, Option<BackendKind>); 3] = [
    ("auto", None),
    ("type1", Some(BackendKind::Type1)),
    ("iommufd", Some(BackendKind::Iommufd)),
];
const ISOLATIONS: [(&str, DmaIsolation); 2] = [
    ("refused", DmaIsolation::Required),
    ("not-isolated", DmaIsolation::GivenUp),
];
const DMA_MODES: [(&str, DmaMode); 2] = [
    ("direct", DmaMode::Direct),
    ("translated", DmaMode::Translated),
];

/// The most vCPUs that KVM gives a VM on arm64.
const MOST_VCPUS: u32 = 512;

/// Reads the tables of a config, and remembers what it found where.
pub(super) struct Sections<'b> {
    pub(super) base: &'b Path,
    pub(super) findings: Vec<Diagnostic>,
    pub(super) locations: Locations,
}

/// The values of `[vm]`.
struct VmPart {
    platform: Option<Platform>,
    vcpus: u32,
    memory: u64,
    dma_rule: Option<DmaRule>,
    iommu: IommuChoice,
    dma_backend: Option<BackendKind>,
    isolation: DmaIsolation,
    hotplug: HotplugSpec,
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
        let resources = self.resources(&root, vm.as_ref().ok().map(|vm| vm.vcpus));
        let vcpus = vm.as_ref().map_or(1, |vm| vm.vcpus);
        let disks = root.raw("disk");
        let disks = disks.map_or_else(Vec::new, |raw| self.disks(raw, vcpus));
        let virtio = self.virtio(&root);
        let (vm, boot, resources) = (vm.ok()?, boot.ok()?, resources.ok()?);
        Some(VmSpec {
            platform: vm.platform,
            vcpus: vm.vcpus,
            memory: vm.memory,
            dma_rule: vm.dma_rule,
            iommu: vm.iommu,
            dma_backend: vm.dma_backend,
            isolation: vm.isolation,
            hotplug: vm.hotplug,
            boot,
            devices,
            resources,
            disks,
            virtio,
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
        let iommu = vm.optional("iommu", findings, |v| values::one_of(v, &IOMMUS));
        let backend = vm.optional("dma-backend", findings, |v| {
            values::one_of(v, &DMA_BACKENDS)
        });
        let isolation = vm.optional("pkvm-device-dma", findings, |v| {
            values::one_of(v, &ISOLATIONS)
        });
        let ports = vm.optional("hotplug-ports", findings, |v| {
            values::integer(v, 0..=HotplugSpec::MOST_PORTS.into())
        });
        let window = vm.optional("hotplug-window", findings, |v| {
            values::memory_up_to(v, HotplugSpec::LARGEST_WINDOW)
        });
        let ports = self.keep(Place::Vm("hotplug-ports"), ports?);
        let window = self.keep(Place::Vm("hotplug-window"), window?);
        Ok(VmPart {
            platform: self.keep(Place::Vm("platform"), platform?).flatten(),
            vcpus: self.keep(Place::Vm("vcpus"), vcpus?).unwrap_or(1),
            memory: self.keep_one(Place::Vm("memory"), memory?),
            dma_rule: self.keep(Place::Vm("dma-rule"), dma_rule?),
            iommu: self.keep(Place::Vm("iommu"), iommu?).unwrap_or_default(),
            dma_backend: self.keep(Place::Vm("dma-backend"), backend?).flatten(),
            isolation: self
                .keep(Place::Vm("pkvm-device-dma"), isolation?)
                .unwrap_or_default(),
            hotplug: HotplugSpec {
                ports: ports
                    .and_then(|ports| u8::try_from(ports).ok())
                    .unwrap_or(0),
                window: window.unwrap_or(HotplugSpec::USUAL_WINDOW),
            },
        })
    }

    fn boot(&mut self, raw: &Spanned<DeValue<'_>>) -> Result<BootSpec, Reported> {
        let boot = self.table(Table::Boot, raw)?;
        self.locations.record_boot(boot.header());
        let findings = &mut self.findings;
        let kernel = boot.required("kernel", "\"Image\"", findings, values::path);
        let initrd = boot.optional("initrd", findings, values::path);
        let cmdline = boot.optional("cmdline", findings, values::plain_text);
        let firmware = boot.optional("firmware", findings, values::path);
        let cmdline = self.keep(Place::Boot("cmdline"), cmdline?);
        Ok(BootSpec {
            kernel: self
                .base
                .join(self.keep_one(Place::Boot("kernel"), kernel?)),
            initrd: self
                .keep(Place::Boot("initrd"), initrd?)
                .map(|initrd| self.base.join(initrd)),
            cmdline: cmdline.unwrap_or_default(),
            firmware: self
                .keep(Place::Boot("firmware"), firmware?)
                .map(|firmware| self.base.join(firmware)),
        })
    }

    fn devices(&mut self, raw: &Spanned<DeValue<'_>>) -> Vec<DeviceSpec> {
        self.list(Table::Device, raw, Self::device)
    }

    /// What `read` makes of each of the tables in `raw`, given those before.
    pub(super) fn list<T>(
        &mut self,
        table: Table,
        raw: &Spanned<DeValue<'_>>,
        mut read: impl FnMut(&mut Self, &Spanned<DeValue<'_>>, &[T]) -> Option<T>,
    ) -> Vec<T> {
        let mut list = Vec::new();
        match raw.get_ref() {
            DeValue::Array(array) => {
                for raw in array.iter() {
                    list.extend(read(self, raw, &list));
                }
            }
            DeValue::Table(_) => {
                let name = table.name();
                let message = format!("`{name}` is one table, not a list");
                let help = format!("write `[[{name}]]`, once for each {name}");
                let finding = Diagnostic::error(Code::InvalidValue, message).with_help(help);
                self.findings.push(finding.at(raw.span()));
                list.extend(read(self, raw, &list));
            }
            other => self.not_a_table(table, other, raw.span()),
        }
        list
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
        .with_help("remove one of the two")
        .about(pci.value)
        .at(pci.span.clone());
        match self.locations.span(Place::Device(twin, None)) {
            Some(first) => finding.related(first, "assigned here first"),
            None => finding,
        }
    }

    /// The entries of `raw` under the keys of `table`.
    pub(super) fn table<'t>(
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

    pub(super) fn keep<T>(&mut self, place: Place, found: Option<Located<T>>) -> Option<T> {
        found.map(|found| self.keep_one(place, found))
    }

    pub(super) fn keep_one<T>(&mut self, place: Place, found: Located<T>) -> T {
        self.locations.record(place, found.span);
        found.value
    }
}
