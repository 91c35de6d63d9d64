//! Page states, DMA tables and conversions of a confidential VM with assigned devices.
//!
//! Pure: no I/O, no threads, no clock, no `unsafe`. The rest of ccvm asks this crate what each DMA
//! table must hold and carries out the edits that it returns.
#![forbid(unsafe_code)]

pub mod addr;

pub use addr::{Gpa, Iova, PAGE_SIZE, PageRange};
