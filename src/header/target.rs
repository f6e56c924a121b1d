//! One reading of the request target (RFC 3986 section 6.2.2), used for the decision AND for forwarding.
//!
//! What two parsers could read differently is refused: encoded slashes and backslashes, controls, bad escapes,
//! double encoding, overlong UTF-8, dot segments behind `;`. What can be brought into one form is: dot segments
//! are removed, empty segments merged, unreserved characters decoded, escapes in upper case. Where a lax backend
//! might still see another path (it cuts `;parameters` off, or drops blanks), [`Target::readings`] yields that
//! path too, and the router asks that all of them lead to the same route.

use http::uri::PathAndQuery;

/// Path and query of a request, in normal form.
#[derive(Debug, Clone)]
pub struct Target {
    original: PathAndQuery,
    normal: Option<Box<str>>,
    has_other_readings: bool,
}

/// Why a target is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Not a path that begins with `/`.
    #[error("the target is not a path")]
    NotAPath,
    /// `%` without two hex digits.
    #[error("bad percent-encoding")]
    BadEscape,
    /// `%25` before two hex digits: another decoding would give another path.
    #[error("double percent-encoding")]
    DoubleEncoding,
    /// `%2F` or `%5C`, or a backslash.
    #[error("encoded slash or backslash")]
    EncodedSlash,
    /// A control, encoded or not.
    #[error("control character")]
    Control,
    /// Bytes that a lax decoder takes for another character (RFC 3629 section 10).
    #[error("overlong UTF-8")]
    Overlong,
    /// A dot segment that hides behind parameters or blanks.
    #[error("hidden dot segment")]
    HiddenDots,
}

impl Target {
    /// Reads a target.
    ///
    /// # Errors
    /// If it has more than one reading, or none.
    pub fn parse(original: PathAndQuery) -> Result<Self, TargetError> {
        let path = original.path();
        if !path.starts_with('/') {
            return Err(TargetError::NotAPath);
        }
        if is_plain(path) {
            return Ok(Self { original, normal: None, has_other_readings: false });
        }
        let normal = normalise(path)?;
        let has_other_readings = other_readings(&normal).next().is_some();
        let is_changed = normal != path;
        Ok(Self { normal: is_changed.then(|| normal.into()), original, has_other_readings })
    }

    /// The path in normal form; begins with `/`.
    pub fn path(&self) -> &str {
        self.normal.as_deref().unwrap_or_else(|| self.original.path())
    }

    /// The query as the client sent it, without `?`.
    pub fn query(&self) -> Option<&str> {
        self.original.query()
    }

    /// Path and query as the client sent them; begins with `/`.
    pub fn original(&self) -> &str {
        self.original.as_str()
    }

    /// Bytes of path and query as the client sent them.
    pub fn original_bytes(&self) -> usize {
        self.original.as_str().len()
    }

    /// Other paths that a lax backend could take this one for; mostly none.
    pub fn readings(&self) -> impl Iterator<Item = String> {
        self.has_other_readings.then(|| other_readings(self.path())).into_iter().flatten()
    }
}

/// Whether the path is in normal form already and has one reading; most are.
fn is_plain(path: &str) -> bool {
    let mut previous = 0;
    path.bytes().all(|byte| {
        let plain = is_path_byte(byte) && byte != b';' && !(previous == b'/' && matches!(byte, b'/' | b'.'));
        previous = byte;
        plain
    })
}

/// RFC 3986 section 3.3: `pchar` without `%`, and the slash.
fn is_path_byte(byte: u8) -> bool {
    is_unreserved(byte) || matches!(byte, b'!' | b'$' | b'&'..=b',' | b';' | b'=' | b':' | b'@' | b'/')
}

/// RFC 3986 section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn normalise(path: &str) -> Result<String, TargetError> {
    let decoded = decode(path)?;
    if is_overlong(&decoded.raw) {
        return Err(TargetError::Overlong);
    }
    let mut segments: Vec<&str> = Vec::new();
    let mut is_folder = false;
    for segment in decoded.normal.split('/').skip(1) {
        is_folder = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            // RFC 3986 section 5.2.4: above the root is the root.
            ".." => {
                segments.pop();
            }
            hidden if is_hidden_dots(hidden) => return Err(TargetError::HiddenDots),
            segment => segments.push(segment),
        }
    }
    let mut normal = String::with_capacity(decoded.normal.len());
    for segment in &segments {
        normal.push('/');
        normal.push_str(segment);
    }
    if is_folder || segments.is_empty() {
        normal.push('/');
    }
    Ok(normal)
}

