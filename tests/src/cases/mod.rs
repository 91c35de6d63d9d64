//! The VM tests.

mod boot;
mod disk;
mod host;
mod net;

use crate::case::Case;

/// All tests, in the order in which they run: cheap ones first.
#[must_use]
pub(crate) fn all() -> Vec<Case> {
    [host::CASES, boot::CASES, disk::CASES, net::CASES].concat()
}
