//! Single values: how a string, number or boolean of the file becomes a type that cannot be wrong.
//!
//! Each type says what it expects, with an example, and every message repeats it. Values keep their place in the
//! text, because the rules between values are checked later and must still be able to point.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde_json::{Value, json};
use toml::Spanned;

use crate::config::problem::{Fault, Problems, quote, quote_all};
use crate::config::suggest;

/// A type that is written as one string, integer or boolean.
pub(super) trait Written: Sized + 'static {
    /// What is expected, with an example; completes "expected …".
    const EXPECTED: &'static str;

    /// All that can be written, where that is a few words.
    const WORDS: &'static [(&'static str, Self)] = &[];

    /// For the schema: a regular expression (ECMA-262) that every good string matches.
    const PATTERN: Option<&'static str> = None;

    /// Reads a string.
    fn from_text(text: &str) -> Result<Self, Fault> {
        Err(wrong_type::<Self>(&format!("the string {}", quote(text))))
    }

    /// Reads an integer.
    fn from_integer(integer: i64) -> Result<Self, Fault> {
        Err(wrong_type::<Self>(&format!("the integer `{integer}`")))
    }

    /// Reads a boolean.
    fn from_boolean(boolean: bool) -> Result<Self, Fault> {
        Err(wrong_type::<Self>(&format!("the boolean `{boolean}`")))
    }

    /// What may be written, as JSON Schema. Asked of the functions above, so it says what they say.
    fn schema() -> Value {
        let mut forms = Vec::new();
        if Self::from_boolean(true).is_ok() {
            forms.push(json!({ "type": "boolean" }));
        }
        if Self::from_integer(1).is_ok() {
            forms.push(json!({ "type": "integer", "minimum": 0 }));
        } else if Self::from_integer(0).is_ok() {
            forms.push(json!({ "const": 0 }));
        }
        let is_only_number = forms.iter().any(|form| form.get("type").is_some());
        let words: Vec<_> = Self::WORDS.iter().map(|(word, _)| *word).collect();
        match Self::PATTERN {
            _ if !words.is_empty() => forms.push(json!({ "enum": words })),
            Some(pattern) => forms.push(json!({ "type": "string", "pattern": pattern })),
            None if is_only_number => {}
            None => forms.push(json!({ "type": "string" })),
        }
        let mut schema = match forms.pop() {
            Some(only) if forms.is_empty() => only,
            last => json!({ "anyOf": forms.into_iter().chain(last).collect::<Vec<_>>() }),
        };
        if let Some(schema) = schema.as_object_mut() {
            schema.insert("description".to_owned(), Self::EXPECTED.into());
        }
        schema
    }
}

/// What is expected, in words; for `{:#}`, by which the schema asks, as JSON Schema.
pub(super) fn expecting(
    f: &mut fmt::Formatter<'_>,
    words: &str,
    schema: impl FnOnce() -> Value,
) -> fmt::Result {
    if f.alternate() { write!(f, "{}", schema()) } else { f.write_str(words) }
}

fn wrong_type<T: Written>(found: &str) -> Fault {
    Fault::new(format!("expected {}, found {found}", T::EXPECTED))
}

/// A value that is not what its type expects; says what is.
pub(super) fn unexpected<T: Written>(text: &str) -> Fault {
    Fault::new(format!("expected {}, found {}", T::EXPECTED, quote(text)))
}

/// A value of the file and its place.
#[derive(Debug, Clone)]
pub(super) struct Entry<T> {
    /// The value.
    pub(super) value: T,
    /// Its place in the text.
    pub(super) span: Range<usize>,
}

/// A list and its place; the elements have theirs.
pub(super) type List<T> = Spanned<Vec<Entry<T>>>;

impl<'de, T: Written> Deserialize<'de> for Entry<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Bare<T>>::deserialize(deserializer)?;
        let span = spanned.span();
        Ok(Self { value: spanned.into_inner().0, span })
    }
}

/// The value alone, which is what serde can visit.
#[derive(Debug)]
struct Bare<T>(T);