/// A path once decoded.
struct Decoded {
    /// In normal form but for its segments.
    normal: String,
    /// As a backend sees it.
    raw: Vec<u8>,
}

fn decode(path: &str) -> Result<Decoded, TargetError> {
    let mut normal = String::with_capacity(path.len());
    let mut raw = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        let (value, is_escaped) = if byte == b'%' {
            let high = bytes.next().and_then(hex_value);
            let low = bytes.next().and_then(hex_value);
            let (Some(high), Some(low)) = (high, low) else { return Err(TargetError::BadEscape) };
            (high << 4 | low, true)
        } else {
            (byte, false)
        };
        raw.push(value);
        match value {
            b'/' if is_escaped => return Err(TargetError::EncodedSlash),
            b'\\' => return Err(TargetError::EncodedSlash),
            0..=0x1f | 0x7f => return Err(TargetError::Control),
            _ if is_unreserved(value) || (!is_escaped && is_path_byte(value)) => {
                normal.push(char::from(value));
            }
            // Reserved characters keep their encoding: RFC 3986 section 2.2.
            _ => push_escape(value, &mut normal),
        }
    }
    if is_doubly_encoded(&normal) {
        return Err(TargetError::DoubleEncoding);
    }
    Ok(Decoded { normal, raw })
}

/// Whether another decoding would decode more. Looked for in the result: the digits may have been encoded apart.
fn is_doubly_encoded(normal: &str) -> bool {
    let is_hex = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
    normal.match_indices("%25").any(|(place, _)| {
        let rest = normal.as_bytes().get(place + 3..).unwrap_or_default();
        is_hex(rest.first()) && is_hex(rest.get(1))
    })
}

fn hex_value(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

fn push_escape(byte: u8, out: &mut String) {
    out.push('%');
    for nibble in [byte >> 4, byte & 15] {
        out.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0').to_ascii_uppercase());
    }
}

/// RFC 3629 section 3: forms longer than needed, which lax decoders read as an ASCII character.
fn is_overlong(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|pair| {
        matches!(
            pair,
            [0xc0 | 0xc1, _] | [0xe0, 0x80..=0x9f] | [0xf0, 0x80..=0x8f] | [0xf8..=0xff, 0x80..=0xbf]
        )
    })
}

/// `..;x`, `.%20.` and their kin: a dot segment for those who cut parameters off or drop blanks.
fn is_hidden_dots(segment: &str) -> bool {
    let cut = without_parameters(segment).replace("%20", "");
    matches!(cut.as_str(), "." | "..")
}

/// The part before `;`, encoded or not.
fn without_parameters(segment: &str) -> &str {
    let end = [segment.find(';'), segment.find("%3B")].into_iter().flatten().min().unwrap_or(segment.len());
    segment.get(..end).unwrap_or(segment)
}

/// Paths that differ from this one once parameters are cut off or blanks dropped.
fn other_readings(path: &str) -> impl Iterator<Item = String> {
    let cut = |path: &str| {
        let segments: Vec<_> = path.split('/').map(without_parameters).collect();
        merge_slashes(&segments.join("/"))
    };
    let parameters_cut = cut(path);
    let blanks_dropped = merge_slashes(&path.replace("%20", ""));
    let both = cut(&blanks_dropped);
    let path = path.to_owned();
    [parameters_cut, blanks_dropped, both].into_iter().filter(move |reading| *reading != path)
}

