//! Problems as text for people: message, place, the line itself with a mark under the fault, and help.
//!
//! A pure function of the text and the problems, so that the command line, the log and tests show the same. Secrets
//! written inline and passwords in URLs are masked before any line is shown, and long lines are cut to a window
//! around the fault.

use std::fmt::Write as _;
use std::ops::Range;

use crate::config::problem::{PROBLEMS_MAX, Problem, Severity, is_unprintable};

/// Characters of a source line that are shown at most.
const LINE_CHARS_MAX: usize = 100;

/// Characters shown before the fault when the line is too long.
const LEAD_CHARS: usize = 30;

/// The text of a configuration file and what to call it, with the secrets masked.
#[derive(Debug, Clone)]
pub struct SourceText {
    name: String,
    text: String,
}

impl SourceText {
    /// The text of the file that messages call `name`.
    pub(super) fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into() }
    }

    /// What messages call the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Never shows these bytes.
    pub(super) fn mask(&mut self, span: Range<usize>) {
        let masked = self
            .text
            .char_indices()
            .map(|(at, c)| if span.contains(&at) && c != '\n' { Self::masked(c) } else { c.to_string() });
        self.text = masked.collect();
    }

    /// As many bytes as the character had, so that every span stays true.
    fn masked(c: char) -> String {
        "*".repeat(c.len_utf8())
    }

    /// Line and column of a byte, both from 1, in characters.
    pub(super) fn place(&self, at: usize) -> (usize, usize) {
        let before = self.text.get(..at).unwrap_or(&self.text);
        let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |rest| rest.chars().count()) + 1;
        (line, column)
    }

    /// All problems as text, with a closing line that counts them. `colours` adds ANSI colours.
    pub fn render(&self, problems: &[Problem], colours: bool) -> String {
        let paint = Paint { colours };
        let mut out = String::new();
        for problem in problems {
            self.render_one(&mut out, problem, paint);
            out.push('\n');
        }
        out.push_str(&self.closing_line(problems));
        out
    }

    fn render_one(&self, out: &mut String, problem: &Problem, paint: Paint) {
        let label = paint.label(problem.severity);
        let gutter = " ".repeat(problem.line.to_string().len());
        let bar = paint.faint("|");
        push_line(out, &format!("{label}{}", paint.bold(&format!(": {}", problem.message))));
        if problem.span == (0..0) {
            push_line(out, &format!("{gutter}{} {}", paint.faint("-->"), self.name));
        } else {
            let place = format!("{}:{}:{}", self.name, problem.line, problem.column);
            push_line(out, &format!("{gutter}{} {place}", paint.faint("-->")));
            let (line, mark) = self.snippet(problem);
            push_line(out, &format!("{gutter} {bar}"));
            push_line(out, &format!("{} {bar} {line}", paint.faint(&problem.line.to_string())));
            push_line(out, &format!("{gutter} {bar} {}", paint.severity(problem.severity, &mark)));
        }
        for (index, line) in problem.help.iter().flat_map(|help| help.lines()).enumerate() {
            let lead = if index == 0 { paint.help("help: ") } else { "      ".to_owned() };
            push_line(out, &format!("{gutter} {} {lead}{line}", paint.faint("=")));
        }
    }

    /// The line of the fault and the marks below it, both cut to the same window.
    fn snippet(&self, problem: &Problem) -> (String, String) {
        let line = self.text.split('\n').nth(problem.line - 1).unwrap_or_default();
        let line = mask_passwords(line.trim_end_matches('\r'));
        let meant = self.text.get(problem.span.clone()).unwrap_or_default();
        let meant = meant.split('\n').next().map_or(0, |first| first.trim_end().chars().count());
        let from = problem.column - 1;
        let skip = if line.chars().count() > LINE_CHARS_MAX { from.saturating_sub(LEAD_CHARS) } else { 0 };
        let shown: String = line.chars().skip(skip).take(LINE_CHARS_MAX).map(shown_char).collect();
        let lead = if skip > 0 { "…" } else { "" };
        let room = LINE_CHARS_MAX.saturating_sub(from - skip).max(1);
        let indent = " ".repeat((from - skip).min(LINE_CHARS_MAX) + lead.chars().count());
        (format!("{lead}{shown}"), format!("{indent}{}", "^".repeat(meant.clamp(1, room))))
    }

    fn closing_line(&self, problems: &[Problem]) -> String {
        let count = |severity| problems.iter().filter(|problem| problem.severity == severity).count();
        let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
        let parts = [counted(errors, "error"), counted(warnings, "warning")];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        let more = if errors >= PROBLEMS_MAX || warnings >= PROBLEMS_MAX {
            "; there may be more, mend these first"
        } else {
            ""
        };
        format!("{}: {}{more}\n", self.name, parts.join(", "))
    }
}

