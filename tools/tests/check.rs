//! `ccvm check` on recorded hosts: what it prints is compared with golden files, byte for byte.
//!
//! `UPDATE_GOLDEN=1 cargo test -p ccvm` writes them anew; read the diff before you keep it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod golden;

use std::path::PathBuf;
use std::process::{Command, Output};

use golden::Golden;
use vmm::report::Report;
use vmm::report::document::Verdict;

/// A config, the host that it is checked against, and the exit code.
type Case = (&'static str, &'static str, i32);

const CASES: &[Case] = &[
    ("realm-e1000", "qemu-virt", 0),
    ("realm-two-devices", "qemu-virt", 0),
    ("realm-e1000-too-much-memory", "qemu-virt", 1),
    ("realm-edu", "qemu-virt", 1),
    ("realm-bounce", "qemu-virt", 1),
    ("realm-translated", "qemu-virt", 1),
    ("plain-translated", "qemu-virt", 0),
    ("plain-translated-without-iommu", "qemu-virt", 1),
    ("realm-iommu", "qemu-virt", 0),
    ("realm-disks", "qemu-virt", 0),
    ("disk-errors", "qemu-virt", 2),
    ("plain-narrow", "amd-server", 0),
    ("plain-reserved-hole", "amd-server", 0),
    ("snp-xhci", "amd-server", 1),
    ("snp-network", "amd-server", 0),
    ("tdx-accelerator", "intel-server", 0),
    ("cca-gpu", "arm-server", 0),
    ("auto", "arm-server", 0),
    ("absent-device", "arm-server", 1),
    ("unknown-keys", "qemu-virt", 2),
    ("many-errors", "qemu-virt", 2),
    ("errors-of-file-and-plan", "qemu-virt", 2),
    ("syntax", "qemu-virt", 2),
    ("realm-e1000", "not-json", 2),
    ("realm-e1000", "wrong-value", 2),
];

/// The cases that are drawn.
const DRAWN: &[&str] = &[
    "realm-e1000",
    "realm-edu",
    "plain-narrow",
    "plain-reserved-hole",
];

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
}

/// Runs the command in the directory of the fixtures, so that paths print the same everywhere.
fn ccvm(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ccvm"))
        .current_dir(fixtures())
        .args(arguments)
        .output()
        .unwrap()
}

fn check((config, host, code): Case, more: &[&str]) -> String {
    let config = format!("configs/{config}.toml");
    let host = format!("hosts/{host}.json");
    let output = ccvm(&[&["check", &config, "--host", &host], more].concat());
    let printed = String::from_utf8(output.stdout).unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        output.status.code(),
        Some(code),
        "{config} on {host}: {printed}{complaints}"
    );
    assert_eq!(complaints, "", "{config} on {host}");
    printed
}

fn name((config, host, _): Case) -> String {
    format!("{config}.{host}")
}

#[test]
fn the_text_is_as_recorded() {
    let mut golden = Golden::new("tests/fixtures/golden");
    for case in CASES {
        golden.compare(&format!("{}.txt", name(*case)), &check(*case, &[]));
    }
}

#[test]
fn the_json_is_as_recorded_and_reads_as_a_report() {
    let mut golden = Golden::new("tests/fixtures/golden");
    for case in CASES {
        let printed = check(*case, &["--format", "json"]);
        golden.compare(&format!("{}.json", name(*case)), &printed);
        let report: Report = serde_json::from_str(&printed).unwrap();
        let (_, _, code) = *case;
        assert_eq!(
            report.verdict == Verdict::Accepted,
            code == 0,
            "{}",
            name(*case)
        );
    }
}

#[test]
fn the_picture_is_as_recorded() {
    let mut golden = Golden::new("tests/fixtures/golden");
    let directory = tempfile::tempdir().unwrap();
    for case in CASES
        .iter()
        .filter(|(config, _, code)| DRAWN.contains(config) && *code < 2)
    {
        let file = directory.path().join("map.svg");
        check(*case, &["--svg", file.to_str().unwrap()]);
        let picture = std::fs::read_to_string(&file).unwrap();
        golden.compare(&format!("{}.svg", name(*case)), &picture);
    }
}

#[test]
fn no_line_of_the_text_is_wider_than_a_hundred_columns() {
    for case in CASES {
        for line in check(*case, &[]).lines() {
            assert!(line.chars().count() <= 100, "{}: {line}", name(*case));
        }
    }
}

#[test]
fn a_missing_config_is_reported_in_json_too() {
    let output = ccvm(&[
        "check",
        "none.toml",
        "--host",
        "hosts/qemu-virt.json",
        "--format",
        "json",
    ]);
    assert_eq!(output.status.code(), Some(2));
    let report: Report = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report.verdict, Verdict::Rejected);
    assert_eq!(report.diagnostics[0].code, "CCVM0206");
}

