//! Kernels that are whole, packed, damaged or something else.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::NamedTempFile;

use super::*;

const TEXT_OFFSET: u64 = 0;
const IMAGE_SIZE: u64 = 0x10_0000;

/// An `Image` of 4 KiB that wants `IMAGE_SIZE` of memory.
fn image() -> Vec<u8> {
    let mut image = vec![0x1f; 4096];
    image[0..8].copy_from_slice(&[0; 8]);
    image[8..16].copy_from_slice(&TEXT_OFFSET.to_le_bytes());
    image[16..24].copy_from_slice(&IMAGE_SIZE.to_le_bytes());
    image[24..56].fill(0);
    image[56..60].copy_from_slice(MAGIC);
    image[60..64].copy_from_slice(&64u32.to_le_bytes());
    image
}

/// The same as an EFI program of one section that ends at `end`.
fn efi_image(end: u32) -> Vec<u8> {
    let mut image = image();
    image[0..2].copy_from_slice(b"MZ");
    image[64..68].copy_from_slice(b"PE\0\0");
    image[70..72].copy_from_slice(&1u16.to_le_bytes());
    image[84..86].copy_from_slice(&16u16.to_le_bytes());
    let section = 64 + 24 + 16;
    image[section + 16..section + 20].copy_from_slice(&(end - 1024).to_le_bytes());
    image[section + 20..section + 24].copy_from_slice(&1024u32.to_le_bytes());
    image
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zboot(compression: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut file = b"MZ\0\0zimg".to_vec();
    file.extend(4096u32.to_le_bytes());
    file.extend(u32::try_from(payload.len()).unwrap().to_le_bytes());
    file.extend([0; 8]);
    file.extend(compression);
    file.resize(56, 0);
    file.extend(0x8182_23cd_u32.to_le_bytes());
    file.resize(4096, 0xee);
    file.extend(payload);
    file.extend([0xee; 100]);
    file
}

fn open(bytes: &[u8]) -> Result<Image, String> {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let name = file.path().display().to_string();
    Image::open(file.path()).map_err(|error| error.to_string().replace(&name, "FILE"))
}

fn content(image: &mut Image) -> Vec<u8> {
    let mut content = Vec::new();
    image.file().rewind().unwrap();
    image.file().read_to_end(&mut content).unwrap();
    content
}

#[test]
fn every_form_of_a_kernel_gives_the_same_image() {
    let packed = gzipped(&image());
    let zstd = ruzstd::encoding::compress_to_vec(
        image().as_slice(),
        ruzstd::encoding::CompressionLevel::Fastest,
    );
    let forms = [
        image(),
        packed.clone(),
        zstd.clone(),
        zboot(b"gzip\0", &packed),
        zboot(b"zstd22\0", &zstd),
    ];
    for form in forms {
        let mut opened = open(&form).unwrap();
        assert_eq!(content(&mut opened), image());
        assert_eq!(opened.memory_bytes(), IMAGE_SIZE);
        assert_eq!(opened.text_offset(), TEXT_OFFSET);
    }
}

#[test]
fn an_old_kernel_without_a_size_gets_the_old_offset() {
    let mut old = image();
    old[16..24].fill(0);
    let opened = open(&old).unwrap();
    assert_eq!(opened.text_offset(), 0x8_0000);
    assert_eq!(opened.memory_bytes(), 4096);
}

#[test]
fn what_is_no_kernel_is_said_to_be_something_else() {
    let mut bad_offset = image();
    bad_offset[8..16].copy_from_slice(&(2u64 << 20).to_le_bytes());
    let cases: [(&[u8], &str); 5] = [
        (b"", "it is empty"),
        (b"#!/bin/sh\n", "it has no arm64 kernel header"),
        (
            b"\x7fELF",
            "it is an ELF file (of a vmlinux, take the Image)",
        ),
        (b"MZ", "it is an EFI program, but no arm64 kernel"),
        (&bad_offset, "its header gives a load offset beyond 2 MiB"),
    ];
    for (bytes, found) in cases {
        let expected = format!("FILE is not an arm64 kernel: {found}");
        assert_eq!(open(bytes).unwrap_err(), expected);
    }
    assert!(
        Image::open(Path::new("/"))
            .unwrap_err()
            .to_string()
            .ends_with("no regular file")
    );
}

#[test]
fn an_efi_image_that_is_cut_short_is_damaged() {
    open(&efi_image(4096)).unwrap();
    let error = open(&efi_image(4097)).unwrap_err();
    assert_eq!(
        error,
        "FILE is damaged: it has 4096 bytes, and its header promises 4097"
    );
    let error = open(&efi_image(4096)[..100]).unwrap_err();
    assert_eq!(error, "FILE is damaged: it is cut short");
}

#[test]
fn a_packed_kernel_that_is_damaged_is_refused() {
    let packed = gzipped(&image());
    let cut = &packed[..packed.len() - 10];
    assert!(open(cut).unwrap_err().contains("does not decompress"));
    assert!(
        open(&zboot(b"gzip\0", cut))
            .unwrap_err()
            .contains("does not decompress")
    );
    let error = open(&zboot(b"lzma\0", &packed)).unwrap_err();
    assert!(error.contains("compressed by 'lzma'"), "{error}");
    assert!(open(&zboot(b"gzip\0", &packed)[..10]).is_err());
    let error = open(&gzipped(b"no kernel")).unwrap_err();
    assert_eq!(
        error,
        "FILE is not an arm64 kernel: it has no arm64 kernel header"
    );
}
