//! `[authentication.guard]`: what stands between passwords and those who guess them.
//!
//! On by default. What is switched off is warned of where passwords are checked.

use std::ops::Range;
use std::time::Duration;

use toml::Spanned;

use crate::config::problem::{Fault, Problems, quote};
use crate::config::raw;
use crate::config::throttle::Rate;
use crate::config::value::{Entry, Quantity, Written, unexpected, within};

/// Bounds of failed password attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// Of one client address; `None`: off.
    pub address: Option<Rate>,
    /// Of one client address for one username; `None`: off.
    pub address_and_user: Option<Rate>,
    /// How much longer an attempt waits for each failure of its username, after the first; `None`: off.
    pub user_delay: Option<Duration>,
}

const MINUTE: Duration = Duration::from_mins(1);

/// The longest `user_delay`, which is also the longest that any attempt waits.
pub const USER_DELAY_MAX: Duration = Duration::from_secs(30);

impl Default for Guard {
    fn default() -> Self {
        Self {
            address: Some(Rate { count: 20, period: MINUTE }),
            address_and_user: Some(Rate { count: 5, period: MINUTE }),
            user_delay: Some(Duration::from_secs(2)),
        }
    }
}

/// What is switched off: a name for it, and its place in the text.
pub(super) type SwitchedOff = Vec<(&'static str, Range<usize>)>;

impl Guard {
    pub(super) fn from_raw(raw: Option<Spanned<raw::Guard>>, problems: &mut Problems) -> (Self, SwitchedOff) {
        let Some(raw) = raw else { return (Self::default(), Vec::new()) };
        let span = raw.span();
        let table = match raw.into_inner() {
            raw::Guard::Off => {
                let off = Self { address: None, address_and_user: None, user_delay: None };
                return (off, vec![("guard", span)]);
            }
            raw::Guard::Table(table) => table,
        };
        let default = Self::default();
        let mut off = Vec::new();
        let mut rate = |key, entry: Option<Entry<GuardRate>>, default| {
            let Some(entry) = entry else { return default };
            if entry.value.0.is_none() {
                off.push((key, entry.span));
            }
            entry.value.0
        };
        let address = rate("address", table.address, default.address);
        let address_and_user = rate("address_and_user", table.address_and_user, default.address_and_user);
        let user_delay = match table.user_delay {
            Some(entry) if entry.value.0.is_none() => {
                off.push(("user_delay", entry.span));
                None
            }
            entry => {
                let range = GuardDelay(Some(Duration::from_millis(100)))..=GuardDelay(Some(USER_DELAY_MAX));
                within(entry.as_ref(), GuardDelay(default.user_delay), range, "user_delay", problems).0
            }
        };
        (Self { address, address_and_user, user_delay }, off)
    }
}

/// Notes what is switched off, if any route checks passwords.
pub(super) fn warn_of(off: &SwitchedOff, problems: &mut Problems) {
    for (key, span) in off {
        let fault = Fault::new(format!("{} is off: nothing slows guesses of passwords here", quote(key)));
        problems.warn(span, fault.help("leave the key out for the default"));
    }
}

/// A rate or `off`.
#[derive(Debug, Clone, Copy)]
pub(super) struct GuardRate(Option<Rate>);

impl Written for GuardRate {
    const EXPECTED: &'static str = "a rate such as \"20/min\", or \"off\"";
    const PATTERN: Option<&'static str> = Some("^([0-9]+/([shd][a-z]*|m([a-np-z][a-z]*)?)|off)$");

    fn from_text(text: &str) -> Result<Self, Fault> {
        let help = "a number from 1, a slash, and s, min, hour or day; or \"off\"";
        match Rate::from_text(text) {
            _ if text == "off" => Ok(Self(None)),
            Ok(rate) if rate.count > 0 => Ok(Self(Some(rate))),
            // A rate of none would let nobody log in.
            _ => Err(unexpected::<Self>(text).help(help)),
        }
    }
}

/// A duration or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GuardDelay(Option<Duration>);

impl Written for GuardDelay {
    const EXPECTED: &'static str = "a duration such as \"2s\", or \"off\"";
    const PATTERN: Option<&'static str> = Some("^([0-9]+(ms|s|m|h|d|w)|off)$");

    fn from_text(text: &str) -> Result<Self, Fault> {
        if text == "off" {
            return Ok(Self(None));
        }
        let delay = Duration::from_text(text).map(|delay| Self(Some(delay)));
        delay.map_err(|_| unexpected::<Self>(text).help("a whole number and ms or s; or \"off\""))
    }
}

impl Quantity for GuardDelay {
    fn show(self) -> String {
        self.0.map_or_else(|| "off".to_owned(), Quantity::show)
    }
}