impl<'de, T: Written> Deserialize<'de> for Bare<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BareVisitor(PhantomData)).map(Self)
    }
}

struct BareVisitor<T>(PhantomData<T>);

impl<T: Written> Visitor<'_> for BareVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        expecting(f, T::EXPECTED, T::schema)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        T::from_text(text).map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, integer: i64) -> Result<T, E> {
        T::from_integer(integer).map_err(E::custom)
    }

    fn visit_bool<E: Error>(self, boolean: bool) -> Result<T, E> {
        T::from_boolean(boolean).map_err(E::custom)
    }
}

/// Reads one of a few words.
pub(super) fn one_of<T: Written + Copy>(text: &str) -> Result<T, Fault> {
    let choices = T::WORDS;
    let chosen = choices.iter().find(|(word, _)| *word == text).map(|&(_, choice)| choice);
    chosen.ok_or_else(|| {
        let words = || choices.iter().map(|&(word, _)| word);
        let help = suggest::did_you_mean(text, words());
        unexpected::<T>(text).help_if(help.or_else(|| Some(format!("known are {}", quote_all(words())))))
    })
}

/// A quantity whose range is checked.
pub(super) trait Quantity: Written + PartialOrd + Copy {
    /// As it would be written in the file.
    fn show(self) -> String;
}

/// The value if it is in range; otherwise notes the range, by the name of the key, and returns the default.
pub(super) fn within<T: Quantity>(
    entry: Option<&Entry<T>>,
    default: T,
    range: RangeInclusive<T>,
    key: &str,
    problems: &mut Problems,
) -> T {
    let Some(entry) = entry else { return default };
    let (least, most) = (range.start().show(), range.end().show());
    problems.note_range(&entry.span, &least, &most);
    if range.contains(&entry.value) {
        return entry.value;
    }
    let message = format!("{} is out of range: {}", quote(key), entry.value.show());
    problems.error(&entry.span, Fault::new(message).help(format!("it must be from {least} to {most}")));
    default
}

impl Written for bool {
    const EXPECTED: &'static str = "`true` or `false`";

    fn from_text(text: &str) -> Result<Self, Fault> {
        let fault = unexpected::<Self>(text);
        Err(if matches!(text, "true" | "false") { fault.help("write it without quotes") } else { fault })
    }

    fn from_boolean(boolean: bool) -> Result<Self, Fault> {
        Ok(boolean)
    }
}

impl Written for String {
    const EXPECTED: &'static str = "a string in quotes";

    fn from_text(text: &str) -> Result<Self, Fault> {
        Ok(text.to_owned())
    }
}

/// How many of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Count(pub(super) usize);

impl Written for Count {
    const EXPECTED: &'static str = "a whole number such as 100";

    fn from_text(text: &str) -> Result<Self, Fault> {
        let fault = unexpected::<Self>(text);
        Err(if text.parse::<u32>().is_ok() { fault.help("write it without quotes") } else { fault })
    }

    fn from_integer(integer: i64) -> Result<Self, Fault> {
        usize::try_from(integer).map(Self).map_err(|_| unexpected::<Self>(&integer.to_string()))
    }
}

impl Quantity for Count {
    fn show(self) -> String {
        self.0.to_string()
    }
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Size(pub(super) usize);

const SIZE_UNITS: [(&str, usize); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl Written for Size {
    const EXPECTED: &'static str = "a size such as \"64KiB\"";
    const PATTERN: Option<&'static str> = Some("^[0-9]+(B|KiB|MiB|GiB)$");

    fn from_text(text: &str) -> Result<Self, Fault> {
        let (digits, unit) = number_and_unit(text);
        let factor = SIZE_UNITS.iter().find(|(name, _)| *name == unit).map(|&(_, factor)| factor);
        let number = digits.parse::<usize>().ok();
        let bytes = number.zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
        bytes.map(Self).ok_or_else(|| unexpected::<Self>(text).help(size_help(digits, unit)))
    }

    fn from_integer(integer: i64) -> Result<Self, Fault> {
        Err(unexpected::<Self>(&integer.to_string()).help(format!("write \"{integer}B\" for bytes")))
    }
}

impl Quantity for Size {
    fn show(self) -> String {
        let whole = SIZE_UNITS.iter().find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor));
        whole.map_or_else(|| format!("{}B", self.0), |(unit, factor)| format!("{}{unit}", self.0 / factor))
    }
}

