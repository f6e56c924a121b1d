//! Base64 as Python reads it (`base64.b64decode`, `CPython` 3.11 `binascii.a2b_base64` without `strict_mode`): laxer than
//! RFC 4648 section 3.3, which is what clients of Django get away with.

use zeroize::Zeroizing;

/// The bytes; `None` if the last group has no padding.
///
/// What is not of the alphabet is passed over, and so is `=` before the third digit of a group. A complete padding ends
/// the text, whatever follows. Bits that are left over do not count.
pub fn decode(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    // Never grown, so that no copy is left behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let (mut left, mut digits, mut pads) = (0_u8, 0_u8, 0_u8);
    for character in text {
        let digit = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' if digits >= 2 => {
                pads = pads.saturating_add(1);
                if digits.saturating_add(pads) >= 4 {
                    return Some(bytes);
                }
                continue;
            }
            _ => continue,
        };
        pads = 0;
        match digits {
            0 => {}
            1 => bytes.push(left << 2 | digit >> 4),
            2 => bytes.push(left << 4 | digit >> 2),
            _ => bytes.push(left << 6 | digit),
        }
        left = digit;
        digits = (digits + 1) % 4;
    }
    (digits == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    /// Made by `tests/vectors/make.py` with Python itself; bytes are characters of ISO 8859-1.
    const VECTORS: &str = include_str!("../../tests/vectors/base64.jsonl");

    fn bytes(text: &str) -> Vec<u8> {
        text.chars().map(|character| u8::try_from(character).unwrap()).collect()
    }

    #[test]
    fn texts_are_read_as_python_reads_them() {
        for line in VECTORS.lines() {
            let case: Value = serde_json::from_str(line).unwrap();
            let expected = case["bytes"].as_str().map(bytes);
            assert_eq!(
                decode(&bytes(case["text"].as_str().unwrap())).as_deref(),
                expected.as_ref(),
                "{line}"
            );
        }
        assert!(VECTORS.lines().count() > 200);
    }

    proptest! {
        #[test]
        fn any_text_is_read_within_its_length(text: Vec<u8>) {
            if let Some(bytes) = decode(&text) {
                prop_assert!(bytes.len() <= text.len() / 4 * 3 + 3);
            }
        }

        #[test]
        fn what_is_not_of_the_alphabet_does_not_count(text in "[a-zA-Z0-9+/]{0,40}={0,3}", at: prop::sample::Index, junk in "[-_.!é ]{1,3}") {
            let mut with = text.clone();
            with.insert_str(at.index(text.len() + 1), &junk);
            prop_assert_eq!(decode(text.as_bytes()), decode(with.as_bytes()));
        }
    }
}
