//! Lists: columns for people, JSON for scripts.
//!
//! Written in parts, so that a list of millions takes no more memory than a short one. Columns fit what a part
//! holds, and become wider where a later one needs it.

use crate::cli::tell::output;
use crate::clock::UnixSeconds;
use serde_json::Value;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};

/// Blanks between two columns.
const GAP: usize = 2;

/// Writes a list to standard output.
#[derive(Debug)]
pub(in crate::cli) struct List {
    output: BufWriter<File>,
    style: Style,
}

#[derive(Debug)]
enum Style {
    Columns(Columns),
    Json { is_begun: bool },
}

/// One line: what people read, and what scripts read.
#[derive(Debug)]
pub(in crate::cli) struct Row {
    /// One for each heading.
    pub(in crate::cli) cells: Vec<String>,
    /// An object.
    pub(in crate::cli) json: Value,
}

impl List {
    /// Begins a list.
    pub(in crate::cli) fn begin(json: bool, headings: &[&str]) -> io::Result<Self> {
        let mut output = BufWriter::new(output()?);
        let style = if json {
            output.write_all(b"[")?;
            Style::Json { is_begun: false }
        } else {
            Style::Columns(Columns::new(headings))
        };
        Ok(Self { output, style })
    }

    /// Writes some rows.
    pub(in crate::cli) fn rows(&mut self, rows: Vec<Row>) -> io::Result<()> {
        match &mut self.style {
            Style::Columns(columns) => {
                let cells: Vec<Vec<String>> = rows.into_iter().map(|row| row.cells).collect();
                self.output.write_all(columns.render(&cells).as_bytes())
            }
            Style::Json { is_begun } => {
                for row in rows {
                    let separator = if *is_begun { ",\n" } else { "\n" };
                    write!(self.output, "{separator}{}", row.json)?;
                    *is_begun = true;
                }
                Ok(())
            }
        }
    }

    /// Ends the list. Only now is it known that all of it was written.
    pub(in crate::cli) fn end(mut self) -> io::Result<()> {
        match &mut self.style {
            // The headings, if there was no row at all.
            Style::Columns(columns) => self.output.write_all(columns.render(&[]).as_bytes())?,
            Style::Json { is_begun: true } => self.output.write_all(b"\n]\n")?,
            Style::Json { is_begun: false } => self.output.write_all(b"]\n")?,
        }
        self.output.flush()
    }
}

/// Aligned columns.
#[derive(Debug)]
struct Columns {
    widths: Vec<usize>,
    /// Until they are written.
    headings: Option<Vec<String>>,
}

impl Columns {
    fn new(headings: &[&str]) -> Self {
        let headings: Vec<String> = headings.iter().map(|&heading| heading.to_owned()).collect();
        Self { widths: vec![0; headings.len()], headings: Some(headings) }
    }

    fn render(&mut self, rows: &[Vec<String>]) -> String {
        let headings = self.headings.take();
        let lines: Vec<Vec<String>> =
            headings.iter().chain(rows).map(|cells| cells.iter().map(|cell| clean(cell)).collect()).collect();
        for cells in &lines {
            for (width, cell) in self.widths.iter_mut().zip(cells) {
                *width = (*width).max(cell.chars().count());
            }
        }
        lines.iter().map(|cells| self.line(cells)).collect()
    }

    fn line(&self, cells: &[String]) -> String {
        let padded: Vec<String> =
            cells.iter().zip(&self.widths).map(|(cell, width)| format!("{cell:<0$}", width + GAP)).collect();
        format!("{}\n", padded.concat().trim_end())
    }
}

/// Without characters that a terminal obeys or that change the order of what is read (Unicode's `Bidi_Control`).
pub(in crate::cli) fn clean(text: &str) -> String {
    let obeyed = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut cleaned = String::with_capacity(text.len());
    for c in text.chars() {
        if obeyed(c) {
            cleaned.extend(c.escape_unicode());
        } else {
            cleaned.push(c);
        }
    }
    cleaned
}

/// RFC 3339, in UTC, to the second.
pub(in crate::cli) fn time(moment: UnixSeconds) -> String {
    const DAY: i64 = 86_400;
    let (days, second) = (moment.0.div_euclid(DAY), moment.0.rem_euclid(DAY));
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of a day since 1970-01-01: `civil_from_days` of Howard Hinnant's "chrono-Compatible
/// Low-Level Date Algorithms". Years begin with March here, so that the leap day is a year's last.
fn date(days: i64) -> (i64, i64, i64) {
    const ERA: i64 = 146_097;
    let days = days.saturating_add(719_468);
    let (era, day) = (days.div_euclid(ERA), days.rem_euclid(ERA));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let is_next_year = month >= 10;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if is_next_year { month - 9 } else { month + 3 };
    (era * 400 + year + i64::from(is_next_year), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_grow() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let mut columns = Columns::new(&["NAME", "GROUPS"]);
        assert_eq!(columns.render(&[row(["zo\u{eb}", "a"]), row(["b", ""])]), "NAME  GROUPS\nzoë   a\nb\n");
        assert_eq!(columns.render(&[row(["longer", "x"]), row(["y", "z"])]), "longer  x\ny       z\n");
    }

    #[test]
    fn terminals_are_told_nothing_to_obey() {
        assert_eq!(clean("a\u{1b}[2J\u{202e}b\u{9b}"), "a\\u{1b}[2J\\u{202e}b\\u{9b}");
        assert_eq!(clean("zo\u{eb} \u{4e2d}"), "zo\u{eb} \u{4e2d}");
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_000_000_000, "2001-09-09T01:46:40Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(time(UnixSeconds(seconds)), text);
        }
        // Far away, and no panic.
        time(UnixSeconds(i64::MAX));
        time(UnixSeconds(i64::MIN));
    }
}
