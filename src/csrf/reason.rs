//! Why a request is refused, with Django's texts (`django.middleware.csrf`, `REASON_…`).

/// Why a request may be forged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// `Origin` is of no site that is trusted; with what it was.
    BadOrigin(String),
    /// HTTPS with neither `Origin` nor `Referer`.
    NoReferer,
    /// `Referer` is no URL with a scheme and a host.
    MalformedReferer,
    /// `Referer` is not of HTTPS.
    InsecureReferer,
    /// `Referer` is of no site that is trusted; with what it was, as Python writes URLs.
    BadReferer(String),
    /// The secret of the client is not one.
    Cookie(Fault),
    /// The client has no secret.
    NoCookie,
    /// Neither a field nor the header has a token.
    NoToken,
    /// The token of the form is not right.
    Field(Fault),
    /// The token of the header is not right; with the header's name as Django shows it.
    Header(Box<str>, Fault),
}

/// What is wrong with a secret or a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Neither 32 nor 64 characters.
    Length,
    /// Others than letters and digits.
    Characters,
    /// Of another secret; never said of a cookie.
    Incorrect,
}

impl Fault {
    fn text(self) -> &'static str {
        match self {
            Self::Length => "has incorrect length",
            Self::Characters => "has invalid characters",
            Self::Incorrect => "incorrect",
        }
    }
}

impl Reason {
    /// What the client is told, behind DRF's `CSRF Failed: `. Some texts quote what the client sent, so the text is to be
    /// escaped by whoever writes it.
    pub fn text(&self) -> String {
        let untrusted = |what: &str, given: &str| {
            format!("{what} checking failed - {given} does not match any trusted origins.")
        };
        match self {
            Self::BadOrigin(given) => untrusted("Origin", given),
            Self::NoReferer => "Referer checking failed - no Referer.".to_owned(),
            Self::MalformedReferer => "Referer checking failed - Referer is malformed.".to_owned(),
            Self::InsecureReferer => {
                "Referer checking failed - Referer is insecure while host is secure.".to_owned()
            }
            Self::BadReferer(given) => untrusted("Referer", given),
            Self::Cookie(fault) => format!("CSRF cookie {}.", fault.text()),
            Self::NoCookie => "CSRF cookie not set.".to_owned(),
            Self::NoToken => "CSRF token missing.".to_owned(),
            Self::Field(fault) => format!("CSRF token from POST {}.", fault.text()),
            Self::Header(name, fault) => format!("CSRF token from the {name} HTTP header {}.", fault.text()),
        }
    }
}
