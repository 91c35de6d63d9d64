//! Any requests, against a disk that is a list of bytes.

use proptest::prelude::*;

use super::*;

/// What a driver asks for, all of it acceptable to a disk that is large enough.
#[derive(Debug, Clone)]
enum Ask {
    Read {
        sector: u64,
        sectors: u32,
        cut: u32,
    },
    Write {
        sector: u64,
        sectors: u32,
        cut: u32,
        with: u8,
    },
    Zero {
        sector: u64,
        sectors: u32,
    },
}

fn ask() -> impl Strategy<Value = Ask> {
    let place = (0..SECTORS + 8, 1_u32..7, 0_u32..3072);
    prop_oneof![
        place.clone().prop_map(|(sector, sectors, cut)| Ask::Read {
            sector,
            sectors,
            cut
        }),
        (place.clone(), any::<u8>()).prop_map(|((sector, sectors, cut), with)| Ask::Write {
            sector,
            sectors,
            cut,
            with
        }),
        place.prop_map(|(sector, sectors, _)| Ask::Zero { sector, sectors }),
    ]
}

/// Two buffers, apart from each other, that `bytes` bytes are cut into.
fn buffers(bytes: u32, cut: u32) -> [(u64, u32); 2] {
    let first = cut.min(bytes);
    [(DATA + 1, first), (DATA + 0x2000, bytes - first)]
}

/// Where the bytes of some sectors are, if the disk has them.
fn span(sector: u64, sectors: u32) -> Option<std::ops::Range<usize>> {
    let end = sector + u64::from(sectors);
    let at = |sector: u64| usize::try_from(sector * 512).unwrap();
    (end <= SECTORS).then(|| at(sector)..at(end))
}

proptest! {
    #[test]
    fn a_disk_holds_what_was_written_last(asks in prop::collection::vec(ask(), 1..24)) {
        let mut bed = Bed::ready(Writes::Taken, FLUSH | feature::WRITE_ZEROES);
        let mut model = bed.disk.bytes();
        for ask in asks {
            match ask {
                Ask::Read { sector, sectors, cut } => {
                    let buffers = buffers(sectors * 512, cut);
                    let status = bed.request(IN, sector, &[], &buffers);
                    let Some(span) = span(sector, sectors) else {
                        prop_assert_eq!(status, IO_ERROR);
                        continue;
                    };
                    prop_assert_eq!(status, OK);
                    let read = buffers.map(|(at, bytes)| bed.driver.get(at, bytes as usize));
                    prop_assert_eq!(read.concat(), &model[span]);
                }
                Ask::Write { sector, sectors, cut, with } => {
                    let buffers = buffers(sectors * 512, cut);
                    for (at, bytes) in buffers {
                        bed.driver.put(at, &vec![with; bytes as usize]);
                    }
                    let status = bed.request(OUT, sector, &buffers, &[]);
                    match span(sector, sectors) {
                        Some(span) => {
                            prop_assert_eq!(status, OK);
                            model[span].fill(with);
                        }
                        None => prop_assert_eq!(status, IO_ERROR),
                    }
                }
                Ask::Zero { sector, sectors } => {
                    bed.driver.put(DATA, &sector.to_le_bytes());
                    bed.driver.put(DATA + 8, &sectors.to_le_bytes());
                    bed.driver.put(DATA + 12, &[0; 4]);
                    let status = bed.request(ZERO_RANGES, 0, &[(DATA, 16)], &[]);
                    match span(sector, sectors) {
                        Some(span) => {
                            prop_assert_eq!(status, OK);
                            model[span].fill(0);
                        }
                        None => prop_assert_eq!(status, IO_ERROR),
                    }
                }
            }
            prop_assert_eq!(&bed.disk.bytes(), &model);
        }
    }
}
