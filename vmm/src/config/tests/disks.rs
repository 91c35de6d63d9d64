//! `[[disk]]`.

use std::num::NonZeroU16;

use super::super::spec::{
    BackingSpec, DiskAccess, DiskCache, DiskFormat, DiskSerial, DiskSpec, FormatSource,
};
use super::*;

#[test]
fn disks_have_defaults_that_suit_the_vm() {
    let (_, parsed) = parse_text(
        r#"
        vm = { memory = "2 MiB", vcpus = 2 }

        [[disk]]
        path = "root.qcow2"
        serial = "root"
        queues = 3
        backing = "base.img"

        [[disk]]
        path = "/images/data"
        format = "raw"
        readonly = true
        cache = "host"
        "#,
    );
    assert_eq!(parsed.diagnostics, []);
    let root = DiskSpec {
        path: PathBuf::from("/vms/root.qcow2"),
        format: DiskFormat::Qcow2,
        format_source: FormatSource::Name,
        access: DiskAccess::ReadWrite,
        serial: DiskSerial::new("root"),
        queues: NonZeroU16::new(3).unwrap(),
        cache: DiskCache::Direct,
        backing: Some(BackingSpec {
            path: PathBuf::from("/vms/base.img"),
            format: DiskFormat::Raw,
        }),
    };
    let data = DiskSpec {
        path: PathBuf::from("/images/data"),
        format: DiskFormat::Raw,
        format_source: FormatSource::Config,
        access: DiskAccess::ReadOnly,
        serial: None,
        queues: NonZeroU16::new(2).unwrap(),
        cache: DiskCache::Host,
        backing: None,
    };
    assert_eq!(parsed.spec.unwrap().disks, [root, data]);
}

#[test]
fn a_wrong_disk_is_reported_by_its_key() {
    let text = "\
vm.memory = \"2 MiB\"
[[disk]]
file = \"a.img\"
readonly = \"yes\"
[[disk]]
path = \"b.img\"
serial = \"a serial number that is too long\"
queues = 0
format = \"vmdk\"
[[disk]]
cache = \"host\"
[[disk]]
path = \"c.qcow2\"
backing-format = \"raw\"
";
    assert_eq!(
        findings(text),
        [
            "3: CCVM0202 `[[disk]]` has no key `file` | did you mean `path`?",
            "4: CCVM0203 `readonly` is text, and must be true or false | -",
            "7: CCVM0203 `serial` is \"a serial number that is too long\", and must be 1 to 20 printable ASCII characters | -",
            "8: CCVM0203 `queues` is 0, and must be from 1 to 16 | -",
            "9: CCVM0203 `format` cannot be \"vmdk\" | it can be `raw` or `qcow2`",
            "10: CCVM0204 `[[disk]]` has no `path` | add `path = \"disk.img\"`",
            "14: CCVM0203 `backing-format` is the format of a `backing`, and there is none | -",
        ]
    );
}

#[test]
fn one_file_is_two_disks_only_where_neither_writes() {
    let disks = |first, second| {
        let disk = |readonly| format!("[[disk]]\npath = 'x'\nreadonly = {readonly}\n");
        findings(&format!(
            "vm.memory = '2 MiB'\n{}{}",
            disk(first),
            disk(second)
        ))
    };
    assert_eq!(disks(true, true), [""; 0]);
    let both = "6: CCVM0603 two disks have the file /vms/x | remove one of the two tables, or make both disks read-only";
    for (first, second) in [(true, false), (false, true), (false, false)] {
        assert_eq!(disks(first, second), [both]);
    }
}
