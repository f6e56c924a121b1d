//! What Django keeps in its tables, read and written as Django 5.2 does: signed sessions, the hash that ties a session
//! to a password, datetimes as text.
//!
//! Pure functions, without a store and without a clock. Sources: `django/core/signing.py`,
//! `django/contrib/sessions/backends/base.py`, `django/contrib/auth/base_user.py`, `django/utils/crypto.py`.

mod datetime;
mod keys;
mod session;
mod signing;

pub use datetime::{format_datetime, parse_datetime};
pub use keys::{Keys, Match};
pub use session::{Session, SessionExpiry, session_key};
pub use signing::{DECODED_BYTES_MAX, STORED_BYTES_MAX, decode, encode};

#[cfg(test)]
mod tests;
