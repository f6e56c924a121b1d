//! `traceparent`: which trace a request belongs to (W3C Trace Context, level 1, section 3.2).

use http::{HeaderMap, HeaderName, HeaderValue};
use std::num::{NonZeroU64, NonZeroU128};

/// `traceparent`
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// `tracestate`
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Section 3.2.2.2: of what a caller says in its flags, level 1 knows only that it records.
const SAMPLED: u8 = 1;

/// The caller's place in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace.
    pub trace_id: NonZeroU128,
    /// The caller's span.
    pub parent_id: NonZeroU64,
    /// The caller records.
    pub is_sampled: bool,
}

/// A `traceparent` that is none: whoever takes part begins a new trace (section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invalid;

impl TraceParent {
    /// What the fields of a request say; `None`: nothing.
    ///
    /// # Errors
    /// If it cannot be read, or is there twice.
    pub fn of(headers: &HeaderMap) -> Result<Option<Self>, Invalid> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => Self::parse(value.as_bytes()).map(Some).ok_or(Invalid),
            (Some(_), Some(_)) => Err(Invalid),
        }
    }

    /// Reads a value.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (version, rest) = field(value, 2)?;
        let (trace_id, rest) = field(rest, 32)?;
        let (parent_id, rest) = field(rest, 16)?;
        let (flags, rest) = rest.split_at_checked(2)?;
        let is_whole = match hex(version)? {
            0xff => false,
            0 => rest.is_empty(),
            // Section 3.3: of a later version what comes first is what it was, and more may follow.
            _ => rest.is_empty() || rest.starts_with(b"-"),
        };
        let flags = u8::try_from(hex(flags)?).ok()?;
        is_whole.then_some(Self {
            trace_id: NonZeroU128::new(hex(trace_id)?)?,
            parent_id: NonZeroU64::new(u64::try_from(hex(parent_id)?).ok()?)?,
            is_sampled: flags & SAMPLED != 0,
        })
    }

    /// As a value, of version 00.
    pub fn to_value(self) -> Option<HeaderValue> {
        let Self { trace_id, parent_id, is_sampled } = self;
        let text = format!("00-{trace_id:032x}-{parent_id:016x}-{:02x}", u8::from(is_sampled));
        HeaderValue::from_maybe_shared(text).ok()
    }
}

/// The first `length` bytes, and what follows the `-` behind them.
fn field(bytes: &[u8], length: usize) -> Option<(&[u8], &[u8])> {
    let (field, rest) = bytes.split_at_checked(length)?;
    Some((field, rest.strip_prefix(b"-")?))
}

/// Lower-case digits, at most 32.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number: u128, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_example_of_the_specification_is_read() {
        let read = TraceParent::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(read.trace_id.get(), 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!(read.parent_id.get(), 0x00f0_67aa_0ba9_02b7);
        assert!(read.is_sampled);
        assert_eq!(read.to_value().unwrap(), GOOD);
        let not = TraceParent::parse(GOOD.replace("-01", "-00").as_bytes()).unwrap();
        assert!(!not.is_sampled);
        // Flags that are not known yet.
        assert!(TraceParent::parse(GOOD.replace("-01", "-ff").as_bytes()).unwrap().is_sampled);
    }

    #[test]
    fn what_is_not_exactly_one_is_none() {
        for bad in [
            "",
            "00",
            GOOD.strip_prefix('0').unwrap(),
            GOOD.strip_suffix('1').unwrap(),
            &format!("{GOOD}-"),
            &format!("{GOOD} "),
            &format!("{GOOD}-00"),
            &GOOD.to_uppercase(),
            &GOOD.replace("00-4", "ff-4"),
            &GOOD.replace("00-4", "0g-4"),
            &GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &GOOD.replace("-01", "-0x"),
            &GOOD.replace("-01", "_01"),
            &GOOD.replace("4bf9", "+bf9"),
        ] {
            assert_eq!(TraceParent::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_later_version_may_say_more() {
        let later = GOOD.replace("00-4", "01-4");
        for good in [later.clone(), format!("{later}-"), format!("{later}-what-the-future-has")] {
            assert!(TraceParent::parse(good.as_bytes()).is_some(), "{good}");
        }
        assert_eq!(TraceParent::parse(format!("{later}x").as_bytes()), None);
    }

    #[test]
    fn two_are_none() {
        let mut headers = HeaderMap::new();
        assert_eq!(TraceParent::of(&headers), Ok(None));
        headers.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert!(TraceParent::of(&headers).unwrap().is_some());
        headers.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert_eq!(TraceParent::of(&headers), Err(Invalid));
    }

    proptest! {
        #[test]
        fn any_traceparent_is_read_without_panic(value in prop::collection::vec(any::<u8>(), 0..70)) {
            TraceParent::parse(&value);
        }

        #[test]
        fn what_is_written_is_read(trace_id in 1..u128::MAX, parent_id in 1..u64::MAX, is_sampled: bool) {
            let trace_id = NonZeroU128::new(trace_id).unwrap();
            let written = TraceParent { trace_id, parent_id: NonZeroU64::new(parent_id).unwrap(), is_sampled };
            prop_assert_eq!(TraceParent::parse(written.to_value().unwrap().as_bytes()), Some(written));
        }

        #[test]
        fn what_differs_in_a_byte_is_another_or_none(at in 0..55_usize, byte: u8) {
            let mut changed = GOOD.as_bytes().to_vec();
            prop_assume!(changed[at] != byte);
            changed[at] = byte;
            let read = TraceParent::parse(&changed);
            // But for the version and flags, which a caller may set as it likes.
            prop_assert!(read != TraceParent::parse(GOOD.as_bytes()) || !(2..=52).contains(&at));
        }
    }
}
