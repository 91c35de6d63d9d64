//! Amounts of memory, as people write and read them.

use std::fmt;

/// The binary units, largest first.
const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];

/// A number of bytes, printed in the largest unit that holds it exactly: `512 MiB`, `4097 bytes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// Why a text is not an amount of memory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// There is no number where one should be.
    #[error("does not start with a whole number")]
    NoNumber,
    /// There is no unit behind the number.
    #[error("has no unit")]
    NoUnit,
    /// The unit is none of KiB, MiB, GiB and TiB.
    #[error("has the unit '{0}' in place of KiB, MiB, GiB or TiB")]
    UnknownUnit(String),
    /// It does not fit in 64 bits.
    #[error("does not fit in 64 bits")]
    TooLarge,
}

impl std::str::FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, unit) = split(text).ok_or(SizeError::NoNumber)?;
        if unit.is_empty() {
            return Err(SizeError::NoUnit);
        }
        let (_, shift) = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(|| SizeError::UnknownUnit(unit.to_owned()))?;
        let number: u64 = number.parse().map_err(|_| SizeError::TooLarge)?;
        number
            .checked_mul(1 << shift)
            .map(Self)
            .ok_or(SizeError::TooLarge)
    }
}

impl Size {
    /// What a text that is not an amount of memory was probably meant to be: `512M` is `512 MiB`.
    #[must_use]
    pub fn guess(text: &str) -> Option<Self> {
        let (number, unit) = split(text)?;
        if let Some(fraction) = unit.strip_prefix('.') {
            return Self::guess_fraction(number, fraction);
        }
        let initial = unit.chars().next()?.to_ascii_uppercase();
        let (name, _) = UNITS.iter().find(|(name, _)| name.starts_with(initial))?;
        format!("{number} {name}").parse().ok()
    }

    /// `1.5 GiB` is `1536 MiB`: one digit behind the point, in tenths, where that is whole MiB.
    fn guess_fraction(whole: &str, rest: &str) -> Option<Self> {
        let (tenths, unit) = split(rest)?;
        let Self(one) = Self::guess(&format!("1{unit}"))?;
        let tenths: u64 = (tenths.len() == 1).then(|| tenths.parse().ok())??;
        let whole: u64 = whole.parse().ok()?;
        let bytes = whole.checked_mul(10)?.checked_add(tenths)?;
        let bytes = bytes.checked_mul(one)?;
        bytes.is_multiple_of(10).then_some(Self(bytes / 10))
    }

    /// The multiples of `step` next to this size, at or below it and above it; the first is `None`
    /// when it would be zero.
    #[must_use]
    pub fn neighbours(self, step: u64) -> (Option<Self>, Option<Self>) {
        let below = self.0 / step * step;
        (
            (below > 0).then_some(Self(below)),
            below.checked_add(step).map(Self),
        )
    }
}

impl Size {
    /// The size to at most four digits, for a glance: `1010.6 GiB`.
    #[must_use]
    pub fn rough(self) -> String {
        let largest = UNITS.iter().find(|(_, shift)| self.0 >> shift > 0);
        let Some((name, shift)) = largest else {
            return self.to_string();
        };
        let exact = self.to_string();
        if exact.len() <= "9999 MiB".len() {
            return exact;
        }
        let tenths = (u128::from(self.0) * 10) >> shift;
        format!("{}.{} {name}", tenths / 10, tenths % 10)
    }
}

/// The digits at the start, and the rest without the space between them.
fn split(text: &str) -> Option<(&str, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    (digits > 0).then(|| (number, unit.strip_prefix(' ').unwrap_or(unit)))
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = UNITS
            .iter()
            .find(|(_, shift)| self.0 != 0 && self.0.trailing_zeros() >= *shift);
        match exact {
            Some((name, shift)) => f.pad(&format!("{} {name}", self.0 >> shift)),
            None => f.pad(&format!("{} bytes", self.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_whole_number_of_a_binary_unit() {
        for (text, bytes) in [
            ("512 MiB", 512 << 20),
            ("4KiB", 4096),
            ("3 GiB", 3 << 30),
            ("1 TiB", 1 << 40),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for (text, error) in [
            ("", SizeError::NoNumber),
            ("MiB", SizeError::NoNumber),
            ("-1 MiB", SizeError::NoNumber),
            ("512", SizeError::NoUnit),
            ("512M", SizeError::UnknownUnit("M".into())),
            ("512  MiB", SizeError::UnknownUnit(" MiB".into())),
            ("16777216 TiB", SizeError::TooLarge),
            ("99999999999999999999 KiB", SizeError::TooLarge),
        ] {
            assert_eq!(text.parse::<Size>(), Err(error), "{text}");
        }
    }

    #[test]
    fn near_misses_are_understood() {
        for (text, meant) in [
            ("512M", "512 MiB"),
            ("2gb", "2 GiB"),
            ("512 mib", "512 MiB"),
            ("1.5 GiB", "1536 MiB"),
            ("0.5GiB", "512 MiB"),
        ] {
            assert_eq!(Size::guess(text).unwrap().to_string(), meant, "{text}");
        }
        for text in ["", "512", "lots", "1.25 GiB", "1.1 GiB", "7 parsecs"] {
            assert_eq!(Size::guess(text), None, "{text}");
        }
    }

    #[test]
    fn a_rough_size_is_short() {
        assert_eq!(Size(512 << 20).rough(), "512 MiB");
        assert_eq!(Size(1_059_670_500 << 10).rough(), "1010.5 GiB");
        assert_eq!(Size(u64::MAX).rough(), "16777215.9 TiB");
        assert_eq!(Size(12).rough(), "12 bytes");
    }

    #[test]
    fn a_size_prints_in_the_largest_unit_that_is_exact() {
        assert_eq!(Size(3 << 30).to_string(), "3 GiB");
        assert_eq!(Size((3 << 30) + (1 << 20)).to_string(), "3073 MiB");
        assert_eq!(Size(4097).to_string(), "4097 bytes");
        assert_eq!(Size(0).to_string(), "0 bytes");
    }
}
