//! Protection from forged requests as Django 5.2's `CsrfViewMiddleware` gives it, and as DRF 3.18's
//! `SessionAuthentication.enforce_csrf` demands it of whoever comes with a session.
//!
//! Pure functions, no I/O, no panics. In Django's order, since the order decides which text a client reads:
//!
//! 1. nothing, if the method [is safe](is_safe);
//! 2. [`Settings::check_source`]: `Origin`, or `Referer` over HTTPS;
//! 3. [`Settings::check_cookie`]: the secret; it says whether the body is needed;
//! 4. [`form::token`], if it is: the token of the form;
//! 5. [`Expected::check_token`]: that token, or else the header's.

pub mod form;
mod reason;
mod settings;
mod source;
mod token;
mod url;

#[cfg(test)]
mod tests;

pub use reason::{Fault, Reason};
pub use settings::{Settings, TrustedOrigin, TrustedOriginError};
pub use source::Source;
pub use token::{CsrfSecret, Expected, NextStep, RANDOM_BYTES};

use http::Method;

/// Whether requests of this method are not checked (RFC 9110 section 9.2.1); unknown methods are.
pub fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
}

/// As WSGI reads a field: a byte is a character of ISO 8859-1.
fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}
