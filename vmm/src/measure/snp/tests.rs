//! Vectors of <https://github.com/virtee/sev-snp-measure>, `tests/test_guest.py` (commit 8f2b337), for its
//! firmware images `ovmf_AmdSev_suffix.bin` and `ovmf_OvmfX64_suffix.bin`: their digests by themselves,
//! and what their metadata lists.

use super::*;

/// The digest of `ovmf_AmdSev_suffix.bin` by itself.
const AMD_SEV: &str = "086e2e9149ebf45abdc3445fba5b2da8270bdbb04094d7a2\
                       c37faaa4b24af3aa16aff8c374c2a55c467a50da6d466b74";

/// The digest of `ovmf_OvmfX64_suffix.bin` by itself.
const OVMF_X64: &str = "b91e6fec73d2bcc57ad5fd400a426ce02731c22ea92bc894\
                        ce675e7c9921a822977d6cf025b85f8ef4f264bff8839d20";

/// Family 23, model 1, stepping 2: QEMU's EPYC-v4.
const EPYC_V4: u32 = 0x0080_0f12;

/// Where the other processors of both images start.
const SECOND: u32 = 0x0080_b004;

fn firmware(digest: &str) -> LaunchDigest {
    LaunchDigest::resume(bytes_of(digest).try_into().unwrap())
}

fn bytes_of(hexadecimal: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&hexadecimal[at..at + 2], 16).unwrap();
    (0..hexadecimal.len()).step_by(2).map(byte).collect()
}

fn pages(start: u64, bytes: u64) -> PageRange<Gpa> {
    PageRange::new(Gpa::new(start), bytes).unwrap()
}

/// What the metadata of both images begins with.
fn common(digest: &mut LaunchDigest) {
    digest.content_free(pages(0x80_0000, 0x9000), ContentFree::Zero);
    digest.content_free(pages(0x80_a000, 0x3000), ContentFree::Zero);
    digest.content_free(pages(0x80_d000, 0x1000), ContentFree::Secrets);
    digest.content_free(pages(0x80_e000, 0x1000), ContentFree::Cpuid);
    digest.content_free(pages(0x80_f000, 0x1000), ContentFree::Zero);
}

fn vmsa(start: u32, features: u64) -> Vmsa {
    Vmsa {
        start,
        signature: EPYC_V4,
        features,
    }
}

/// Without a kernel: the page for its digests is one of zeros.
fn amd_sev(features: u64) -> String {
    let mut digest = firmware(AMD_SEV);
    common(&mut digest);
    digest.content_free(pages(0x81_0000, 0x1000), ContentFree::Zero);
    digest.content_free(pages(0x81_1000, 0xf000), ContentFree::Zero);
    digest.vmsa(&vmsa(RESET_VECTOR, features));
    digest.digest().to_string()
}

fn ovmf_x64(features: u64) -> String {
    let mut digest = firmware(OVMF_X64);
    common(&mut digest);
    digest.content_free(pages(0x81_0000, 0x1_0000), ContentFree::Zero);
    digest.vmsa(&vmsa(RESET_VECTOR, features));
    digest.digest().to_string()
}

#[test]
fn the_launch_digests_of_one_vcpu_are_those_of_the_vectors() {
    assert_eq!(
        amd_sev(0x21),
        "e1e1ca029dd7973ab9513295be68198472dcd4fc834bd9af\
         9b63f6e8a1674dbf281a9278a4a2ebe0eed9f22adbcd0e2b"
    );
    assert_eq!(
        amd_sev(0x1),
        "19358ba9a7615534a9a1e2f0dfc29384dcd4dcb7062ff9c6\
         013b26869a5fc6ecabe033c48dd6f6db5d6d76e7c5df632d"
    );
    assert_eq!(
        ovmf_x64(0x21),
        "28797ae0afaba4005a81e629acebfb59e6687949d6be4400\
         7cd5506823b0dd66f146aaae26ff291eed7b493d8a64c385"
    );
    assert_eq!(
        ovmf_x64(0x1),
        "da0296de8193586a5512078dcd719eccecbd87e2b825ad41\
         48c44f665dc87df21e5b49e21523a9ad993afdb6a30b4005"
    );
}

/// A page with the table that a VMM makes for this firmware: for the command line, the initial RAM
/// disk and the kernel each an identifier, a length and a SHA-256 digest. All three are empty.
fn page_of_digests() -> Page {
    const AT: usize = 0xc00;
    const TABLE: &str = "06d63894224fc94cb479a793d411fd21a800\
                         d82dd09720bd944caa78e7714d36ab2a3200\
                         6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d\
                         31f7ba442f3ad74b9af141e29169781d3200\
                         e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\
                         3794e74dd2ab7f42b835d5b172d2045b3200\
                         e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let mut page = [0; 4096];
    let table = bytes_of(TABLE);
    page[AT..AT + table.len()].copy_from_slice(&table);
    page
}

#[test]
fn the_launch_digest_of_four_vcpus_and_a_measured_page_is_that_of_the_vector() {
    let mut digest = firmware(AMD_SEV);
    common(&mut digest);
    digest.normal(Gpa::new(0x81_0000), &page_of_digests());
    digest.content_free(pages(0x81_1000, 0xf000), ContentFree::Zero);
    digest.vmsa(&vmsa(RESET_VECTOR, 0x1));
    for _ in 1..4 {
        digest.vmsa(&vmsa(SECOND, 0x1));
    }
    assert_eq!(
        digest.digest().to_string(),
        "5061fffb019493a903613d56d54b94912a1a2f9e4502385f\
         5c194616753720a92441310ba6c4933de877c36e23046ad5"
    );
}

#[test]
fn unmeasured_pages_count_by_their_place() {
    let of = |start, kind| {
        let mut digest = LaunchDigest::default();
        digest.content_free(pages(start, 0x1000), kind);
        digest
    };
    let unmeasured = of(0x1000, ContentFree::Unmeasured);
    assert_ne!(unmeasured, of(0x2000, ContentFree::Unmeasured));
    assert_ne!(unmeasured, of(0x1000, ContentFree::Zero));
}
