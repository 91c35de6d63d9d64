//! Golden files: what a program printed once, read by a person and found right.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail so")]

use std::fmt::Write as _;
use std::path::PathBuf;

/// The golden files of one directory; fails at the end with all that differ.
pub(crate) struct Golden {
    directory: PathBuf,
    update: bool,
    differences: String,
}

impl Golden {
    /// The files in `directory`, counted from the root of the repository.
    pub(crate) fn new(directory: &str) -> Self {
        Self {
            directory: PathBuf::from(env!("CARGO_MANIFEST_DIR"))
                .join("..")
                .join(directory),
            update: std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1"),
            differences: String::new(),
        }
    }

    /// Compares `printed` with the file `name`, or writes it.
    pub(crate) fn compare(&mut self, name: &str, printed: &str) {
        let path = self.directory.join(name);
        if self.update {
            std::fs::create_dir_all(&self.directory).unwrap();
            std::fs::write(path, printed).unwrap();
            return;
        }
        let recorded = std::fs::read_to_string(&path).unwrap_or_default();
        if recorded != printed {
            let line = recorded
                .lines()
                .zip(printed.lines())
                .take_while(|(a, b)| a == b)
                .count();
            writeln!(
                self.differences,
                "{name}, line {}:\n  recorded: {}\n  printed:  {}",
                line + 1,
                recorded.lines().nth(line).unwrap_or("(nothing)"),
                printed.lines().nth(line).unwrap_or("(nothing)"),
            )
            .unwrap();
        }
    }
}

impl Drop for Golden {
    fn drop(&mut self) {
        if !self.differences.is_empty() && !std::thread::panicking() {
            panic!(
                "not as recorded; if that is right, run with UPDATE_GOLDEN=1\n{}",
                self.differences
            );
        }
    }
}
