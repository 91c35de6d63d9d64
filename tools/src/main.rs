//! The `ccvm` command.
#![forbid(unsafe_code)]

fn main() {}
