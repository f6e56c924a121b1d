//! What can be wrong with a configuration file, and the list in which all of it is gathered.
//!
//! Nothing stops at the first fault: a section that cannot be read leaves a problem here and a harmless value in
//! its place, so that one look at the output is enough to mend the whole file. What was lost on the way is kept
//! too, so that a misspelt key is not reported a second time as a missing one.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

use crate::config::render::SourceText;

/// Problems of one severity beyond this many are not kept: nobody reads them, and a hostile file could make
/// millions.
pub const PROBLEMS_MAX: usize = 100;

/// Messages are cut to this many characters: they may quote the file.
const MESSAGE_CHARS_MAX: usize = 400;

/// Names quoted in messages are cut to this many characters.
const QUOTE_CHARS_MAX: usize = 60;

/// How bad a problem is. Errors come before warnings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used, and someone should look at this.
    Warning,
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Whether the file can be used all the same.
    pub severity: Severity,
    /// What is wrong, in one line.
    pub message: String,
    /// What to do about it; may have several lines.
    pub help: Option<String>,
    /// The bytes of the text that are meant; `0..0` means the whole file.
    pub span: Range<usize>,
    /// Line of the span's start, from 1.
    pub line: usize,
    /// Column of the span's start in characters, from 1.
    pub column: usize,
}

/// A problem that does not know its place yet: what parsers of single values return.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    message: String,
    help: Option<String>,
}

impl Fault {
    /// A fault with this message and no help.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None }
    }

    /// Adds what to do about it.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds help if there is any.
    pub(super) fn help_if(mut self, help: Option<String>) -> Self {
        self.help = help;
        self
    }

    /// Reads back what [`Display`](fmt::Display) wrote: the first line is the message, the rest is the help.
    pub(super) fn from_lines(text: &str) -> Self {
        match text.split_once('\n') {
            Some((message, help)) => Self::new(message).help(help),
            None => Self::new(text),
        }
    }
}

/// A serde error is a single text, so message and help travel through it as two lines.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.help.as_ref().map_or(Ok(()), |help| write!(f, "\n{help}"))
    }
}

/// Everything found so far in one text.
#[derive(Debug)]
pub(super) struct Problems {
    source: SourceText,
    found: Vec<Problem>,
    lost: BTreeSet<Vec<String>>,
    broken_lines: BTreeSet<usize>,
    broken_from: usize,
    masked: Vec<Range<usize>>,
    ranges: Vec<Allowed>,
}

/// What a value may be; both ends as they would be written.
#[derive(Debug)]
pub(super) struct Allowed {
    /// Where the value is in the text.
    pub(super) at: usize,
    /// The least that it may be.
    pub(super) least: String,
    /// The most.
    pub(super) most: String,
}

impl Problems {
    /// Nothing is wrong with this text yet.
    pub(super) fn new(source: SourceText) -> Self {
        Self {
            source,
            found: Vec::new(),
            lost: BTreeSet::new(),
            broken_lines: BTreeSet::new(),
            broken_from: usize::MAX,
            masked: Vec::new(),
            ranges: Vec::new(),
        }
    }

    /// Notes what this value was compared with, whatever it is: the schema says so too.
    pub(super) fn note_range(&mut self, span: &Range<usize>, least: &str, most: &str) {
        self.ranges.push(Allowed { at: span.start, least: least.to_owned(), most: most.to_owned() });
    }

    /// The ranges that were noted.
    pub(super) fn into_ranges(self) -> Vec<Allowed> {
        self.ranges
    }

    /// Notes an error.
    pub(super) fn error(&mut self, span: &Range<usize>, fault: Fault) {
        self.push(Severity::Error, span, fault);
    }

    /// Notes a warning.
    pub(super) fn warn(&mut self, span: &Range<usize>, fault: Fault) {
        self.push(Severity::Warning, span, fault);
    }

    /// Keeps this part of the text out of every rendering: it is a secret.
    pub(super) fn mask(&mut self, span: Range<usize>) {
        self.source.mask(span.clone());
        self.masked.push(span);
    }

    /// Whether this part of the text is, or is in, a secret.
    pub(super) fn is_masked(&self, span: &Range<usize>) -> bool {
        self.masked.iter().any(|masked| masked.start <= span.start && span.end <= masked.end)
    }

    /// Notes that the entry at this path was taken out of the tree because of an error already noted.
    pub(super) fn lose(&mut self, path: Vec<String>) {
        self.lost.insert(path);
    }

    /// Notes that the syntax of these lines is broken. What the parser recovered there is a guess, so nothing more is
    /// said of them; and what seems to be missing may well be there.
    pub(super) fn break_lines(&mut self, lines: BTreeSet<usize>) {
        self.broken_lines = lines;
    }

