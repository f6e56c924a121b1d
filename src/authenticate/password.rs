//! Who checks a name and a password, for the schemes that are given one.
//!
//! A trait, because attempts are counted by a later stage, which knows of this one.

use crate::authenticate::scheme::TooManyAttempts;
use crate::secret::Secret;
use crate::store::{StoreError, UserWithPassword};
use std::fmt::Debug;
use std::net::IpAddr;
use std::pin::Pin;

/// Why a password was not checked.
#[derive(Debug, thiserror::Error)]
pub enum NotChecked {
    /// Too many attempts of this client failed.
    #[error("too many attempts failed")]
    TooMany(TooManyAttempts),
    /// Too many passwords wait to be checked.
    #[error("too many passwords wait to be checked")]
    Busy,
    /// The store could not be asked.
    #[error("the store could not be asked")]
    Store(#[source] Option<StoreError>),
}

/// The answer, some time later.
pub type Checking<'a> =
    Pin<Box<dyn Future<Output = Result<Option<UserWithPassword>, NotChecked>> + Send + 'a>>;

/// Checks passwords: counted before, delayed, and bounded.
pub trait CheckPassword: Debug + Send + Sync {
    /// Whose name and password these are, the user active or not. `None`: nobody's; wrong and unknown take the same
    /// time.
    fn check(&self, client: IpAddr, username: String, password: Secret) -> Checking<'_>;
}
