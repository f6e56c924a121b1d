//! Against what Django itself wrote; `tests/vectors/django_sessions.py` makes the file.

use super::*;
use crate::secret::Secret;
use proptest::prelude::*;
use serde_json::Value;
use std::collections::BTreeSet;

const VECTORS: &str = include_str!("../../tests/vectors/django_sessions.jsonl");
const FIXTURE: &str = include_str!("../../tests/conformance/fixture.json");

fn vectors(kind: &str) -> Vec<Value> {
    let lines = VECTORS.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let found: Vec<Value> = lines.filter(|line| line["kind"] == kind).collect();
    assert!(!found.is_empty());
    found
}

fn text<'a>(vector: &'a Value, name: &str) -> &'a str {
    vector[name].as_str().unwrap()
}

fn secret(text: &str) -> Secret {
    Secret::new(text.as_bytes())
}

fn keys() -> Keys {
    let line = vectors("keys").remove(0);
    Keys::new(&secret(text(&line, "secret_key")), &[secret(text(&line, "fallback"))])
}

fn named(name: &str) -> String {
    let vectors = vectors("session");
    text(vectors.iter().find(|vector| vector["name"] == name).unwrap(), "session_data").to_owned()
}

fn read(name: &str) -> Session {
    decode(named(name), &keys()).unwrap()
}

#[test]
fn sessions_of_django_are_read() {
    let keys = keys();
    let current = Keys::new(&secret(text(&vectors("keys")[0], "secret_key")), &[]);
    for vector in vectors("session") {
        let stored = text(&vector, "session_data");
        let session = decode(stored, &keys).unwrap_or_else(|| panic!("{vector}"));
        let expected = Session::from_json(text(&vector, "data")).unwrap();
        assert_eq!(session.to_json(), expected.to_json(), "{vector}");
        assert_eq!(stored.starts_with('.'), vector["is_compressed"] == true);
        assert_eq!(decode(stored, &current).is_none(), vector["is_fallback"] == true, "{vector}");
    }
}

#[test]
fn sessions_of_the_recorded_site_are_read_as_recorded() {
    let fixture: Value = serde_json::from_str(FIXTURE).unwrap();
    let fallbacks = fixture["secret_key_fallbacks"].as_array().unwrap();
    let fallbacks: Vec<Secret> = fallbacks.iter().map(|key| secret(key.as_str().unwrap())).collect();
    let keys = Keys::new(&secret(text(&fixture, "secret_key")), &fallbacks);
    // What cannot be read has no data there, or data that were signed otherwise.
    let unreadable = ["empty", "wrongkey", "wrongsalt", "tampered", "tampered_sig", "garbage", "notjson"];
    for (name, session) in fixture["sessions"].as_object().unwrap() {
        let read = decode(text(session, "session_data"), &keys);
        if name == "empty" {
            assert!(read.unwrap().is_empty());
        } else if unreadable.contains(&name.as_str()) {
            assert!(read.is_none(), "{name}");
        } else {
            let read: Value = serde_json::from_str(&read.unwrap().to_json()).unwrap();
            assert_eq!(read, session["data"], "{name}");
        }
    }
}

#[test]
fn what_django_takes_for_empty_is_none() {
    for vector in vectors("bad") {
        assert!(decode(text(&vector, "session_data"), &keys()).is_none(), "{vector}");
    }
}

#[test]
fn what_was_written_is_read_again_and_compressed_where_django_does() {
    let keys = keys();
    for vector in vectors("session") {
        let session = decode(text(&vector, "session_data"), &keys).unwrap();
        let stored = encode(&session, &keys, 1_795_334_400);
        assert_eq!(decode(&stored, &keys).unwrap().to_json(), session.to_json());
        if vector["name"] != "latin-1" {
            assert_eq!(stored.starts_with('.'), vector["is_compressed"] == true, "{vector}");
        }
    }
}

#[test]
fn a_session_that_cannot_be_compressed_is_written_as_django_writes_it() {
    let session = read("short");
    assert_eq!(encode(&session, &keys(), 1_795_334_400), named("short"));
}

