//! Blanks as Python knows them.

/// `str.strip`: without Unicode's blanks and the separators of ASCII at both ends.
pub fn strip(text: &str) -> &str {
    text.trim_matches(|character: char| {
        character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_stripped_is_blank(before in "[ \t\u{1c}\u{1f}\u{85}\u{a0}\u{3000}]*", text in "(x.*x)?", behind in "[ \r\n\u{1d}\u{2003}]*") {
            let whole = format!("{before}{text}{behind}");
            prop_assert_eq!(strip(&whole), text);
        }
    }
}
