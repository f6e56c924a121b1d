//! Datetimes as Django's SQLite backend writes them: UTC, as text that sorts as time does.

use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time};

/// What Python's `datetime` can be, in seconds since 1970: the years 1 and 9999.
const FIRST: i64 = -62_135_596_800;
const LAST: i64 = 253_402_300_799;

/// `YYYY-MM-DD HH:MM:SS`, and `.ffffff` unless that is zero. What Python cannot say becomes the nearest that it can.
pub fn format_datetime(seconds: i64, microseconds: u32) -> String {
    let moment =
        OffsetDateTime::from_unix_timestamp(seconds.clamp(FIRST, LAST)).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (year, month, day) = moment.to_calendar_date();
    let (hour, minute, second) = moment.to_hms();
    let month = u8::from(month);
    let fraction = match microseconds.min(999_999) {
        0 => String::new(),
        microseconds => format!(".{microseconds:06}"),
    };
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}{fraction}")
}

/// Seconds since 1970 and microseconds of what Django reads (`django.utils.dateparse.parse_datetime`): also with `T`,
/// without seconds, and with an offset; without one it is UTC.
pub fn parse_datetime(text: &str) -> Option<(i64, u32)> {
    let (date, rest) = text.split_at_checked(10)?;
    let rest = rest.strip_prefix([' ', 'T'])?;
    let (clock, offset) = match rest.find(['Z', '+', '-']) {
        Some(place) => rest.split_at_checked(place)?,
        None => (rest, "Z"),
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let moment = PrimitiveDateTime::new(parse_date(date)?, parse_clock(clock)?);
    let seconds = moment.assume_utc().unix_timestamp() - parse_offset(offset.trim_start_matches(' '))?;
    Some((seconds, parse_fraction(fraction)?))
}

fn parse_date(text: &str) -> Option<Date> {
    let mut parts = text.split('-');
    let (year, month, day) =
        (digits(parts.next()?, 4)?, digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    let date = Date::from_calendar_date(i32::try_from(year).ok()?, month, u8::try_from(day).ok()?).ok()?;
    (parts.next().is_none() && year > 0).then_some(date)
}

/// `HH:MM` or `HH:MM:SS`
fn parse_clock(text: &str) -> Option<Time> {
    let mut parts = text.split(':');
    let mut part = |missing: Option<u8>| match parts.next() {
        Some(text) => digits(text, 2).and_then(|number| u8::try_from(number).ok()),
        None => missing,
    };
    let (hour, minute, second) = (part(None)?, part(None)?, part(Some(0))?);
    let time = Time::from_hms(hour, minute, second).ok()?;
    parts.next().is_none().then_some(time)
}

/// Microseconds; further digits are dropped.
fn parse_fraction(text: &str) -> Option<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let microseconds = format!("{text:0<6}").get(..6)?.parse().ok()?;
    is_number.then_some(microseconds)
}

/// `Z`, `+HH`, `+HHMM` or `+HH:MM`, in seconds.
fn parse_offset(text: &str) -> Option<i64> {
    if text == "Z" {
        return Some(0);
    }
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let (hours, minutes) = text.strip_prefix(['+', '-'])?.split_at_checked(2)?;
    let minutes = match minutes.strip_prefix(':').unwrap_or(minutes) {
        "" => 0,
        minutes => digits(minutes, 2)?,
    };
    Some(sign * (digits(hours, 2)? * 3600 + minutes * 60))
}

/// Exactly so many digits.
fn digits(text: &str, count: usize) -> Option<i64> {
    let is_number = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}
