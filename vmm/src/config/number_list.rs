//! Lists of small numbers, as Linux writes them: `0-3,8`.

use std::fmt;

/// More than any host has of CPUs that can be named, and of NUMA nodes.
const MOST: u32 = 1024;

/// Numbers below 1024 in the order in which they were written, each once, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberList(Vec<u32>);

/// Why a text is no list of numbers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NumberListError {
    /// A part is neither a number nor two.
    #[error("has '{0}' in place of a number, or of two with a dash between them")]
    Part(String),
    /// A range runs backwards.
    #[error("has the range '{0}', which runs backwards")]
    Backwards(String),
    /// A number is too large.
    #[error("has the number {0}, and numbers are below {MOST}")]
    TooLarge(u32),
    /// A number is there twice.
    #[error("has the number {0} twice")]
    Twice(u32),
}

impl NumberList {
    /// The numbers.
    #[must_use]
    pub fn numbers(&self) -> &[u32] {
        &self.0
    }
}

impl std::str::FromStr for NumberList {
    type Err = NumberListError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut numbers = Vec::new();
        for part in text.split(',').map(str::trim) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) else {
                return Err(NumberListError::Part(part.to_owned()));
            };
            if first > last {
                return Err(NumberListError::Backwards(part.to_owned()));
            }
            if last >= MOST {
                return Err(NumberListError::TooLarge(last));
            }
            for number in first..=last {
                if numbers.contains(&number) {
                    return Err(NumberListError::Twice(number));
                }
                numbers.push(number);
            }
        }
        Ok(Self(numbers))
    }
}

impl fmt::Display for NumberList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_slice();
        let mut separator = "";
        while let Some(&first) = rest.first() {
            let run = (first..)
                .zip(rest)
                .take_while(|(next, number)| next == *number);
            let length = run.count();
            let (run, others) = rest.split_at(length);
            match run {
                [_, .., last] => write!(f, "{separator}{first}-{last}")?,
                _ => write!(f, "{separator}{first}")?,
            }
            (rest, separator) = (others, ",");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_keeps_its_order_and_prints_as_it_is_written() {
        for (text, numbers, printed) in [
            ("3", vec![3], "3"),
            ("0-2,8", vec![0, 1, 2, 8], "0-2,8"),
            ("8, 0-1", vec![8, 0, 1], "8,0-1"),
            ("1,2,3", vec![1, 2, 3], "1-3"),
            ("1023", vec![1023], "1023"),
        ] {
            let list: NumberList = text.parse().unwrap();
            assert_eq!(list.numbers(), numbers, "{text}");
            assert_eq!(list.to_string(), printed, "{text}");
        }
    }

    #[test]
    fn what_is_no_list_is_refused() {
        use NumberListError::{Backwards, Part, TooLarge, Twice};
        for (text, error) in [
            ("", Part(String::new())),
            ("1,", Part(String::new())),
            ("a", Part("a".into())),
            ("1-2-3", Part("1-2-3".into())),
            ("-1", Part("-1".into())),
            ("3-1", Backwards("3-1".into())),
            ("1024", TooLarge(1024)),
            ("0-4294967295", TooLarge(u32::MAX)),
            ("1,0-2", Twice(1)),
        ] {
            assert_eq!(text.parse::<NumberList>(), Err(error), "{text}");
        }
    }
}
