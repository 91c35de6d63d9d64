use std::convert::Infallible;

use super::*;
use crate::boot::segment::SegmentKind;
use crate::platform::cca;

const RAM: u64 = 0x4000_0000;
const HOST: RealmHost = RealmHost {
    rmm: RmmVersion::V1,
    breakpoints: 6,
    watchpoints: 4,
    lpa2: Lpa2::Off,
};

fn range(start: u64, bytes: u64) -> PageRange<Gpa> {
    PageRange::new(Gpa::new(start), bytes).unwrap()
}

fn segment(start: u64, content: &[u8]) -> Segment<'_> {
    Segment::of_bytes(SegmentKind::Kernel, Gpa::new(start), content).unwrap()
}

/// Reads a page of a segment whose content is in memory.
fn read(segment: &Segment<'_>, at: Gpa, page: &mut Page) -> Result<(), Infallible> {
    segment.read_page(at, page).unwrap();
    Ok(())
}

/// The measurement of 2 MiB with these segments, of which a launch populates whole pages of any host.
fn measure(host: RealmHost, segments: &[Segment<'_>]) -> Digest {
    let parts = segments.iter().map(|part| (part.start(), part.bytes()));
    let populated = cca::regions(parts).unwrap();
    let content = InitialContent {
        dram: &[range(RAM, 2 << 20)],
        segments,
        entry: Entry {
            pc: Gpa::new(RAM),
            x0: Gpa::new(RAM + 0x10_0000),
        },
    };
    let parameters = host.parameters(33);
    let digest = content.populated_measurement(parameters, host.rmm, &populated, read);
    digest.unwrap()
}

/// The same, written down as the calls that the RMM gets.
fn by_calls(host: RealmHost, pages: &[(u64, Page)]) -> Digest {
    let mut rim = Rim::new(host.parameters(33));
    if host.rmm == RmmVersion::V1 {
        rim.init_ripas(range(RAM, 2 << 20));
    }
    for (at, page) in pages {
        let content = HashAlgorithm::Sha256.digest(&[page]);
        rim.data_create(Gpa::new(*at), Content::Measured(content));
    }
    rim.rec_create(Entry {
        pc: Gpa::new(RAM),
        x0: Gpa::new(RAM + 0x10_0000),
    });
    rim.digest()
}

#[test]
fn what_is_populated_is_measured_up_to_whole_pages_of_any_host() {
    let content = [0x5a; 4097];
    let mut pages: Vec<(u64, Page)> = (0..16).map(|at| (RAM + at * 4096, [0; 4096])).collect();
    pages[0].1 = [0x5a; 4096];
    pages[1].1[0] = 0x5a;
    for rmm in [RmmVersion::V1, RmmVersion::V2] {
        let host = RealmHost { rmm, ..HOST };
        assert_eq!(
            measure(host, &[segment(RAM, &content)]),
            by_calls(host, &pages)
        );
    }
}

#[test]
fn segments_that_share_a_page_are_both_in_it() {
    let (first, second) = ([1; 0x800], [2; 0x100]);
    let mut pages: Vec<(u64, Page)> = (0..16).map(|at| (RAM + at * 4096, [0; 4096])).collect();
    pages[0].1[..0x800].fill(1);
    pages[0].1[0xc00..0xd00].fill(2);
    let both = [segment(RAM, &first), segment(RAM + 0xc00, &second)];
    assert_eq!(measure(HOST, &both), by_calls(HOST, &pages));
}

#[test]
fn everything_that_the_host_decides_is_in_the_measurement() {
    let content = [0x5a; 4096];
    let of = |host| measure(host, &[segment(RAM, &content)]);
    let others = [
        RealmHost {
            rmm: RmmVersion::V2,
            ..HOST
        },
        RealmHost {
            breakpoints: 7,
            ..HOST
        },
        RealmHost {
            watchpoints: 5,
            ..HOST
        },
        RealmHost {
            lpa2: Lpa2::On,
            ..HOST
        },
    ];
    let mut digests = vec![of(HOST)];
    for other in others {
        assert!(!digests.contains(&of(other)), "{other:?}");
        digests.push(of(other));
    }
}
