//! Throttle: the last stage before a request costs an upstream anything.
//!
//! No rates can be configured yet, so every permitted request is admitted; the proof that the stage was passed is
//! what the following stages are built on.

use crate::authenticate::scheme::Identity;
use crate::authorize::Permit;
use crate::trace::{ThrottleState, Trace};

/// Proof that the request is within all rates. Made only here.
#[must_use]
#[derive(Debug)]
pub struct Admitted {
    permit: Permit,
}

impl Admitted {
    /// Who; `None`: anonymous.
    pub fn identity(&self) -> Option<&Identity> {
        self.permit.identity()
    }
}

/// Admits a permitted request.
pub fn admit(permit: Permit, trace: &mut Trace) -> Admitted {
    trace.throttle = ThrottleState::Admitted;
    Admitted { permit }
}
