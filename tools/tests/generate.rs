//! Shell completions and man pages, made from the command's own definition.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

fn ccvm(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ccvm"))
        .args(arguments)
        .output()
        .unwrap()
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn completions_know_commands_and_flags_in_every_shell() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = ccvm(&["completions", shell]);
        assert!(output.status.success(), "{shell}");
        let script = String::from_utf8(output.stdout).unwrap();
        for word in ["check", "run", "ctl", "log-format", "metrics"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn bash_reads_its_completions() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ccvm");
    std::fs::write(&file, ccvm(&["completions", "bash"]).stdout).unwrap();
    let checked = Command::new("bash").arg("-n").arg(&file).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
}

#[test]
fn every_command_has_a_man_page_and_only_shown_flags_are_on_it() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    assert!(ccvm(&["man", pages.to_str().unwrap()]).status.success());
    let written = names(&pages);
    for page in [
        "ccvm.1",
        "ccvm-check.1",
        "ccvm-run.1",
        "ccvm-ctl.1",
        "ccvm-ctl-metrics.1",
    ] {
        assert!(written.contains(page), "{page}: {written:?}");
    }
    assert!(
        written.iter().all(|name| !name.contains("-help")),
        "{written:?}"
    );
    assert!(!written.contains("ccvm-man.1"), "{written:?}");
    let run = std::fs::read_to_string(pages.join("ccvm-run.1")).unwrap();
    assert!(
        run.contains("Exit codes:") && run.contains("\\-\\-memory"),
        "{run}"
    );
    assert!(!run.contains("debug\\-"), "{run}");
}

#[test]
fn pages_that_cannot_be_written_are_an_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let folder = file.path().join("man1");
    let output = ccvm(&["man", folder.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("man1"));
}
