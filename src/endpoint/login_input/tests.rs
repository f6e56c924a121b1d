//! Bodies and what Django REST framework answered to them.

use super::*;
use crate::body::charset::{self, Charset};
use crate::body::json;
use proptest::prelude::*;

/// Recorded from DRF 3.18.3 on Django 5.2.19 and Python 3.11, a case a line. Types and bodies are bytes as characters of
/// ISO 8859-1; `login` is what was given to `authenticate`, `json` the answer otherwise.
const CASES: &str = include_str!("cases.jsonl");

fn bytes(text: &str) -> Vec<u8> {
    text.chars().map(|character| u8::try_from(character).unwrap()).collect()
}

/// What this module makes of a case, as the case tells it.
fn told(content_type: &[u8], body: &[u8]) -> Value {
    match read(content_type, body) {
        Ok(Login { username, password }) => {
            json!({ "login": [username, std::str::from_utf8(password.expose()).unwrap()] })
        }
        Err(InputError::MediaType(given)) => {
            let detail = json!({ "detail": format!("Unsupported media type \"{given}\" in request.") });
            json!({ "status": 415, "json": detail.to_string() })
        }
        Err(InputError::Invalid(errors)) => json!({ "status": 400, "json": errors.to_string() }),
    }
}

#[test]
fn bodies_are_read_as_django_rest_framework_reads_them() {
    let mut failed = 0;
    for line in CASES.lines() {
        let mut case: Value = serde_json::from_str(line).unwrap();
        let case = case.as_object_mut().unwrap();
        let content_type = bytes(case.remove("type").unwrap().as_str().unwrap_or_default());
        let body = bytes(case.remove("body").unwrap().as_str().unwrap());
        let told = told(&content_type, &body);
        if told != Value::Object(case.clone()) {
            println!("{line}\n    {told}");
            failed += 1;
        }
    }
    assert_eq!(failed, 0, "of {}", CASES.lines().count());
}

fn told_of(body: &[u8], content_type: &str) -> Value {
    told(content_type.as_bytes(), body)
}

const FORM: &str = "application/x-www-form-urlencoded";
const PARTS: &str = "multipart/form-data; boundary=BoUnD";

/// A part of a form whose boundary is `BoUnD`.
fn part(disposition: &str, content: &str) -> String {
    format!("--BoUnD\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{content}\r\n")
}

fn parts(between: &str) -> String {
    let (username, password) = (part("name=\"username\"", "alice"), part("name=\"password\"", "pw"));
    format!("{username}{between}{password}--BoUnD--\r\n")
}

