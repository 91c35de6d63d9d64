//! One config on two hosts that differ in their architecture only: the testbeds, as `ccvm host --json`
//! recorded them. Answers are alike where they should be; where they are not, a file says how.
//!
//! `UPDATE_GOLDEN=1 cargo test -p ccvm` writes that file anew; read the diff before you keep it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod golden;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use golden::Golden;
use serde_json::Value;

/// Configs of which both architectures say the same.
const ALIKE: &[&str] = &[
    "absent-device",
    "bounces",
    "foreign-member",
    "host-driver",
    "iommufd",
    "operator-knows-better",
    "plain",
    "too-much-memory",
    "translated",
];

/// Configs that one architecture takes and the other refuses.
const APART: &[&str] = &["narrow", "realm"];

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
}

/// What `ccvm check` says of a config on a testbed's host.
struct Answer {
    code: i32,
    report: Value,
}

impl Answer {
    fn of(config: &str, host: &str) -> Self {
        Self::of_file(Path::new(&format!("configs/twins/{config}.toml")), host)
    }

    fn of_file(config: &Path, host: &str) -> Self {
        let output = Command::new(env!("CARGO_BIN_EXE_ccvm"))
            .current_dir(fixtures())
            .arg("check")
            .arg(config)
            .args(["--format", "json", "--host"])
            .arg(format!("hosts/testbed-{host}.json"))
            .output()
            .unwrap();
        Self {
            code: output.status.code().unwrap(),
            report: serde_json::from_slice(&output.stdout).unwrap(),
        }
    }

    fn list(&self, name: &str) -> impl Iterator<Item = &Value> {
        self.report[name].as_array().into_iter().flatten()
    }

    /// The codes of what is wrong or doubtful.
    fn codes(&self) -> BTreeSet<&str> {
        self.list("diagnostics")
            .filter_map(|finding| finding["code"].as_str())
            .collect()
    }

    /// Each device with its width and where that comes from.
    fn widths(&self) -> Vec<[&Value; 4]> {
        let fields = ["pci", "dma", "dma_bits", "dma_bits_source"];
        self.list("devices")
            .map(|device| fields.map(|field| &device[field]))
            .collect()
    }
}

fn both(config: &str) -> [Answer; 2] {
    ["arm64", "x86_64"].map(|host| Answer::of(config, host))
}

#[test]
fn both_architectures_give_the_same_verdict_for_the_same_reasons() {
    for config in ALIKE {
        let [arm64, x86_64] = both(config);
        assert_eq!(arm64.code, x86_64.code, "{config}");
        assert_eq!(arm64.codes(), x86_64.codes(), "{config}");
        assert_eq!(
            arm64.report["verdict"], x86_64.report["verdict"],
            "{config}"
        );
    }
}

#[test]
fn a_device_is_as_wide_on_either_architecture_and_known_from_the_same_source() {
    for config in ALIKE.iter().chain(APART) {
        let [arm64, x86_64] = both(config);
        assert_eq!(arm64.widths(), x86_64.widths(), "{config}");
    }
}

/// Whatever the most memory is, it is accepted, and the next 2 MiB are not: the rule is the same, of
/// machines that have their devices at different places.
#[test]
fn the_most_memory_is_the_most_on_either_architecture() {
    const MIB: u64 = 1 << 20;
    let config = fs::read_to_string(fixtures().join("configs/twins/too-much-memory.toml")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for host in ["arm64", "x86_64"] {
        let refused = Answer::of("too-much-memory", host);
        let most = refused.report["max_memory"].as_u64().unwrap();
        assert_eq!(most % (2 * MIB), 0, "{host}");
        assert!(most < 4096 * MIB, "{host}: 32 bits reach {most} bytes");
        let code_with = |memory: u64| {
            let path = folder.path().join("config.toml");
            let memory = format!("{} MiB", memory / MIB);
            fs::write(&path, config.replace("8 GiB", &memory)).unwrap();
            Answer::of_file(&path, host).code
        };
        assert_eq!(
            [code_with(most), code_with(most + 2 * MIB)],
            [0, 1],
            "{host}"
        );
    }
}

#[test]
fn a_config_that_tells_them_apart_is_taken_by_one_and_refused_by_the_other() {
    for config in APART {
        let codes = both(config).map(|answer| answer.code);
        assert!(matches!(codes, [0, 1] | [1, 0]), "{config}: {codes:?}");
    }
}

#[test]
fn all_that_differs_is_recorded() {
    let mut text = String::new();
    for config in ALIKE.iter().chain(APART) {
        let [arm64, x86_64] = both(config);
        writeln!(text, "{config}").unwrap();
        compare(&mut text, "", &arm64.report, &x86_64.report);
    }
    let mut golden = Golden::new("tests/fixtures/golden");
    golden.compare("twins.txt", &text);
}

/// Lists what of two documents is not the same, arm64's side first.
fn compare(text: &mut String, path: &str, one: &Value, other: &Value) {
    match (one, other) {
        (Value::Object(left), Value::Object(right)) => {
            let names: BTreeSet<_> = left.keys().chain(right.keys()).collect();
            // Two machines: their layouts have little in common, and are recorded elsewhere.
            for name in names.into_iter().filter(|name| *name != "layout") {
                let path = format!("{path}/{name}");
                compare(text, &path, &one[name], &other[name]);
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (number, (one, other)) in left.iter().zip(right).enumerate() {
                compare(text, &format!("{path}/{number}"), one, other);
            }
        }
        _ if one == other => {}
        _ => writeln!(text, "  {path}\n    {one}\n    {other}").unwrap(),
    }
}