    /// Notes that nothing from this byte on can be trusted.
    pub(super) fn break_from(&mut self, at: usize) {
        self.broken_from = at;
    }

    /// Whether something at, in or around this path was lost, so that its absence means nothing.
    pub(super) fn is_lost(&self, path: &[&str]) -> bool {
        let path: Vec<String> = path.iter().map(|&part| part.to_owned()).collect();
        let around = (1..=path.len()).any(|n| path.get(..n).is_some_and(|p| self.lost.contains(p)));
        let inside = || self.lost.range(path.clone()..).next().is_some_and(|lost| lost.starts_with(&path));
        !self.broken_lines.is_empty() || self.broken_from != usize::MAX || around || inside()
    }

    /// Whether there are errors.
    pub(super) fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    /// Whether no more errors are kept; looking for more is a waste.
    pub(super) fn is_full(&self) -> bool {
        self.is_full_of(Severity::Error)
    }

    /// Whether no more problems of this severity are kept.
    pub(super) fn is_full_of(&self, severity: Severity) -> bool {
        self.count(severity) >= PROBLEMS_MAX
    }

    /// Whether an error was noted inside this part of the text.
    pub(super) fn has_error_in(&self, span: &Range<usize>) -> bool {
        let is_inside = |inner: &Range<usize>| span.start <= inner.start && inner.end <= span.end;
        self.found.iter().any(|problem| problem.severity == Severity::Error && is_inside(&problem.span))
    }

    /// Line and column of a byte, both from 1, as editors count.
    pub(super) fn place(&self, at: usize) -> (usize, usize) {
        self.source.place(at)
    }

    /// What messages call the file.
    pub(super) fn source_name(&self) -> &str {
        self.source.name()
    }

    /// The text and its problems, in the order of the text.
    pub(super) fn finish(mut self) -> (SourceText, Vec<Problem>) {
        self.found.sort_by_key(|problem| (problem.span.start, problem.severity, problem.span.end));
        (self.source, self.found)
    }

    fn push(&mut self, severity: Severity, span: &Range<usize>, fault: Fault) {
        if self.is_full_of(severity) {
            return;
        }
        let (line, column) = self.place(span.start);
        if self.broken_lines.contains(&line) || span.start >= self.broken_from {
            return;
        }
        let message = printable(&fault.message.replace('\n', " "), MESSAGE_CHARS_MAX);
        let help = fault.help.map(|help| printable(&help, MESSAGE_CHARS_MAX));
        let problem = Problem { severity, message, help, span: span.clone(), line, column };
        // The parser says some things twice.
        if !self.found.contains(&problem) {
            self.found.push(problem);
        }
    }

    fn count(&self, severity: Severity) -> usize {
        self.found.iter().filter(|problem| problem.severity == severity).count()
    }
}

/// A name or value from the file, fit for a message: in backticks, cut, nothing unprintable.
pub(super) fn quote(text: &str) -> String {
    format!("`{}`", printable(&text.replace('\n', "\\n"), QUOTE_CHARS_MAX))
}

/// Several names in backticks, with commas; at most ten.
pub(super) fn quote_all<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut quoted: Vec<String> = names.into_iter().take(11).map(quote).collect();
    if quoted.len() > 10 {
        quoted.truncate(10);
        quoted.push("…".to_owned());
    }
    quoted.join(", ")
}

/// Cuts to `chars_max` and writes out what a terminal would obey or hide.
pub(super) fn printable(text: &str, chars_max: usize) -> String {
    let mut shown = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == chars_max {
            shown.push('…');
            break;
        }
        if c != '\n' && is_unprintable(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Controls, and the marks that turn text around or have no width (CVE-2021-42574, "Trojan Source").
pub(super) fn is_unprintable(c: char) -> bool {
    let is_mark =
        matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    c.is_control() || is_mark
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_cut_and_printable() {
        assert_eq!(quote("a\u{1b}[31m\nb"), "`a\\u{1b}[31m\\nb`");
        assert_eq!(quote(&"x".repeat(100)).chars().count(), QUOTE_CHARS_MAX + 3);
    }

    #[test]
    fn faults_survive_a_single_text() {
        let fault = Fault::new("no such thing").help("try another\nor none");
        assert_eq!(Fault::from_lines(&fault.to_string()), fault);
    }

    #[test]
    fn lost_covers_what_is_around_and_inside() {
        let mut problems = Problems::new(SourceText::new("x", ""));
        problems.lose(vec!["routes".to_owned(), "a".to_owned(), "upstrem".to_owned()]);
        problems.lose(vec!["upstreams".to_owned()]);
        assert!(problems.is_lost(&["routes", "a"]));
        assert!(!problems.is_lost(&["routes", "b"]));
        assert!(!problems.is_lost(&["routes", "a", "path"]));
        assert!(problems.is_lost(&["upstreams", "legacy"]));
    }
}
