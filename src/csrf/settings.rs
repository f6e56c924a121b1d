//! What a deployment trusts, in Django's words.

use crate::csrf::url::Url;
use http::HeaderName;

/// Django's settings, as far as the check has any.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `CSRF_TRUSTED_ORIGINS`
    pub trusted_origins: Vec<TrustedOrigin>,
    /// `CSRF_COOKIE_DOMAIN`, or with [`Self::use_sessions`] `SESSION_COOKIE_DOMAIN`: what `Referer` may be of, instead
    /// of the host.
    pub cookie_domain: Option<String>,
    /// `CSRF_HEADER_NAME`, as it is sent.
    pub header: HeaderName,
    /// `CSRF_USE_SESSIONS`: the secret is the session's `_csrftoken`, and there is no cookie.
    pub use_sessions: bool,
}

/// Django's defaults.
impl Default for Settings {
    fn default() -> Self {
        Self {
            trusted_origins: Vec::new(),
            cookie_domain: None,
            header: HeaderName::from_static("x-csrftoken"),
            use_sessions: false,
        }
    }
}

/// A member of `CSRF_TRUSTED_ORIGINS`: `https://app.example.com`, or `https://*.example.com` for the domain and all
/// below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedOrigin {
    /// As it stands; compared byte for byte.
    pub(crate) text: String,
    pub(crate) scheme: String,
    /// In small letters, without `*`: a leading dot stands for the domain and all below it.
    pub(crate) netloc: String,
    pub(crate) is_pattern: bool,
}

/// Why a text is no [`TrustedOrigin`]. Django refuses the first; the others are trusted by nothing there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TrustedOriginError {
    /// `example.com`
    #[error("must begin with a scheme, usually https:// or http://")]
    NoScheme,
    /// `https://`
    #[error("names no host")]
    NoHost,
    /// `https://[::1`, `https://bücher.example`
    #[error("has no host that a browser sends; write international names in ASCII (xn--…)")]
    BadHost,
    /// `https://example.com/`
    #[error("must end behind host and port, without a slash")]
    MoreThanOrigin,
    /// `https://app*.example.com`
    #[error("may have a * only as the first label, as in https://*.example.com")]
    MisplacedStar,
}

impl TrustedOrigin {
    /// Reads a member.
    ///
    /// # Errors
    /// If it could trust nothing, or not what was meant.
    pub fn parse(text: &str) -> Result<Self, TrustedOriginError> {
        let (scheme, rest) = text.split_once("://").ok_or(TrustedOriginError::NoScheme)?;
        if scheme.is_empty() {
            return Err(TrustedOriginError::NoScheme);
        }
        let is_odd = |byte: u8| !byte.is_ascii_graphic() || matches!(byte, b'@' | b'\\');
        let url =
            Url::split(text).filter(|_| !text.bytes().any(is_odd)).ok_or(TrustedOriginError::BadHost)?;
        if !url.scheme.eq_ignore_ascii_case(scheme) {
            return Err(TrustedOriginError::NoScheme);
        }
        if url.netloc.is_empty() {
            return Err(TrustedOriginError::NoHost);
        }
        if url.netloc != rest {
            return Err(TrustedOriginError::MoreThanOrigin);
        }
        let pattern = url.netloc.strip_prefix('*').filter(|rest| rest.starts_with('.') && rest.len() > 1);
        let netloc = pattern.unwrap_or(&url.netloc);
        if netloc.contains('*') {
            return Err(TrustedOriginError::MisplacedStar);
        }
        Ok(Self {
            text: text.to_owned(),
            netloc: netloc.to_ascii_lowercase(),
            is_pattern: pattern.is_some(),
            scheme: url.scheme,
        })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}
