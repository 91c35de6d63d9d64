mod disks;
mod virtio;

use std::collections::BTreeSet;
use std::path::PathBuf;

use proptest::prelude::*;

use kvm::ram::HostPages;
use vfio::BackendKind;

use super::spec::{
    BootSpec, DeviceSpec, DmaIsolation, DmaMode, DmaRule, HotplugSpec, IommuChoice, ResourceSpec,
    VirtioSpec,
};
use super::*;
use crate::diagnostic::Place;
use crate::platform::Platform;
use crate::schema::Document;

fn parse_text(text: &str) -> (Source, Parsed) {
    let source = Source::new("vm.toml", text);
    let parsed = parse(&source, Path::new("/vms"));
    (source, parsed)
}

/// The findings as `line: code message | help`.
fn findings(text: &str) -> Vec<String> {
    let (source, parsed) = parse_text(text);
    let line = |finding: &Diagnostic| {
        let span = finding.span.as_ref();
        span.map_or(0, |span| source.position(span.start).line)
    };
    parsed
        .diagnostics
        .iter()
        .map(|found| {
            let help = found.help.as_deref().unwrap_or("-");
            format!("{}: {} {} | {help}", line(found), found.code, found.message)
        })
        .collect()
}

#[test]
fn a_full_config_becomes_a_spec() {
    let (_, parsed) = parse_text(
        r#"
        [vm]
        platform = "emulated-realm"
        vcpus = 2
        memory = "512 MiB"
        dma-rule = "strict"
        iommu = "virtio"
        dma-backend = "type1"

        [boot]
        kernel = "Image"
        initrd = "/boot/initrd"
        cmdline = "console=ttyS0"

        [[device]]
        pci = "0000:00:04.0"
        dma-bits = 32

        [[device]]
        pci = "05:00.1"
        dma = "translated"

        [resources]
        huge-pages = "2MiB"
        prefault = true
        numa-nodes = "0-1"
        pin-vcpus = "5,4"
        "#,
    );
    assert_eq!(parsed.diagnostics, []);
    assert_eq!(
        parsed.spec,
        Some(VmSpec {
            platform: Some(Platform::EmulatedRealm),
            vcpus: 2,
            memory: 512 << 20,
            dma_rule: Some(DmaRule::Strict),
            iommu: IommuChoice::Virtio,
            dma_backend: Some(BackendKind::Type1),
            isolation: DmaIsolation::default(),
            hotplug: HotplugSpec::default(),
            boot: Some(BootSpec {
                kernel: PathBuf::from("/vms/Image"),
                initrd: Some(PathBuf::from("/boot/initrd")),
                cmdline: "console=ttyS0".into(),
                firmware: None,
            }),
            devices: vec![
                DeviceSpec {
                    pci: "0000:00:04.0".parse().unwrap(),
                    dma_bits: Some(32),
                    dma: DmaMode::Direct,
                },
                DeviceSpec {
                    pci: "0000:05:00.1".parse().unwrap(),
                    dma_bits: None,
                    dma: DmaMode::Translated,
                },
            ],
            resources: ResourceSpec {
                huge_pages: HostPages::Huge2M,
                prefault: true,
                numa_nodes: Some("0-1".parse().unwrap()),
                pin_vcpus: Some("5,4".parse().unwrap()),
            },
            disks: vec![],
            virtio: VirtioSpec::default(),
        })
    );
}

#[test]
fn the_least_config_gets_the_defaults() {
    let (_, parsed) = parse_text("vm.memory = '2 MiB'");
    assert_eq!(parsed.diagnostics, []);
    assert_eq!(
        parsed.spec,
        Some(VmSpec {
            platform: None,
            vcpus: 1,
            memory: 2 << 20,
            dma_rule: None,
            iommu: IommuChoice::Auto,
            dma_backend: None,
            isolation: DmaIsolation::default(),
            hotplug: HotplugSpec::default(),
            boot: None,
            devices: vec![],
            resources: ResourceSpec::default(),
            disks: vec![],
            virtio: VirtioSpec::default(),
        })
    );
}

