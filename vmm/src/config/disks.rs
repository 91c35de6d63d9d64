//! `[[disk]]`.

use std::num::NonZeroU16;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::DeValue;

use super::keys::Table;
use super::reader::Located;
use super::sections::Sections;
use super::spec::{BackingSpec, DiskAccess, DiskCache, DiskFormat, DiskSpec, FormatSource};
use super::values;
use crate::diagnostic::{Code, Diagnostic, Place};

const FORMATS: [(&str, DiskFormat); 2] = [("raw", DiskFormat::Raw), ("qcow2", DiskFormat::Qcow2)];
const CACHES: [(&str, DiskCache); 2] = [("direct", DiskCache::Direct), ("host", DiskCache::Host)];

/// The most queues of a disk: each costs a thread.
const MOST_QUEUES: u32 = 16;
/// The most that a disk has by itself.
const QUEUES_BY_DEFAULT: u32 = 4;

impl Sections<'_> {
    /// The disks of a VM of so many vCPUs. Those that are not understood are left out.
    pub(super) fn disks(&mut self, raw: &Spanned<DeValue<'_>>, vcpus: u32) -> Vec<DiskSpec> {
        self.list(Table::Disk, raw, |sections, raw, before| {
            sections.disk(raw, vcpus, before)
        })
    }

    fn disk(
        &mut self,
        raw: &Spanned<DeValue<'_>>,
        vcpus: u32,
        before: &[DiskSpec],
    ) -> Option<DiskSpec> {
        let disk = self.table(Table::Disk, raw).ok()?;
        let findings = &mut self.findings;
        let path = disk.required("path", "\"disk.img\"", findings, values::path);
        let format = disk.optional("format", findings, |v| values::one_of(v, &FORMATS));
        let readonly = disk.optional("readonly", findings, values::boolean);
        let serial = disk.optional("serial", findings, values::serial);
        let queues = disk.optional("queues", findings, |v| values::integer(v, 1..=MOST_QUEUES));
        let cache = disk.optional("cache", findings, |v| values::one_of(v, &CACHES));
        let backing = disk.optional("backing", findings, values::path);
        let backing_format =
            disk.optional("backing-format", findings, |v| values::one_of(v, &FORMATS));
        let path = self.file(path.ok()?);
        let readonly = readonly.ok()?;
        let is_shared = |other: &DiskSpec| {
            let both = readonly.as_ref().is_some_and(|readonly| readonly.value);
            both && other.access == DiskAccess::ReadOnly
        };
        let twin = before.iter().position(|other| other.path == path.value);
        if let Some(twin) = twin.filter(|twin| !before.get(*twin).is_some_and(is_shared)) {
            self.findings.push(self.same_file(&path, twin));
            return None;
        }
        let (format, serial, queues, cache) =
            (format.ok()?, serial.ok()?, queues.ok()?, cache.ok()?);
        let (backing, backing_format) = (backing.ok()?, backing_format.ok()?);
        if let (None, Some(of_none)) = (&backing, &backing_format) {
            let finding = Diagnostic::error(
                Code::InvalidValue,
                "`backing-format` is the format of a `backing`, and there is none",
            );
            self.findings.push(finding.at(of_none.span.clone()));
            return None;
        }
        let index = before.len();
        self.locations
            .record(Place::Disk(index, None), path.span.clone());
        let at = |key| Place::Disk(index, Some(key));
        let path = self.keep_one(at("path"), path);
        let (format, format_source) = match self.keep(at("format"), format) {
            Some(format) => (format, FormatSource::Config),
            None => (DiskFormat::by_name(&path), FormatSource::Name),
        };
        let queues = self.keep(at("queues"), queues);
        let queues = queues.unwrap_or(vcpus.min(QUEUES_BY_DEFAULT));
        let queues = u16::try_from(queues).ok().and_then(NonZeroU16::new);
        Some(DiskSpec {
            format,
            format_source,
            path,
            access: match self.keep(at("readonly"), readonly) {
                Some(true) => DiskAccess::ReadOnly,
                Some(false) | None => DiskAccess::ReadWrite,
            },
            serial: self.keep(at("serial"), serial),
            queues: queues.unwrap_or(NonZeroU16::MIN),
            cache: self.keep(at("cache"), cache).unwrap_or(DiskCache::Direct),
            backing: backing.map(|backing| {
                let backing = self.file(backing);
                let path = self.keep_one(at("backing"), backing);
                let format = self.keep(at("backing-format"), backing_format);
                BackingSpec {
                    format: format.unwrap_or_else(|| DiskFormat::by_name(&path)),
                    path,
                }
            }),
        })
    }

    /// A path, which counts from the directory of the config.
    fn file(&self, path: Located<String>) -> Located<PathBuf> {
        Located {
            value: self.base.join(&path.value),
            span: path.span,
        }
    }

    fn same_file(&self, path: &Located<PathBuf>, twin: usize) -> Diagnostic {
        let message = format!("two disks have the file {}", path.value.display());
        let finding = Diagnostic::error(Code::DiskInUse, message)
            .with_help("remove one of the two tables, or make both disks read-only")
            .at(path.span.clone());
        match self.locations.span(Place::Disk(twin, None)) {
            Some(first) => finding.related(first, "used here first"),
            None => finding,
        }
    }
}
