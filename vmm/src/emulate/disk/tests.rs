use std::fs::{self, File};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

use devices::virtio::block::{BlockBackend as _, Unmap, Writes};
use imago::qcow2::Qcow2;
use imago::{FormatCreateBuilder as _, Storage as _, StorageCreateOptions};
use proptest::prelude::*;
use tempfile::TempDir;
use vm_memory::VolatileSlice;

use super::image::{Image, ImageError};
use super::look_at_disk;
use crate::config::spec::{BackingSpec, DiskAccess, DiskCache, DiskFormat, DiskSpec, FormatSource};
use crate::diagnostic::{Code, Place, Severity};

const MIB: usize = 1 << 20;

fn spec(path: PathBuf, format: DiskFormat) -> DiskSpec {
    DiskSpec {
        path,
        format,
        format_source: FormatSource::Name,
        access: DiskAccess::ReadWrite,
        serial: None,
        queues: NonZeroU16::MIN,
        cache: DiskCache::Host,
        backing: None,
    }
}

/// An image of 1 MiB.
fn image(folder: &TempDir, format: DiskFormat) -> DiskSpec {
    let path = folder.path().join("disk");
    match format {
        DiskFormat::Raw => File::create(&path).unwrap().set_len(MIB as u64).unwrap(),
        DiskFormat::Qcow2 => create_qcow2(&path, None),
    }
    spec(path, format)
}

fn create_qcow2(path: &Path, backing: Option<&str>) {
    let options = StorageCreateOptions::new().filename(path);
    let storage = imago::file::File::create_open(options).unwrap();
    let builder = Qcow2::<imago::file::File>::create_builder(storage).size(MIB as u64);
    match backing {
        Some(backing) => builder.backing(backing.to_owned(), "raw".to_owned()),
        None => builder,
    }
    .create()
    .unwrap();
}

fn slices(bytes: &mut [u8], cut: usize) -> [VolatileSlice<'_>; 2] {
    let (first, second) = bytes.split_at_mut(cut);
    [VolatileSlice::from(first), VolatileSlice::from(second)]
}

fn read(image: &Image, offset: u64, bytes: usize) -> Vec<u8> {
    let mut data = vec![0xaa; bytes];
    image.read(offset, &slices(&mut data, bytes / 3)).unwrap();
    data
}

fn write(image: &Image, offset: u64, mut data: Vec<u8>) {
    let cut = data.len() / 3;
    image.write(offset, &slices(&mut data, cut)).unwrap();
}

#[test]
fn what_is_written_and_flushed_is_there_when_the_image_is_opened_again() {
    for format in [DiskFormat::Raw, DiskFormat::Qcow2] {
        let folder = tempfile::tempdir().unwrap();
        let spec = image(&folder, format);
        let disk = Image::open(&spec).unwrap();
        assert_eq!(disk.geometry().sectors, MIB as u64 / 512);
        write(&disk, 4096, vec![7; 8192]);
        disk.flush().unwrap();
        // As after a crash of this process: the image is not closed in good order.
        let copy = folder.path().join("copy");
        fs::copy(&spec.path, &copy).unwrap();
        drop(disk);
        for path in [spec.path.clone(), copy] {
            let again = Image::open(&DiskSpec {
                path,
                ..spec.clone()
            })
            .unwrap();
            assert_eq!(read(&again, 4096, 8192), [7; 8192], "{format:?}");
            assert_eq!(read(&again, 0, 4096), [0; 4096]);
            assert_eq!(read(&again, MIB as u64 - 512, 512), [0; 512]);
        }
    }
}

#[test]
fn zeroed_ranges_read_as_zeroes_and_keep_their_storage_only_if_they_must() {
    use std::os::unix::fs::MetadataExt as _;
    let folder = tempfile::tempdir().unwrap();
    let spec = image(&folder, DiskFormat::Raw);
    let disk = Image::open(&spec).unwrap();
    let blocks = || fs::metadata(&spec.path).unwrap().blocks();
    write(&disk, 0, vec![7; MIB]);
    disk.flush().unwrap();
    let full = blocks();
    disk.write_zeroes(4096, 256 << 10, Unmap::Forbidden)
        .unwrap();
    disk.flush().unwrap();
    assert_eq!(blocks(), full);
    disk.write_zeroes(512 << 10, 256 << 10, Unmap::Allowed)
        .unwrap();
    disk.flush().unwrap();
    assert!(blocks() < full, "the file system got nothing back");
    for at in [4096, 512 << 10] {
        assert_eq!(read(&disk, at, 256 << 10), vec![0; 256 << 10]);
    }
    assert_eq!(read(&disk, 0, 4096), [7; 4096]);
    assert_eq!(read(&disk, 4096 + (256 << 10), 512), [7; 512]);
}

