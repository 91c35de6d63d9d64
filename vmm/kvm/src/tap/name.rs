//! Names of network interfaces.

use std::fmt;
use std::str::FromStr;

/// `IFNAMSIZ` of the kernel, with the zero at the end.
const SIZE: usize = 16;

/// The name of a network interface, as the kernel takes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TapName(String);

/// Why a text is not the name of a network interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadTapName {
    /// There are 1 to 15 bytes.
    #[error("has {0} bytes, and must have 1 to 15")]
    Length(usize),
    /// The kernel takes no such byte in a name.
    #[error("holds {0:?}, which no interface has in its name")]
    Character(char),
    /// These two are folders.
    #[error("cannot be \".\" or \"..\"")]
    Folder,
}

impl TapName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TapName {
    type Err = BadTapName;

    /// The kernel's rule (`dev_valid_name`), without `%`, by which it would number the interface, and
    /// with ASCII only.
    fn from_str(name: &str) -> Result<Self, BadTapName> {
        if name.is_empty() || name.len() >= SIZE {
            return Err(BadTapName::Length(name.len()));
        }
        let bad = |c: &char| !c.is_ascii_graphic() || matches!(c, '/' | ':' | '%');
        if let Some(bad) = name.chars().find(bad) {
            return Err(BadTapName::Character(bad));
        }
        match name {
            "." | ".." => Err(BadTapName::Folder),
            name => Ok(Self(name.to_owned())),
        }
    }
}

impl fmt::Display for TapName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_the_kernel_takes() {
        for good in ["tap0", "a", "vm-1.net_0", "fifteen-bytes-0"] {
            assert_eq!(good.parse::<TapName>().unwrap().as_str(), good);
        }
        for (bad, why) in [
            ("", BadTapName::Length(0)),
            ("sixteen-bytes-00", BadTapName::Length(16)),
            ("tap%d", BadTapName::Character('%')),
            ("a/b", BadTapName::Character('/')),
            ("a b", BadTapName::Character(' ')),
            ("eth0:1", BadTapName::Character(':')),
            ("t\u{e4}p", BadTapName::Character('\u{e4}')),
            ("..", BadTapName::Folder),
        ] {
            assert_eq!(bad.parse::<TapName>(), Err(why), "{bad}");
        }
    }
}