#[test]
fn every_wrong_key_is_reported_with_the_nearest_right_one() {
    let text = "\
[vm]
memory = \"2 MiB\"
dma_rule = \"strict\"
kernel = \"Image\"
splash = \"x\"
[[devices]]
pci = \"00:01.0\"
dma-bit = 40
[graphics]
";
    assert_eq!(
        findings(text),
        [
            "3: CCVM0202 `[vm]` has no key `dma_rule` | did you mean `dma-rule`?",
            "4: CCVM0202 `[vm]` has no key `kernel` | `kernel` belongs in `[boot]`",
            "5: CCVM0202 `[vm]` has no key `splash` | it can have only `platform`, `vcpus`, `memory`, `dma-rule`, `iommu`, `dma-backend`, `pkvm-device-dma`, `hotplug-ports` or `hotplug-window`",
            "6: CCVM0202 a config has no table `devices` | did you mean `device`?",
            "8: CCVM0202 `[[device]]` has no key `dma-bit` | did you mean `dma-bits`?",
            "9: CCVM0202 a config has no table `graphics` | it can have only `vm`, `boot`, `device`, `disk`, `net`, `vhost-user`, `vsock`, `rng`, `console` or `resources`",
        ]
    );
}

#[test]
fn a_misspelt_key_is_read_as_the_one_that_was_meant() {
    let (_, parsed) = parse_text("[vm]\nmemroy = '2 MiB'\n[[device]]\nbdf = '1:0.0'\n");
    let spec = parsed.spec.unwrap();
    assert_eq!(spec.memory, 2 << 20);
    assert_eq!(spec.devices.len(), 1);
    assert_eq!(parsed.diagnostics.len(), 2);
}

#[test]
fn every_wrong_value_is_reported_with_what_would_do() {
    let text = "\
[vm]
platform = \"emulated_realm\"
vcpus = 0
memory = \"513 MiB\"
dma-rule = true
[boot]
kernel = \"\"
cmdline = \"a\\u0000b\"
[[device]]
pci = \"0:0\"
dma-bits = 65
dma = \"identity\"
";
    assert_eq!(
        findings(text),
        [
            "2: CCVM0203 `platform` cannot be \"emulated_realm\" | did you mean \"emulated-realm\"?",
            "3: CCVM0203 `vcpus` is 0, and must be from 1 to 512 | -",
            "4: CCVM0203 `memory` is \"513 MiB\", which is not a multiple of 2 MiB | the nearest that will do are \"512 MiB\" and \"514 MiB\"",
            "5: CCVM0203 `dma-rule` is true or false, and must be text in quotes | it can be `strict` or `bounce`",
            "7: CCVM0203 `kernel` is empty, and must be the path of a file | -",
            "8: CCVM0203 `cmdline` holds the control character \\u{0} | -",
            "10: CCVM0203 `pci` is \"0:0\", which is not a PCI address | write segment, bus, device and function as `lspci -D` prints them, such as \"0000:00:04.0\"",
            "11: CCVM0203 `dma-bits` is 65, and must be from 24 to 64 | -",
            "12: CCVM0203 `dma` cannot be \"identity\" | it can be `direct` or `translated`",
        ]
    );
}

#[test]
fn memory_is_understood_or_explained() {
    let one = |value: &str| findings(&format!("vm.memory = {value}")).join("\n");
    assert_eq!(one("'3 GiB'"), "");
    assert!(one("'512M'").contains("did you mean \"512 MiB\"?"));
    assert!(one("'513M'").contains("are \"512 MiB\" and \"514 MiB\""));
    assert!(one("512").contains("write \"512 MiB\" if"));
    assert!(one("'0 MiB'").contains("the nearest that will do is \"2 MiB\""));
    assert!(one("'1 KiB'").contains("the nearest that will do is \"2 MiB\""));
    assert!(one("'99999999 TiB'").contains("does not fit in 64 bits"));
    assert!(one("1.5").contains("is a fraction, and must be text"));
}

#[test]
fn what_must_be_there_is_named() {
    assert_eq!(
        findings(""),
        ["0: CCVM0204 the config has no `[vm]` table | add `[vm]` with `memory = \"512 MiB\"`"]
    );
    assert_eq!(
        findings("[vm]\n[boot]\n[[device]]\n"),
        [
            "1: CCVM0204 `[vm]` has no `memory` | add `memory = \"512 MiB\"`",
            "2: CCVM0204 `[boot]` has no `kernel` | add `kernel = \"Image\"`",
            "3: CCVM0204 `[[device]]` has no `pci` | add `pci = \"0000:00:04.0\"`",
        ]
    );
}