#[test]
fn forms_with_too_many_fields_are_refused() {
    let login = json!({ "login": ["alice", "pw"] });
    // Django's answer is a page that says as little.
    let refused = json!({ "status": 400, "json": r#"{"detail":"Bad request."}"# });
    for (more, expected) in [(998, &login), (999, &refused)] {
        let body = format!("username=alice&password=pw{}", "&x=1".repeat(more));
        assert_eq!(&told_of(body.as_bytes(), FORM), expected, "{more}");
    }
    // The part before the first boundary and the one after the last count too, and two more pass.
    for (more, expected) in [(998, &login), (999, &refused)] {
        assert_eq!(&told_of(parts(&part("name=x", "1").repeat(more)).as_bytes(), PARTS), expected, "{more}");
    }
    for (more, expected) in [(100, &login), (101, &refused)] {
        let body = parts(&part("name=x; filename=y", "1").repeat(more));
        assert_eq!(&told_of(body.as_bytes(), PARTS), expected, "{more}");
    }
}

#[test]
fn a_boundary_may_lie_across_the_chunks_in_which_a_body_is_read() {
    for length in 65_300..65_550 {
        let body = parts(&part("name=x", &"z".repeat(length)));
        assert_eq!(told_of(body.as_bytes(), PARTS), json!({ "login": ["alice", "pw"] }), "{length}");
    }
}

#[test]
fn a_number_has_as_many_digits_as_python_takes() {
    let body = |digits: usize| format!(r#"{{"username": "alice", "password": {}}}"#, "9".repeat(digits));
    let passed = told_of(body(4300).as_bytes(), "application/json");
    assert_eq!(passed, json!({ "login": ["alice", "9".repeat(4300)] }));
    let detail = "JSON parse error - Exceeds the limit (4300 digits) for integer string conversion: value has 4301 \
                  digits; use sys.set_int_max_str_digits() to increase the limit";
    let expected = json!({ "status": 400, "json": json!({ "detail": detail }).to_string() });
    assert_eq!(told_of(body(4301).as_bytes(), "application/json"), expected);
}

#[test]
fn what_is_nested_too_deeply_is_refused() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let list = r#"{"non_field_errors":["Invalid data. Expected a dictionary, but got list."]}"#;
    let told = |body: String| told_of(body.as_bytes(), "application/json");
    assert_eq!(told(nested(json::NESTING_MAX)), json!({ "status": 400, "json": list }));
    for depth in [json::NESTING_MAX + 1, 1_000_000] {
        let text = format!(
            r#"{{"detail":"JSON parse error - Nested too deeply: line 1 column {0} (char {1})"}}"#,
            json::NESTING_MAX + 2,
            json::NESTING_MAX + 1
        );
        assert_eq!(told(nested(depth)), json!({ "status": 400, "json": text }));
    }
}

#[test]
fn names_of_charsets_are_sorted() {
    assert!(charset::names::READ.is_sorted_by(|(one, _), (two, _)| one < two));
    assert!(charset::names::KNOWN.is_sorted_by(|one, two| one < two));
    for (name, charset) in charset::names::READ {
        if let Charset::SingleByte(upper) = charset {
            assert_eq!(upper.chars().count(), 128, "{name}");
        }
    }
}

#[test]
fn a_password_is_shown_by_no_debug_output() {
    let login = read(b"application/json", br#"{"username": "alice", "password": "hunter2"}"#).unwrap();
    assert!(!format!("{login:?}").contains("hunter2"));
}

#[test]
fn errors_never_repeat_what_was_sent() {
    for (content_type, body) in [
        ("application/json", r#"{"password": "hunter2" oops}"#),
        ("application/json", r#"{"password": "hunter2"#),
        ("application/json", r#"["hunter2"]"#),
        ("application/json", r#"{"username": "hunter2\ud800", "password": ["hunter2"]}"#),
        ("text/plain", "hunter2"),
        (FORM, "hunter2&password=hunter2"),
        (PARTS, "hunter2"),
        (PARTS, "--BoUnD\r\nContent-Disposition: form-data; name=password\r\n\r\nhunter2"),
        ("multipart/form-data", "hunter2"),
    ] {
        let told = told_of(body.as_bytes(), content_type);
        assert!(told.get("login").is_none() && !told.to_string().contains("hunter2"), "{told}");
    }
}

const PIECES: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "\\u",
    "\\ud800",
    "\\udc00",
    "d83d",
    "-",
    "0",
    "1e",
    ".5",
    "null",
    "NaN",
    "\"username\"",
    "\"password\"",
    " ",
    "\n",
    "\r\n",
    "\r\n\r\n",
    "--",
    "--BoUnD",
    "=",
    "&",
    "%",
    "%C3",
    "+",
    ";",
    "*",
    "*0*=",
    "'",
    "''",
    "/",
    "é",
    "😀",
    "\0",
    "name=username",
    "filename=x",
    "Content-Disposition: form-data; ",
    "Content-Transfer-Encoding: base64\r\n",
    "multipart/form-data; boundary=BoUnD",
    "charset=",
    "utf-16",
    "cp1252",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Nothing panics, and whoever gets in has a username and a password.
    #[test]
    fn any_body_is_read_or_refused(
        content_type in prop_oneof![
            Just("application/json".to_owned()),
            Just(FORM.to_owned()),
            Just(PARTS.to_owned()),
            (0..charset::names::READ.len()).prop_map(|index| {
                format!("*/*; boundary=BoUnD; charset={}", charset::names::READ[index].0)
            }),
            (0..charset::names::READ.len()).prop_map(|index| {
                format!("application/json; charset={}", charset::names::READ[index].0)
            }),
            proptest::collection::vec(proptest::sample::select(PIECES), 0..8).prop_map(|all| all.concat()),
        ],
        pieces in proptest::collection::vec(
            prop_oneof![
                proptest::sample::select(PIECES).prop_map(|piece| piece.as_bytes().to_vec()),
                proptest::collection::vec(any::<u8>(), 0..4),
            ],
            0..40,
        ),
    ) {
        if let Ok(login) = read(content_type.as_bytes(), &pieces.concat()) {
            prop_assert!(!login.username.is_empty() && !login.username.contains('\0'));
            prop_assert_eq!(strip(&login.username), login.username.as_str());
            let password = std::str::from_utf8(login.password.expose()).unwrap();
            prop_assert!(!password.is_empty() && !password.contains('\0'));
        }
    }

    #[test]
    fn any_text_is_a_username_when_it_is_written_as_json(username in "\\PC{1,20}x", password in any::<String>()) {
        let body = json!({ "username": username, "password": password }).to_string();
        let read = read(b"application/json", body.as_bytes());
        prop_assert_eq!(read.is_ok(), !password.is_empty() && !password.contains('\0'));
        if let Ok(login) = read {
            prop_assert_eq!(login.username.as_str(), strip(&username));
            prop_assert_eq!(login.password.expose(), password.as_bytes());
        }
    }
}