fn merge_slashes(path: &str) -> String {
    let mut merged = String::with_capacity(path.len());
    for character in path.chars() {
        if !(character == '/' && merged.ends_with('/')) {
            merged.push(character);
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<String, TargetError> {
        let target = Target::parse(text.parse().unwrap())?;
        Ok(target.path().to_owned())
    }

    #[test]
    fn plain_paths_stay_as_they_are() {
        for path in ["/", "/a", "/a/", "/a/b.c/~d", "/a:b@c/(x)!$&'*+,=", "/%7Bx%7D", "/%E4%BD%A0"] {
            assert_eq!(parse(path).as_deref(), Ok(path));
        }
    }

    #[test]
    fn paths_are_brought_into_normal_form() {
        for (given, normal) in [
            ("/a/../b", "/b"),
            ("/a/./b", "/a/b"),
            ("/../../b", "/b"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("//a///b", "/a/b"),
            ("/%61%2e%2E/b", "/a../b"),
            ("/x/%2e%2E/b", "/b"),
            ("/%e4", "/%E4"),
            ("/a%7eb", "/a~b"),
            ("/a..b/...", "/a..b/..."),
            // Latin-1, as old sites have it.
            ("/caf%e9", "/caf%E9"),
        ] {
            assert_eq!(parse(given).as_deref(), Ok(normal), "{given}");
        }
    }

    #[test]
    fn ambiguous_paths_are_refused() {
        for (given, error) in [
            ("/a%2fb", TargetError::EncodedSlash),
            ("/a%5cb", TargetError::EncodedSlash),
            ("/a\\b", TargetError::EncodedSlash),
            ("/a%00", TargetError::Control),
            ("/a%7f", TargetError::Control),
            ("/a%0d%0a", TargetError::Control),
            ("/a%", TargetError::BadEscape),
            ("/a%4", TargetError::BadEscape),
            ("/a%zz", TargetError::BadEscape),
            ("/%252e%252e/b", TargetError::DoubleEncoding),
            ("/..%25%32%66b", TargetError::DoubleEncoding),
            ("/p%25%372otected", TargetError::DoubleEncoding),
            ("/%25%32%65%25%32%65/b", TargetError::DoubleEncoding),
            ("/%c0%af", TargetError::Overlong),
            ("/%e0%80%af", TargetError::Overlong),
            ("/a/..;x/b", TargetError::HiddenDots),
            ("/a/..%3bx/b", TargetError::HiddenDots),
            ("/a/.%20./b", TargetError::HiddenDots),
            ("*", TargetError::NotAPath),
        ] {
            assert_eq!(parse(given), Err(error), "{given}");
        }
    }

    #[test]
    fn a_hundred_percent_is_not_double_encoding() {
        assert_eq!(parse("/100%25").as_deref(), Ok("/100%25"));
        assert_eq!(parse("/100%25x1").as_deref(), Ok("/100%25x1"));
    }

    #[test]
    fn query_is_left_alone() {
        let target = Target::parse("/a/../b?x=%2f&y=..".parse().unwrap()).unwrap();
        assert_eq!((target.path(), target.query()), ("/b", Some("x=%2f&y=..")));
    }

    #[test]
    fn lax_readings_are_told() {
        let readings =
            |text: &str| Target::parse(text.parse().unwrap()).unwrap().readings().collect::<Vec<_>>();
        assert!(readings("/a/b").is_empty());
        assert!(readings("/a;x=1/b").contains(&"/a/b".to_owned()));
        assert!(readings("/a%3Bx/b").contains(&"/a/b".to_owned()));
        assert!(readings("/pro%20tected/x").contains(&"/protected/x".to_owned()));
        assert!(readings("/;x/protected").contains(&"/protected".to_owned()));
    }

    proptest! {
        #[test]
        fn normal_form_is_stable(path in "/([a-zA-Z0-9./;~-]|%25|%2[0-9a-e]|%3[0-9]|%[46][0-9]){0,20}") {
            if let Ok(given) = path.parse::<PathAndQuery>()
                && let Ok(target) = Target::parse(given)
            {
                let again = Target::parse(target.path().parse().unwrap());
                prop_assert_eq!(again.map(|t| t.path().to_owned()), Ok(target.path().to_owned()));
            }
        }

        #[test]
        fn no_dot_segment_survives(path in "(/(\\.|%2e|%2E|a|;|%20){0,4}){1,6}") {
            if let Ok(target) = Target::parse(path.parse().unwrap()) {
                for reading in target.readings().chain([target.path().to_owned()]) {
                    let has_dots = reading.split('/').any(|s| s == "." || s == "..");
                    prop_assert!(!has_dots, "{}", reading);
                }
            }
        }

        #[test]
        fn any_target_is_read_without_panic(bytes: Vec<u8>) {
            if let Ok(given) = PathAndQuery::try_from(bytes) {
                drop(Target::parse(given));
            }
        }
    }
}
