//! What was recorded against what came; placeholders stand for what differs from run to run.
//!
//! `<HEX:n>`: n digits and small letters a to f; `<ALNUM:n>`: n letters and digits; `<SID>`: 32 small letters and digits;
//! `<WAIT:lo:hi>`: a number from lo to hi, the same in every place of an answer.

use crate::harness::client::Answer;
use serde_json::Value;

/// Compared header fields, if they were recorded.
const FIELDS: [&str; 6] = ["WWW-Authenticate", "Allow", "Retry-After", "Content-Type", "Vary", "Location"];

/// All differences.
pub(crate) fn differences(expected: &Value, answer: &Answer) -> Vec<String> {
    let mut comparison = Comparison::default();
    let status = expected.get("status").and_then(Value::as_u64).unwrap();
    comparison.check("status", &status, &answer.status, status == u64::from(answer.status));
    for name in FIELDS {
        let Some(value) = expected.get("headers").and_then(|fields| fields.get(name)) else { continue };
        let value = normal(name, value.as_str().map(str::to_owned));
        let came = normal(name, joined(answer, name));
        let is_same = match (&value, &came) {
            (Some(value), Some(came)) => comparison.matches(value, came),
            (value, came) => value == came,
        };
        comparison.check(name, &value, &came, is_same);
    }
    let cookies = expected.get("set_cookies").and_then(Value::as_array).unwrap();
    assert!(cookies.is_empty(), "a case sets a cookie: write the comparison");
    let came = answer.all("set-cookie");
    comparison.check("Set-Cookie", cookies, &came, came.is_empty());
    comparison.body(expected.get("body").unwrap(), answer);
    if comparison.waits.windows(2).any(|two| two.first() != two.last()) {
        comparison.found.push(format!("different waits: {:?}", comparison.waits));
    }
    comparison.found
}

/// Values of all lines of a field, joined.
fn joined(answer: &Answer, name: &str) -> Option<String> {
    let all = answer.all(name);
    (!all.is_empty()).then(|| all.join(", "))
}

/// As the field is compared: `Vary` is a set, a space after `;` in `Content-Type` says nothing.
fn normal(name: &str, value: Option<String>) -> Option<String> {
    let value = value?;
    Some(match name {
        "Vary" => {
            let mut names: Vec<_> = value.split(',').map(|name| name.trim().to_ascii_lowercase()).collect();
            names.sort();
            names.join(", ")
        }
        "Content-Type" => value.replace("; ", ";").to_ascii_lowercase(),
        _ => value,
    })
}

#[derive(Default)]
struct Comparison {
    found: Vec<String>,
    /// What came for `<WAIT:lo:hi>`.
    waits: Vec<u64>,
}

impl Comparison {
    fn check(
        &mut self,
        what: &str,
        expected: &dyn std::fmt::Debug,
        came: &dyn std::fmt::Debug,
        is_same: bool,
    ) {
        if !is_same {
            self.found.push(format!("{what}: expected {expected:?}, came {came:?}"));
        }
    }

    fn body(&mut self, expected: &Value, answer: &Answer) {
        let text = answer.text();
        match expected.get("kind").and_then(Value::as_str).unwrap() {
            "ignored" => {}
            "empty" => self.check("body", &"", &text, answer.body.is_empty()),
            "contains" => {
                for part in expected.get("contains").and_then(Value::as_array).unwrap() {
                    self.check("body", part, &text, text.contains(part.as_str().unwrap()));
                }
            }
            "json" => {
                let json = expected.get("json").unwrap();
                let came = serde_json::from_slice::<Value>(&answer.body).ok();
                let is_same = came.as_ref().is_some_and(|came| self.is_same(json, came));
                self.check("body", json, &came, is_same);
                if let Some(raw) = expected.get("raw").and_then(Value::as_str) {
                    self.check("raw body", &raw, &text, raw.as_bytes() == answer.body);
                }
            }
            kind => panic!("a body of kind {kind:?}: write the comparison"),
        }
    }

    fn is_same(&mut self, expected: &Value, came: &Value) -> bool {
        match (expected, came) {
            (Value::String(expected), Value::String(came)) => self.matches(expected, came),
            (Value::Array(expected), Value::Array(came)) => {
                expected.len() == came.len()
                    && expected.iter().zip(came).all(|(one, two)| self.is_same(one, two))
            }
            (Value::Object(expected), Value::Object(came)) => {
                expected.len() == came.len()
                    && expected
                        .iter()
                        .all(|(name, one)| came.get(name).is_some_and(|two| self.is_same(one, two)))
            }
            (expected, came) => expected == came,
        }
    }

    /// Whether a text is as it must be, with what stands for its placeholders.
    fn matches(&mut self, expected: &str, came: &str) -> bool {
        let Some((before, rest)) = expected.split_once('<') else { return expected == came };
        let Some(came) = came.strip_prefix(before) else { return false };
        let (placeholder, after) = rest.split_once('>').unwrap();
        let mut words = placeholder.split(':');
        let name = words.next().unwrap();
        let numbers: Vec<u64> = words.map(|number| number.parse().unwrap()).collect();
        let is_of = |character: &char| match name {
            "HEX" => character.is_ascii_digit() || ('a'..='f').contains(character),
            "ALNUM" => character.is_ascii_alphanumeric(),
            "SID" => character.is_ascii_digit() || character.is_ascii_lowercase(),
            "WAIT" => character.is_ascii_digit(),
            name => panic!("a placeholder {name:?}: write the comparison"),
        };
        let most = match (name, numbers.as_slice()) {
            ("HEX" | "ALNUM", [count]) => usize::try_from(*count).unwrap(),
            ("SID", []) => 32,
            _ => usize::MAX,
        };
        let length = came.chars().take_while(is_of).take(most).count();
        let (value, rest) = came.split_at(length);
        let is_value = match (name, numbers.as_slice()) {
            ("WAIT", [low, high]) => {
                let wait = value.parse().ok();
                self.waits.extend(wait);
                wait.is_some_and(|wait| (*low..=*high).contains(&wait))
            }
            _ => length == most,
        };
        is_value && self.matches(after, rest)
    }
}

#[test]
fn placeholders_stand_for_what_they_say() {
    let matches = |expected: &str, came: &str| Comparison::default().matches(expected, came);
    assert!(matches("plain", "plain") && !matches("plain", "plain."));
    assert!(matches("<HEX:4>", "0a1f") && !matches("<HEX:4>", "0a1F") && !matches("<HEX:4>", "0a1ff"));
    assert!(matches("a<ALNUM:2>b<HEX:1>", "aZ9b0") && !matches("a<ALNUM:2>b", "aZb"));
    assert!(
        matches("in <WAIT:1:3> seconds.", "in 3 seconds.")
            && !matches("in <WAIT:1:3> seconds.", "in 4 seconds.")
    );
    assert!(!matches("<WAIT:1:3>", "") && !matches("<SID>", "short"));
}
