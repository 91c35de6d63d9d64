//! Vectors of <https://github.com/veraison/cca-realm-measurements> (commit 08aaf5a), `tests/cmdline.rs`.
//! The device trees that go into them are large; what is here of each is the digests of its pages.

use super::*;

fn parameters(hash: HashAlgorithm, ipa_bits: u8, pmu_counters: Option<u8>) -> RealmParameters {
    RealmParameters {
        hash,
        ipa_bits,
        lpa2: Lpa2::Off,
        sve_vl: None,
        // Six of each.
        breakpoints: 5,
        watchpoints: 5,
        pmu_counters,
    }
}

fn range(start: u64, bytes: u64) -> PageRange<Gpa> {
    PageRange::new(Gpa::new(start), bytes).unwrap()
}

fn measured(hexadecimal: &str) -> Content {
    let byte = |at| u8::from_str_radix(&hexadecimal[at..at + 2], 16).unwrap();
    let bytes: Vec<u8> = (0..hexadecimal.len()).step_by(2).map(byte).collect();
    Content::Measured(Digest::new(&bytes))
}

fn page(content: &[u8]) -> Content {
    let mut page = [0; 4096];
    page[..content.len()].copy_from_slice(content);
    Content::Measured(HashAlgorithm::Sha256.digest(&[&page]))
}

/// `kvmtool_measurements`: kvmtool with firmware, one vCPU and 512 MiB.
#[test]
fn a_realm_of_kvmtool_has_the_measurement_of_the_vector() {
    const RAM: u64 = 0x8000_0000;
    const TREE: u64 = 0x8fe0_0000;
    const FIRST_OF_TREE: &str = "4020dbef3d4ee30917497aa1e373e600a0f52015e332fe40026e0f3565d175d6";
    let mut rim = Rim::new(parameters(HashAlgorithm::Sha256, 33, None));
    rim.init_ripas(range(RAM, 512 << 20));
    rim.data_create(Gpa::new(RAM), page(b"FW CONTENT"));
    rim.data_create(Gpa::new(TREE), measured(FIRST_OF_TREE));
    for at in 1..16 {
        rim.data_create(Gpa::new(TREE + at * PAGE_SIZE), page(&[]));
    }
    rim.rec_create(Entry {
        pc: Gpa::new(RAM),
        x0: Gpa::new(TREE),
    });
    assert_eq!(
        rim.digest().to_string(),
        "cf37146fce0ad50e1be1a04580c1024e5449b430b0dd96b6ef5c9a2b73767bf5"
    );
}

/// `qemu_params`, with `pmu=on`: QEMU without firmware, one vCPU and 128 MiB, SHA-512.
#[test]
fn a_realm_of_qemu_has_the_measurement_of_the_vector() {
    const RAM: u64 = 0x4000_0000;
    const TREE: [&str; 2] = [
        "3e63399f6c658f90ad80ced83015c740da7887c80eb3522dca7e80835d1bc61a\
         925323b58664ab00ef3e9bc97fe0a2863b6955bc7105cff810363ad46686b4f1",
        "ef820853e2005b01234339b3f10a50afac475c215fa8061dac33171dabc580b1\
         c316f43476d72edd9f95c84f4ded4905b09e569d0e80a20867d51a93a395c32a",
    ];
    let mut rim = Rim::new(parameters(HashAlgorithm::Sha512, 41, Some(6)));
    rim.init_ripas(range(RAM, 128 << 20));
    for (at, digest) in (RAM..).step_by(4096).zip(TREE) {
        rim.data_create(Gpa::new(at), measured(digest));
    }
    rim.rec_create(Entry {
        pc: Gpa::new(RAM),
        x0: Gpa::new(RAM),
    });
    assert_eq!(
        rim.digest().to_string(),
        "8120ef921a987a3f8b9d4bb5e40f8489e2b4fc69c5e1b17b1a9b040884a1211d\
         99b2bddc3fddcc99ec99f4244743fe3dcd3d9020583b47f7b66a2ec66bb897b9"
    );
}

#[test]
fn translation_tables_have_the_levels_that_linux_gives_them() {
    let levels = |ipa_bits| {
        let parameters = parameters(HashAlgorithm::Sha256, ipa_bits, None);
        parameters.entry_bytes().collect::<Vec<_>>()
    };
    const PAGE: u64 = 1 << 12;
    const MIB_2: u64 = 1 << 21;
    const GIB: u64 = 1 << 30;
    const GIB_512: u64 = 1 << 39;
    for (widths, expected) in [
        ([20, 25], &[PAGE][..]),
        ([26, 34], &[MIB_2, PAGE]),
        ([35, 43], &[GIB, MIB_2, PAGE]),
        ([44, 52], &[GIB_512, GIB, MIB_2, PAGE]),
    ] {
        for width in widths {
            assert_eq!(levels(width), expected, "{width}");
        }
    }
}

#[test]
fn an_entry_is_as_large_as_alignment_and_end_allow() {
    let rim = |ranges: &[(u64, u64)]| {
        let mut rim = Rim::new(parameters(HashAlgorithm::Sha256, 36, None));
        for (start, bytes) in ranges {
            rim.init_ripas(range(*start, *bytes));
        }
        rim.digest()
    };
    const GIB: u64 = 1 << 30;
    const MIB_2: u64 = 2 << 20;
    // A range whose entries are ranges of their own has the same descriptors.
    let whole = rim(&[(GIB - MIB_2, MIB_2 + GIB + MIB_2 + PAGE_SIZE)]);
    let pieces = [
        (GIB - MIB_2, MIB_2),
        (GIB, GIB),
        (2 * GIB, MIB_2),
        (2 * GIB + MIB_2, PAGE_SIZE),
    ];
    assert_eq!(whole, rim(&pieces));
    let halves = [(GIB, GIB / 2), (GIB + GIB / 2, GIB / 2)];
    assert_ne!(rim(&halves), rim(&[(GIB, GIB)]));
}

#[test]
fn every_parameter_is_measured() {
    let base = parameters(HashAlgorithm::Sha256, 36, None);
    let all = [
        base,
        RealmParameters {
            hash: HashAlgorithm::Sha512,
            ..base
        },
        RealmParameters {
            ipa_bits: 37,
            ..base
        },
        RealmParameters {
            lpa2: Lpa2::On,
            ..base
        },
        RealmParameters {
            sve_vl: Some(0),
            ..base
        },
        RealmParameters {
            sve_vl: Some(1),
            ..base
        },
        RealmParameters {
            breakpoints: 4,
            ..base
        },
        RealmParameters {
            watchpoints: 4,
            ..base
        },
        RealmParameters {
            pmu_counters: Some(0),
            ..base
        },
        RealmParameters {
            pmu_counters: Some(1),
            ..base
        },
    ];
    let digests = all.map(|parameters| Rim::new(parameters).digest());
    for (index, digest) in digests.iter().enumerate() {
        assert!(!digests[..index].contains(digest), "{index}");
    }
}

#[test]
fn a_page_counts_by_its_place_and_whether_its_content_does() {
    let of = |at, content| {
        let mut rim = Rim::new(parameters(HashAlgorithm::Sha256, 36, None));
        rim.data_create(Gpa::new(at), content);
        rim.digest()
    };
    let values = [
        of(0x1000, Content::Unmeasured),
        of(0x2000, Content::Unmeasured),
        of(0x1000, page(&[])),
        of(0x1000, page(&[1])),
    ];
    for (index, value) in values.iter().enumerate() {
        assert!(!values[..index].contains(value), "{index}");
    }
}
