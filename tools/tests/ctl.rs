//! `ccvm ctl` against a socket that answers as recorded: what it asks, what it prints, how it exits.
//!
//! `UPDATE_GOLDEN=1 cargo test -p ccvm` writes the texts anew; read the diff before you keep it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod golden;

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

use golden::Golden;
use vmm::control::protocol::{self, Response};

/// A name, the arguments, the request that they make, and the exit code.
type Case = (&'static str, &'static [&'static str], &'static str, i32);

const CASES: &[Case] = &[
    (
        "status",
        &["status"],
        r#"{"version":1,"command":"status"}"#,
        0,
    ),
    (
        "metrics",
        &["metrics"],
        r#"{"version":1,"command":"metrics"}"#,
        0,
    ),
    (
        "devices",
        &["devices"],
        r#"{"version":1,"command":"devices"}"#,
        0,
    ),
    (
        "map",
        &["map", "00:01.0", "--from", "0x40000000", "--limit", "2"],
        r#"{"version":1,"command":"map","device":"00:01.0","from":"0x40000000","limit":2}"#,
        0,
    ),
    (
        "verify-clean",
        &["verify"],
        r#"{"version":1,"command":"verify"}"#,
        0,
    ),
    (
        "verify-not",
        &["verify"],
        r#"{"version":1,"command":"verify"}"#,
        1,
    ),
    (
        "convert",
        &["convert"],
        r#"{"version":1,"command":"convert"}"#,
        0,
    ),
    (
        "tdi",
        &["tdi", "report", "0000:00:05.0"],
        r#"{"version":1,"command":"tdi","action":"report","device":"0000:00:05.0"}"#,
        0,
    ),
    (
        "plug",
        &["plug", "0000:00:08.0", "--slot", "2", "--dma-bits", "36"],
        r#"{"version":1,"command":"plug","device":"0000:00:08.0","slot":2,"dma_bits":36}"#,
        0,
    ),
    (
        "plug-refused",
        &["plug", "0000:00:04.0"],
        r#"{"version":1,"command":"plug","device":"0000:00:04.0"}"#,
        1,
    ),
    (
        "unplug",
        &["unplug", "0000:00:08.0", "--wait", "0"],
        r#"{"version":1,"command":"unplug","device":"0000:00:08.0","force":false}"#,
        0,
    ),
    (
        "unplug-forced",
        &["unplug", "01:00.0", "--force"],
        r#"{"version":1,"command":"unplug","device":"01:00.0","force":true}"#,
        0,
    ),
    (
        "powerbutton",
        &["powerbutton"],
        r#"{"version":1,"command":"powerbutton"}"#,
        0,
    ),
    ("pause", &["pause"], r#"{"version":1,"command":"pause"}"#, 0),
    (
        "error",
        &["resume"],
        r#"{"version":1,"command":"resume"}"#,
        1,
    ),
];

fn recorded(name: &str) -> String {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/control");
    std::fs::read_to_string(fixtures.join(format!("{name}.json"))).unwrap()
}

fn ccvm(socket: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ccvm"))
        .arg("ctl")
        .arg(socket)
        .args(arguments)
        .output()
        .unwrap()
}

/// Answers one request with `answer`; returns the request.
fn serve(socket: PathBuf, answer: String) -> thread::JoinHandle<String> {
    let listener = UnixListener::bind(socket).unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = String::new();
        BufReader::new(stream.try_clone().unwrap())
            .read_line(&mut request)
            .unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
        request
    })
}

#[test]
fn every_answer_is_printed_as_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let mut golden = Golden::new("tests/fixtures/control");
    for (name, arguments, request, code) in CASES {
        let socket = folder.path().join(name);
        let server = serve(socket.clone(), recorded(name));
        let output = ccvm(&socket, arguments);
        assert_eq!(server.join().unwrap().trim_end(), *request, "{name}");
        assert_eq!(output.status.code(), Some(*code), "{name}");
        let text = [output.stdout, output.stderr].concat();
        golden.compare(&format!("{name}.txt"), &String::from_utf8(text).unwrap());
    }
}

#[test]
fn json_is_the_response_as_it_came() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("vm.sock");
    let server = serve(socket.clone(), recorded("verify-not"));
    let output = ccvm(&socket, &["verify", "--format", "json"]);
    server.join().unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        recorded("verify-not")
    );
    assert_eq!(output.status.code(), Some(1));
}

/// The samples of the recorded counters, as they are printed for Prometheus.
fn prometheus() -> String {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("vm.sock");
    let server = serve(socket.clone(), recorded("metrics"));
    let output = ccvm(&socket, &["metrics", "--format", "prometheus"]);
    server.join().unwrap();
    assert_eq!(output.status.code(), Some(0));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn counters_for_prometheus_are_printed_as_recorded() {
    Golden::new("tests/fixtures/control").compare("metrics.prom.txt", &prometheus());
}

#[test]
fn counters_for_prometheus_are_well_formed_and_on_the_protocols_page() {
    let page = include_str!("../../docs/control.md");
    let mut families = Vec::new();
    let mut kind = String::new();
    for line in prometheus().lines() {
        let mut words = line.split(' ');
        match (words.next().unwrap(), words.next().unwrap()) {
            ("#", "HELP") => families.push(words.next().unwrap().to_owned()),
            ("#", "TYPE") => {
                assert_eq!(words.next(), families.last().map(String::as_str));
                kind = words.next().unwrap().to_owned();
            }
            (sample, value) => {
                let name = sample.split('{').next().unwrap();
                assert_eq!(Some(name), families.last().map(String::as_str));
                assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
                assert!(value.parse::<f64>().is_ok(), "{line}");
            }
        }
    }
    let mut once = families.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), families.len(), "a family is told once");
    assert!(families.len() >= 15);
    for family in families {
        assert!(page.contains(&format!("`{family}`")), "{family}");
    }
}

#[test]
fn only_counters_have_a_form_for_prometheus() {
    let folder = tempfile::tempdir().unwrap();
    let output = ccvm(
        &folder.path().join("none"),
        &["status", "--format", "prometheus"],
    );
    assert_eq!(output.status.code(), Some(2));
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(complaint.contains("only `metrics`"), "{complaint}");
}

#[test]
fn where_no_vm_answers_it_is_unusable() {
    let folder = tempfile::tempdir().unwrap();
    let output = ccvm(&folder.path().join("none"), &["status"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("no VM answers at")
    );
}

#[test]
fn the_lines_of_the_protocols_page_are_such_lines() {
    let page = include_str!("../../docs/control.md");
    let lines = page.lines().filter(|line| line.starts_with("{\""));
    let (requests, responses): (Vec<&str>, Vec<&str>) =
        lines.partition(|line| line.contains("\"command\""));
    assert!(requests.len() >= 3 && responses.len() >= 3);
    for line in requests {
        protocol::Command::parse(line.as_bytes()).unwrap();
    }
    for line in responses {
        let response: Response = serde_json::from_str(line).unwrap();
        assert_eq!(serde_json::to_string(&response).unwrap(), line);
    }
    for name in protocol::Command::NAMES {
        assert!(
            page.contains(&format!("`{name}")),
            "{name} is not on the page"
        );
    }
}
