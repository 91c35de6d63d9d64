use std::cell::RefCell;

use coset::cbor::Value;
use coset::{CborSerializable, CoseKey, CoseSign1, Label, TaggedCborSerializable, iana};
use iommu::PAGE_SIZE;
use p384::ecdsa::signature::Verifier;
use p384::ecdsa::{Signature, VerifyingKey};
use sha2::{Digest, Sha256, Sha512};

use super::*;
use crate::boot::aarch64::Entry;
use crate::boot::segment::{Segment, SegmentKind};
use crate::measure::{HashAlgorithm, InitialContent};

mod vdev;

const IPA_BITS: u8 = 33;
const HALF: u64 = 1 << 32;
const DRAM: u64 = 0x4000_0000;
const PAGES: usize = 64;
const DRAM_END: u64 = DRAM + PAGES as u64 * PAGE_SIZE;

const SUCCESS: u64 = 0;
const INPUT: u64 = 1;
const STATE: u64 = 2;
const INCOMPLETE: u64 = 3;

/// Sixty-four pages of DRAM, page by page.
struct Naive {
    pages: RefCell<Vec<(Ripas, [u8; 4096])>>,
}

impl Naive {
    fn index(gpa: Gpa) -> Option<usize> {
        let page = gpa.raw().checked_sub(DRAM)? / PAGE_SIZE;
        usize::try_from(page).ok().filter(|&page| page < PAGES)
    }

    fn state(&self, gpa: Gpa) -> Ripas {
        Self::index(gpa).map_or(Ripas::Empty, |page| self.pages.borrow()[page].0)
    }
}

impl RealmMemory for Naive {
    fn ripas(&self, range: PageRange<Gpa>) -> (Gpa, Ripas) {
        let first = self.state(range.start());
        let mut end = range.start();
        while end < range.end() && self.state(end) == first {
            // Beyond DRAM there is nothing for ever.
            if end.raw() >= DRAM_END {
                return (range.end(), first);
            }
            end = Gpa::new(end.raw() + PAGE_SIZE);
        }
        (end, first)
    }

    fn set_ripas(&self, range: PageRange<Gpa>, change: RipasChange) -> RipasProgress {
        let Some(first) = Self::index(range.start()) else {
            return RipasProgress {
                reached: range.start(),
                response: Response::Reject,
            };
        };
        let last = Self::index(range.last()).unwrap_or(PAGES - 1);
        for page in &mut self.pages.borrow_mut()[first..=last] {
            page.0 = match change {
                RipasChange::Empty => Ripas::Empty,
                RipasChange::Ram => Ripas::Ram,
            };
        }
        RipasProgress {
            reached: range.end().min(Gpa::new(DRAM_END)),
            response: Response::Accept,
        }
    }

    fn read_private(&self, at: Gpa, bytes: &mut [u8]) -> Result<(), NotPrivate> {
        let offset = usize::try_from(at.raw() % PAGE_SIZE).unwrap();
        let first = Self::index(at).ok_or(NotPrivate)?;
        let pages = self.pages.borrow();
        for (step, byte) in bytes.iter_mut().enumerate() {
            let at = offset + step;
            let (state, page) = &pages[first + at / 4096];
            if *state != Ripas::Ram {
                return Err(NotPrivate);
            }
            *byte = page[at % 4096];
        }
        Ok(())
    }