fn size_help(digits: &str, unit: &str) -> String {
    let meant = match unit.trim().to_ascii_lowercase().as_str() {
        "k" | "kb" | "ki" | "kib" => "KiB",
        "m" | "mb" | "mi" | "mib" => "MiB",
        "g" | "gb" | "gi" | "gib" => "GiB",
        "" | "b" | "byte" | "bytes" => "B",
        _ => return "a whole number and one of B, KiB, MiB, GiB".to_owned(),
    };
    suggest_unit(digits, meant).unwrap_or_else(|| "a whole number and one of B, KiB, MiB, GiB".to_owned())
}

/// "did you mean" with the right unit, if there is a number to put before it.
fn suggest_unit(digits: &str, unit: &str) -> Option<String> {
    digits.parse::<u32>().ok().map(|number| format!("did you mean \"{number}{unit}\"?"))
}

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

const TIME_UNITS: [(&str, u64); 6] =
    [("w", 7 * DAY_MS), ("d", DAY_MS), ("h", 60 * 60 * 1000), ("m", 60 * 1000), ("s", 1000), ("ms", 1)];

impl Written for Duration {
    const EXPECTED: &'static str = "a duration such as \"30s\"";
    const PATTERN: Option<&'static str> = Some("^[0-9]+(ms|s|m|h|d|w)$");

    fn from_text(text: &str) -> Result<Self, Fault> {
        let (digits, unit) = number_and_unit(text);
        let factor = TIME_UNITS.iter().find(|(name, _)| *name == unit).map(|&(_, factor)| factor);
        let number = digits.parse::<u64>().ok();
        let millis = number.zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
        millis
            .map(Self::from_millis)
            .ok_or_else(|| unexpected::<Self>(text).help(duration_help(digits, unit)))
    }

    fn from_integer(integer: i64) -> Result<Self, Fault> {
        match integer {
            0 => Ok(Self::ZERO),
            other => Err(unexpected::<Self>(&other.to_string())
                .help(duration_help(&other.unsigned_abs().to_string(), "s"))),
        }
    }
}

impl Quantity for Duration {
    fn show(self) -> String {
        let Ok(millis) = u64::try_from(self.as_millis()) else { return format!("{}s", self.as_secs()) };
        let whole = TIME_UNITS.iter().find(|(_, factor)| millis != 0 && millis.is_multiple_of(*factor));
        whole.map_or_else(|| "0s".to_owned(), |(unit, factor)| format!("{}{unit}", millis / factor))
    }
}

fn duration_help(digits: &str, unit: &str) -> String {
    let units = "a whole number and one of ms, s, m, h, d, w";
    let meant = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "s" | "sec" | "secs" | "second" | "seconds" => "s",
        "ms" | "msec" | "millis" | "milliseconds" => "ms",
        "m" | "min" | "mins" | "minute" | "minutes" => "m",
        "h" | "hr" | "hour" | "hours" => "h",
        "d" | "day" | "days" => "d",
        "w" | "week" | "weeks" => "w",
        _ => return units.to_owned(),
    };
    suggest_unit(digits, meant).unwrap_or_else(|| units.to_owned())
}

fn number_and_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

impl Written for PathBuf {
    const EXPECTED: &'static str = "a path such as \"certs/example.pem\"";

    fn from_text(text: &str) -> Result<Self, Fault> {
        if text.is_empty() || text.contains('\0') {
            Err(unexpected::<Self>(text))
        } else {
            Ok(Self::from(text))
        }
    }
}

/// A path of the file, which is relative to the file's directory.
pub(super) fn resolve(directory: &Path, path: &Path) -> PathBuf {
    directory.join(path)
}

impl Written for IpNet {
    const EXPECTED: &'static str = "a network such as \"10.0.0.0/8\" or an address";

