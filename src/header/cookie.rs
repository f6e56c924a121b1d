//! `Cookie` as Django 5.2 reads it (`django.http.cookie.parse_cookie`, Python 3.11's `http.cookies._unquote`), and the
//! same cookies taken out of it.
//!
//! This is wider than RFC 6265 section 5.4 on purpose: what Django would take for a session is one here, so it is also
//! removed where no upstream may see it.

use crate::header::blanks::strip;
use http::{HeaderMap, HeaderValue, header};
use std::borrow::Cow;

/// The value of a cookie; of several of the name the last. The name is compared as it is, the value is UTF-8.
///
/// What is not UTF-8 has become U+FFFD, as in Django's `get_str_from_wsgi`. Several fields are read as one, joined with
/// `;` (RFC 9113 section 8.2.3).
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<Cow<'a, [u8]>> {
    let mut fields = headers.get_all(header::COOKIE).iter().rev();
    fields.find_map(|field| {
        let chunk = field.as_bytes().rsplit(|byte| *byte == b';').find(|chunk| is_named(chunk, &[name]))?;
        Some(unquoted(stripped(pair(chunk).1)))
    })
}

/// Takes the cookies of these names out; the others stay byte for byte, and a field without any goes.
///
/// Nothing that [`cookie`] reads under one of the names is left.
pub fn remove(headers: &mut HeaderMap, names: &[&str]) {
    let mut fields = headers.get_all(header::COOKIE).iter();
    if !fields.any(|field| chunks(field).any(|chunk| is_named(chunk, names))) {
        return;
    }
    let fields = headers.get_all(header::COOKIE).iter();
    let left: Vec<HeaderValue> =
        fields.filter_map(|field| without(field, names)).map(Cow::into_owned).collect();
    headers.remove(header::COOKIE);
    for field in left {
        headers.append(header::COOKIE, field);
    }
}

/// A field without these cookies; `None` if it has no other.
pub fn without<'v, S: AsRef<str>>(field: &'v HeaderValue, names: &[S]) -> Option<Cow<'v, HeaderValue>> {
    if !chunks(field).any(|chunk| is_named(chunk, names)) {
        return Some(Cow::Borrowed(field));
    }
    let left: Vec<&[u8]> = chunks(field).filter(|chunk| !is_named(chunk, names)).collect();
    let value = left.join(&b';');
    let value = value.trim_ascii();
    if value.is_empty() {
        return None;
    }
    // A part of a field's value is one, so none is lost here.
    let mut value = HeaderValue::from_bytes(value).ok()?;
    value.set_sensitive(field.is_sensitive());
    Some(Cow::Owned(value))
}

fn chunks(field: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    field.as_bytes().split(|byte| *byte == b';')
}

/// Name and value; what has no `=` is a value without a name.
fn pair(chunk: &[u8]) -> (&[u8], &[u8]) {
    match chunk.iter().position(|byte| *byte == b'=').and_then(|at| chunk.split_at_checked(at)) {
        Some((name, value)) => (name, value.get(1..).unwrap_or_default()),
        None => (&[], chunk),
    }
}

fn is_named<S: AsRef<str>>(chunk: &[u8], names: &[S]) -> bool {
    let (name, value) = pair(chunk);
    let name = stripped(name);
    // Without both there is no cookie.
    names.iter().any(|named| named.as_ref() == name) && !(name.is_empty() && stripped(value).is_empty())
}

/// As text, without blanks around it (`str.strip`). `;` and `=` are ASCII, so it does not matter that Django decodes
/// before it splits.
fn stripped(bytes: &[u8]) -> Cow<'_, str> {
    match String::from_utf8_lossy(bytes) {
        Cow::Borrowed(text) => Cow::Borrowed(strip(text)),
        Cow::Owned(text) => Cow::Owned(strip(&text).to_owned()),
    }
}

/// `http.cookies._unquote`: between quotes `\ooo` is the character of that number and `\c` is `c`.
fn unquoted(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    let Some(inner) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return into_bytes(text);
    };
    if inner.contains('\\') {
        return Cow::Owned(unescaped(inner).into_bytes());
    }
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.get(1..text.len() - 1).unwrap_or_default().as_bytes()),
        Cow::Owned(_) => Cow::Owned(inner.as_bytes().to_vec()),
    }
}

fn into_bytes(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

fn unescaped(text: &str) -> String {
    let mut unescaped = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        unescaped.push_str(before);
        if let Some(character) = octal(after) {
            unescaped.push(character);
            rest = after.get(3..).unwrap_or_default();
            continue;
        }
        let mut characters = after.chars();
        // A backslash at the end stays.
        unescaped.push(characters.next().unwrap_or('\\'));
        rest = characters.as_str();
    }
    unescaped.push_str(rest);
    unescaped
}