    fn write_private(&self, at: Gpa, bytes: &[u8]) -> Result<(), NotPrivate> {
        let offset = usize::try_from(at.raw() % PAGE_SIZE).unwrap();
        let page = Self::index(at).ok_or(NotPrivate)?;
        let (state, page) = &mut self.pages.borrow_mut()[page];
        if *state != Ripas::Ram {
            return Err(NotPrivate);
        }
        page[offset..offset + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn write_shared(&self, at: Gpa, bytes: &[u8]) -> Result<(), NotShared> {
        let offset = usize::try_from(at.raw() % PAGE_SIZE).unwrap();
        let page = Self::index(at).ok_or(NotShared)?;
        let (state, page) = &mut self.pages.borrow_mut()[page];
        if *state != Ripas::Empty {
            return Err(NotShared);
        }
        page[offset..offset + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
}

fn config(hash: HashAlgorithm) -> RealmConfig {
    RealmConfig {
        ipa_bits: IPA_BITS,
        hash,
        personalization: [0xa5; 64],
    }
}

/// A Realm of which the second page is shared.
fn realm_of(hash: HashAlgorithm) -> Realm<Naive> {
    let mut pages = vec![(Ripas::Ram, [0; 4096]); PAGES];
    pages[1].0 = Ripas::Empty;
    let memory = Naive {
        pages: RefCell::new(pages),
    };
    Realm::new(config(hash), memory)
}

fn realm() -> Realm<Naive> {
    realm_of(HashAlgorithm::Sha256)
}

/// The call number `function` (as the last two digits of its id), by a fresh vCPU.
fn call<const N: usize>(realm: &Realm<Naive>, function: u32, arguments: [u64; N]) -> Vec<u64> {
    call_on(realm, &mut RealmVcpu::default(), function, arguments)
}

fn call_on<const N: usize>(
    realm: &Realm<Naive>,
    vcpu: &mut RealmVcpu,
    function: u32,
    arguments: [u64; N],
) -> Vec<u64> {
    // Registers that hold no argument are the guest's own business.
    let mut registers = [0xdead_dead_dead_dead; 10];
    registers[..N].copy_from_slice(&arguments);
    let reply = realm.call(vcpu, 0xc400_0100 | function, &registers);
    reply.registers().to_vec()
}

#[test]
fn version_1_0_is_offered_and_no_other_accepted() {
    let realm = realm();
    assert_eq!(
        call(&realm, 0x90, [0x10000]),
        [SUCCESS, 0x10000, 0x10000, 0]
    );
    for other in [0, 0x10001, 0x20000, u64::MAX] {
        assert_eq!(call(&realm, 0x90, [other]), [INPUT, 0x10000, 0x10000, 0]);
    }
}

#[test]
fn functions_of_later_versions_are_not_supported() {
    let realm = realm();
    for function in (0x9a..=0xaf).chain([0x8f, 0xb0]) {
        assert_eq!(call(&realm, function, [])[0], u64::MAX, "{function:#x}");
    }
    assert_eq!(call(&realm, 0x91, [0]), [SUCCESS, 0, 0, 0]);
    assert_eq!(call(&realm, 0x91, [77]), [SUCCESS, 0, 0, 0]);
}

#[test]
fn every_function_id_is_in_the_range_that_is_forwarded() {
    let range = rsi::FIRST_FUNCTION..rsi::FIRST_FUNCTION + rsi::FUNCTION_COUNT;
    let functions: Vec<_> = range.clone().filter_map(Function::from_id).collect();
    assert_eq!(functions.len(), 14);
    assert!(
        functions
            .iter()
            .all(|function| function.argument_count() <= 10)
    );
    assert_eq!(Function::from_id(range.end), None);
    assert_eq!(Function::from_id(rsi::FIRST_FUNCTION - 1), None);
    assert_eq!(Function::from_id(0xc400_0199), Some(Function::HostCall));
}

#[test]
fn the_config_says_how_wide_the_realm_is() {
    let realm = realm_of(HashAlgorithm::Sha512);
    assert_eq!(call(&realm, 0x96, [DRAM])[0], SUCCESS);
    let (_, page) = realm.memory().pages.borrow()[0];
    assert_eq!(page[..8], u64::from(IPA_BITS).to_le_bytes());
    assert_eq!(page[8], 1);
    assert_eq!(page[0x200..0x240], [0xa5; 64]);
    assert!(page[0x240..].iter().all(|&byte| byte == 0));
}

#[test]
fn buffers_must_be_granules_of_private_memory() {
    let realm = realm();
    let misaligned = DRAM + 8;
    let shared = DRAM + PAGE_SIZE;
    let alias = DRAM | HALF;
    for at in [
        misaligned,
        shared,
        alias,
        0,
        DRAM_END,
        HALF - PAGE_SIZE,
        u64::MAX - 0xfff,
    ] {
        assert_eq!(call(&realm, 0x96, [at]), [INPUT, 0, 0, 0], "config {at:#x}");
        let mut vcpu = RealmVcpu::default();
        assert_eq!(call_on(&realm, &mut vcpu, 0x94, [0; 8])[0], SUCCESS);
        assert_eq!(
            call_on(&realm, &mut vcpu, 0x95, [at, 0, 4096]),
            [INPUT, 0, 0, 0],
            "token {at:#x}"
        );
    }
    for at in [misaligned, DRAM + 0x80, shared, alias, 0, DRAM_END] {
        assert_eq!(
            call(&realm, 0x99, [at]),
            [INPUT, 0, 0, 0],
            "host call {at:#x}"
        );
    }
}

#[test]
fn a_state_is_reported_up_to_where_it_changes() {
    let realm = realm();
    let (empty, ram) = (Ripas::Empty as u64, Ripas::Ram as u64);
    let get = |base, top| call(&realm, 0x98, [base, top]);
    assert_eq!(get(DRAM, DRAM_END), [SUCCESS, DRAM + PAGE_SIZE, ram, 0]);
    let second = DRAM + PAGE_SIZE;
    assert_eq!(
        get(second, DRAM_END),
        [SUCCESS, second + PAGE_SIZE, empty, 0]
    );
    assert_eq!(get(0x900_0000, 0x900_1000), [SUCCESS, 0x900_1000, empty, 0]);
    assert_eq!(get(DRAM_END, HALF), [SUCCESS, HALF, empty, 0]);
}

#[test]
fn a_range_must_be_whole_pages_of_the_protected_half() {
    let realm = realm();
    let bad = [
        (DRAM, DRAM),
        (DRAM + PAGE_SIZE, DRAM),
        (DRAM + 1, DRAM + PAGE_SIZE),
        (DRAM, DRAM + PAGE_SIZE + 1),
        (DRAM, HALF + PAGE_SIZE),
        (DRAM | HALF, DRAM_END | HALF),
        (u64::MAX - 0xfff, 0),
        (0, u64::MAX - 0xfff),
    ];
    for (base, top) in bad {
        assert_eq!(call(&realm, 0x98, [base, top]), [INPUT, 0, 0, 0]);
        assert_eq!(call(&realm, 0x97, [base, top, 0, 0]), [INPUT, 0, 0, 0]);
    }
    for state in [2, 3, u64::MAX] {
        assert_eq!(call(&realm, 0x97, [DRAM, DRAM_END, state, 0])[0], INPUT);
    }
}

#[test]
fn a_change_says_how_far_it_came_and_whether_the_host_agreed() {
    let realm = realm();
    let two = DRAM + 2 * PAGE_SIZE;
    assert_eq!(call(&realm, 0x97, [DRAM, two, 0, 0]), [SUCCESS, two, 0, 0]);
    assert_eq!(call(&realm, 0x98, [DRAM, DRAM_END]), [SUCCESS, two, 0, 0]);
    assert_eq!(call(&realm, 0x97, [DRAM, two, 1, 1]), [SUCCESS, two, 0, 0]);
    assert_eq!(
        call(&realm, 0x97, [DRAM, HALF, 1, 0]),
        [SUCCESS, DRAM_END, 0, 0]
    );
    let nowhere = [SUCCESS, 0x1000, Response::Reject as u64, 0];
    assert_eq!(call(&realm, 0x97, [0x1000, 0x2000, 1, 0]), nowhere);
}

#[test]
fn a_host_call_comes_back_as_not_supported() {
    let realm = realm();
    let at = DRAM + 0x300;
    realm
        .memory()
        .write_private(Gpa::new(at), &[7; 0x100])
        .unwrap();
    assert_eq!(call(&realm, 0x99, [at]), [SUCCESS, 0, 0, 0]);
    let mut after = [0; 0x100];
    realm
        .memory()
        .read_private(Gpa::new(at), &mut after)
        .unwrap();
    assert_eq!(after[..8], [7; 8]);
    assert_eq!(after[8..16], [0xff; 8]);
    assert_eq!(after[16..], [7; 0xf0]);
}

fn digest_registers(digest: &[u8]) -> Vec<u64> {
    let words = digest.chunks(8);
    words
        .map(|word| u64::from_le_bytes(word.try_into().unwrap()))
        .collect()
}

#[test]
fn extending_hashes_the_old_value_and_the_new_bytes() {
    let realm = realm();
    assert_eq!(call(&realm, 0x92, [1])[1..], [0; 8]);
    let value = [0x0807_0605_0403_0201, 0x0c0b_0a09, 0, 0, 0, 0, 0, 0];
    let mut arguments = [1, 12, 0, 0, 0, 0, 0, 0, 0, 0];
    arguments[2..].copy_from_slice(&value);
    assert_eq!(call(&realm, 0x93, arguments), [SUCCESS, 0, 0, 0]);
    let bytes: Vec<u8> = (1..=12).collect();
    let expected = Sha256::new()
        .chain_update([0; 32])
        .chain_update(&bytes)
        .finalize();
    let read = call(&realm, 0x92, [1]);
    assert_eq!(read[0], SUCCESS);
    assert_eq!(read[1..5], digest_registers(&expected));
    assert_eq!(read[5..], [0; 4]);
    assert_eq!(
        call(&realm, 0x92, [2])[1..],
        [0; 8],
        "the others are untouched"
    );
}

#[test]
fn a_long_digest_fills_eight_registers() {
    let realm = realm_of(HashAlgorithm::Sha512);
    assert_eq!(call(&realm, 0x93, [4, 0])[0], SUCCESS);
    let expected = Sha512::digest([0; 64]);
    assert_eq!(call(&realm, 0x92, [4])[1..], digest_registers(&expected));
}

#[test]
fn measurements_that_are_not_there_or_not_for_the_guest_are_refused() {
    let realm = realm();
    assert_eq!(call(&realm, 0x92, [5]), [INPUT, 0, 0, 0]);
    assert_eq!(call(&realm, 0x92, [u64::MAX])[0], INPUT);
    assert_eq!(
        call(&realm, 0x93, [0, 8])[0],
        INPUT,
        "the initial one is fixed"
    );
    assert_eq!(call(&realm, 0x93, [5, 8])[0], INPUT);
    assert_eq!(call(&realm, 0x93, [1, 65])[0], INPUT);
    assert_eq!(call(&realm, 0x93, [1, 64])[0], SUCCESS);
}

#[test]
fn the_initial_measurement_is_of_what_is_in_memory_but_for_the_device_tree() {
    let at = |page: u64| Gpa::new(DRAM + page * PAGE_SIZE);
    let (kernel, tree) = ([1; 5000], [2; 100]);
    let segments = |kernel_page| {
        [
            Segment::of_bytes(SegmentKind::Kernel, at(kernel_page), &kernel).unwrap(),
            Segment::of_bytes(SegmentKind::DeviceTree, at(6), &tree).unwrap(),
        ]
    };
    let (private, partly_shared) = (segments(2), segments(1));
    let dram = [PageRange::new(Gpa::new(DRAM), DRAM_END - DRAM).unwrap()];
    let content = |segments| InitialContent {
        dram: &dram,
        segments,
        entry: Entry {
            pc: at(2),
            x0: at(6),
        },
    };
    let measured = |setup: &dyn Fn(&Realm<Naive>)| {
        let realm = realm();
        setup(&realm);
        realm.measure(&content(&private)).unwrap();
        call(&realm, 0x92, [0])
    };
    let load = |realm: &Realm<Naive>| {
        realm
            .memory()
            .write_private(at(2), &kernel[..4096])
            .unwrap();
        realm
            .memory()
            .write_private(at(3), &kernel[4096..])
            .unwrap();
    };
    let expected = content(&private)
        .realm_initial_measurement(realm().config.parameters(), |segment, at, page| {
            segment.read_page(at, page)
        })
        .unwrap();
    let loaded = measured(&load);
    assert_eq!(loaded[1..5], digest_registers(expected.as_bytes())[..4]);
    assert_ne!(loaded, measured(&|_| ()), "nothing was loaded");
    let seeded = measured(&|realm| {
        load(realm);
        realm.memory().write_private(at(6), &[3; 100]).unwrap();
    });
    assert_eq!(loaded, seeded);
    let shared = realm().measure(&content(&partly_shared));
    assert!(matches!(shared, Err(MeasureError::NotPrivate(NotPrivate))));
}

/// Reads a whole token through a buffer of `size` bytes at `offset` of the third page.
fn token(realm: &Realm<Naive>, challenge: [u64; 8], offset: u64, size: u64) -> Vec<u8> {
    let mut vcpu = RealmVcpu::default();
    let init = call_on(realm, &mut vcpu, 0x94, challenge);
    assert_eq!(init[0], SUCCESS);
    let granule = DRAM + 2 * PAGE_SIZE;
    let mut token = Vec::new();
    loop {
        let reply = call_on(realm, &mut vcpu, 0x95, [granule, offset, size]);
        let mut part = vec![0; usize::try_from(reply[1]).unwrap()];
        let buffer = Gpa::new(granule + offset);
        realm.memory().read_private(buffer, &mut part).unwrap();
        token.extend(part);
        match reply[0] {
            SUCCESS => break,
            status => assert_eq!(status, INCOMPLETE),
        }
    }
    assert!(token.len() as u64 <= init[1]);
    assert_eq!(call_on(realm, &mut vcpu, 0x95, [granule, 0, 64])[0], STATE);
    token
}

fn entry(map: &Value, key: i64) -> &Value {
    let entries = map.as_map().unwrap();
    &entries
        .iter()
        .find(|(name, _)| *name == Value::from(key))
        .unwrap()
        .1
}

#[test]
fn a_token_is_read_in_pieces_and_holds_what_the_guest_gave() {
    let realm = realm();
    assert_eq!(call(&realm, 0x93, [2, 1, 9])[0], SUCCESS);
    let token = token(&realm, [0x1111_1111_1111_1111; 8], 0x700, 0x100);
    let Value::Tag(399, collection) = Value::from_slice(&token).unwrap() else {
        panic!("not a CCA token");
    };
    let part = |key| CoseSign1::from_tagged_slice(entry(&collection, key).as_bytes().unwrap());
    let realm_token = part(44241).unwrap();
    let claims = Value::from_slice(realm_token.payload.as_deref().unwrap()).unwrap();
    assert_eq!(entry(&claims, 10).as_bytes().unwrap(), &[0x11; 64]);
    assert_eq!(entry(&claims, 44235).as_bytes().unwrap(), &[0xa5; 64]);
    let bytes_of = |value: &Value| digest_registers(value.as_bytes().unwrap());
    let measured = |index| call(&realm, 0x92, [index])[1..5].to_vec();
    assert_eq!(bytes_of(entry(&claims, 44238)), measured(0));
    let extensible = entry(&claims, 44239).as_array().unwrap();
    assert_eq!(extensible.len(), 4);
    assert_eq!(bytes_of(&extensible[1]), measured(2));

    let key = entry(&claims, 44237).as_bytes().unwrap();
    realm_token
        .verify_signature(&[], |signature, message| {
            let signature = Signature::from_slice(signature).unwrap();
            verifying_key(key).verify(message, &signature).unwrap();
            Ok::<(), ()>(())
        })
        .unwrap();

    let platform = part(44234).unwrap();
    let claims = Value::from_slice(platform.payload.as_deref().unwrap()).unwrap();
    assert_eq!(
        entry(&claims, 10).as_bytes().unwrap(),
        &Sha256::digest(key).to_vec()
    );
    let service = entry(&claims, 2400).as_text().unwrap();
    assert!(service.contains("no root of trust"), "{service}");
}

fn verifying_key(cose: &[u8]) -> VerifyingKey {
    let key = CoseKey::from_slice(cose).unwrap();
    let coordinate = |name: iana::Ec2KeyParameter| {
        let label = Label::Int(name as i64);
        let (_, value) = key.params.iter().find(|(key, _)| *key == label).unwrap();
        value.as_bytes().unwrap().clone()
    };
    let (x, y) = (iana::Ec2KeyParameter::X, iana::Ec2KeyParameter::Y);
    let point = [vec![4], coordinate(x), coordinate(y)].concat();
    VerifyingKey::from_sec1_bytes(&point).unwrap()
}

#[test]
fn a_token_is_asked_for_before_it_is_read_and_by_the_same_vcpu() {
    let realm = realm();
    let (mut first, mut second) = (RealmVcpu::default(), RealmVcpu::default());
    let granule = DRAM + 2 * PAGE_SIZE;
    assert_eq!(
        call_on(&realm, &mut first, 0x95, [granule, 0, 64])[0],
        STATE
    );
    assert_eq!(call_on(&realm, &mut first, 0x94, [0; 8])[0], SUCCESS);
    assert_eq!(
        call_on(&realm, &mut second, 0x95, [granule, 0, 64])[0],
        STATE
    );
    let nothing = [INCOMPLETE, 0, 0, 0];
    assert_eq!(call_on(&realm, &mut first, 0x95, [granule, 0, 0]), nothing);
    for (offset, size) in [
        (4096, 0),
        (1, 4096),
        (0, 4097),
        (8, u64::MAX),
        (u64::MAX, 8),
    ] {
        let reply = call_on(&realm, &mut first, 0x95, [granule, offset, size]);
        assert_eq!(reply, [INPUT, 0, 0, 0], "{offset:#x}+{size:#x}");
    }
    let reply = call_on(&realm, &mut first, 0x95, [granule, 0, 64]);
    assert_eq!(reply, [INCOMPLETE, 64, 0, 0], "an error loses nothing");
}