#[test]
fn a_device_that_is_assigned_twice_points_at_both() {
    let text = "vm.memory = '2 MiB'\n[[device]]\npci = '0000:00:01.0'\n[[device]]\npci='00:01.0'\n";
    let (source, parsed) = parse_text(text);
    let [finding] = parsed.diagnostics.as_slice() else {
        panic!("{:?}", parsed.diagnostics);
    };
    assert_eq!(finding.code, Code::DuplicateDevice);
    let second = finding.span.clone().unwrap();
    let first = finding.related.clone().unwrap().span;
    assert_eq!(&source.text()[first], "'0000:00:01.0'");
    assert_eq!(&source.text()[second], "'00:01.0'");
}

#[test]
fn tables_of_the_wrong_shape_are_told_apart() {
    let text = "vm = 3\nboot = []\n[device]\npci = '00:01.0'\n";
    assert_eq!(
        findings(text),
        [
            "1: CCVM0203 `[vm]` is a whole number, and must be a table | -",
            "2: CCVM0203 `[boot]` is an array, and must be a table | -",
            "3: CCVM0203 `device` is one table, not a list | write `[[device]]`, once for each device",
        ]
    );
    assert_eq!(
        findings("vm.memory = '2 MiB'\ndevice = [1, {pci = '00:01.0'}]\n"),
        ["2: CCVM0203 `[[device]]` is a whole number, and must be a table | -"]
    );
}

#[test]
fn syntax_errors_do_not_hide_the_others_nor_cause_any() {
    let text = "\
[vm]
memory = 512 MiB
vcpu = 2
vcpus = = 1
[[device]]
pci = \"00:01.0\"
dma-bits = 70
";
    let found = findings(text);
    let codes: Vec<&str> = found.iter().map(|line| &line[..11]).collect();
    assert_eq!(
        codes,
        ["2: CCVM0201", "3: CCVM0202", "4: CCVM0201", "7: CCVM0203"],
        "{found:#?}"
    );
    assert!(found[0].ends_with("text stands in quotes: `memory = \"512 MiB\"`"));
    assert_eq!(parse_text(text).1.spec, None);
}

#[test]
fn a_place_resolves_to_its_value_or_to_its_table() {
    let (source, parsed) = parse_text(
        "[vm]\nmemory = '2 MiB'\n[[device]]\npci = '00:01.0'\ndma-bits = 70\n\
         [[device]]\npci = '00:02.0'\ndma-bits = 40\n",
    );
    let shown = |place| &source.text()[parsed.locations.span(place).unwrap()];
    assert_eq!(shown(Place::Vm("memory")), "'2 MiB'");
    assert_eq!(shown(Place::Vm("dma-rule")), "[vm]");
    // The first table is not understood, so the spec's first device is the second.
    assert_eq!(shown(Place::Device(0, None)), "'00:02.0'");
    assert_eq!(shown(Place::Device(0, Some("dma-bits"))), "40");
    assert_eq!(shown(Place::Device(0, Some("dma"))), "'00:02.0'");
    assert_eq!(parsed.locations.span(Place::Boot("kernel")), None);
}

#[test]
fn the_schema_and_the_reader_have_the_same_keys() {
    let schema = Document::Config.schema().to_value();
    let properties = |table: &serde_json::Value| -> BTreeSet<String> {
        let keys = table["properties"].as_object().unwrap();
        keys.keys().cloned().collect()
    };
    for (table, known) in [
        (&schema, keys::Table::Root),
        (&schema["$defs"]["Vm"], keys::Table::Vm),
        (&schema["$defs"]["Boot"], keys::Table::Boot),
        (&schema["$defs"]["Device"], keys::Table::Device),
        (&schema["$defs"]["Disk"], keys::Table::Disk),
        (&schema["$defs"]["Net"], keys::Table::Net),
        (&schema["$defs"]["VhostUser"], keys::Table::VhostUser),
        (&schema["$defs"]["Vsock"], keys::Table::Vsock),
        (&schema["$defs"]["Console"], keys::Table::Console),
    ] {
        let known: BTreeSet<String> = known.keys().iter().map(|key| (*key).into()).collect();
        assert_eq!(properties(table), known);
        assert_eq!(table["additionalProperties"], false);
    }
}

