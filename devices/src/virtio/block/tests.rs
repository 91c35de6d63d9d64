//! A disk, driven as a driver does.

mod against_a_model;
mod disk;
mod requests;
mod threads;

use std::sync::Arc;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::feature::{CONFIG_WCE, FLUSH};
use super::*;
use crate::virtio::driver::{BUFFERS, Driver, NEXT, WRITE};
use disk::{Bed, SECTORS};

/// Where the tests have the parts of a request.
const HEADER: u64 = BUFFERS;
const STATUS_AT: u64 = BUFFERS + 0x100;
const DATA: u64 = BUFFERS + 0x1000;

/// Kinds of requests.
const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH_CACHE: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD_RANGES: u32 = 11;
const ZERO_RANGES: u32 = 13;

const OK: u8 = 0;
const IO_ERROR: u8 = 1;
const UNSUPPORTED: u8 = 2;
/// What is at the place of the status before.
const UNTOUCHED: u8 = 0xee;

#[test]
fn a_disk_says_what_it_can() {
    let mut bed = Bed::new(Writes::Taken, 2);
    let writing = CONFIG_WCE | feature::DISCARD | feature::WRITE_ZEROES | feature::MQ;
    let features = bed.driver.function.device().features();
    assert_eq!(features & feature::RO, 0);
    assert_eq!(features & writing, writing);
    let capacity: [u8; 8] = bed.driver.bar_read(0x1000);
    assert_eq!(u64::from_le_bytes(capacity), SECTORS);
    let queues: [u8; 2] = bed.driver.bar_read(0x1000 + 34);
    assert_eq!(u16::from_le_bytes(queues), 2);
    let [block_exponent] = bed.driver.bar_read(0x1000 + 24);
    assert_eq!(512_u32 << block_exponent, 4096);
}

#[test]
fn a_disk_that_is_only_read_says_so_and_offers_no_writing() {
    let bed = Bed::new(Writes::Refused, 1);
    let features = bed.driver.function.device().features();
    let writing = CONFIG_WCE | feature::DISCARD | feature::WRITE_ZEROES | feature::MQ;
    assert_eq!(features & writing, 0);
    assert_eq!(features & feature::RO, feature::RO);
}

#[test]
fn a_write_is_durable_at_once_for_a_driver_that_cannot_flush() {
    let mut bed = Bed::ready(Writes::Taken, 0);
    assert_eq!(bed.write(0, &[1; 512]), OK);
    assert_eq!(bed.disk.flushes(), 1);
}

#[test]
fn a_write_waits_for_a_flush_of_a_driver_that_can() {
    let mut bed = Bed::ready(Writes::Taken, FLUSH);
    assert_eq!(bed.write(0, &[1; 512]), OK);
    assert_eq!(bed.disk.flushes(), 0);
    assert_eq!(bed.request(FLUSH_CACHE, 0, &[], &[]), OK);
    assert_eq!(bed.disk.flushes(), 1);
}

#[test]
fn the_driver_turns_the_write_cache_off_and_on() {
    let at = 0x1000 + Config::WRITEBACK_AT as u64;
    let mut bed = Bed::ready(Writes::Taken, FLUSH | CONFIG_WCE);
    assert_eq!(bed.driver.bar_read(at), [1]);
    bed.driver.bar_write(at, &[0]);
    assert_eq!(bed.driver.bar_read(at), [0]);
    assert_eq!(bed.write(0, &[1; 512]), OK);
    assert_eq!(bed.disk.flushes(), 1);
    bed.driver.bar_write(at, &[1]);
    assert_eq!(bed.write(0, &[1; 512]), OK);
    assert_eq!(bed.disk.flushes(), 1);
    // Not a choice for a driver that has not accepted it.
    let mut bed = Bed::ready(Writes::Taken, FLUSH);
    bed.driver.bar_write(at, &[0]);
    assert_eq!(bed.driver.bar_read(at), [1]);
}
