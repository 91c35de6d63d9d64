//! What `ccvm run` says on stderr, for people and for programs.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::process::{Command, Output};

use serde_json::Value;

/// A run that is refused: on its way there it reads the host, and finds two things.
fn refused_run(format: &str, level: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ccvm"))
        .env("CCVM_LOG", level)
        .args(["run", "--memory=512M", "--vcpus=none", "--log-format"])
        .arg(format)
        .output()
        .unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn each_line_for_programs_is_an_event() {
    let output = refused_run("json", "info");
    assert_eq!(output.status.code(), Some(2));
    let events = lines(&output);
    for event in &events {
        for field in ["timestamp", "level", "target", "message"] {
            assert!(event[field].is_string(), "{field}: {event}");
        }
    }
    let target = |name: &str| {
        events
            .iter()
            .filter(|event| event["target"] == name)
            .count()
    };
    assert_eq!(target("finding"), 2, "{events:?}");
    assert!(target("finding") < events.len(), "{events:?}");
}

#[test]
fn findings_are_told_to_programs_with_code_place_and_remedy() {
    let events = lines(&refused_run("json", "off"));
    let memory = events.iter().find(|event| event["line"] == 2).unwrap();
    assert_eq!(memory["level"], "ERROR");
    assert_eq!(memory["code"], "CCVM0203");
    assert_eq!(memory["file"], "command line");
    assert_eq!(memory["help"], "did you mean \"512 MiB\"?");
    assert!(memory.get("device").is_none(), "what is unknown is absent");
}

#[test]
fn people_get_findings_with_the_lines_that_they_are_about() {
    let output = refused_run("text", "warn");
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.starts_with("error[CCVM0203]"), "{text}");
    assert!(text.contains("\u{2502} --memory 512M\n"), "{text}");
}

#[test]
fn a_level_that_there_is_not_is_complained_of() {
    let events = lines(&refused_run("json", "vmm=lots"));
    let complaint = events[0]["message"].as_str().unwrap();
    assert!(
        complaint.starts_with("CCVM_LOG is not understood"),
        "{complaint}"
    );
}
