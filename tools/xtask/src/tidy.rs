//! What the compiler does not check: where unsafe code may be, how long a file may get, which words do
//! not belong in the tree, and whether links lead anywhere.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::links;

/// Lines of one source file, tests included.
const LINES_MAX: usize = 600;

/// The only places for unsafe code: two crates, and the payload that runs without an OS.
const UNSAFE_ALLOWED: [&str; 3] = ["devices/vfio/", "vmm/kvm/", "tests/guest/"];

/// How far above an unsafe block its reason may stand.
const REASON_LINES: usize = 6;

/// Words of unfinished work, in parts so that this file passes its own check.
const UNFINISHED: [&str; 4] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("to", "do!("),
    concat!("#[", "ignore"),
];

/// Paths of somebody's machine.
const PRIVATE: [&str; 2] = [concat!("/wo", "rk/"), concat!("/ro", "ot/")];

/// Where every package of the lock file comes from.
const REGISTRY: &str = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";

/// Endings of files that are read as text.
const TEXT: [&str; 9] = [
    "rs", "toml", "md", "lock", "json", "tsv", "svg", "txt", "sh",
];

/// Fails when a file of the tree is not tidy.
///
/// # Errors
/// All findings, `path:line: what`.
pub(crate) fn check(root: &Path) -> anyhow::Result<()> {
    let mut findings = Vec::new();
    for path in files(root)? {
        let name = path.strip_prefix(root)?.to_string_lossy().into_owned();
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("{name} is not UTF-8 text"))?;
        findings.extend(findings_in(&name, &text));
        if name.ends_with(".md") {
            findings.extend(links::broken(root, &name, &text));
        }
    }
    if !findings.is_empty() {
        bail!("{}", findings.join("\n"));
    }
    Ok(())
}

/// The text files of the tree, without what is built or belongs to git.
fn files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name());
            let kind = entry.file_type()?;
            if kind.is_dir() && name != "target" && name != ".git" {
                directories.push(path);
            } else if kind.is_file() && is_text(&path) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn is_text(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| TEXT.contains(&extension)) || path.ends_with(".ci/run")
}

fn findings_in(name: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        for word in UNFINISHED.iter().chain(&PRIVATE) {
            if line.contains(word) {
                findings.push(format!("{name}:{number}: '{word}' does not belong here"));
            }
        }
        if name == "Cargo.lock" && line.starts_with("source = ") && line != REGISTRY {
            findings.push(format!("{name}:{number}: not from the public registry"));
        }
    }
    if name.ends_with(".rs") {
        findings.extend(unsafe_findings(name, text));
        let lines = text.lines().count();
        if lines > LINES_MAX {
            findings.push(format!("{name}: {lines} lines, more than {LINES_MAX}"));
        }
        if is_crate_root(name) && !may_be_unsafe(name) && !text.contains("#![forbid(unsafe_code)]")
        {
            findings.push(format!("{name}: does not forbid unsafe code"));
        }
    }
    findings
}

fn is_crate_root(name: &str) -> bool {
    name.ends_with("src/lib.rs") || name.ends_with("src/main.rs")
}

fn may_be_unsafe(name: &str) -> bool {
    UNSAFE_ALLOWED.iter().any(|place| name.starts_with(place))
}

fn unsafe_findings(name: &str, text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut findings = Vec::new();
    let mut any = false;
    for (index, line) in lines.iter().enumerate() {
        if !is_unsafe(line) {
            continue;
        }
        any = true;
        let above = &lines[index.saturating_sub(REASON_LINES)..=index];
        let reason = |line: &&str| line.contains("SAFETY:") || line.contains("# Safety");
        if !above.iter().any(reason) {
            let number = index + 1;
            findings.push(format!("{name}:{number}: unsafe without its reason above"));
        }
    }
    if any && !may_be_unsafe(name) {
        findings.push(format!("{name}: unsafe code is not allowed here"));
    }
    if any && !name.starts_with("tests/guest/") && !says_why(text) {
        findings.push(format!("{name}: does not say at its head why it is unsafe"));
    }
    findings
}

/// Whether the module opts in to unsafe code with a reason, however rustfmt breaks the line.
fn says_why(text: &str) -> bool {
    let dense: String = text.split_whitespace().collect();
    dense.contains("#![expect(unsafe_code,reason=")
}

/// Whether a line opens an unsafe block, function or implementation.
fn is_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    ["unsafe {", "unsafe fn ", "unsafe impl", "unsafe extern"]
        .iter()
        .any(|form| code.contains(form) && !code.contains('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_tree_is_tidy() {
        let tools = Path::new(env!("CARGO_MANIFEST_DIR"));
        check(tools.ancestors().nth(2).unwrap()).unwrap();
    }

    #[test]
    fn unsafe_code_stays_in_its_crates_and_gives_a_reason() {
        let bare = "let x = unsafe { *p };\n";
        assert_eq!(findings_in("vmm/src/a.rs", bare).len(), 3);
        assert_eq!(findings_in("vmm/kvm/src/a.rs", bare).len(), 2);
        let reasoned =
            format!("#![expect(unsafe_code, reason = \"x\")]\n// SAFETY: p is valid.\n{bare}");
        assert_eq!(findings_in("vmm/kvm/src/a.rs", &reasoned), [""; 0]);
        let crate_root = findings_in("devices/src/lib.rs", "pub mod bus;\n");
        assert_eq!(
            crate_root,
            ["devices/src/lib.rs: does not forbid unsafe code"]
        );
    }

    #[test]
    fn long_files_unfinished_work_and_private_paths_are_found() {
        let long = "\n".repeat(LINES_MAX + 1);
        assert_eq!(findings_in("a.rs", &long).len(), 1);
        for word in UNFINISHED.iter().chain(&PRIVATE) {
            assert_eq!(findings_in("a.md", word).len(), 1, "{word}");
        }
        let source = "source = \"registry+https://example.com/index\"";
        assert_eq!(findings_in("Cargo.lock", source).len(), 1);
        assert_eq!(findings_in("Cargo.lock", REGISTRY), [""; 0]);
    }
}
