//! `[throttles.NAME]`: how often something may be done, and by whom it is counted.
//!
//! Rates are written as Django REST Framework writes them. Routes refer to throttles by index: after this module no
//! name is looked up again.

use std::collections::BTreeSet;
use std::time::Duration;

use toml::Spanned;

use crate::config::problem::{Fault, Problems, quote, quote_all};
use crate::config::raw;
use crate::config::route::Route;
use crate::config::suggest;
use crate::config::value::{Entry, List, Written, check_name, one_of, unexpected};

/// A rate under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Throttle {
    /// What routes call it; its counters are kept under this name.
    pub name: String,
    /// How often.
    pub rate: Rate,
    /// Whose requests are counted together.
    pub by: ThrottleBy,
    /// Whether all replicas count together, in Redis; otherwise each process counts for itself.
    pub shared: bool,
}

/// So many in each period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many; 0: none at all.
    pub count: u32,
    /// A second, a minute, an hour or a day.
    pub period: Duration,
}

/// Whose requests are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ThrottleBy {
    /// Those of one client address. Where a forwarded route lets anonymous requests pass, good credentials are free.
    #[default]
    Client,
    /// Those of one user; of anonymous clients, of one address (DRF's `UserRateThrottle`).
    User,
    /// Those with one credential; of anonymous clients, of one address.
    Token,
    /// All requests of the route.
    Route,
    /// Those of one client address without credentials; good credentials are free (DRF's `AnonRateThrottle`).
    Anonymous,
}

impl ThrottleBy {
    /// Whether client addresses are keys.
    pub fn uses_addresses(self) -> bool {
        self != Self::Route
    }
}

/// Throttles of one route at most: each is a look-up on every request.
pub const THROTTLES_OF_ROUTE_MAX: usize = 16;

/// The largest number of a rate that replicas can share: the time of each request is kept.
pub const SHARED_COUNT_MAX: u32 = 1000;

/// The largest number of a rate.
const RATE_COUNT_MAX: u32 = 1_000_000;

impl Written for Rate {
    const EXPECTED: &'static str = "a rate such as \"100/min\"";
    const PATTERN: Option<&'static str> = Some("^[0-9]+/([shd][a-z]*|m([a-np-z][a-z]*)?)$");

    fn from_text(text: &str) -> Result<Self, Fault> {
        let refuse = || unexpected::<Self>(text).help("a whole number, a slash, and s, min, hour or day");
        let (digits, period) = text.split_once('/').ok_or_else(refuse)?;
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let is_word = period.bytes().all(|byte| byte.is_ascii_lowercase());
        // DRF would take a month for a minute.
        if !is_number || !is_word || period.starts_with("mo") {
            return Err(refuse());
        }
        // DRF 3.18, `SimpleRateThrottle.parse_rate`: the first letter of the period counts.
        let seconds = match period.bytes().next() {
            Some(b's') => 1,
            Some(b'm') => 60,
            Some(b'h') => 60 * 60,
            Some(b'd') => 24 * 60 * 60,
            _ => return Err(refuse()),
        };
        let count = digits.parse().ok().filter(|count| *count <= RATE_COUNT_MAX);
        let count =
            count.ok_or_else(|| unexpected::<Self>(text).help(format!("{RATE_COUNT_MAX} at most")))?;
        Ok(Self { count, period: Duration::from_secs(seconds) })
    }
}

impl Written for ThrottleBy {
    const EXPECTED: &'static str = "what to count by, such as \"client\"";
    const WORDS: &'static [(&'static str, Self)] = &[
        ("client", Self::Client),
        ("user", Self::User),
        ("token", Self::Token),
        ("route", Self::Route),
        ("anonymous", Self::Anonymous),
    ];

    fn from_text(text: &str) -> Result<Self, Fault> {
        one_of(text)
    }
}

