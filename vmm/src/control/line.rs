//! Lines out of a stream of bytes, of bounded length.

/// The longest request in bytes, without its line end.
pub(super) const LONGEST: usize = 4096;

/// A line was longer than it may be; the rest of the stream makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong;

/// What has come of a stream that is not a whole line yet.
#[derive(Debug, Default)]
pub(super) struct Lines {
    waiting: Vec<u8>,
}

impl Lines {
    /// Adds what has come.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
    }

    /// Takes the first line that is whole, without its end.
    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>, TooLong> {
        let end = self.waiting.iter().position(|byte| *byte == b'\n');
        if end.unwrap_or(self.waiting.len()) > LONGEST {
            return Err(TooLong);
        }
        Ok(end.map(|end| {
            let mut line: Vec<u8> = self.waiting.drain(..=end).collect();
            line.pop();
            line
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lines_come_out_whole_however_the_stream_is_cut(
            lines in proptest::collection::vec("[a-z{}\":]{0,40}", 0..8),
            cut in 1usize..30,
        ) {
            let stream: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let mut assembled = Lines::default();
            let mut seen = Vec::new();
            for piece in stream.as_bytes().chunks(cut) {
                assembled.extend(piece);
                while let Some(line) = assembled.next().unwrap() {
                    seen.push(String::from_utf8(line).unwrap());
                }
            }
            prop_assert_eq!(seen, lines);
        }
    }

    #[test]
    fn a_line_may_be_as_long_as_the_bound_and_no_longer() {
        let mut lines = Lines::default();
        lines.extend(&[b'x'; LONGEST]);
        assert_eq!(lines.next(), Ok(None));
        lines.extend(b"\n");
        assert_eq!(lines.next().unwrap().unwrap().len(), LONGEST);
        lines.extend(&[b'x'; LONGEST + 1]);
        assert_eq!(lines.next(), Err(TooLong));
    }
}
