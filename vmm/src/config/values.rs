//! What the value of each kind of key may be.

use std::ops::RangeInclusive;

use kvm::tap::TapName;
use toml::de::DeValue;

use super::keys;
use super::number_list::NumberList;
use super::reader::Unacceptable;
use super::size::Size;
use super::spec::{DiskSerial, FsTag, MacAddress};
use super::virtio;
use crate::host::facts::PciAddress;

/// Memory comes in pieces of this many bytes, the size of a huge page and of an RMM block.
pub(super) const MEMORY_STEP: u64 = 2 << 20;

/// One of a closed set of words.
pub(super) fn one_of<T: Copy>(
    value: &DeValue<'_>,
    words: &[(&'static str, T)],
) -> Result<T, Unacceptable> {
    let names: Vec<&'static str> = words.iter().map(|(name, _)| *name).collect();
    let choices = format!("it can be {}", keys::choice(&names));
    let text = text(value).map_err(|why| why.with_help(choices.clone()))?;
    let found = words.iter().find(|(name, _)| *name == text);
    found.map(|(_, meaning)| *meaning).ok_or_else(|| {
        let lower = text.to_ascii_lowercase().replace('_', "-");
        Unacceptable::new(format!("cannot be \"{text}\"")).with_help(
            match keys::nearest(&lower, &names) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => choices,
            },
        )
    })
}

/// A whole number in `range`.
pub(super) fn integer(
    value: &DeValue<'_>,
    range: RangeInclusive<u32>,
) -> Result<u32, Unacceptable> {
    let (least, most) = (range.start(), range.end());
    let DeValue::Integer(integer) = value else {
        return Err(Unacceptable::new(format!(
            "is {}, and must be a whole number from {least} to {most}",
            kind(value)
        )));
    };
    u32::from_str_radix(integer.as_str(), integer.radix())
        .ok()
        .filter(|number| range.contains(number))
        .ok_or_else(|| {
            Unacceptable::new(format!("is {integer}, and must be from {least} to {most}"))
        })
}

/// Yes or no.
pub(super) fn boolean(value: &DeValue<'_>) -> Result<bool, Unacceptable> {
    match value {
        DeValue::Boolean(value) => Ok(*value),
        other => Err(Unacceptable::new(format!(
            "is {}, and must be true or false",
            kind(other)
        ))),
    }
}

/// The serial number of a disk.
pub(super) fn serial(value: &DeValue<'_>) -> Result<DiskSerial, Unacceptable> {
    let text = text(value)?;
    DiskSerial::new(text).ok_or_else(|| {
        let most = DiskSerial::MOST_BYTES;
        let message = format!("is \"{text}\", and must be 1 to {most} printable ASCII characters");
        Unacceptable::new(message)
    })
}

/// The name of a tap interface.
pub(super) fn tap_name(value: &DeValue<'_>) -> Result<TapName, Unacceptable> {
    let text = text(value)?;
    text.parse().map_err(|error| {
        Unacceptable::new(format!("is \"{}\", which {error}", text.escape_debug()))
    })
}

/// The address of a network interface.
pub(super) fn mac_address(value: &DeValue<'_>) -> Result<MacAddress, Unacceptable> {
    let text = text(value).map_err(|why| why.with_help(virtio::mac_help()))?;
    text.parse().map_err(|error| {
        let message = format!("is \"{}\", which {error}", text.escape_debug());
        Unacceptable::new(message).with_help(virtio::mac_help())
    })
}

/// The name that a guest mounts a file system by.
pub(super) fn fs_tag(value: &DeValue<'_>) -> Result<FsTag, Unacceptable> {
    let text = plain_text(value)?;
    FsTag::new(&text)
        .ok_or_else(|| Unacceptable::new(format!("is \"{text}\", and must have 1 to 36 bytes")))
}

/// An amount of guest memory in bytes.
pub(super) fn memory(value: &DeValue<'_>) -> Result<u64, Unacceptable> {
    const EXAMPLE: &str = "a whole number of MiB or GiB in quotes, such as \"512 MiB\"";
    let text = match value {
        DeValue::Integer(number) => {
            return Err(
                Unacceptable::new("is a number without a unit").with_help(format!(
                    "write \"{number} MiB\" if that is what it stands for"
                )),
            );
        }
        value => text(value).map_err(|why| why.with_help(format!("write {EXAMPLE}")))?,
    };
    let size: Size = text.parse().map_err(|error| {
        let help = Size::guess(text).map_or_else(|| format!("write {EXAMPLE}"), meant);
        Unacceptable::new(format!("is \"{text}\", which {error}")).with_help(help)
    })?;
    if is_whole(size) {
        return Ok(size.0);
    }
    let message = format!("is \"{text}\", which is not a multiple of 2 MiB");
    Err(Unacceptable::new(message).with_help(nearest(size)))
}

/// The same, of at most `most` bytes.
pub(super) fn memory_up_to(value: &DeValue<'_>, most: u64) -> Result<u64, Unacceptable> {
    let bytes = memory(value)?;
    match bytes <= most {
        true => Ok(bytes),
        false => {
            let message = format!("is {}, and must be at most \"{}\"", Size(bytes), Size(most));
            Err(Unacceptable::new(message))
        }
    }
}

fn is_whole(size: Size) -> bool {
    size.0 > 0 && size.0.is_multiple_of(MEMORY_STEP)
}

fn meant(size: Size) -> String {
    match is_whole(size) {
        true => format!("did you mean \"{size}\"?"),
        false => nearest(size),
    }
}

/// The amounts of memory next to one that is not a multiple of the step.
fn nearest(size: Size) -> String {
    match size.neighbours(MEMORY_STEP) {
        (Some(below), Some(above)) => {
            format!("the nearest that will do are \"{below}\" and \"{above}\"")
        }
        (Some(one), None) | (None, Some(one)) => format!("the nearest that will do is \"{one}\""),
        (None, None) => format!("it must be a multiple of \"{}\"", Size(MEMORY_STEP)),
    }
}

/// CPUs, or NUMA nodes.
pub(super) fn number_list(value: &DeValue<'_>) -> Result<NumberList, Unacceptable> {
    const HELP: &str = "write numbers as the kernel does, such as \"0-3,8\"";
    let text = text(value).map_err(|why| why.with_help(HELP))?;
    text.parse()
        .map_err(|error| Unacceptable::new(format!("is \"{text}\", which {error}")).with_help(HELP))
}

/// The address of a PCI function.
pub(super) fn pci_address(value: &DeValue<'_>) -> Result<PciAddress, Unacceptable> {
    const HELP: &str = "write segment, bus, device and function as `lspci -D` prints them, \
                        such as \"0000:00:04.0\"";
    let text = text(value).map_err(|why| why.with_help(HELP))?;
    text.parse().map_err(|_| {
        Unacceptable::new(format!("is \"{text}\", which is not a PCI address")).with_help(HELP)
    })
}

/// Text that can be a path or a kernel command line.
pub(super) fn plain_text(value: &DeValue<'_>) -> Result<String, Unacceptable> {
    let text = text(value)?;
    match text.chars().find(|c| c.is_control()) {
        Some(control) => Err(Unacceptable::new(format!(
            "holds the control character {}",
            control.escape_default()
        ))),
        None => Ok(text.to_owned()),
    }
}

/// The path of a file.
pub(super) fn path(value: &DeValue<'_>) -> Result<String, Unacceptable> {
    let path = plain_text(value)?;
    if path.is_empty() {
        return Err(Unacceptable::new(
            "is empty, and must be the path of a file",
        ));
    }
    Ok(path)
}

fn text<'v>(value: &'v DeValue<'_>) -> Result<&'v str, Unacceptable> {
    value
        .as_str()
        .ok_or_else(|| Unacceptable::new(format!("is {}, and must be text in quotes", kind(value))))
}

/// What a value is, with its article.
pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
