//! A wait that makes a timer only if there is something to wait for.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// Time since the last progress, against a limit. Boxed and made on the first pause only; later ones move it, which
/// tokio does without a lock as long as it moves on.
#[derive(Debug, Default)]
pub(in crate::forward) struct Deadline {
    sleep: Option<Pin<Box<Sleep>>>,
    is_armed: bool,
}

impl Deadline {
    /// Something happened: the time starts anew with the next wait.
    pub(in crate::forward) fn progress(&mut self) {
        self.is_armed = false;
    }

    /// Ready once there was no progress for `limit`.
    pub(in crate::forward) fn poll(&mut self, limit: Duration, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = match &mut self.sleep {
            Some(sleep) if self.is_armed => sleep,
            Some(sleep) => {
                sleep.as_mut().reset(Instant::now() + limit);
                sleep
            }
            None => self.sleep.insert(Box::pin(tokio::time::sleep(limit))),
        };
        self.is_armed = true;
        sleep.as_mut().poll(cx)
    }
}
