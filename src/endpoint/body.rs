//! Whole bodies, for handlers: bounded in size by the route, and in time.

use crate::accept::body::{BodyError, RequestBody};
use crate::secret::Secret;
use crate::throttle::waiting::WaitingRoom;
use std::sync::Arc;
use std::time::Duration;

/// Reads bodies.
#[derive(Debug, Clone)]
pub struct BodyReader {
    /// Longest time for a body to come.
    pub time_max: Duration,
    /// Where bodies wait for the rest of them, of all routes together: each is kept in memory meanwhile, and one client
    /// may send tens of thousands at a time. A whole one comes at once, so it is the slowest that has to go.
    pub room: Arc<WaitingRoom>,
}

/// Why there is no whole body.
#[derive(Debug, thiserror::Error)]
pub enum NotRead {
    /// It broke off, or is too large.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// It took too long.
    #[error("the body took too long")]
    Late,
}

impl BodyReader {
    /// The whole body; what does not come whole is drained as other refused bodies are.
    ///
    /// # Errors
    /// If it breaks off, is too large, or takes too long.
    pub async fn collect(&self, mut body: RequestBody) -> Result<Secret, NotRead> {
        let collected = tokio::select! {
            biased;
            collected = body.collect_all() => collected.map_err(NotRead::Body),
            () = self.room.wait(self.time_max) => Err(NotRead::Late),
        };
        let refused = match collected {
            Ok(bytes) => return Ok(Secret::new(bytes)),
            Err(refused) => refused,
        };
        body.drain();
        Err(refused)
    }
}