#[test]
fn one_writes_or_several_read() {
    let folder = tempfile::tempdir().unwrap();
    let writer = image(&folder, DiskFormat::Raw);
    let reader = DiskSpec {
        access: DiskAccess::ReadOnly,
        ..writer.clone()
    };
    let open = Image::open(&writer).unwrap();
    for spec in [&writer, &reader] {
        assert!(matches!(Image::open(spec), Err(ImageError::InUse)));
    }
    drop(open);
    let readers = [Image::open(&reader).unwrap(), Image::open(&reader).unwrap()];
    assert_eq!(readers[0].geometry().writes, Writes::Refused);
    assert!(matches!(Image::open(&writer), Err(ImageError::InUse)));
    drop(readers);
    Image::open(&writer).unwrap();
}

#[test]
fn a_disk_that_is_only_read_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    for format in [DiskFormat::Raw, DiskFormat::Qcow2] {
        let spec = DiskSpec {
            access: DiskAccess::ReadOnly,
            ..image(&folder, format)
        };
        let before = fs::read(&spec.path).unwrap();
        let disk = Image::open(&spec).unwrap();
        let mut data = vec![7; 512];
        assert!(disk.write(0, &slices(&mut data, 0)).is_err());
        drop(disk);
        assert_eq!(fs::read(&spec.path).unwrap(), before);
        fs::remove_file(&spec.path).unwrap();
    }
}

/// The code of the one finding, its key, and its severity.
fn found(spec: &DiskSpec) -> (Code, Option<Place>, Severity) {
    let findings = look_at_disk(spec, 3);
    let [finding] = findings.as_slice() else {
        panic!("{findings:?}");
    };
    (finding.code, finding.place, finding.severity)
}

fn error(code: Code, key: &'static str) -> (Code, Option<Place>, Severity) {
    (code, Some(Place::Disk(3, Some(key))), Severity::Error)
}

#[test]
fn what_is_wrong_with_an_image_is_told_by_its_code_at_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let absent = spec(at("absent"), DiskFormat::Raw);
    assert_eq!(found(&absent), error(Code::DiskUnreadable, "path"));
    let directory = spec(folder.path().to_owned(), DiskFormat::Raw);
    assert_eq!(found(&directory), error(Code::DiskUnreadable, "path"));
    fs::write(at("empty"), [0; 511]).unwrap();
    let empty = spec(at("empty"), DiskFormat::Raw);
    assert_eq!(found(&empty), error(Code::DiskDamaged, "path"));
    fs::write(at("other"), [1; 4096]).unwrap();
    let other = spec(at("other"), DiskFormat::Qcow2);
    assert_eq!(found(&other), error(Code::DiskDamaged, "format"));
    create_qcow2(&at("overlay"), Some("/etc/passwd"));
    let overlay = spec(at("overlay"), DiskFormat::Qcow2);
    assert_eq!(found(&overlay), error(Code::DiskNeedsOtherFile, "path"));
}

/// A qcow2 image over a raw one that is full of sevens.
fn over_sevens(folder: &TempDir) -> DiskSpec {
    let at = |name: &str| folder.path().join(name);
    fs::write(at("base"), vec![7; MIB]).unwrap();
    create_qcow2(&at("overlay"), Some("/etc/passwd"));
    DiskSpec {
        backing: Some(BackingSpec {
            path: at("base"),
            format: DiskFormat::Raw,
        }),
        ..spec(at("overlay"), DiskFormat::Qcow2)
    }
}

#[test]
fn an_image_over_another_reads_that_and_writes_itself_whatever_name_it_has_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let spec = over_sevens(&folder);
    let base = &spec.backing.as_ref().unwrap().path;
    assert_eq!(look_at_disk(&spec, 0), []);
    let disk = Image::open(&spec).unwrap();
    assert_eq!(read(&disk, 0, 4096), [7; 4096]);
    write(&disk, 512, vec![9; 512]);
    disk.write_zeroes(128 << 10, 64 << 10, Unmap::Allowed)
        .unwrap();
    disk.flush().unwrap();
    drop(disk);
    assert_eq!(fs::read(base).unwrap(), vec![7; MIB], "it is only read");
    let again = Image::open(&spec).unwrap();
    let mut expected = vec![7; MIB];
    expected[512..1024].fill(9);
    expected[128 << 10..192 << 10].fill(0);
    assert_eq!(read(&again, 0, MIB), expected);
}

