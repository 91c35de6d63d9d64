//! The page of the documentation that is made from the table.

use std::fmt::Write as _;

use super::Can;
use super::table::{PLATFORMS, ROWS};
use crate::case::Platform;
use crate::prepare::repository;

const HEAD: &str = "\
<!-- Made by `UPDATE_GOLDEN=1 cargo test -p vmtest`; edit `tests/src/cases/conformance/table.rs`. -->

# Conformance

What every platform must do, and which of them do it in the testbed. `cargo xtask test --filter conformance` runs all of it;
`--filter on_pkvm` one platform. A row that a platform cannot do has its reason here, and `cargo xtask test` prints it as
`N/A`: that is not a skipped test. With `--on-host` the machine's own platforms run, `cca` and `snp` among them where the host offers
them.

";

/// The reasons, in the order in which the table gives them, each once.
fn reasons() -> Vec<&'static str> {
    let mut reasons = Vec::new();
    for cell in ROWS.iter().flat_map(|row| row.cells) {
        if let Can::Not(reason) | Can::OnHardware(reason) = cell.can
            && !reasons.contains(&reason)
        {
            reasons.push(reason);
        }
    }
    reasons
}

fn page() -> String {
    let reasons = reasons();
    let number = |reason| {
        1 + reasons
            .iter()
            .position(|one| *one == reason)
            .unwrap_or_default()
    };
    let mut page = HEAD.to_owned();
    let names = PLATFORMS
        .map(|platform| format!(" `{}` |", platform.name()))
        .concat();
    writeln!(page, "| row | what is true |{names}").expect("a string grows");
    writeln!(page, "|---|---|{}", "---|".repeat(PLATFORMS.len())).expect("a string grows");
    for row in ROWS {
        let cells = row.cells.iter().map(|cell| match cell.can {
            Can::Runs => " runs |".to_owned(),
            Can::OnHardware(reason) => format!(" on hardware ({}) |", number(reason)),
            Can::Not(reason) => format!(" no ({}) |", number(reason)),
        });
        let cells: String = cells.collect();
        writeln!(page, "| `{}` | {} |{cells}", row.name, row.means).expect("a string grows");
    }
    page.push('\n');
    for (number, reason) in (1..).zip(&reasons) {
        writeln!(page, "{number}. {reason}").expect("a string grows");
    }
    page
}

#[test]
fn the_page_is_current() {
    let path = repository().join("docs/platforms/conformance.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        std::fs::write(&path, page()).expect("the page is written");
    }
    let recorded = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        recorded,
        page(),
        "if that is right, run with UPDATE_GOLDEN=1"
    );
}

#[test]
fn only_tdx_has_no_row_that_it_can_do() {
    for (column, platform) in PLATFORMS.into_iter().enumerate() {
        let cells = ROWS.iter().filter_map(|row| row.cells.get(column));
        let able = cells.filter(|cell| matches!(cell.can, Can::Runs | Can::OnHardware(_)));
        assert_eq!(able.count() == 0, platform == Platform::Tdx, "{platform:?}");
    }
}
