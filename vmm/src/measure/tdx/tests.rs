//! No public vector is small enough to be kept here: the known ones are of whole firmware images. These
//! values are of another program, in Python:
//!
//! ```text
//! def event(name, gpa): return name + bytes(16 - len(name)) + struct.pack("<Q", gpa) + bytes(104)
//! all = event(b"MEM.PAGE.ADD", 0xfffff000) + event(b"MEM.PAGE.ADD", 0xffffe000)
//! page = bytes(i % 251 for i in range(4096))
//! for at in range(0, 4096, 256): all += event(b"MR.EXTEND", 0xfffff000 + at) + page[at:at + 256]
//! hashlib.sha384(all).hexdigest()
//! ```

use super::*;

const LAST: Gpa = Gpa::new(0xffff_f000);

fn page() -> Page {
    std::array::from_fn(|at| u8::try_from(at % 251).unwrap())
}

#[test]
fn the_measurement_is_that_of_another_program() {
    let mut mrtd = Mrtd::default();
    mrtd.page_add(LAST);
    mrtd.page_add(Gpa::new(0xffff_e000));
    mrtd.extend(LAST, &page());
    assert_eq!(
        mrtd.finalize().to_string(),
        "7c555c19950735f3a8bcd7dc1435c3d8c68279e90cb3f9f7\
         231680c940e17267fd504a94425717e2857ddc3ef95ac5e7"
    );
}

#[test]
fn content_order_and_place_are_all_measured() {
    let of = |events: &[(Gpa, Option<Page>)]| {
        let mut mrtd = Mrtd::default();
        for (gpa, page) in events {
            match page {
                Some(page) => mrtd.extend(*gpa, page),
                None => mrtd.page_add(*gpa),
            }
        }
        mrtd.finalize()
    };
    let (first, second) = (Gpa::new(0), Gpa::new(0x1000));
    let values = [
        of(&[(first, None), (second, None)]),
        of(&[(second, None), (first, None)]),
        of(&[(first, None), (first, Some(page()))]),
        of(&[(first, None), (first, Some([0; 4096]))]),
        of(&[(first, None), (second, Some(page()))]),
    ];
    for (index, value) in values.iter().enumerate() {
        assert!(!values[..index].contains(value), "{index}");
    }
}
