//! Requests and what Django said to them, and what holds of any.

use super::*;
use crate::csrf::url::Url;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use proptest::prelude::*;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeSet;

/// Made by `tests/vectors/make.py` with DRF's `CSRFCheck`; bytes are characters of ISO 8859-1.
const VECTORS: &str = include_str!("../../tests/vectors/csrf.jsonl");

const SECRET: &str = "Q7vK2mXbT9rLwZ4cYhN6sJ8dFgP3aU5e";
const MASKED: &str = "abcdefghijklmnopqrstuvwxyzABCDEFQ8xN6r3i1iBWIcirey5pM4uA3FfuCnzJ";

fn bytes(text: &str) -> Vec<u8> {
    text.chars().map(|character| u8::try_from(character).unwrap()).collect()
}

fn trusting(origins: &[&str]) -> Settings {
    let trusted_origins = origins.iter().map(|text| TrustedOrigin::parse(text).unwrap()).collect();
    Settings { trusted_origins, ..Settings::default() }
}

/// As in `make.py`.
fn settings() -> [Settings; 5] {
    let all =
        ["https://app.example.org", "https://*.Trusted.test", "http://plain.test:8080", "http://*.p.test:81"];
    [
        Settings::default(),
        trusting(&all),
        Settings { cookie_domain: Some(".Example.test".to_owned()), ..Settings::default() },
        Settings {
            cookie_domain: Some("example.test".to_owned()),
            header: HeaderName::from_static("x-xsrf_token2a"),
            ..trusting(&["https://*.trusted.test:8443"])
        },
        Settings { use_sessions: true, ..Settings::default() },
    ]
}

/// The whole check, as whoever has the body runs it.
fn reason(case: &Value) -> Result<(), Reason> {
    let settings = &settings()[usize::try_from(case["settings"].as_u64().unwrap()).unwrap()];
    let text = |name: &str| case[name].as_str().map(bytes);
    let host = text("host").unwrap();
    let source = Source {
        is_https: case["https"].as_bool().unwrap(),
        host: &host,
        server_port: u16::try_from(case["port"].as_u64().unwrap()).unwrap(),
        origin: text("origin").map(Cow::Owned),
        referer: text("referer").map(Cow::Owned),
    };
    settings.check_source(&source)?;
    let method: Method = case["method"].as_str().unwrap().parse().unwrap();
    let field = case["field"].as_str().map(str::as_bytes);
    let stored = case["stored"].as_str().map(str::as_bytes);
    match settings.check_cookie(&method, stored, field.is_some())? {
        NextStep::NeedsBody(expected) => expected.check_token(settings, field, text("header").as_deref()),
        NextStep::NeedsHead(expected) => expected.check_token(settings, None, text("header").as_deref()),
    }
}

#[test]
fn requests_are_judged_as_django_judges_them() {
    let mut texts = BTreeSet::new();
    for line in VECTORS.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let told = reason(&case).err().map(|reason| reason.text());
        assert_eq!(told.as_deref(), case["reason"].as_str(), "{line}");
        texts.insert(told.map(|text| text.chars().take(40).collect::<String>()));
    }
    // Every text that there is, and none.
    assert!(texts.len() >= 18, "{texts:#?}");
}

#[test]
fn safe_methods_are_those_of_the_rfc() {
    for method in ["GET", "HEAD", "OPTIONS", "TRACE"] {
        assert!(is_safe(&method.parse().unwrap()), "{method}");
    }
    for method in ["POST", "PUT", "PATCH", "DELETE", "CONNECT", "PROPFIND", "get", "QUERY"] {
        assert!(!is_safe(&method.parse().unwrap()), "{method}");
    }
}

#[test]
fn several_origins_are_none_that_is_trusted() {
    let mut headers = HeaderMap::new();
    for _ in 0..2 {
        headers.append(header::ORIGIN, HeaderValue::from_static("https://a"));
    }
    let told = Settings::default().check_source(&Source::of(&headers, true, b"a", 443));
    assert_eq!(told, Err(Reason::BadOrigin("https://a,https://a".to_owned())));
    headers.remove(header::ORIGIN);
    headers.append(header::REFERER, HeaderValue::from_static("https://a/x"));
    assert_eq!(Settings::default().check_source(&Source::of(&headers, true, b"a", 443)), Ok(()));
}

