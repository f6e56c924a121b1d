//! Lines of a file or of standard input that hold secrets: bounded, and wiped.

use std::io::{self, BufRead};
use zeroize::Zeroizing;

/// A longer line (bytes) is nothing that anybody needs.
pub(in crate::cli) const LINE_BYTES_MAX: usize = 8192;

/// Reads line by line.
#[derive(Debug)]
pub(in crate::cli) struct Lines<R> {
    input: R,
    line: Zeroizing<Vec<u8>>,
    number: u32,
    bytes: u64,
}

/// One line, without its end.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cli) enum Line<'a> {
    /// What it holds.
    Bytes(&'a [u8]),
    /// More than [`LINE_BYTES_MAX`].
    TooLong,
}

impl<R: BufRead> Lines<R> {
    /// Begins with the first line.
    pub(in crate::cli) fn new(input: R) -> Self {
        // Never grows, so no copy is left behind.
        Self { input, line: Zeroizing::new(Vec::with_capacity(2 * LINE_BYTES_MAX)), number: 0, bytes: 0 }
    }

    /// The next line and its number, from 1 on. `None`: there is no more.
    pub(in crate::cli) fn next(&mut self) -> io::Result<Option<(u32, Line<'_>)>> {
        self.line.clear();
        let mut is_too_long = false;
        loop {
            let available = self.input.fill_buf()?;
            let end = available.iter().position(|byte| *byte == b'\n');
            let piece = available.get(..end.unwrap_or(available.len())).unwrap_or_default();
            if self.line.len() + piece.len() <= LINE_BYTES_MAX {
                self.line.extend_from_slice(piece);
            } else {
                is_too_long = true;
            }
            let used = piece.len() + usize::from(end.is_some());
            let is_end = available.is_empty();
            self.input.consume(used);
            let before = self.bytes;
            self.bytes = before.saturating_add(used as u64);
            if is_end && self.line.is_empty() && !is_too_long {
                return Ok(None);
            }
            if is_end || end.is_some() {
                break;
            }
        }
        self.number = self.number.saturating_add(1);
        let line = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
        // What some editors put before the first character.
        let line = line.strip_prefix(b"\xef\xbb\xbf").filter(|_| self.number == 1).unwrap_or(line);
        Ok(Some((self.number, if is_too_long { Line::TooLong } else { Line::Bytes(line) })))
    }

    /// How much was read.
    pub(in crate::cli) fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    fn lines(text: &[u8], buffer: usize) -> Vec<(u32, Option<Vec<u8>>)> {
        let mut lines = Lines::new(BufReader::with_capacity(buffer, text));
        let mut all = Vec::new();
        while let Some((number, line)) = lines.next().unwrap() {
            all.push((number, if let Line::Bytes(line) = line { Some(line.to_vec()) } else { None }));
        }
        assert_eq!(lines.bytes(), text.len() as u64);
        all
    }

    #[test]
    fn lines_are_numbered_and_have_no_ends() {
        let expected = [(1, b"a".as_slice()), (2, b""), (3, b"b\tc"), (4, b"d")];
        for buffer in [1, 3, 100] {
            let read = lines(b"\xef\xbb\xbfa\r\n\nb\tc\nd", buffer);
            assert_eq!(read, expected.map(|(number, line)| (number, Some(line.to_vec()))));
        }
        assert_eq!(lines(b"", 10), []);
    }

    #[test]
    fn a_line_that_is_too_long_is_not_kept() {
        let mut text = vec![b'x'; LINE_BYTES_MAX + 1];
        text.extend_from_slice(b"\nnext\n");
        for buffer in [1, 100, 100_000] {
            assert_eq!(lines(&text, buffer), [(1, None), (2, Some(b"next".to_vec()))]);
        }
        assert_eq!(lines(&vec![b'x'; LINE_BYTES_MAX], 100)[0].1.as_ref().unwrap().len(), LINE_BYTES_MAX);
    }
}
