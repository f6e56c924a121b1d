//! "Did you mean": the known name that is nearest to a misspelt one.
//!
//! Damerau–Levenshtein, because swapped letters are the commonest slip of all. The bound grows with the length:
//! better no suggestion than a silly one.

use crate::config::problem::quote;

/// Names longer than this are not compared: the cost is quadratic and nobody misspells them by a letter.
const NAME_CHARS_MAX: usize = 64;

/// The nearest of `known`, if any is near enough.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = name.chars().count();
    if length > NAME_CHARS_MAX {
        return None;
    }
    let folded = fold(name);
    let near = known.into_iter().filter(|candidate| candidate.chars().count() <= NAME_CHARS_MAX);
    let measured = near.map(|candidate| (strsim::damerau_levenshtein(&folded, &fold(candidate)), candidate));
    let (distance, candidate) = measured.min_by_key(|&(distance, _)| distance)?;
    (distance <= bound(length)).then_some(candidate)
}

/// Help that names the nearest, if any.
pub(super) fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(name, known).map(|candidate| format!("did you mean {}?", quote(candidate)))
}

/// `Max-Body` and `max_body` are the same slip.
fn fold(name: &str) -> String {
    name.chars().map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).collect()
}

fn bound(length: usize) -> usize {
    match length {
        0..=2 => 0,
        3..=5 => 1,
        6..=9 => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_letters_missing_swapped_and_folded() {
        let known = ["workers", "https", "max_body"];
        assert_eq!(nearest("wrokers", known), Some("workers"));
        assert_eq!(nearest("worker", known), Some("workers"));
        assert_eq!(nearest("Max-Body", known), Some("max_body"));
    }

    #[test]
    fn says_nothing_rather_than_something_silly() {
        assert_eq!(nearest("on", ["a", "no"]), None);
        assert_eq!(nearest("zebra", ["workers"]), None);
        assert_eq!(nearest("", ["a"]), None);
    }
}
