//! Any bytes as firmware of a TD: its metadata, and whether what they want fits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmm::boot::firmware::tdvf;

fuzz_target!(|image: &[u8]| {
    let Ok(sections) = tdvf::sections(image) else {
        return;
    };
    for (index, section) in sections.iter().enumerate() {
        assert!(section.file.end <= image.len());
        assert!(section.file.len() as u64 <= section.range.bytes());
        let (_, later) = sections.split_at(index + 1);
        let meets = |other: &tdvf::Section| other.range.intersection(section.range).is_some();
        assert!(!later.iter().any(meets));
    }
});