#[test]
fn only_a_form_that_is_posted_needs_its_body() {
    let step = |method, is_form| Settings::default().check_cookie(&method, Some(SECRET.as_bytes()), is_form);
    assert!(matches!(step(Method::POST, true), Ok(NextStep::NeedsBody(_))));
    for (method, is_form) in [(Method::POST, false), (Method::PUT, true), (Method::DELETE, true)] {
        assert!(matches!(step(method, is_form), Ok(NextStep::NeedsHead(_))));
    }
}

#[test]
fn the_body_is_not_needed_without_a_secret() {
    let told = Settings::default().check_cookie(&Method::POST, Some(b"abc"), true);
    assert_eq!(told.unwrap_err(), Reason::Cookie(Fault::Length));
    let told = Settings::default().check_cookie(&Method::POST, None, true);
    assert_eq!(told.unwrap_err(), Reason::NoCookie);
}

#[test]
fn origins_that_could_trust_nothing_are_refused() {
    for (text, expected) in [
        ("example.com", TrustedOriginError::NoScheme),
        ("://example.com", TrustedOriginError::NoScheme),
        ("1://example.com", TrustedOriginError::NoScheme),
        ("null", TrustedOriginError::NoScheme),
        ("", TrustedOriginError::NoScheme),
        ("https://", TrustedOriginError::NoHost),
        ("https:///x", TrustedOriginError::NoHost),
        ("https://[::1", TrustedOriginError::BadHost),
        ("https://b\u{fc}cher.example", TrustedOriginError::BadHost),
        ("https://a b", TrustedOriginError::BadHost),
        (" https://a", TrustedOriginError::BadHost),
        ("https://u@a", TrustedOriginError::BadHost),
        ("https://a/", TrustedOriginError::MoreThanOrigin),
        ("https://a?", TrustedOriginError::MoreThanOrigin),
        ("https://*", TrustedOriginError::MisplacedStar),
        ("https://*.", TrustedOriginError::MisplacedStar),
        ("https://*a.b", TrustedOriginError::MisplacedStar),
        ("https://a.*.b", TrustedOriginError::MisplacedStar),
        ("https://*.*.b", TrustedOriginError::MisplacedStar),
    ] {
        assert_eq!(TrustedOrigin::parse(text), Err(expected), "{text}");
    }
}

#[test]
fn masks_are_those_of_django() {
    let secret = CsrfSecret::parse(SECRET).unwrap();
    assert_eq!(CsrfSecret::parse(MASKED).unwrap(), secret);
    let mask = CsrfSecret::parse(MASKED.split_at(32).0).unwrap();
    assert_eq!(*secret.mask(&mask), MASKED);
    assert_eq!(secret.as_str(), SECRET);
}

#[test]
fn random_secrets_are_unbiased() {
    let mut bytes = [255; RANDOM_BYTES];
    assert_eq!(CsrfSecret::from_random(&bytes), None);
    bytes[..32].copy_from_slice(&std::array::from_fn::<u8, 32, _>(|at| {
        u8::try_from(at * 8).unwrap() - u8::from(at == 31)
    }));
    assert_eq!(CsrfSecret::from_random(&bytes).unwrap().as_str().len(), 32);
    // Each letter for as many bytes as the others.
    let mut times = std::collections::BTreeMap::new();
    for byte in 0..=255 {
        if let Some(secret) = CsrfSecret::from_random(&[byte; RANDOM_BYTES]) {
            *times.entry(secret.as_str().to_owned()).or_insert(0) += 1;
        }
    }
    assert_eq!(times.len(), 62);
    assert!(times.values().all(|times| *times == 4));
}

#[test]
fn debug_shows_no_secret() {
    let settings = Settings::default();
    let next = settings.check_cookie(&Method::POST, Some(SECRET.as_bytes()), true).unwrap();
    assert_eq!(format!("{next:?}"), "NeedsBody(Expected(Some(CsrfSecret(…))))");
}