/// ANSI colours, or none.
#[derive(Debug, Clone, Copy)]
struct Paint {
    colours: bool,
}

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        if self.colours { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    fn faint(self, text: &str) -> String {
        self.with("1;34", text)
    }

    fn help(self, text: &str) -> String {
        self.with("1;36", text)
    }

    fn severity(self, severity: Severity, text: &str) -> String {
        match severity {
            Severity::Error => self.with("1;31", text),
            Severity::Warning => self.with("1;33", text),
        }
    }

    fn label(self, severity: Severity) -> String {
        match severity {
            Severity::Error => self.severity(severity, "error"),
            Severity::Warning => self.severity(severity, "warning"),
        }
    }
}

fn push_line(out: &mut String, line: &str) {
    // Writing to a String cannot fail.
    writeln!(out, "{}", line.trim_end()).unwrap_or_default();
}

fn counted(count: usize, noun: &str) -> Option<String> {
    let plural = if count == 1 { "" } else { "s" };
    (count > 0).then(|| format!("{count} {noun}{plural}"))
}

/// One character for one, so that the marks stay below what they mean.
fn shown_char(c: char) -> char {
    match c {
        '\t' => ' ',
        c if is_unprintable(c) => '\u{fffd}',
        c => c,
    }
}

/// `scheme://user:password@host` without the password, whatever the key.
fn mask_passwords(line: &str) -> String {
    let mut masked = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("://") {
        let (whole, _) = after.split_at(after.find(['"', '\'', ' ']).unwrap_or(after.len()));
        // Whoever forgot to escape a `/` in a password has it behind what looks like the host.
        let begin = whole.rfind('@').unwrap_or_default();
        let host = whole.get(begin..).unwrap_or_default();
        let end = host.find(['/', '?', '#']).map_or(whole.len(), |end| begin + end);
        let (authority, tail) = after.split_at(end);
        masked.push_str(before);
        masked.push_str("://");
        masked.push_str(&mask_userinfo(authority));
        rest = tail;
    }
    masked.push_str(rest);
    masked
}

fn mask_userinfo(authority: &str) -> String {
    match authority.rsplit_once('@') {
        Some((userinfo, host)) => format!("{}@{host}", "*".repeat(userinfo.chars().count())),
        // No port: it may be a password whose `@` was forgotten.
        None => match authority.split_once(':') {
            Some((host, rest))
                if !host.starts_with('[') && !rest.bytes().all(|byte| byte.is_ascii_digit()) =>
            {
                format!("{host}:{}", "*".repeat(rest.chars().count()))
            }
            _ => authority.to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(source: &SourceText, span: Range<usize>) -> Problem {
        let (line, column) = source.place(span.start);
        let message = "no".to_owned();
        Problem { severity: Severity::Error, message, help: Some("do\nthis".to_owned()), span, line, column }
    }

    #[test]
    fn shows_line_mark_and_help() {
        let source = SourceText::new("doorward.toml", "a = 1\n\tbé = \"x\"\r\n");
        let text = source.render(&[problem(&source, 13..16)], false);
        let expected = "error: no\n --> doorward.toml:2:7\n  |\n2 |  bé = \"x\"\n  |       ^^^\n  = help: do\n  \
                        =       this\n\ndoorward.toml: 1 error\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn colours_only_when_asked() {
        let source = SourceText::new("f", "abc");
        let problems = [problem(&source, 0..3)];
        assert!(source.render(&problems, true).contains('\u{1b}'));
        assert!(!source.render(&problems, false).contains('\u{1b}'));
    }

    #[test]
    fn secrets_and_passwords_are_never_shown() {
        let mut source = SourceText::new("f", "key = 'hunter2é' # postgres://me:pw@host/x\n");
        source.mask(6..16);
        let text = source.render(&[problem(&source, 6..16)], false);
        assert!(!text.contains("hunter2") && !text.contains("pw"), "{text}");
        assert!(text.contains("@host/x"), "{text}");
    }

    #[test]
    fn long_lines_are_cut_around_the_fault() {
        let source = SourceText::new("f", format!("{}BAD{}", "a".repeat(5000), "b".repeat(5000)));
        let text = source.render(&[problem(&source, 5000..5003)], false);
        assert!(text.len() < 500 && text.contains("BAD") && text.contains("^^^"), "{text}");
    }

    #[test]
    fn controls_and_marks_are_not_passed_on() {
        let source = SourceText::new("f", "a\u{1b}[31m\u{202e}b");
        let text = source.render(&[problem(&source, 0..1)], false);
        assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'), "{text}");
    }
}
