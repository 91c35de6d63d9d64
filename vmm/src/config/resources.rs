//! `[resources]`, from the file's tree to a [`ResourceSpec`].

use kvm::ram::HostPages;
use toml::de::DeValue;

use super::keys::Table;
use super::number_list::NumberList;
use super::reader::{Located, Reported, Section, Unacceptable};
use super::sections::Sections;
use super::size::Size;
use super::spec::ResourceSpec;
use super::values;
use crate::diagnostic::{Code, Diagnostic, Place};

const HUGE_PAGES: [(&str, HostPages); 3] = [
    ("transparent", HostPages::Transparent),
    ("2 MiB", HostPages::Huge2M),
    ("1 GiB", HostPages::Huge1G),
];

/// A size is one however it is written.
fn huge_pages(value: &DeValue<'_>) -> Result<HostPages, Unacceptable> {
    let size = value.as_str().and_then(|text| text.parse::<Size>().ok());
    let page = size.map(|size| Some(size.0));
    let mut pages = HUGE_PAGES.iter().map(|(_, pages)| *pages);
    match pages.find(|pages| page == Some(pages.pool_page())) {
        Some(pages) => Ok(pages),
        None => values::one_of(value, &HUGE_PAGES),
    }
}

impl Sections<'_> {
    /// The resources of a VM with so many vCPUs, if that is known. Without the table they are the
    /// usual ones.
    pub(super) fn resources(
        &mut self,
        root: &Section<'_>,
        vcpus: Option<u32>,
    ) -> Result<ResourceSpec, Reported> {
        let Some(raw) = root.raw("resources") else {
            return Ok(ResourceSpec::default());
        };
        let table = self.table(Table::Resources, raw)?;
        self.locations.record_resources(table.header());
        let findings = &mut self.findings;
        let pages = table.optional("huge-pages", findings, huge_pages);
        let prefault = table.optional("prefault", findings, values::boolean);
        let nodes = table.optional("numa-nodes", findings, values::number_list);
        let pins = table.optional("pin-vcpus", findings, values::number_list);
        let (pages, prefault, nodes, pins) = (pages?, prefault?, nodes?, pins?);
        if let (Some(pins), Some(vcpus)) = (&pins, vcpus) {
            self.one_cpu_each(pins, vcpus)?;
        }
        let at = Place::Resources;
        Ok(ResourceSpec {
            huge_pages: self.keep(at("huge-pages"), pages).unwrap_or_default(),
            prefault: self.keep(at("prefault"), prefault).unwrap_or_default(),
            numa_nodes: self.keep(at("numa-nodes"), nodes),
            pin_vcpus: self.keep(at("pin-vcpus"), pins),
        })
    }

    fn one_cpu_each(&mut self, pins: &Located<NumberList>, vcpus: u32) -> Result<(), Reported> {
        let cpus = pins.value.numbers().len();
        if u32::try_from(cpus) == Ok(vcpus) {
            return Ok(());
        }
        let message = format!("`pin-vcpus` names {cpus} CPUs for {vcpus} vCPUs");
        let finding = Diagnostic::error(Code::InvalidValue, message)
            .with_help("name one CPU of the host for each vCPU, in their order")
            .at(pins.span.clone());
        self.findings.push(finding);
        Err(Reported)
    }
}
