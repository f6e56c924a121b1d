//! The token of a form, from as much of the body as was kept for it.

use crate::body::{self, Body, Extent, Given, ReadError};

/// The field's name; Django has no setting for it.
const NAME: &str = "csrfmiddlewaretoken";

/// What a body says of the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// A form without it; or it does not end in what there is of the body. The header counts.
    Absent,
    /// The last of a form, as UTF-8; an empty one is as good as none.
    Value(Vec<u8>),
    /// JSON, which has no token. The header counts.
    NotAForm,
    /// Not a body that Django could read: with the answer 415 or 400 that it gives instead of checking the token.
    /// Whoever leaves that to the upstream takes it for [`Self::Absent`].
    Unreadable(ReadError),
}

/// The token of a body. `content_type` is the value of the field, empty if there is none; `is_whole`: `prefix` is all
/// of the body.
///
/// The work is linear in the length of the prefix, which whoever collects it has to limit.
pub fn token(content_type: &[u8], prefix: &[u8], is_whole: bool) -> Field {
    let extent = if is_whole { Extent::Whole } else { Extent::Prefix };
    let fields = match body::read(content_type, prefix, extent, &[NAME]) {
        Ok(Body::Form(fields)) if body::is_form(content_type) => fields,
        // DRF, `Request.POST`: what is read as a form without being called one has no fields.
        Ok(Body::Form(_)) if prefix.is_empty() => return Field::Absent,
        Ok(_) => return Field::NotAForm,
        Err(error) => return Field::Unreadable(error),
    };
    let text = fields.into_fields().find_map(|field| match field.given {
        Given::Text(text) => Some(text.text.as_bytes().to_vec()),
        Given::Nothing | Given::Null | Given::NoText => None,
    });
    text.map_or(Field::Absent, Field::Value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    /// Made by `tests/vectors/make.py` with DRF's `Request.POST`; bytes are characters of ISO 8859-1.
    const VECTORS: &str = include_str!("../../tests/vectors/form.jsonl");

    const FORM: &[u8] = b"application/x-www-form-urlencoded";
    const PARTS: &[u8] = b"multipart/form-data; boundary=BoUnD";

    fn bytes(text: &str) -> Vec<u8> {
        text.chars().map(|character| u8::try_from(character).unwrap()).collect()
    }

    fn value(text: &str) -> Field {
        Field::Value(text.as_bytes().to_vec())
    }

    fn part(name: &str, content: &str) -> String {
        format!("--BoUnD\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{content}\r\n")
    }

    #[test]
    fn forms_are_read_as_django_rest_framework_reads_them() {
        for line in VECTORS.lines() {
            let mut case: Value = serde_json::from_str(line).unwrap();
            let case = case.as_object_mut().unwrap();
            let content_type = bytes(case.remove("type").unwrap().as_str().unwrap());
            let body = bytes(case.remove("body").unwrap().as_str().unwrap());
            let told = match token(&content_type, &body, true) {
                Field::Absent | Field::NotAForm => json!({ "token": null }),
                Field::Value(text) => json!({ "token": String::from_utf8(text).unwrap() }),
                Field::Unreadable(ReadError::Malformed(text)) => json!({ "status": 400, "detail": text }),
                Field::Unreadable(ReadError::MediaType(given)) => {
                    json!({ "status": 415, "detail": format!("Unsupported media type \"{given}\" in request.") })
                }
            };
            assert_eq!(told, Value::Object(case.clone()), "{line}");
        }
        assert!(VECTORS.lines().count() > 300);
    }

    #[test]
    fn what_does_not_end_in_the_prefix_is_not_there() {
        for (prefix, expected) in [
            ("csrfmiddlewaretoken=abc", Field::Absent),
            ("csrfmiddlewaretoken=abc&", value("abc")),
            ("csrfmiddlewaretoken=abc&csrfmiddlewaretoken=de", value("abc")),
            ("csrfmiddlewaretoken=&x", value("")),
            ("", Field::Absent),
        ] {
            assert_eq!(token(FORM, prefix.as_bytes(), false), expected, "{prefix}");
        }
        assert_eq!(token(b"application/x-www-form-urlencoded; charset=utf-16", b"a&", false), Field::Absent);
        let whole = part(NAME, "abc");
        for (prefix, expected) in [
            (whole.clone(), Field::Absent),
            (format!("{whole}--BoUn"), Field::Absent),
            (format!("{whole}--BoUnD"), value("abc")),
            (format!("{whole}{}", part(NAME, "de")), value("abc")),
            (format!("{whole}{}--BoUnD--", part(NAME, "de")), value("de")),
            (format!("{whole}--BoUnD\r\nContent-Disposition: for"), value("abc")),
            ("--Bo".to_owned(), Field::Absent),
        ] {
            assert_eq!(token(PARTS, prefix.as_bytes(), false), expected, "{prefix}");
        }
        assert_eq!(token(b"application/json", b"{", false), Field::NotAForm);
        assert!(matches!(token(b"text/plain", b"{", false), Field::Unreadable(ReadError::MediaType(_))));
    }

    #[test]
    fn a_body_that_is_empty_has_no_token_whatever_its_type() {
        for content_type in [FORM, PARTS, b"application/json", b"text/plain", b""] {
            assert_eq!(token(content_type, b"", true), Field::Absent);
        }
    }

    proptest! {
        #[test]
        fn any_body_is_read(content_type in prop_oneof![Just(FORM.to_vec()), Just(PARTS.to_vec()), any::<Vec<u8>>()],
            body: Vec<u8>, is_whole: bool)
        {
            if let Field::Value(text) = token(&content_type, &body, is_whole) {
                prop_assert!(std::str::from_utf8(&text).is_ok());
            }
        }

        /// Wherever a form is cut, the last token that ends before the cut counts.
        #[test]
        fn a_prefix_has_what_ends_in_it(
            fields in proptest::collection::vec(("csrfmiddlewaretoken|a", "[a-z]{0,9}"), 0..6),
            at: prop::sample::Index,
        ) {
            let pairs: Vec<String> = fields.iter().map(|(name, content)| format!("{name}={content}")).collect();
            let parts: Vec<String> = fields.iter().map(|(name, content)| part(name, content)).collect();
            for (content_type, pieces, between) in [(FORM, pairs, "&"), (PARTS, parts, "--BoUnD")] {
                let tail = if content_type == FORM { "&" } else { "--BoUnD--\r\n" };
                let body = if content_type == FORM { pieces.join("&") } else { pieces.concat() } + tail;
                let cut = at.index(body.len() + 1);
                let mut expected = Field::Absent;
                let mut end = 0;
                for ((name, content), piece) in fields.iter().zip(&pieces) {
                    end += piece.len();
                    if name == NAME && end + between.len() <= cut {
                        expected = value(content);
                    }
                    end += if content_type == FORM { between.len() } else { 0 };
                }
                prop_assert_eq!(token(content_type, body.split_at(cut).0.as_bytes(), false), expected);
            }
        }
    }
}
