//! What is wrong with a file of tokens: every bad line by its number, never its contents.

use std::collections::BTreeMap;
use std::fmt;

/// More bad lines than this are counted, not named: nobody reads a million.
const NAMED_MAX: usize = 100;

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
    fn the_first_lines_are_named_and_the_others_counted() {
        let mut report = Report::default();
        for line in (1..=150).rev() {
            report.note(line, "bad".to_owned());
        }
        let text = report.to_string();
        assert!(text.starts_with("line 1: bad\nline 2: bad\n"), "{text}");
        assert!(text.ends_with("line 100: bad\n… and 50 more\n"), "{text}");
        assert_eq!(report.count(), 150);
    }
}
