//! The VM tests.

mod boot;
mod disk;
mod edu;
mod host;
mod net;
mod realm;
mod refuse;

use crate::case::Case;

/// All tests, in the order in which they run: cheap ones first.
#[must_use]
pub(crate) fn all() -> Vec<Case> {
    let groups = [
        host::CASES,
        refuse::CASES,
        realm::CASES,
        edu::CASES,
        boot::CASES,
        disk::CASES,
        net::CASES,
    ];
    groups.concat()
}
