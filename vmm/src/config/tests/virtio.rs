//! `[[net]]`, `[[vhost-user]]`, `[vsock]`, `[rng]` and `[console]`.

use super::super::spec::{
    ConsoleChoice, DaemonKind, DaemonSpec, FsTag, NetSource, NetSpec, RngSpec, VsockSpec,
};
use super::*;
use std::num::NonZeroU16;

#[test]
fn every_kind_of_device_becomes_a_part_of_the_spec() {
    let (_, parsed) = parse_text(
        r#"
        vm.memory = "2 MiB"
        vsock.cid = 7
        rng = {}
        console.device = "virtio"

        [[net]]
        tap = "tap0"
        mac = "02:00:00:00:00:0a"
        queues = 2

        [[net]]
        fd = 5

        [[vhost-user]]
        kind = "block"
        socket = "/run/disk"
        queues = 3

        [[vhost-user]]
        kind = "net"
        socket = "net.sock"

        [[vhost-user]]
        kind = "fs"
        socket = "/run/fs"
        tag = "share"
        "#,
    );
    assert_eq!(parsed.diagnostics, []);
    let number = |number| NonZeroU16::new(number).unwrap();
    let tap = NetSpec {
        source: NetSource::Tap("tap0".parse().unwrap()),
        mac: Some("02:00:00:00:00:0a".parse().unwrap()),
        queues: number(2),
    };
    let inherited = NetSpec {
        source: NetSource::Descriptor(5),
        mac: None,
        queues: number(1),
    };
    let daemon = |socket: &str, kind| DaemonSpec {
        socket: PathBuf::from(socket),
        kind,
    };
    let tag = FsTag::new("share").unwrap();
    let expected = VirtioSpec {
        nets: vec![tap, inherited],
        daemons: vec![
            daemon("/run/disk", DaemonKind::Block { queues: number(3) }),
            daemon("/vms/net.sock", DaemonKind::Net { mac: None }),
            daemon("/run/fs", DaemonKind::Fs { tag }),
        ],
        vsock: Some(VsockSpec { cid: 7 }),
        rng: Some(RngSpec),
        console: ConsoleChoice::Virtio,
    };
    assert_eq!(parsed.spec.unwrap().virtio, expected);
}

#[test]
fn a_wrong_interface_is_reported_by_its_key() {
    let text = "\
vm.memory = \"2 MiB\"
[[net]]
tap = \"a/b\"
mac = \"ff:ff:ff:ff:ff:ff\"
[[net]]
tap = \"tap1\"
fd = 4
[[net]]
mac = \"02:00:00:00:00:01\"
[[net]]
fd = 3
queues = 2
[[net]]
tap = \"tap2\"
[[net]]
tap = \"tap2\"
[[net]]
fd = 2
";
    assert_eq!(
        findings(text),
        [
            "3: CCVM0203 `tap` is \"a/b\", which holds '/', which no interface has in its name | -",
            "4: CCVM0203 `mac` is \"ff:ff:ff:ff:ff:ff\", which is no address of a single interface | write six pairs of hexadecimal digits, such as \"02:00:00:00:00:01\"",
            "7: CCVM0203 `[[net]]` has both `tap` and `fd` | remove one of them",
            "8: CCVM0204 `[[net]]` has neither `tap` nor `fd` | add `tap = \"tap0\"`, or `fd` for a tap that ccvm is started with",
            "12: CCVM0203 `queues` is 2, and `fd` is one queue | -",
            "16: CCVM0612 two network devices have tap2 | remove one of the two tables",
            "18: CCVM0203 `fd` is 2, and must be from 3 to 65535 | -",
        ]
    );
}

#[test]
fn keys_of_another_kind_and_missing_ones_are_named() {
    let text = "\
vm.memory = \"2 MiB\"
[[vhost-user]]
kind = \"net\"
socket = \"a\"
queues = 2
[[vhost-user]]
kind = \"fs\"
path = \"b\"
[[vhost-user]]
kind = \"gpu\"
[vsock]
cid = 2
[rng]
source = \"host\"
[console]
device = \"vga\"
";
    assert_eq!(
        findings(text),
        [
            "5: CCVM0203 `queues` is only for `kind = \"block\"` | -",
            "6: CCVM0204 `[[vhost-user]]` has no `tag` | add `tag = \"share\"`: the guest mounts the file system by it",
            "8: CCVM0202 `[[vhost-user]]` has no key `path` | `path` belongs in `[[disk]]`",
            "9: CCVM0204 `[[vhost-user]]` has no `socket` | add `socket = \"/run/disk.sock\"`",
            "10: CCVM0203 `kind` cannot be \"gpu\" | it can be `block`, `net` or `fs`",
            "12: CCVM0203 `cid` is 2, and must be from 3 to 4294967294 | -",
            "14: CCVM0202 `[rng]` has no key `source` | it has none",
            "16: CCVM0203 `device` cannot be \"vga\" | it can be `serial` or `virtio`",
        ]
    );
}