#[test]
fn an_image_under_others_is_locked_against_writers_only() {
    let folder = tempfile::tempdir().unwrap();
    let first = over_sevens(&folder);
    let base = first.backing.as_ref().unwrap().path.clone();
    let second = DiskSpec {
        path: folder.path().join("second"),
        ..first.clone()
    };
    create_qcow2(&second.path, Some("base"));
    let _both = [Image::open(&first).unwrap(), Image::open(&second).unwrap()];
    let writer = spec(base, DiskFormat::Raw);
    assert!(matches!(Image::open(&writer), Err(ImageError::InUse)));
    assert_eq!(look_at_disk(&first, 0), []);
}

#[test]
fn what_is_wrong_with_the_image_under_another_is_told_at_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let over = over_sevens(&folder);
    let under = |path: &Path, format| DiskSpec {
        backing: Some(BackingSpec {
            path: path.to_owned(),
            format,
        }),
        ..over.clone()
    };
    let absent = under(&folder.path().join("absent"), DiskFormat::Raw);
    assert_eq!(found(&absent), error(Code::DiskUnreadable, "backing"));
    let other = under(&folder.path().join("base"), DiskFormat::Qcow2);
    assert_eq!(found(&other), error(Code::DiskDamaged, "backing"));
    let in_turn = folder.path().join("in-turn");
    create_qcow2(&in_turn, Some("base"));
    let in_turn = under(&in_turn, DiskFormat::Qcow2);
    assert_eq!(found(&in_turn), error(Code::DiskNeedsOtherFile, "backing"));
    for format in [DiskFormat::Raw, DiskFormat::Qcow2] {
        let whole = DiskSpec {
            backing: over.backing.clone(),
            ..image(&folder, format)
        };
        assert_eq!(found(&whole), error(Code::DiskNotOver, "backing"));
        fs::remove_file(&whole.path).unwrap();
    }
}

#[test]
fn a_file_that_is_taken_for_raw_and_looks_like_qcow2_is_a_doubt() {
    let folder = tempfile::tempdir().unwrap();
    let raw = DiskSpec {
        format: DiskFormat::Raw,
        ..image(&folder, DiskFormat::Qcow2)
    };
    let (code, _, severity) = found(&raw);
    assert_eq!(
        (code, severity),
        (Code::DiskLooksOtherwise, Severity::Warning)
    );
    let meant = DiskSpec {
        format_source: FormatSource::Config,
        ..raw
    };
    assert_eq!(look_at_disk(&meant, 0), []);
}

#[test]
fn looking_at_an_image_changes_nothing_and_does_not_ask_for_it_alone() {
    let folder = tempfile::tempdir().unwrap();
    for format in [DiskFormat::Raw, DiskFormat::Qcow2] {
        let spec = image(&folder, format);
        let open = Image::open(&spec).unwrap();
        let before = fs::read(&spec.path).unwrap();
        assert_eq!(look_at_disk(&spec, 0), []);
        assert_eq!(fs::read(&spec.path).unwrap(), before);
        drop(open);
        fs::remove_file(&spec.path).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn an_image_holds_what_was_written_last(
        format in prop::sample::select(vec![DiskFormat::Raw, DiskFormat::Qcow2]),
        steps in prop::collection::vec((0_u8..4, 0_u64..2048, 1_usize..300, any::<u8>()), 1..20)
    ) {
        let folder = tempfile::tempdir().unwrap();
        let disk = Image::open(&image(&folder, format)).unwrap();
        let mut model = vec![0; MIB];
        for (kind, sector, sectors, with) in steps {
            let offset = usize::try_from(sector * 512).unwrap();
            let bytes = (sectors * 512).min(MIB - offset);
            let (at, length) = (offset as u64, bytes as u64);
            let span = offset..offset + bytes;
            match kind {
                0 => {
                    write(&disk, at, vec![with; bytes]);
                    model[span].fill(with);
                }
                1 => {
                    disk.write_zeroes(at, length, Unmap::Allowed).unwrap();
                    model[span].fill(0);
                }
                2 => {
                    disk.write_zeroes(at, length, Unmap::Forbidden).unwrap();
                    model[span].fill(0);
                }
                _ => prop_assert_eq!(&read(&disk, at, bytes), &model[span]),
            }
        }
        prop_assert_eq!(read(&disk, 0, MIB), model);
    }
}
