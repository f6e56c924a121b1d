//! The sample file, line by line: every key with its default and its comment.
//!
//! The file that `init` writes and the schema for editors take their words from here, so there is one place that
//! says what a key is for. That the sample has every key, and its true default, is tested.

/// Every key with its default.
pub(super) const SAMPLE: &str = include_str!("../../config/doorward.toml");

/// The sample's word for what is no default.
const EXAMPLE: &str = "example";

/// A section, or a key with its value, set or commented out.
#[derive(Debug)]
pub(super) struct Line {
    /// The section: the names between the brackets.
    pub(super) section: Vec<&'static str>,
    /// The key; `None`: the head of the section.
    pub(super) key: Option<&'static str>,
    /// The value as written.
    pub(super) value: &'static str,
    /// What it is for; of one line.
    pub(super) comment: String,
    /// As the file has it, without the mark of a line that is commented out; further lines of the comment follow.
    pub(super) written: Vec<&'static str>,
}

impl Line {
    /// Whether the value, or the section, is no default.
    pub(super) fn is_example(&self) -> bool {
        self.comment.contains(EXAMPLE)
    }

    /// Whether it stands at this place; `NAME` is any name.
    pub(super) fn is_at(&self, section: &[&str], key: Option<&str>) -> bool {
        let same = |(have, wanted): (&&str, &&str)| have == wanted || *wanted == "NAME";
        self.key == key && self.section.len() == section.len() && self.section.iter().zip(section).all(same)
    }
}

/// All lines that say something, in the order of the file.
pub(super) fn lines() -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for text in SAMPLE.lines() {
        if let Some(more) = continuation(text) {
            if let Some(last) = lines.last_mut() {
                last.comment.push(' ');
                last.comment.push_str(more);
                last.written.push(text);
            }
            continue;
        }
        let written = text.strip_prefix("# ").unwrap_or(text);
        let (code, comment) = split_comment(written);
        let entry = if let Some(section) = code.strip_prefix('[').and_then(|code| code.strip_suffix(']')) {
            Some((section.split('.').collect(), None, ""))
        } else {
            let section = || lines.last().map(|line| line.section.clone()).unwrap_or_default();
            let assignment = code.split_once(" = ").filter(|(key, _)| is_key(key));
            assignment.map(|(key, value)| (section(), Some(key), value))
        };
        if let Some((section, key, value)) = entry {
            lines.push(Line { section, key, value, comment: comment.to_owned(), written: vec![written] });
        }
    }
    lines
}

/// A line that goes on with the comment of the one before.
fn continuation(text: &'static str) -> Option<&'static str> {
    text.starts_with("    ").then(|| text.trim_start().strip_prefix("# ")).flatten()
}

fn is_key(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

/// What stands before the comment of a line, and the comment.
fn split_comment(line: &'static str) -> (&'static str, &'static str) {
    let mut is_quoted = false;
    for (at, c) in line.char_indices() {
        match c {
            '"' => is_quoted = !is_quoted,
            '#' if !is_quoted => {
                let (code, comment) = line.split_at(at);
                return (code.trim_end(), comment.trim_start_matches('#').trim());
            }
            _ => {}
        }
    }
    (line.trim_end(), "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(section: &[&str], key: Option<&str>) -> Line {
        lines().into_iter().find(|line| line.is_at(section, key)).unwrap()
    }

    #[test]
    fn values_and_comments_are_told_apart() {
        let line = one(&["listen"], Some("https"));
        assert_eq!(line.value, "[\"[::]:8443\"]");
        assert_eq!(line.comment, "addresses for HTTPS; HTTP/1.1 and HTTP/2 by ALPN");
        assert!(!line.is_example());
        let line = one(&["routes", "NAME"], Some("host"));
        assert_eq!((line.value, line.is_example()), ("\"api.example.com\"", true));
    }

    #[test]
    fn comments_go_on_and_sections_have_theirs() {
        let line = one(&["authentication", "guard"], Some("user_delay"));
        assert!(line.comment.ends_with("From 100ms to 30s"), "{}", line.comment);
        assert_eq!(line.written.len(), 2);
        assert_eq!(one(&["tokens"], None).comment, "tokens that doorward issues");
        assert!(one(&["throttles", "NAME"], None).is_example());
    }
}
