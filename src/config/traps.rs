//! What Django REST Framework does and clients stumble over: options that mend it, each off by default.
//!
//! They stand in `[authentication]` for all routes and in a route for that one.

use serde_json::{Value, json};

use crate::config::problem::Fault;
use crate::config::raw;
use crate::config::value::{Entry, Written, one_of, unexpected};

/// What becomes of wrong credentials where none are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BadCredentials {
    /// They are refused, as DRF does: a stale token locks a client out of what everybody may see.
    #[default]
    Refuse,
    /// The request passes as anonymous.
    Ignore,
}

/// The status for a request without credentials, instead of the one that the route's first scheme decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unauthenticated {
    /// 401, also where the first scheme has no challenge and DRF would answer 403.
    Unauthorized,
}

/// What becomes of CORS preflights, which browsers send without credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Preflight {
    /// They are requests like others.
    #[default]
    Refuse,
    /// They reach the upstream without credentials.
    Pass,
}

impl Written for BadCredentials {
    const EXPECTED: &'static str = "\"refuse\" or \"ignore\"";
    const WORDS: &'static [(&'static str, Self)] = &[("refuse", Self::Refuse), ("ignore", Self::Ignore)];

    fn from_text(text: &str) -> Result<Self, Fault> {
        one_of(text)
    }
}

impl Written for Preflight {
    const EXPECTED: &'static str = "\"refuse\" or \"pass\"";
    const WORDS: &'static [(&'static str, Self)] = &[("refuse", Self::Refuse), ("pass", Self::Pass)];

    fn from_text(text: &str) -> Result<Self, Fault> {
        one_of(text)
    }
}

impl Written for Unauthenticated {
    const EXPECTED: &'static str = "the status 401";

    fn from_text(text: &str) -> Result<Self, Fault> {
        let fault = unexpected::<Self>(text);
        Err(if text == "401" { fault.help("write it without quotes") } else { fault.help(ONLY_401) })
    }

    fn from_integer(integer: i64) -> Result<Self, Fault> {
        match integer {
            401 => Ok(Self::Unauthorized),
            other => Err(unexpected::<Self>(&other.to_string()).help(ONLY_401)),
        }
    }

    fn schema() -> Value {
        json!({ "type": "integer", "const": 401, "description": Self::EXPECTED })
    }
}

const ONLY_401: &str = "or leave the key out: the first scheme of the route decides between 401 and 403";

/// These options of one route.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Traps {
    pub(super) explicit_credentials_first: bool,
    pub(super) bad_credentials_on_public: BadCredentials,
    pub(super) unauthenticated_status: Option<Unauthenticated>,
    pub(super) preflight: Preflight,
}

impl Traps {
    /// Of `[authentication]`.
    pub(super) fn of_all(raw: &raw::Authentication) -> Self {
        let default = Self::default();
        Self {
            explicit_credentials_first: or(
                raw.explicit_credentials_first.as_ref(),
                default.explicit_credentials_first,
            ),
            bad_credentials_on_public: or(
                raw.bad_credentials_on_public.as_ref(),
                default.bad_credentials_on_public,
            ),
            unauthenticated_status: raw.unauthenticated_status.as_ref().map(|entry| entry.value),
            preflight: or(raw.preflight.as_ref(), default.preflight),
        }
    }

    /// Of one route; what it leaves out is that of all.
    pub(super) fn of_route(self, raw: &raw::Route) -> Self {
        let status = raw.unauthenticated_status.as_ref().map(|entry| entry.value);
        Self {
            explicit_credentials_first: or(
                raw.explicit_credentials_first.as_ref(),
                self.explicit_credentials_first,
            ),
            bad_credentials_on_public: or(
                raw.bad_credentials_on_public.as_ref(),
                self.bad_credentials_on_public,
            ),
            unauthenticated_status: status.or(self.unauthenticated_status),
            preflight: or(raw.preflight.as_ref(), self.preflight),
        }
    }
}

fn or<T: Copy>(entry: Option<&Entry<T>>, default: T) -> T {
    entry.map_or(default, |entry| entry.value)
}
