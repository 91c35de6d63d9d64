//! The reference pages are made from what the program itself says of its documents, so that they
//! cannot fall behind it.
//!
//! `UPDATE_GOLDEN=1 cargo test -p ccvm --test docs` writes them anew.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod golden;
#[path = "docs/markdown.rs"]
mod markdown;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use golden::Golden;
use markdown::Reference;
use serde_json::Value;
use vmm::diagnostic::Code;
use vmm::host::HostFacts;
use vmm::report::Report;

const MADE: &str = "<!-- Made by `UPDATE_GOLDEN=1 cargo test -p ccvm --test docs`; edit the doc \
                    comments in `vmm/src` or the text in `tools/tests/docs`. -->\n";

fn fixture(path: &str) -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    std::fs::read_to_string(root.join(path)).unwrap()
}

fn schema(document: &str) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_ccvm"))
        .args(["schema", document])
        .output();
    serde_json::from_slice(&output.unwrap().stdout).unwrap()
}

fn compare(page: &str, text: &str) {
    Golden::new("docs").compare(page, text);
}

#[test]
fn the_config_reference_is_current() {
    let schema = schema("config");
    let mut reference = Reference::new(&schema);
    let mut page = format!("{MADE}\n{}\n", include_str!("docs/config.md"));
    writeln!(
        page,
        "```toml\n{}```\n",
        fixture("configs/realm-e1000.toml")
    )
    .unwrap();
    for (heading, definition) in [
        ("[vm]", "Vm"),
        ("[boot]", "Boot"),
        ("[[device]]", "Device"),
        ("[[disk]]", "Disk"),
        ("[[net]]", "Net"),
        ("[[vhost-user]]", "VhostUser"),
        ("[vsock]", "Vsock"),
        ("[rng]", "Rng"),
        ("[console]", "Console"),
        ("[resources]", "Resources"),
    ] {
        let table = &schema["$defs"][definition];
        write!(page, "## `{heading}`\n\n{}", reference.object("key", table)).unwrap();
    }
    compare("config.md", &page);
}

#[test]
fn the_reference_of_the_json_documents_is_current() {
    let mut page = format!("{MADE}\n{}\n", include_str!("docs/json.md"));
    for (heading, document, example) in [
        ("Host facts", "host", include_str!("docs/host.json")),
        ("Report", "report", include_str!("docs/report.json")),
        (
            "Measurement",
            "measure",
            include_str!("../../tests/fixtures/golden/measure.realm.json"),
        ),
    ] {
        let schema = schema(document);
        let mut reference = Reference::new(&schema);
        write!(
            page,
            "\n## {heading}\n\n{}",
            reference.object("field", &schema)
        )
        .unwrap();
        page.push_str(&reference.mentioned());
        write!(page, "### Example\n\n```json\n{example}```\n").unwrap();
    }
    compare("json.md", &page);
}

#[test]
fn the_examples_of_the_json_documents_are_such_documents() {
    let facts = vmm::host::from_json(include_str!("docs/host.json")).unwrap();
    let read: HostFacts = serde_json::from_value(serde_json::to_value(&facts).unwrap()).unwrap();
    assert_eq!(read, facts);
    let report: Report = serde_json::from_str(include_str!("docs/report.json")).unwrap();
    let example: Value = serde_json::from_str(include_str!("docs/report.json")).unwrap();
    assert_eq!(
        serde_json::to_value(&report).unwrap(),
        example,
        "a field that no report has"
    );
}

#[test]
fn the_list_of_diagnostics_is_current() {
    let mut page = format!("{MADE}\n{}", include_str!("docs/diagnostics.md"));
    let blocks = [
        (1, "Reach and placement"),
        (2, "The config file"),
        (3, "Host facts"),
        (4, "Boot files, launch and run"),
        (5, "Assigned devices"),
        (6, "Emulated devices"),
        (7, "Platforms"),
        (8, "Launch measurements"),
    ];
    for (block, heading) in blocks {
        write!(page, "\n## {heading}\n\n| code | meaning |\n|---|---|\n").unwrap();
        for code in Code::ALL.iter().filter(|code| **code as u16 / 100 == block) {
            writeln!(page, "| `{code}` | {} |", code.title()).unwrap();
        }
    }
    let listed = page
        .lines()
        .filter(|line| line.starts_with("| `CCVM"))
        .count();
    assert_eq!(listed, Code::ALL.len(), "a code in no block");
    compare("diagnostics.md", &page);
}

#[test]
fn the_pictures_are_current() {
    let directory = tempfile::tempdir().unwrap();
    let mut golden = Golden::new("docs/pictures");
    for (name, config, host) in [
        ("realm", "realm-e1000", "qemu-virt"),
        ("bounce", "plain-narrow", "amd-server"),
    ] {
        let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
        let file = directory.path().join(name);
        let status = Command::new(env!("CARGO_BIN_EXE_ccvm"))
            .current_dir(fixtures)
            .args(["check", &format!("configs/{config}.toml")])
            .args([
                "--host",
                &format!("hosts/{host}.json"),
                "--format",
                "json",
                "--svg",
            ])
            .arg(&file)
            .output();
        assert!(status.unwrap().status.success());
        golden.compare(
            &format!("{name}.svg"),
            &std::fs::read_to_string(&file).unwrap(),
        );
    }
}
