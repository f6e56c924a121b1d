//! What is wrong with a file of tokens: every bad line by its number, never its contents.

use std::collections::BTreeMap;
use std::fmt;

/// More bad lines than this are counted, not named: each takes about a hundred bytes of memory.
const NAMED_MAX: usize = 1_000_000;

/// Bad lines, in the order of the file.
#[derive(Debug, Default)]
pub(in crate::cli) struct Report {
    named: BTreeMap<u32, String>,
    count: usize,
}

impl Report {
    /// Notes what is wrong with a line; a line is noted once.
    pub(in crate::cli) fn note(&mut self, line: u32, fault: String) {
        self.count += 1;
        self.named.insert(line, fault);
        if self.named.len() > NAMED_MAX {
            self.named.pop_last();
        }
    }

    /// Bad lines.
    pub(in crate::cli) fn count(&self) -> usize {
        self.count
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (line, fault) in &self.named {
            writeln!(f, "line {line}: {fault}")?;
        }
        match self.count - self.named.len() {
            0 => Ok(()),
            more => writeln!(f, "… and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_lines_are_named_and_what_nobody_has_room_for_is_counted() {
        let mut report = Report::default();
        for line in (1..=1_000_050).rev() {
            report.note(line, "bad".to_owned());
        }
        let text = report.to_string();
        assert!(text.starts_with("line 1: bad\nline 2: bad\n"));
        assert!(text.ends_with("line 1000000: bad\n… and 50 more\n"));
        assert_eq!(report.count(), 1_000_050);
    }
}
