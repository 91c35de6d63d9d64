//! The table at the end of a firmware image by which others find things in it (OVMF, "GUIDed structure").
//! It is read from its end.
//!
//! ```text
//!   ... │ content │ length │ GUID │ content │ length │ GUID │ length of all │ footer GUID │ 32 bytes │ end
//!       └──────── an entry ───────┘
//! ```
//! A length counts everything that stands before its own end, GUID included.

/// A GUID as it lies in memory: the first three fields little endian.
pub(super) type Guid = [u8; 16];

/// `96b582de-1fb2-45f7-baea-a366c55a082d`.
const FOOTER: Guid = [
    0xde, 0x82, 0xb5, 0x96, 0xb2, 0x1f, 0xf7, 0x45, 0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d,
];

/// Bytes between the table and the end of the image: the code at the reset vector.
const BEHIND: usize = 32;

/// Bytes of a length and a GUID.
const TAIL: usize = 2 + size_of::<Guid>();

/// The content of the entry with this GUID; `None` when there is no sound table, or no such entry.
pub(super) fn find<'a>(image: &'a [u8], wanted: &Guid) -> Option<&'a [u8]> {
    let table = image.get(..image.len().checked_sub(BEHIND)?)?;
    let (mut rest, footer, length) = split_tail(table)?;
    if footer != FOOTER {
        return None;
    }
    // What is outside of the table is none of its entries.
    let entries = usize::from(length).checked_sub(TAIL)?;
    rest = rest.get(rest.len().checked_sub(entries)?..)?;
    while !rest.is_empty() {
        let (before, guid, length) = split_tail(rest)?;
        let content = usize::from(length).checked_sub(TAIL)?;
        let at = before.len().checked_sub(content)?;
        let (earlier, content) = before.split_at(at);
        if guid == *wanted {
            return Some(content);
        }
        rest = earlier;
    }
    None
}

/// What stands before the length and the GUID at the end of `bytes`, and both.
fn split_tail(bytes: &[u8]) -> Option<(&[u8], Guid, u16)> {
    let (before, guid) = bytes.split_last_chunk::<16>()?;
    let (before, length) = before.split_last_chunk::<2>()?;
    Some((before, *guid, u16::from_le_bytes(*length)))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An image that ends with a table of these entries.
    pub(in crate::boot::firmware) fn with_table(
        mut image: Vec<u8>,
        entries: &[(Guid, &[u8])],
    ) -> Vec<u8> {
        let mut all = 0;
        for (guid, content) in entries {
            let length = content.len() + TAIL;
            image.extend(*content);
            image.extend(u16::try_from(length).unwrap().to_le_bytes());
            image.extend(guid);
            all += length;
        }
        image.extend(u16::try_from(all + TAIL).unwrap().to_le_bytes());
        image.extend(FOOTER);
        image.extend([0x90; BEHIND]);
        image
    }

    #[test]
    fn an_entry_is_found_by_its_guid() {
        let image = with_table(
            vec![7; 100],
            &[([1; 16], b"first"), ([2; 16], b""), ([3; 16], b"x")],
        );
        assert_eq!(find(&image, &[1; 16]), Some(&b"first"[..]));
        assert_eq!(find(&image, &[2; 16]), Some(&b""[..]));
        assert_eq!(find(&image, &[3; 16]), Some(&b"x"[..]));
        assert_eq!(find(&image, &[4; 16]), None);
        assert_eq!(find(&[], &[1; 16]), None);
    }

    #[test]
    fn a_table_that_lies_of_its_length_has_no_entries() {
        let image = with_table(Vec::new(), &[([1; 16], b"first")]);
        let footer = image.len() - BEHIND - TAIL;
        for length in [0_u16, 17, 1000, u16::MAX] {
            let mut lying = image.clone();
            lying[footer..footer + 2].copy_from_slice(&length.to_le_bytes());
            assert_eq!(find(&lying, &[1; 16]), None, "{length}");
        }
        let entry = footer - TAIL;
        for length in [0_u16, 17, 24, u16::MAX] {
            let mut lying = image.clone();
            lying[entry..entry + 2].copy_from_slice(&length.to_le_bytes());
            assert_eq!(find(&lying, &[1; 16]), None, "{length}");
        }
    }
}
