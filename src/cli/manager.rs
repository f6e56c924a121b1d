//! What the service manager is told of the process (`sd_notify(3)`); nobody is told if there is none.
//!
//! It waits with what comes after doorward until doorward serves, shows the status, and knows a reload and a stop from
//! a failure.

use sd_notify::NotifyState;

/// What becomes of the process.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) enum Moment {
    /// It serves.
    Serving,
    /// The configuration is being read anew.
    Reloading,
    /// It was read.
    Reloaded(Outcome),
    /// Requests under way are finished.
    Stopping,
}

/// What became of a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Outcome {
    /// The new configuration is in place.
    Taken,
    /// The old one stays.
    Refused,
}

/// Tells the service manager.
pub(in crate::cli) fn tell(moment: Moment) {
    let told = match moment {
        Moment::Serving => sd_notify::notify(&[NotifyState::Ready, NotifyState::Status("serving")]),
        // Type=notify-reload wants to know when, so that it never takes the end of one reload for that of the next.
        Moment::Reloading => NotifyState::monotonic_usec_now().and_then(|now| {
            sd_notify::notify(&[
                NotifyState::Reloading,
                now,
                NotifyState::Status("reading the configuration"),
            ])
        }),
        Moment::Reloaded(outcome) => {
            let status = match outcome {
                Outcome::Taken => "serving; the configuration was reloaded",
                Outcome::Refused => "serving by the old configuration: the new one was refused, see the log",
            };
            // A refusal is no failure: the service goes on as it was.
            sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(status)])
        }
        Moment::Stopping => {
            let status = NotifyState::Status("finishing the requests under way");
            sd_notify::notify(&[NotifyState::Stopping, status])
        }
    };
    if let Err(error) = told {
        tracing::warn!(%error, "the service manager cannot be told (NOTIFY_SOCKET)");
    }
}
