//! What can be told of a disk before a run: nothing is locked or written.

use std::fs::File;
use std::io::Read as _;

use super::image::{Image, Locks, open_file};
use crate::config::spec::{DiskAccess, DiskCache, DiskFormat, DiskSpec, FormatSource};
use crate::diagnostic::{Code, Diagnostic, Place};

/// What a qcow2 image begins with.
const QCOW2: [u8; 4] = *b"QFI\xfb";

/// Looks at the image of the disk with this index in the config, as a run would open it.
#[must_use]
pub fn look_at_disk(spec: &DiskSpec, index: usize) -> Vec<Diagnostic> {
    let place = |key| Place::Disk(index, Some(key));
    let looked = open_file(spec, spec.access).and_then(|file| {
        drop(file);
        // Through the page cache and for reading: with neither does opening an image try a write.
        let plain = DiskSpec {
            cache: DiskCache::Host,
            ..spec.clone()
        };
        let file = open_file(&plain, DiskAccess::ReadOnly)?;
        let assumed = spec.format == DiskFormat::Raw && spec.format_source == FormatSource::Name;
        let looks_otherwise = assumed && begins_as_qcow2(&file);
        Image::of_file(file, &plain, DiskAccess::ReadOnly, Locks::Left)?;
        Ok(looks_otherwise)
    });
    match looked {
        Ok(false) => Vec::new(),
        Ok(true) => {
            let path = spec.path.display();
            let message =
                format!("the disk {path} is taken for raw, and begins like a qcow2 image");
            let help = "use `format = \"qcow2\"` if it is one, `format = \"raw\"` if the guest has written that";
            let finding = Diagnostic::warning(Code::DiskLooksOtherwise, message);
            vec![finding.on(place("path")).with_help(help)]
        }
        Err(error) => vec![error.diagnose(spec, place)],
    }
}

/// A doubt, and no more: the guest writes what it likes to a raw image.
fn begins_as_qcow2(mut file: &File) -> bool {
    let mut start = [0; QCOW2.len()];
    file.read_exact(&mut start).is_ok() && start == QCOW2
}
