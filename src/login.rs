//! Log in: whose name and password these are, for every place that is given one.
//!
//! An attempt is counted before anything is looked up, waits if the name has failed before, and is checked where nobody
//! whose credentials are known has to wait for it.

use crate::authenticate::password::{CheckPassword, Checking, NotChecked};
use crate::authenticate::scheme::TooManyAttempts;
use crate::authenticate::slow::{SlowError, SlowSide};
use crate::clock::Clock;
use crate::credentials::{Credentials, CredentialsError};
use crate::password::PasswordError;
use crate::secret::Secret;
use crate::store::UserWithPassword;
use crate::throttle::guard::Guard;
use crate::throttle::waiting::WaitingRoom;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Checks names and passwords.
#[derive(Debug)]
pub struct Logins {
    /// Checks passwords.
    pub credentials: Arc<Credentials>,
    /// Counts those that failed.
    pub guard: Arc<Guard>,
    /// When they did.
    pub clock: Arc<dyn Clock>,
    /// Where that happens.
    pub slow: SlowSide,
    /// Where those wait for their answer that came too often, or when too many came.
    pub too_many: Arc<WaitingRoom>,
}

/// How long they do, and up to as long again: those who were refused together must not come again together.
const TOO_MANY_TIME: Duration = Duration::from_millis(500);

impl Logins {
    /// Whose name and password these are, the user active or not. `None`: nobody's.
    ///
    /// # Errors
    /// If it was not checked.
    ///
    /// # Cancel safety
    /// When dropped, the attempt counts as failed, unless it was still waiting.
    pub async fn check_password(
        &self,
        client: IpAddr,
        username: String,
        password: Secret,
    ) -> Result<Option<UserWithPassword>, NotChecked> {
        let checked = self.attempt(client, username, password).await;
        if matches!(checked, Err(NotChecked::TooMany(_) | NotChecked::Busy)) {
            // Whoever comes again at once costs as much as many clients: a moment costs only those.
            self.too_many.wait(TOO_MANY_TIME + self.spread()).await;
        }
        checked
    }

    /// A part of [`TOO_MANY_TIME`]; the last bits of the time are as good as random.
    fn spread(&self) -> Duration {
        let [byte, ..] = (self.clock.monotonic().0 >> 4).to_le_bytes();
        TOO_MANY_TIME / 256 * u32::from(byte)
    }

    async fn attempt(
        &self,
        client: IpAddr,
        username: String,
        password: Secret,
    ) -> Result<Option<UserWithPassword>, NotChecked> {
        let attempt = self.guard.attempt(client, &username, self.clock.as_ref()).await;
        let mut attempt = attempt.map_err(|refused| {
            NotChecked::TooMany(TooManyAttempts { wait: refused.wait, by: refused.by() })
        })?;
        attempt.wait().await;
        let credentials = Arc::clone(&self.credentials);
        let checking = async move { credentials.check_password(&username, password).await };
        match self.slow.run(checking).await {
            Ok(found) if found.as_ref().is_some_and(|found| found.user.is_active) => {
                attempt.succeeded();
                Ok(found)
            }
            Ok(found) => {
                attempt.failed();
                Ok(found)
            }
            Err(error) => {
                attempt.not_checked();
                Err(not_checked(error))
            }
        }
    }
}

fn not_checked(error: SlowError<CredentialsError>) -> NotChecked {
    match error {
        SlowError::Busy | SlowError::Failed(CredentialsError::Password(PasswordError::Busy)) => {
            // The request's own line says so; in a flood a second one would only cost.
            NotChecked::Busy
        }
        SlowError::Failed(CredentialsError::Store(error)) => NotChecked::Store(Some(error)),
        error => {
            tracing::warn!(error = &error as &dyn std::error::Error, "a password could not be checked");
            NotChecked::Store(None)
        }
    }
}

impl CheckPassword for Logins {
    fn check(&self, client: IpAddr, username: String, password: Secret) -> Checking<'_> {
        Box::pin(self.check_password(client, username, password))
    }
}