    fn from_text(text: &str) -> Result<Self, Fault> {
        let address = || text.parse::<std::net::IpAddr>().map(Self::from);
        let network = text.parse::<Self>().or_else(|_| address()).map_err(|_| unexpected::<Self>(text))?;
        if network.addr() == network.network() {
            return Ok(network);
        }
        let fault = Fault::new(format!("{} has bits set behind its prefix", quote(text)));
        Err(fault.help(format!("did you mean \"{}\"?", network.trunc())))
    }
}

impl Written for http::HeaderName {
    const EXPECTED: &'static str = "a header name such as \"Remote-User\"";

    fn from_text(text: &str) -> Result<Self, Fault> {
        // The bound is generous; http itself would allow 64 KiB.
        let name = if text.len() > 128 { None } else { Self::from_bytes(text.as_bytes()).ok() };
        name.ok_or_else(|| unexpected::<Self>(text))
    }
}

/// Whether `text` is a token of RFC 9110 §5.6.2.
pub(super) fn is_token(text: &str) -> bool {
    let is_tchar = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_tchar)
}

/// Names of sections go into logs and metric labels, so they are plain and short.
pub(super) fn check_name(name: &Spanned<String>, what: &str, problems: &mut Problems) {
    let text = name.get_ref();
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if text.is_empty() || text.len() > 64 || !is_plain {
        let fault = Fault::new(format!("{} is no name for {what}", quote(text)));
        problems.error(&name.span(), fault.help("use 1 to 64 of the characters A-Z a-z 0-9 - _"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message<T: Written + fmt::Debug>(text: &str) -> String {
        T::from_text(text).unwrap_err().to_string()
    }

    #[test]
    fn durations_have_one_number_and_one_unit() {
        assert_eq!(Duration::from_text("250ms").unwrap(), Duration::from_millis(250));
        assert_eq!(Duration::from_text("2w").unwrap(), Duration::from_hours(14 * 24));
        assert_eq!(Duration::from_integer(0).unwrap(), Duration::ZERO);
        for text in [
            "",
            "s",
            "30",
            "1.5s",
            "-1s",
            "30 s",
            "1h30m",
            "30S",
            "99999999999999999999s",
            "99999999999999999w",
        ] {
            assert!(Duration::from_text(text).is_err(), "{text}");
        }
    }

    #[test]
    fn wrong_units_are_corrected() {
        assert_eq!(
            message::<Duration>("30 sec"),
            "expected a duration such as \"30s\", found `30 sec`\ndid you mean \"30s\"?"
        );
        assert_eq!(
            message::<Size>("64kb"),
            "expected a size such as \"64KiB\", found `64kb`\ndid you mean \"64KiB\"?"
        );
        assert!(Duration::from_integer(60).unwrap_err().to_string().contains("\"60s\""));
        assert!(Size::from_integer(60).unwrap_err().to_string().contains("\"60B\""));
    }

    #[test]
    fn sizes_are_binary() {
        assert_eq!(Size::from_text("64KiB").unwrap(), Size(65536));
        assert_eq!(Size::from_text("512B").unwrap(), Size(512));
        assert_eq!(Size::from_text("1GiB").unwrap(), Size(1 << 30));
        assert!(Size::from_text("99999999999GiB").is_err());
    }

    #[test]
    fn quantities_show_as_they_are_written() {
        for text in ["250ms", "30s", "5m", "12h", "30d", "2w"] {
            assert_eq!(Duration::from_text(text).unwrap().show(), text);
        }
        for text in ["64KiB", "10MiB", "1GiB", "512B", "0B"] {
            assert_eq!(Size::from_text(text).unwrap().show(), text);
        }
    }

    #[test]
    fn a_bare_address_is_a_network_of_one() {
        assert_eq!(IpNet::from_text("10.0.0.1").unwrap().to_string(), "10.0.0.1/32");
        assert_eq!(IpNet::from_text("::1").unwrap().to_string(), "::1/128");
        assert!(message::<IpNet>("10.0.0.1/8").contains("did you mean \"10.0.0.0/8\"?"));
        assert!(IpNet::from_text("10.0.0.0/33").is_err());
    }
}
