//! Requests, good and bad.

use super::*;

const ALL: u64 = FLUSH | feature::DISCARD | feature::WRITE_ZEROES;

fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    let mut bytes = sector.to_le_bytes().to_vec();
    bytes.extend(sectors.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes
}

fn ranges(bed: &mut Bed, kind: u32, ranges: &[Vec<u8>]) -> u8 {
    let bytes = ranges.concat();
    bed.driver.put(DATA, &bytes);
    bed.request(kind, 0, &[(DATA, u32::try_from(bytes.len()).unwrap())], &[])
}

#[test]
fn data_goes_through_buffers_of_any_shape() {
    let mut bed = Bed::ready(Writes::Taken, FLUSH);
    let data: Vec<u8> = (0..1024_u32).map(|at| (at % 251) as u8).collect();
    bed.driver.put(DATA + 3, &data[..700]);
    bed.driver.put(DATA + 0x1001, &data[700..]);
    let shapes = [(DATA + 3, 700), (DATA + 0x1001, 324)];
    assert_eq!(bed.request(OUT, 5, &shapes, &[]), OK);
    assert_eq!(
        bed.driver.last_used(0),
        (0, 1),
        "only the status is written"
    );
    assert_eq!(bed.disk.bytes()[5 * 512..7 * 512], data);
    let shapes = [(DATA + 0x2007, 1), (DATA + 0x2100, 1023)];
    assert_eq!(bed.request(IN, 5, &[], &shapes), OK);
    assert_eq!(bed.driver.last_used(0), (0, 1025));
    assert_eq!(bed.driver.get(DATA + 0x2007, 1), data[..1]);
    assert_eq!(bed.driver.get(DATA + 0x2100, 1023), data[1..]);
    assert_eq!(bed.driver.vectors.signalled(1), 2);
}

#[test]
fn a_request_beyond_the_end_fails_and_does_nothing() {
    let mut bed = Bed::ready(Writes::Taken, FLUSH);
    let before = bed.disk.bytes();
    for (sector, bytes) in [
        (SECTORS, 512),
        (SECTORS - 1, 1024),
        (u64::MAX, 512),
        (u64::MAX / 512, 512),
        (0, 511),
        (0, 513),
    ] {
        for kind in [IN, OUT] {
            let buffer = [(DATA, bytes)];
            let (readable, writable) = match kind {
                IN => (&[][..], &buffer[..]),
                _ => (&buffer[..], &[][..]),
            };
            let status = bed.request(kind, sector, readable, writable);
            assert_eq!(status, IO_ERROR, "{kind} {sector:#x} {bytes}");
        }
    }
    assert_eq!(bed.disk.bytes(), before);
}

#[test]
fn a_buffer_outside_of_memory_fails_its_request_alone() {
    let mut bed = Bed::ready(Writes::Taken, FLUSH);
    let outside = crate::virtio::driver::MEMORY;
    for at in [outside, outside - 100, u64::MAX - 100] {
        assert_eq!(bed.request(IN, 0, &[], &[(at, 512)]), IO_ERROR);
        assert_eq!(bed.request(OUT, 0, &[(at, 512)], &[]), IO_ERROR);
    }
    assert_eq!(bed.write(0, &[7; 512]), OK);
}

#[test]
fn a_host_error_is_the_requests_status() {
    let mut bed = Bed::ready(Writes::Taken, ALL);
    bed.disk.broken.store(true, Ordering::SeqCst);
    assert_eq!(bed.request(IN, 0, &[], &[(DATA, 512)]), IO_ERROR);
    assert_eq!(bed.write(0, &[7; 512]), IO_ERROR);
    assert_eq!(bed.request(FLUSH_CACHE, 0, &[], &[]), IO_ERROR);
    assert_eq!(
        ranges(&mut bed, DISCARD_RANGES, &[range(0, 1, 0)]),
        IO_ERROR
    );
    assert_eq!(ranges(&mut bed, ZERO_RANGES, &[range(0, 1, 0)]), IO_ERROR);
    bed.disk.broken.store(false, Ordering::SeqCst);
    assert_eq!(bed.write(0, &[7; 512]), OK);
}

#[test]
fn a_disk_that_is_only_read_refuses_what_changes_it() {
    let mut bed = Bed::ready(Writes::Refused, FLUSH);
    let before = bed.disk.bytes();
    assert_eq!(bed.write(0, &[7; 512]), IO_ERROR);
    assert_eq!(
        ranges(&mut bed, DISCARD_RANGES, &[range(0, 1, 0)]),
        IO_ERROR
    );
    assert_eq!(ranges(&mut bed, ZERO_RANGES, &[range(0, 1, 0)]), IO_ERROR);
    assert_eq!(bed.disk.bytes(), before);
    assert_eq!(bed.request(IN, 3, &[], &[(DATA, 512)]), OK);
    assert_eq!(bed.driver.get(DATA, 512), [3; 512]);
    assert_eq!(bed.request(FLUSH_CACHE, 0, &[], &[]), OK);
}