#[test]
fn missing_facts_do_not_hide_the_errors_of_the_config() {
    let output = ccvm(&["check", "configs/unknown-keys.toml", "--host", "none.json"]);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        printed.contains("CCVM0304") && printed.contains("CCVM0202"),
        "{printed}"
    );
}

#[test]
fn a_picture_that_cannot_be_written_is_an_error() {
    let output = ccvm(&[
        "check",
        "configs/realm-e1000.toml",
        "--host",
        "hosts/qemu-virt.json",
        "--svg",
        "no/such/directory/map.svg",
    ]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("map.svg"));
}

#[test]
fn every_schema_is_printed_as_json() {
    for document in ["config", "host", "report", "measure"] {
        let output = ccvm(&["schema", document]);
        assert!(output.status.success());
        let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(schema["properties"].is_object(), "{document}");
    }
}

#[test]
fn flags_are_checked_as_the_file_that_they_stand_for() {
    let flags = [
        "--platform=emulated-realm",
        "--memory=512MiB",
        "--kernel=Image",
        "--initrd=initrd.cpio",
        "--cmdline=console=ttyS0",
        "--device=0000:00:04.0",
    ];
    let host = ["--host", "hosts/qemu-virt.json"];
    let by_flags = ccvm(&[&["check"], &host[..], &flags[..]].concat());
    assert_eq!(by_flags.status.code(), Some(0));
    let config = ccvm(&[&["check", "--print-config"], &flags[..]].concat());
    assert_eq!(config.status.code(), Some(0));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("vm.toml");
    std::fs::write(&file, &config.stdout).unwrap();
    let by_file = ccvm(&["check", file.to_str().unwrap(), host[0], host[1]]);
    assert_eq!(by_file.status.code(), Some(0));
    let text = String::from_utf8(by_flags.stdout).unwrap();
    assert!(text.contains("accepted: emulated-realm"), "{text}");
    assert_eq!(text, String::from_utf8(by_file.stdout).unwrap());
}

#[test]
fn findings_about_flags_show_the_flag() {
    let arguments = [
        "check",
        "--host",
        "hosts/qemu-virt.json",
        "--memory",
        "8GiB",
    ];
    let more = ["--platform=emulated-realm", "--device", "0000:00:04.0"];
    let output = ccvm(&[&arguments[..], &more[..]].concat());
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{printed}");
    for part in [
        "CCVM0101",
        "command line:",
        "\u{2502} --device 0000:00:04.0\n",
    ] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
}

#[test]
fn a_file_and_flags_exclude_each_other_and_one_of_them_is_needed() {
    let config = "configs/realm-e1000.toml";
    for arguments in [
        vec!["check"],
        vec!["check", "--kernel", "Image"],
        vec!["check", config, "--memory", "1GiB"],
        vec!["check", config, "--vcpus", "2"],
        vec!["check", config, "--print-config"],
        vec!["check", "--memory", "1GiB", "--initrd", "initrd.cpio"],
    ] {
        let output = ccvm(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(output.stdout, b"", "{arguments:?}");
    }
}

#[test]
fn flags_that_are_no_config_are_not_printed_as_one() {
    let output = ccvm(&["check", "--memory=512M", "--print-config"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(output.stdout, b"");
    assert!(String::from_utf8_lossy(&output.stderr).contains("CCVM0203"));
}

#[test]
fn every_key_of_a_config_has_a_flag() {
    let schema: serde_json::Value =
        serde_json::from_slice(&ccvm(&["schema", "config"]).stdout).unwrap();
    let help = String::from_utf8(ccvm(&["check", "--help"]).stdout).unwrap();
    let mut flags = 0;
    for (table, content) in schema["properties"].as_object().unwrap() {
        // A list of tables has one flag, by its own name; its keys go behind commas. So has a device that
        // there is one of.
        let is_one_device = ["vsock", "rng", "console"].contains(&table.as_str());
        let keys = match content.get("items") {
            Some(_) => vec![table.clone()],
            None if is_one_device => vec![table.clone()],
            None => {
                let name = content["$ref"].as_str().unwrap().trim_start_matches('#');
                let entry = schema.pointer(name).unwrap();
                let keys = entry["properties"].as_object().unwrap().keys();
                keys.cloned().collect()
            }
        };
        for key in keys {
            let flag = format!("--{key}");
            assert!(
                help.split_whitespace().any(|word| word == flag),
                "{table}: {flag}"
            );
            flags += 1;
        }
    }
    assert!(flags >= 10, "{flags}");
}
