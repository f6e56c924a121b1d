//! Tokens that came in clear: whoever is on the way may have read them, so the log names them, and they can be
//! revoked.
//!
//! Nobody waits for that: the refusal is sent at once. Whoever knows a token can have it revoked by sending it in
//! clear, and who does not know it cannot.

use crate::accept::head::RequestId;
use crate::authenticate::scheme::{Exposed, Naming, NobodyKnows, Scheme};
use crate::config::OnExposedToken;
use crate::credentials::{Credentials, CredentialsError};
use crate::identity::CredentialId;
use http::HeaderMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

/// Tokens that are looked up or revoked at a time: with more, requests that came by HTTPS would wait for the store
/// behind those that did not.
pub const PENDING_MAX: usize = 64;
/// Tokens of one request that are named: nobody has a use for more, and each takes a place from others.
const NAMED_MAX: usize = 8;
/// Longest time for one: a look-up, and a write behind another process.
const TIME_MAX: Duration = Duration::from_secs(30);

/// What becomes of them.
#[derive(Debug)]
pub struct ExposedTokens {
    /// Every instance of the configuration, whatever the route.
    pub schemes: Vec<Arc<dyn Scheme>>,
    /// Revokes.
    pub credentials: Arc<Credentials>,
    /// Whether it does.
    pub reaction: OnExposedToken,
    /// Where that happens.
    pub runtime: Handle,
    /// Waits for those under way when the process stops.
    pub tasks: TaskTracker,
    /// Bounds those under way.
    pub places: Arc<Semaphore>,
}

/// Why a token is not named.
#[derive(Debug, thiserror::Error)]
enum NotNamed {
    #[error(transparent)]
    NobodyKnows(#[from] NobodyKnows),
    #[error("it took too long")]
    Late,
}

impl ExposedTokens {
    /// Names the tokens of a request that came in clear; does not wait.
    pub(in crate::require_https) fn report(
        &self,
        headers: &HeaderMap,
        client: IpAddr,
        request_id: RequestId,
    ) {
        for naming in self.schemes.iter().flat_map(|scheme| scheme.exposed(headers)).take(NAMED_MAX) {
            self.report_one(naming, client, request_id);
        }
    }

    fn report_one(&self, naming: Naming, client: IpAddr, request_id: RequestId) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            tracing::warn!(
                client.address = %client,
                request.id = request_id.as_str(),
                "token exposed on plain HTTP, and not looked up: too many are"
            );
            return;
        };
        let report = Report { client, request_id, revokes: self.revokes() };
        self.tasks.spawn_on(
            async move {
                report.write(naming).await;
                drop(place);
            },
            &self.runtime,
        );
    }

    fn revokes(&self) -> Option<Arc<Credentials>> {
        (self.reaction == OnExposedToken::Revoke).then(|| Arc::clone(&self.credentials))
    }
}

/// One token on its way to the log.
struct Report {
    client: IpAddr,
    request_id: RequestId,
    /// `None`: it is not to be revoked.
    revokes: Option<Arc<Credentials>>,
}

impl Report {
    async fn write(self, naming: Naming) {
        let named = tokio::time::timeout(TIME_MAX, naming).await;
        match named.map_err(|_| NotNamed::Late).and_then(|named| Ok(named?)) {
            Ok(Exposed::Known(id)) => {
                self.tell(id, true);
                if let Some(credentials) = &self.revokes {
                    self.revoked(id, credentials.revoke_token(id)).await;
                }
            }
            Ok(Exposed::Key(id, key)) => {
                self.tell(id, true);
                if let Some(credentials) = &self.revokes {
                    self.revoked(id, async { credentials.revoke_key(&key).await.map(drop) }).await;
                }
            }
            Ok(Exposed::Unknown(id)) => self.tell(id, false),
            Err(error) => tracing::error!(
                client.address = %self.client,
                request.id = self.request_id.as_str(),
                error = &error as &dyn std::error::Error,
                "token exposed on plain HTTP, and nobody knows which"
            ),
        }
    }

    fn tell(&self, id: CredentialId, is_known: bool) {
        tracing::warn!(
            client.address = %self.client,
            request.id = self.request_id.as_str(),
            credential.id = %id,
            credential.known = is_known,
            "token exposed on plain HTTP"
        );
    }

    async fn revoked(
        &self,
        id: CredentialId,
        act: impl Future<Output = Result<(), CredentialsError>> + Send,
    ) {
        let request_id = self.request_id.as_str();
        match tokio::time::timeout(TIME_MAX, act).await {
            // Sent twice, or revoked by somebody else meanwhile.
            Ok(Ok(()) | Err(CredentialsError::NoSuchToken)) => {
                tracing::warn!(request.id = request_id, credential.id = %id, "exposed token revoked");
            }
            Ok(Err(error)) => tracing::error!(
                request.id = request_id,
                credential.id = %id,
                error = &error as &dyn std::error::Error,
                "exposed token NOT revoked: revoke it by hand"
            ),
            Err(_) => tracing::error!(
                request.id = request_id,
                credential.id = %id,
                "exposed token perhaps not revoked: the store takes too long"
            ),
        }
    }
}
