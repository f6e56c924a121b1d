//! Authorize: asks the route's permission.

pub mod permission;

use crate::authenticate::Authenticated;
use crate::authenticate::scheme::Identity;
use crate::config::Permission;
use crate::trace::Trace;
use http::Method;

/// Proof that the permission allowed the request. Made only here.
#[must_use]
#[derive(Debug)]
pub struct Permit {
    authenticated: Authenticated,
}

impl Permit {
    /// Who; `None`: anonymous.
    pub fn identity(&self) -> Option<&Identity> {
        self.authenticated.identity()
    }
}

/// Why a request may not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthorizeError {
    /// Nobody was authenticated, though the route has schemes (DRF 3.18, `NotAuthenticated`).
    #[error("no credentials")]
    NotAuthenticated,
    /// Somebody was, or nobody could be (DRF 3.18, `PermissionDenied`).
    #[error("permission denied")]
    Denied,
    /// TRACE is never forwarded (RFC 9110 section 9.3.8: it would echo credentials).
    #[error("TRACE")]
    Trace,
}

/// Asks the permission.
///
/// # Errors
/// If it refuses; anonymous and refused are two things only on routes that have a scheme to be authenticated by
/// (DRF 3.18, `APIView.permission_denied`).
pub fn authorize(
    authenticated: Authenticated,
    permission: &Permission,
    method: &Method,
    has_schemes: bool,
    trace: &mut Trace,
) -> Result<Permit, AuthorizeError> {
    trace.rule = permission::rule(permission);
    let user = authenticated.identity().map(|identity| &identity.user.user);
    match (permission::allows(permission, method, user), user) {
        (true, _) if *method == Method::TRACE => Err(AuthorizeError::Trace),
        (true, _) => Ok(Permit { authenticated }),
        (false, None) if has_schemes => Err(AuthorizeError::NotAuthenticated),
        (false, _) => Err(AuthorizeError::Denied),
    }
}