#[test]
fn ranges_are_discarded_and_zeroed_one_after_another() {
    let mut bed = Bed::ready(Writes::Taken, ALL);
    let two = [range(1, 2, 0), range(9, 1, 0)];
    assert_eq!(ranges(&mut bed, DISCARD_RANGES, &two), OK);
    assert_eq!(
        ranges(&mut bed, ZERO_RANGES, &[range(20, 3, 0), range(30, 1, 1)]),
        OK
    );
    let bytes = bed.disk.bytes();
    let sector = |index: usize| bytes[index * 512];
    assert_eq!([1, 2, 3, 9].map(sector), [0xdd, 0xdd, 3, 0xdd]);
    assert_eq!([20, 22, 23, 30].map(sector), [0, 0, 23, 0]);
}

#[test]
fn ranges_that_are_none_are_refused() {
    let mut bed = Bed::ready(Writes::Taken, ALL);
    let before = bed.disk.bytes();
    for kind in [DISCARD_RANGES, ZERO_RANGES] {
        assert_eq!(ranges(&mut bed, kind, &[]), IO_ERROR, "none at all");
        assert_eq!(ranges(&mut bed, kind, &[vec![0; 15]]), IO_ERROR);
        let many = vec![range(0, 1, 0); 17];
        assert_eq!(ranges(&mut bed, kind, &many), IO_ERROR, "too many");
        assert_eq!(ranges(&mut bed, kind, &[range(SECTORS, 1, 0)]), IO_ERROR);
        assert_eq!(ranges(&mut bed, kind, &[range(1, u32::MAX, 0)]), IO_ERROR);
        assert_eq!(ranges(&mut bed, kind, &[range(0, 1, 2)]), UNSUPPORTED);
    }
    let unmap = [range(0, 1, 1)];
    assert_eq!(ranges(&mut bed, DISCARD_RANGES, &unmap), UNSUPPORTED);
    assert_eq!(bed.disk.bytes(), before);
}

#[test]
fn the_serial_number_is_padded_and_cut() {
    let mut bed = Bed::ready(Writes::Taken, FLUSH);
    assert_eq!(bed.request(GET_ID, 0, &[], &[(DATA, 20)]), OK);
    assert_eq!(bed.driver.get(DATA, 20), b"serial number\0\0\0\0\0\0\0");
    assert_eq!(bed.driver.last_used(0), (0, 21));
    bed.driver.put(DATA, &[9; 8]);
    assert_eq!(bed.request(GET_ID, 0, &[], &[(DATA, 4)]), OK);
    assert_eq!(bed.driver.get(DATA, 5), b"seri\x09");
    assert_eq!(bed.request(GET_ID, 0, &[], &[(DATA, 64)]), OK);
    assert_eq!(bed.driver.last_used(0), (0, 20), "what is filled");
}

#[test]
fn a_request_that_does_not_exist_is_unsupported() {
    let mut bed = Bed::ready(Writes::Taken, FLUSH);
    for kind in [2, 3, 5, 9, 14, u32::MAX] {
        assert_eq!(bed.request(kind, 0, &[], &[(DATA, 512)]), UNSUPPORTED);
    }
}

#[test]
fn a_chain_without_a_place_for_the_status_does_nothing() {
    let mut bed = Bed::ready(Writes::Taken, FLUSH);
    bed.put_header(OUT, 0);
    bed.driver
        .describe(0, &[(HEADER, 16, NEXT, 1), (DATA, 512, 0, 0)]);
    bed.driver.offer(0, 0);
    bed.driver.notify(0);
    bed.serve();
    assert_eq!(bed.driver.last_used(0), (0, 0));
    assert_eq!(bed.disk.bytes()[..512], [0; 512]);
}

#[test]
fn a_short_header_is_an_error() {
    let mut bed = Bed::ready(Writes::Taken, FLUSH);
    bed.put_header(IN, 0);
    bed.driver.describe(
        0,
        &[
            (HEADER, 15, NEXT, 1),
            (DATA, 512, NEXT | WRITE, 2),
            (STATUS_AT, 1, WRITE, 0),
        ],
    );
    bed.driver.offer(0, 0);
    bed.driver.notify(0);
    bed.serve();
    assert_eq!(bed.driver.get(STATUS_AT, 1), [IO_ERROR]);
}