impl Throttle {
    pub(super) fn from_raw(name: &Spanned<String>, raw: raw::Throttle, problems: &mut Problems) -> Self {
        check_name(name, "a throttle", problems);
        let name_text = name.get_ref().as_str();
        if raw.rate.is_none() && !problems.is_lost(&["throttles", name_text]) {
            let fault = Fault::new(format!("throttle {} has no `rate`", quote(name_text)));
            problems.error(&name.span(), fault.help("write rate = \"100/min\""));
        }
        // What is missing has been reported, so the file is not used.
        let none = Rate { count: 0, period: Duration::from_secs(1) };
        Self {
            name: name_text.to_owned(),
            rate: raw.rate.map_or(none, |rate| rate.value),
            by: raw.by.map(|by| by.value).unwrap_or_default(),
            // Decided when the routes are known.
            shared: false,
        }
    }
}

/// What the file says of `shared`, in the order of the throttles.
pub(super) type Shared = Vec<Option<Entry<bool>>>;

/// Decides which throttles are shared. By default those that logins alone are counted by, where there is a Redis: each
/// request that they count costs a question to it.
pub(super) fn share(
    throttles: &mut [Throttle],
    written: &Shared,
    routes: &[Route],
    has_redis: bool,
    problems: &mut Problems,
) {
    for (index, (throttle, written)) in throttles.iter_mut().zip(written).enumerate() {
        let is_small = throttle.rate.count <= SHARED_COUNT_MAX;
        let Some(written) = written else {
            let mut users = routes.iter().filter(|route| route.throttles.contains(&index)).peekable();
            let is_used = users.peek().is_some();
            throttle.shared = has_redis && is_small && is_used && users.all(Route::logs_in);
            continue;
        };
        throttle.shared = written.value;
        if written.value && !has_redis {
            let fault = Fault::new("`shared` needs a Redis, where replicas count together");
            problems.error(&written.span, fault.help("add [redis] with its `url`, or write shared = false"));
        } else if written.value && !is_small {
            let fault = Fault::new(format!("a rate of more than {SHARED_COUNT_MAX} cannot be shared"));
            let help = "the time of each request is kept: write a smaller rate of a shorter period, or shared = false";
            problems.error(&written.span, fault.help(help));
        }
    }
}

/// Looks the names of a route up; notes the ones that are not there.
pub(super) fn throttle_indices(
    names: &List<String>,
    throttles: &[Throttle],
    problems: &mut Problems,
) -> Vec<usize> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    if names.get_ref().len() > THROTTLES_OF_ROUTE_MAX {
        let message = format!("a route has at most {THROTTLES_OF_ROUTE_MAX} throttles");
        problems.error(&names.span(), Fault::new(message));
        return found;
    }
    for name in names.get_ref() {
        match throttles.iter().position(|throttle| throttle.name == name.value) {
            Some(index) if seen.insert(index) => found.push(index),
            Some(_) => {
                let fault = Fault::new(format!("throttle {} is listed twice", quote(&name.value)));
                problems.error(&name.span, fault);
            }
            None if problems.is_full() || problems.is_lost(&["throttles", &name.value]) => {}
            None => {
                let known = || throttles.iter().map(|throttle| throttle.name.as_str());
                let help = suggest::did_you_mean(&name.value, known());
                let help = help.unwrap_or_else(|| match known().next() {
                    Some(_) => format!("known here are {}", quote_all(known())),
                    None => "define it: [throttles.NAME] with rate = \"100/min\"".to_owned(),
                });
                let fault = Fault::new(format!("there is no throttle {}", quote(&name.value)));
                problems.error(&name.span, fault.help(help));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_drf() {
        for (text, count, seconds) in [
            ("5/min", 5, 60),
            ("1000/day", 1000, 86_400),
            ("3/s", 3, 1),
            ("7/hour", 7, 3600),
            ("0/m", 0, 60),
            ("1000000/second", 1_000_000, 1),
        ] {
            let rate = Rate { count, period: Duration::from_secs(seconds) };
            assert_eq!(Rate::from_text(text).unwrap(), rate, "{text}");
        }
        for text in
            ["", "5", "/min", "5/", "-1/s", "+1/s", "5 / min", "5/10s", "5/week", "5/month", "5/Min", "1.5/s"]
        {
            let fault = Rate::from_text(text).unwrap_err().to_string();
            assert!(fault.contains("a slash"), "{text}: {fault}");
        }
        assert!(Rate::from_text("1000001/s").unwrap_err().to_string().contains("1000000 at most"));
        assert!(Rate::from_text("99999999999/s").is_err());
    }
}