#[test]
fn values_are_found() {
    let user = read("logged in");
    assert_eq!(user.user_id().as_deref(), Some("1"));
    assert_eq!(user.backend().as_deref(), Some("django.contrib.auth.backends.ModelBackend"));
    assert_eq!(user.auth_hash().unwrap(), "ab".repeat(32));
    assert_eq!(read("number for an id").user_id().as_deref(), Some("7"));
    assert_eq!(read("uuid for an id").user_id().as_deref(), Some("6ec0bd7f-11c0-43da-975e-2a8ad9ebae0b"));
    assert_eq!(read("nobody").user_id(), None);
    assert_eq!(read("empty").user_id(), None);
    assert!(read("empty").is_empty());
    assert!(user.csrf_secret().is_none());
    assert_eq!(read("csrf").csrf_secret(), Some(Secret::new("aZ09".repeat(8))));
}

#[test]
fn ends_are_found() {
    assert_eq!(read("logged in").expiry(), SessionExpiry::Default);
    assert_eq!(read("browser").expiry(), SessionExpiry::BrowserClose);
    assert_eq!(read("five minutes").expiry(), SessionExpiry::Seconds(300));
    assert_eq!(read("then").expiry(), SessionExpiry::At(1_798_859_045));
    assert_eq!(read("far away").expiry(), SessionExpiry::At(1_798_859_045 - 19_800));
}

#[test]
fn what_an_application_keeps_is_not_changed() {
    let mut session = read("numbers");
    let before = session.to_json();
    session.log_in("5", "a.Backend", "00");
    let session = decode(encode(&session, &keys(), 0), &keys()).unwrap();
    assert_eq!(session.user_id().as_deref(), Some("5"));
    assert_eq!(session.backend().as_deref(), Some("a.Backend"));
    assert_eq!(session.auth_hash().as_deref(), Some("00"));
    assert!(session.to_json().ends_with(before.trim_start_matches('{')));
}

#[test]
fn a_bomb_is_refused_and_what_just_fits_is_read() {
    let keys = keys();
    for (length, is_read) in [(DECODED_BYTES_MAX - 8, true), (DECODED_BYTES_MAX - 7, false)] {
        let session = Session::from_json(&format!("{{\"a\":\"{}\"}}", "x".repeat(length))).unwrap();
        let stored = encode(&session, &keys, 0);
        assert!(stored.len() < 4096, "a bomb is small");
        assert_eq!(decode(stored, &keys).is_some(), is_read);
    }
    let mut huge = vec![b'A'; STORED_BYTES_MAX];
    assert!(decode(&huge, &keys).is_none());
    huge.push(b'A');
    assert!(decode(&huge, &keys).is_none());
}

#[test]
fn hashes_are_those_of_django() {
    let keys = keys();
    for vector in vectors("auth_hash") {
        let password = text(&vector, "password");
        let (current, fallback) = (text(&vector, "current"), text(&vector, "fallback"));
        assert_eq!(keys.auth_hash(password), current);
        assert_eq!(keys.matches(current, password), Match::Current);
        assert_eq!(keys.matches(fallback, password), Match::Fallback);
        assert_eq!(keys.matches("", password), Match::No);
        assert_eq!(keys.matches(&current.to_uppercase(), password), Match::No);
        assert_eq!(keys.matches(current, &format!("{password}x")), Match::No);
    }
}

#[test]
fn datetimes_are_those_of_django() {
    for vector in vectors("datetime") {
        let (seconds, microseconds) =
            (vector["seconds"].as_i64().unwrap(), vector["microseconds"].as_u64().unwrap());
        let microseconds = u32::try_from(microseconds).unwrap();
        assert_eq!(format_datetime(seconds, microseconds), text(&vector, "text"));
        assert_eq!(parse_datetime(text(&vector, "text")), Some((seconds, microseconds)), "{vector}");
    }
    for vector in vectors("parse") {
        let (seconds, microseconds) = parse_datetime(text(&vector, "text")).unwrap();
        assert_eq!(Some(seconds), vector["seconds"].as_i64(), "{vector}");
        assert_eq!(Some(u64::from(microseconds)), vector["microseconds"].as_u64(), "{vector}");
    }
    assert_eq!(format_datetime(i64::MAX, u32::MAX), "9999-12-31 23:59:59.999999");
    assert_eq!(format_datetime(i64::MIN, 0), "0001-01-01 00:00:00");
    for wrong in [
        "",
        "2026-11-22",
        "2026-11-22 ",
        "2026-02-29 00:00:00",
        "2026-11-22 24:00:00",
        "2026-11-22 1:00:00",
        "2026-11-22 10",
        "2026-11-22 10:00:00.",
        "2026-11-22 10:00:00.x",
        "2026-11-22 10:00:00:00",
        "2026-11-22 10:00:00+1",
        "0000-01-01 00:00:00",
        "+026-11-22 10:00:00",
        "2026-11-22 10:00:00Zx",
    ] {
        assert_eq!(parse_datetime(wrong), None, "{wrong}");
    }
}