/// The character that three octal digits stand for, up to 0o377.
fn octal(text: &str) -> Option<char> {
    let digits = text.get(..3).filter(|digits| digits.bytes().all(|digit| matches!(digit, b'0'..=b'7')))?;
    u8::from_str_radix(digits, 8).ok().map(char::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    /// Made by `tests/vectors/make.py` with Django itself; bytes are characters of ISO 8859-1.
    const VECTORS: &str = include_str!("../../tests/vectors/cookie.jsonl");

    fn bytes(text: &str) -> Vec<u8> {
        text.chars().map(|character| u8::try_from(character).unwrap()).collect()
    }

    fn headers(fields: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(header::COOKIE, HeaderValue::from_bytes(field).unwrap());
        }
        headers
    }

    fn read(fields: &[&[u8]], name: &str) -> Option<String> {
        let headers = headers(fields);
        cookie(&headers, name).map(|value| String::from_utf8(value.into_owned()).unwrap())
    }

    fn left(fields: &[&[u8]], names: &[&str]) -> Vec<Vec<u8>> {
        let mut headers = headers(fields);
        remove(&mut headers, names);
        headers.get_all(header::COOKIE).iter().map(|value| value.as_bytes().to_vec()).collect()
    }

    #[test]
    fn cookies_are_read_as_django_reads_them() {
        let mut read_any = 0;
        for line in VECTORS.lines() {
            let case: Value = serde_json::from_str(line).unwrap();
            let field = bytes(case["field"].as_str().unwrap());
            let cookies = case["cookies"].as_object().unwrap();
            for (name, value) in cookies {
                assert_eq!(read(&[&field], name).as_deref(), value.as_str(), "{name} of {line}");
                read_any += 1;
            }
            for name in
                ["", "sessionid", "a", "Sessionid"].iter().filter(|name| !cookies.contains_key(**name))
            {
                assert_eq!(read(&[&field], name), None, "{name} of {line}");
            }
        }
        assert!(read_any > 300, "{read_any}");
    }

    #[test]
    fn of_several_fields_the_last_counts() {
        assert_eq!(read(&[], "a"), None);
        assert_eq!(read(&[b"a=1; b=2", b"a=3"], "a").as_deref(), Some("3"));
        assert_eq!(read(&[b"a=1; b=2", b"a=3"], "b").as_deref(), Some("2"));
        assert_eq!(read(&[b"a=\"x", b"y\""], "a").as_deref(), Some("\"x"));
    }

    #[test]
    fn an_ordinary_cookie_is_borrowed() {
        for field in [&b"b=2; a=1"[..], b"a=\"1\"", b" a = 1 ", "b=\u{e9}; a=1".as_bytes()] {
            let headers = headers(&[field]);
            assert!(matches!(cookie(&headers, "a"), Some(Cow::Borrowed(b"1"))));
        }
    }

    #[test]
    fn others_stay_as_they_are() {
        let names = &["sessionid", "csrftoken"];
        for (field, expected) in [
            (&b"a=1; sessionid=x; b=2"[..], Some(&b"a=1; b=2"[..])),
            (b"sessionid=x; a=\"1 \\\" \"  ;  b", Some(b"a=\"1 \\\" \"  ;  b")),
            (b"a=1;csrftoken=y;  sessionid =x", Some(b"a=1")),
            (b"sessionid=x; sessionid=y", None),
            (b"sessionid", Some(b"sessionid")),
            (b"Sessionid=x", Some(b"Sessionid=x")),
            (b"a=1,sessionid=x", Some(b"a=1,sessionid=x")),
            (b"\xc2\xa0sessionid\xe2\x80\x83=x; \xff=\xfe", Some(b"\xff=\xfe")),
            (b" ;; ", Some(b" ;; ")),
        ] {
            assert_eq!(left(&[field], names).first().map(Vec::as_slice), expected, "{field:?}");
        }
        assert_eq!(left(&[b"a=1; sessionid=x", b"csrftoken=y", b"b=2"], names), [b"a=1", b"b=2"]);
    }

    #[test]
    fn what_is_left_is_still_hidden() {
        let mut headers = headers(&[b"a=1; sessionid=x"]);
        headers.get_mut(header::COOKIE).unwrap().set_sensitive(true);
        remove(&mut headers, &["sessionid"]);
        assert!(headers[header::COOKIE].is_sensitive());
    }

    /// Fields with much of what has a meaning.
    fn field() -> impl Strategy<Value = Vec<u8>> {
        let pieces: Vec<&[u8]> = vec![
            b"sessionid",
            b"sessionid=",
            b"a",
            b"=",
            b";",
            b";",
            b"; ",
            b" ",
            b"\t",
            b"\"",
            b"\\",
            b"\\075",
            b",",
            b"\xc2\xa0",
            b"\xc2",
            b"\xe3\x80",
            b"\x80",
        ];
        let piece = prop::sample::select(pieces);
        proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn nothing_readable_is_left(fields in proptest::collection::vec(field(), 0..4)) {
            let fields: Vec<&[u8]> = fields.iter().map(Vec::as_slice).collect();
            let left = left(&fields, &["sessionid"]);
            let left: Vec<&[u8]> = left.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(read(&left, "sessionid"), None);
            // Nor by whoever joins fields as WSGI does.
            prop_assert_eq!(read(&left, "a"), read(&fields, "a"));
            prop_assert_eq!(read(&left, ""), read(&fields, ""));
        }

        #[test]
        fn any_bytes_are_read(
            field in proptest::collection::vec(prop_oneof![32_u8..127, 128_u8..=255], 0..80),
            name: String,
        ) {
            let left = left(&[&field], &[&name]);
            let left: Vec<&[u8]> = left.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(read(&left, &name), None);
            // Without blanks the name is what can be read.
            let known = strip(&name).to_owned();
            if known == name && !name.contains([';', '=']) && !name.contains(char::is_control) {
                let field = [&field[..], b";", name.as_bytes(), b"=x"].concat();
                prop_assert_eq!(read(&[&field], &name), Some("x".to_owned()));
            }
        }
    }
}