/// Texts with much of what has a meaning in a URL.
fn urlish() -> impl Strategy<Value = String> {
    let pieces = vec![
        "https", "http", ":", "//", "/", "?", "#", "@", "[", "]", "::1", "%", "a.test", "b.test", ".",
        ":443", " ", "\t", "\u{e9}", "v1.", "*",
    ];
    proptest::collection::vec(prop::sample::select(pieces), 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_source_is_judged(origin in proptest::option::of(urlish()), referer in proptest::option::of(urlish()),
        host: Vec<u8>, is_https: bool, server_port: u16)
    {
        let value = |text: &Option<String>| text.as_deref().map(|text| Cow::Owned(bytes(text)));
        let source = Source {
            is_https, host: &host, server_port, origin: value(&origin), referer: value(&referer),
        };
        for settings in settings() {
            let told = settings.check_source(&source);
            if let Some(origin) = &origin {
                let expected = Err(Reason::BadOrigin(origin.clone()));
                prop_assert!(told == Ok(()) || told == expected);
            } else if !is_https {
                prop_assert_eq!(told, Ok(()));
            }
        }
    }

    #[test]
    fn no_other_site_is_trusted(site in "[a-z0-9.-]{1,12}", before in "[a-z0-9-]{0,4}", behind in "[a-z0-9.-]{0,4}") {
        let origin = format!("https://{before}{site}{behind}");
        let source = Source {
            is_https: true,
            host: site.as_bytes(),
            server_port: 443,
            origin: Some(Cow::Owned(origin.into_bytes())),
            referer: None,
        };
        let is_own = before.is_empty() && behind.is_empty() && site != ".";
        prop_assert_eq!(Settings::default().check_source(&source).is_ok(), is_own);
    }

    #[test]
    fn a_pattern_trusts_its_domain_and_what_is_below(site in "[a-z0-9-]{1,8}\\.[a-z]{2}", before in "[a-z0-9.-]{0,4}", behind in "[a-z.:]{0,2}") {
        let settings = trusting(&[&format!("https://*.{site}")]);
        let url = format!("https://{before}{site}{behind}");
        let (mut origin, mut referer) = (HeaderMap::new(), HeaderMap::new());
        origin.insert(header::ORIGIN, url.parse().unwrap());
        referer.insert(header::REFERER, url.parse().unwrap());
        let is_trusted = behind.is_empty() && (before.is_empty() || before.ends_with('.'));
        for headers in [origin, referer] {
            let told = settings.check_source(&Source::of(&headers, true, b"own.host", 443));
            prop_assert_eq!(told.is_ok(), is_trusted);
        }
    }

    #[test]
    fn urls_are_joined_as_they_were_split(text in urlish()) {
        if let Some(url) = Url::split(&text) && !url.scheme.is_empty() && !url.netloc.is_empty() {
            prop_assert_eq!(Url::split(&url.join()), Some(url));
        }
    }

    #[test]
    fn any_trusted_origin_is_itself_trusted(text in urlish()) {
        if let Ok(origin) = TrustedOrigin::parse(&text) && !origin.is_pattern {
            let settings = Settings { trusted_origins: vec![origin], ..Settings::default() };
            let source = Source {
                is_https: true, host: b"x", server_port: 443, origin: Some(Cow::Owned(bytes(&text))), referer: None,
            };
            prop_assert_eq!(settings.check_source(&source), Ok(()));
        }
    }

    #[test]
    fn what_is_masked_is_unmasked(secret in "[a-zA-Z0-9]{32}", mask in "[a-zA-Z0-9]{32}", other in "[a-zA-Z0-9]{32}") {
        let (known, mask) = (CsrfSecret::parse(&secret).unwrap(), CsrfSecret::parse(&mask).unwrap());
        let token = known.mask(&mask);
        prop_assert_eq!(token.len(), 64);
        prop_assert_eq!(CsrfSecret::parse(&token).unwrap(), known);
        let settings = Settings::default();
        let check = |stored: &str, token: &str| {
            let next = settings.check_cookie(&Method::PUT, Some(stored.as_bytes()), false).unwrap();
            let NextStep::NeedsHead(expected) = next else { panic!("PUT has no field") };
            expected.check_token(&settings, None, Some(token.as_bytes()))
        };
        prop_assert_eq!(check(&secret, &token), Ok(()));
        prop_assert_eq!(check(&token, &secret), Ok(()));
        prop_assert_eq!(check(&other, &token).is_ok(), other == secret);
    }

    #[test]
    fn any_token_is_judged(stored: Vec<u8>, field in proptest::option::of(any::<Vec<u8>>()), header: Option<Vec<u8>>) {
        for settings in settings() {
            if let Ok(NextStep::NeedsBody(expected)) = settings.check_cookie(&Method::POST, Some(&stored), true) {
                let told = expected.check_token(&settings, field.as_deref(), header.as_deref());
                prop_assert!(told.is_err());
            }
        }
    }

    #[test]
    fn secrets_are_letters_and_digits(random: [u8; 32]) {
        let mut bytes = [0; RANDOM_BYTES];
        bytes[..32].copy_from_slice(&random);
        let secret = CsrfSecret::from_random(&bytes).unwrap();
        prop_assert_eq!(CsrfSecret::parse(secret.as_str()).unwrap(), secret);
    }
}