#[test]
fn the_schema_and_the_reader_have_the_same_words() {
    let schema = Document::Config.schema().to_value();
    for (definition, table, key) in [
        ("Platform", "vm", "platform"),
        ("DmaRule", "vm", "dma-rule"),
        ("Dma", "device", "dma"),
        ("DiskFormat", "disk", "format"),
        ("DiskCache", "disk", "cache"),
        ("VhostUserKind", "vhost-user", "kind"),
        ("ConsoleDevice", "console", "device"),
    ] {
        let words = schema["$defs"][definition]["oneOf"].as_array().unwrap();
        assert!(words.len() > 1);
        for word in words {
            let word = word["const"].as_str().unwrap();
            let text = match table {
                "vm" => format!("[vm]\nmemory = '2 MiB'\n{key} = '{word}'\n"),
                "disk" => {
                    format!("vm.memory = '2 MiB'\n[[disk]]\npath = 'x'\n{key} = '{word}'\n")
                }
                "vhost-user" => {
                    let tag = if word == "fs" { "tag = 'x'\n" } else { "" };
                    format!(
                        "vm.memory = '2 MiB'\n[[vhost-user]]\nsocket = 'x'\n{key} = '{word}'\n{tag}"
                    )
                }
                "console" => format!("vm.memory = '2 MiB'\n[console]\n{key} = '{word}'\n"),
                _ => format!("vm.memory = '2 MiB'\n[[device]]\npci = '0:0.0'\n{key} = '{word}'\n"),
            };
            assert_eq!(parse_text(&text).1.diagnostics, [], "{text}");
        }
    }
}

/// Lines that are nearly right, so that the reader is reached beyond the TOML parser.
fn nearly_a_config() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        "\\[?\\[(vm|boot|device|dev)\\]\\]?",
        "(vm|boot|device)?\\.?(memory|vcpus|pci|dma|dma-bits|kernel|x) ?= ?",
        "(memory|pci|dma|kernel|platform) = [\"'][0-9a-zA-Z:. ]{0,12}[\"']",
        "(vcpus|dma-bits|memory) = [-+]?[0-9_.x]{0,24}",
        "(vm|boot|device) = [\\[{][a-z0-9=\", ]{0,12}[\\]}]",
        "\\PC{0,16}",
    ];
    proptest::collection::vec(line, 0..12).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic_and_every_span_is_in_the_text(
        text in prop_oneof![any::<String>(), nearly_a_config()]
    ) {
        let (source, parsed) = parse_text(&text);
        prop_assert!(parsed.spec.is_some() || !parsed.diagnostics.is_empty());
        for finding in &parsed.diagnostics {
            if let Some(span) = finding.span.clone() {
                prop_assert!(source.text().get(span).is_some());
            }
        }
        if let Some(spec) = parsed.spec {
            prop_assert!(spec.memory >= 2 << 20 && spec.memory.is_multiple_of(2 << 20));
            prop_assert!(spec.vcpus >= 1);
        }
    }

    #[test]
    fn sizes_read_back_as_they_were_written(bytes in (1_u64..1 << 44).prop_map(|n| n * 1024)) {
        prop_assert_eq!(Size(bytes).to_string().parse::<Size>(), Ok(Size(bytes)));
    }
}

#[test]
fn resources_that_make_no_sense_are_told() {
    let text = "\
vm = { memory = \"2 MiB\", vcpus = 2 }
[resources]
huge-pages = \"2M\"
prefault = 1
numa-nodes = \"3-1\"
pin-vcpus = \"0\"
pinning = true
";
    assert_eq!(
        findings(text),
        [
            "3: CCVM0203 `huge-pages` cannot be \"2M\" | it can be `transparent`, `2 MiB` or `1 GiB`",
            "4: CCVM0203 `prefault` is a whole number, and must be true or false | -",
            "5: CCVM0203 `numa-nodes` is \"3-1\", which has the range '3-1', which runs backwards | \
             write numbers as the kernel does, such as \"0-3,8\"",
            "7: CCVM0202 `[resources]` has no key `pinning` | it can have only `huge-pages`, \
             `prefault`, `numa-nodes` or `pin-vcpus`",
        ]
    );
    let text = "vm = { memory = \"2 MiB\", vcpus = 2 }\nresources.pin-vcpus = \"0\"\n";
    assert_eq!(
        findings(text),
        ["2: CCVM0203 `pin-vcpus` names 1 CPUs for 2 vCPUs | \
          name one CPU of the host for each vCPU, in their order"]
    );
}
