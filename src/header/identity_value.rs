//! Names as header values: UTF-8 raw, and what could end or split a value as `%XX`.
//!
//! The encoding is injective (a property test says so): two users never look the same to an upstream. Most names
//! stay as they are, so a backend that knows nothing of it works for them.

use bytes::{BufMut as _, BytesMut};

/// Appends one name, encoded: controls, `%`, `,`, `;`, `"`, and leading and trailing blanks become `%XX`.
pub fn write(text: &str, out: &mut BytesMut) {
    let bytes = text.as_bytes();
    if !bytes.iter().any(|byte| *byte == b' ' || is_encoded(*byte)) {
        out.extend_from_slice(bytes);
        return;
    }
    let inner_start = bytes.iter().position(|byte| *byte != b' ').unwrap_or(bytes.len());
    let inner_end = bytes.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
    for (place, byte) in bytes.iter().copied().enumerate() {
        let is_outer_blank = byte == b' ' && (place < inner_start || place >= inner_end);
        if is_encoded(byte) || is_outer_blank {
            out.put_u8(b'%');
            out.put_u8(hex_digit(byte >> 4));
            out.put_u8(hex_digit(byte & 15));
        } else {
            out.put_u8(byte);
        }
    }
}

fn is_encoded(byte: u8) -> bool {
    byte < b' ' || matches!(byte, 0x7f | b'%' | b',' | b';' | b'"')
}

fn hex_digit(nibble: u8) -> u8 {
    match nibble {
        0..=9 => b'0' + nibble,
        _ => b'A' + (nibble - 10),
    }
}

/// Appends names joined with `,`; each is encoded first, so that a comma in a name does not split it.
pub fn write_list<'a>(texts: impl IntoIterator<Item = &'a str>, out: &mut BytesMut) {
    for (place, text) in texts.into_iter().enumerate() {
        if place > 0 {
            out.put_u8(b',');
        }
        write(text, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(text: &str) -> String {
        listed([text])
    }

    fn listed<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
        let mut out = BytesMut::new();
        write_list(texts, &mut out);
        http::HeaderValue::from_bytes(&out).expect("a header value");
        String::from_utf8(out.to_vec()).unwrap()
    }

    fn decode(value: &str) -> String {
        let bytes = value.as_bytes();
        let mut out = Vec::new();
        let mut i = 0;
        while i < bytes.len() {
            if bytes[i] == b'%' {
                out.push(u8::from_str_radix(value.get(i + 1..i + 3).unwrap(), 16).unwrap());
                i += 3;
            } else {
                out.push(bytes[i]);
                i += 1;
            }
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn ordinary_names_stay_as_they_are() {
        for name in ["alice", "zoë", "муравей", "mail+tag@example.com", "space user", "user:colon"] {
            assert_eq!(encoded(name), name);
        }
    }

    #[test]
    fn what_could_split_a_value_is_encoded() {
        assert_eq!(encoded(" a,b;c\"d%\r\n "), "%20a%2Cb%3Bc%22d%25%0D%0A%20");
        assert_eq!(listed(["a,b", "c"]), "a%2Cb,c");
    }

    proptest! {
        #[test]
        fn encoding_is_injective(name: String) {
            prop_assert_eq!(decode(&encoded(&name)), name);
        }

        #[test]
        fn lists_are_injective(names in proptest::collection::vec("\\PC+", 1..5)) {
            let joined = listed(names.iter().map(String::as_str));
            let back: Vec<_> = joined.split(',').map(decode).collect();
            prop_assert_eq!(back, names);
        }
    }
}