#[test]
fn keys_of_sessions_are_of_all_characters_and_never_the_same() {
    let keys: Vec<String> =
        (0..500).map(|_| String::from_utf8(session_key().unwrap().expose().to_vec()).unwrap()).collect();
    assert!(keys.iter().all(|key| key.len() == 32));
    assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len());
    let mut counts = std::collections::BTreeMap::<char, usize>::new();
    keys.iter().flat_map(|key| key.chars()).for_each(|character| *counts.entry(character).or_default() += 1);
    let characters: String = counts.keys().collect();
    assert_eq!(characters, "0123456789abcdefghijklmnopqrstuvwxyz");
    // 444 each, ±21; a remainder of all 256 bytes would give the first four 500.
    assert!(counts.values().all(|count| (324..=564).contains(count)), "{counts:?}");
}

#[test]
fn nothing_is_shown() {
    assert_eq!(format!("{:?}", keys()), "Keys(1 + 1)");
    assert_eq!(format!("{:?}", read("csrf")).matches("aZ09").count(), 0);
}

/// A key for every place: changed at random, each byte in turn.
fn changed(stored: &str, place: usize, byte: u8) -> Option<Vec<u8>> {
    let mut bytes = stored.as_bytes().to_vec();
    let place = place % bytes.len();
    let before = std::mem::replace(&mut bytes[place], byte);
    (before != byte).then_some(bytes)
}

#[test]
fn every_changed_byte_is_noticed() {
    let keys = keys();
    for name in ["logged in", "short", "empty"] {
        let stored = named(name);
        for place in 0..stored.len() {
            for byte in [b'A', b'-', b'.', b':', b'=', 0, 0xff, stored.as_bytes()[place] ^ 1] {
                if let Some(bytes) = changed(&stored, place, byte) {
                    assert!(decode(&bytes, &keys).is_none(), "{name} {place} {byte}");
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>, words: String) {
        prop_assert!(decode(&bytes, &keys()).is_none());
        prop_assert!(decode(words.as_bytes(), &keys()).is_none());
        let _ = keys().matches(&words, &words);
        let _ = parse_datetime(&words);
    }

    #[test]
    fn any_signed_bytes_are_read_without_a_panic(bytes: Vec<u8>, dot: bool, time in "[0-9A-Za-z:-]{0,9}") {
        let payload = data_encoding::BASE64URL_NOPAD.encode(&bytes);
        let signed = format!("{}{payload}:{time}", if dot { "." } else { "" });
        let stored = format!("{signed}:{}", keys().signature(&signed));
        if let Some(session) = decode(stored, &keys()) {
            drop((session.user_id(), session.backend(), session.expiry(), session.csrf_secret()));
        }
    }

    #[test]
    fn any_change_is_noticed(place: usize, byte: u8) {
        let stored = named("nested");
        if let Some(bytes) = changed(&stored, place, byte) {
            prop_assert!(decode(&bytes, &keys()).is_none());
        }
    }

    #[test]
    fn any_text_comes_back(user: String, backend: String, hash: String, secret: String, now: i64) {
        let mut session = Session::default();
        session.log_in(&user, &backend, &hash);
        session.set_csrf_secret(&secret);
        let stored = encode(&session, &keys(), now);
        prop_assert!(stored.is_ascii());
        let read = decode(stored, &keys()).unwrap();
        prop_assert_eq!(read.user_id(), Some(user));
        prop_assert_eq!(read.backend(), Some(backend));
        prop_assert_eq!(read.auth_hash(), Some(hash));
        prop_assert_eq!(read.csrf_secret(), Some(Secret::new(secret)));
    }

    #[test]
    fn any_moment_comes_back_and_sorts_as_time_does(
        a in -62_135_596_800_i64..253_402_300_800, b in -62_135_596_800_i64..253_402_300_800,
        micros in 0..1_000_000_u32, others in 0..1_000_000_u32,
    ) {
        let (first, second) = (format_datetime(a, micros), format_datetime(b, others));
        prop_assert_eq!(parse_datetime(&first), Some((a, micros)));
        prop_assert_eq!(first.cmp(&second), (a, micros).cmp(&(b, others)));
    }

    #[test]
    fn datetimes_like_text_are_read_without_a_panic(text in "[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9:.+Zé-]{0,24}") {
        let _ = parse_datetime(&text);
    }
}
