//! Who a request is: users, the names of credentials, the kinds of schemes.
//!
//! These are facts, never decisions: permissions and throttles are asked on every request.

use std::fmt;

/// Key of a user in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(pub i64);

/// What is known of a user; one record is shared by all credentials of the user.
///
/// Laid out in this order: what every request asks for comes first.
#[derive(Debug, Clone, PartialEq, Eq)]
#[repr(C)]
pub struct User {
    /// Key in the store.
    pub id: UserId,
    /// An inactive user is refused whatever the credentials.
    pub is_active: bool,
    /// For the permission `staff`.
    pub is_staff: bool,
    /// Name, exactly as stored.
    pub username: Box<str>,
    /// Names of the groups, sorted.
    pub groups: Box<[Box<str>]>,
    /// E-mail address; may be empty.
    pub email: Box<str>,
    /// Grows with every change of the password.
    pub password_version: i64,
    /// Credentials made before this moment (seconds since 1970) are void.
    pub not_before: i64,
}

/// A kind of credential with a table of its own; the first half of every cache key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Family {
    /// Tokens that doorward issued.
    Doorward = 1,
    /// Keys of DRF's `authtoken_token`.
    Authtoken = 2,
    /// Cookies that name a session.
    Session = 3,
    /// Names and passwords, under a digest with a key of this process.
    Basic = 4,
    /// Names that a trusted peer vouches for.
    RemoteUser = 5,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Doorward, Self::Authtoken, Self::Session, Self::Basic, Self::RemoteUser];
}

/// SHA-256 of a credential: what caches and the store know instead of the credential.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Digest of a credential as the client presents it.
    ///
    /// Tokens have 128 bits of randomness at least, so neither salt nor a slow hash is needed: the digest cannot
    /// be inverted.
    pub fn of(credential: &[u8]) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, credential);
        let mut bytes = [0; 32];
        for (to, from) in bytes.iter_mut().zip(digest.as_ref()) {
            *to = *from;
        }
        Self(bytes)
    }
}

/// A digest is close to a secret (it names a credential in the store), so it is not shown.
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(…)")
    }
}

/// Public name of a credential, for logs, reports and commands: says nothing of the secret.
///
/// Shown as 16 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CredentialId(pub u64);

impl fmt::Display for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl std::str::FromStr for CredentialId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

/// Kinds of schemes; an instance in the configuration is of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SchemeKind {
    /// `Authorization: Token <key>`, as DRF's `TokenAuthentication`.
    Token = 1,
    /// A cookie that names a session, as Django's.
    Session = 2,
    /// `Authorization: Basic …` (RFC 7617), as DRF's `BasicAuthentication`.
    Basic = 3,
    /// A name that a trusted peer vouches for, as DRF's `RemoteUserAuthentication`.
    RemoteUser = 4,
}

impl SchemeKind {
    /// All of them, in the order of their numbers, from 1.
    pub const ALL: &'static [Self] = &[Self::Token, Self::Session, Self::Basic, Self::RemoteUser];

    /// The name told to upstreams (`[identity] auth_type`) and written to logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Token => "Token",
            Self::Session => "Session",
            Self::Basic => "Basic",
            Self::RemoteUser => "RemoteUser",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_is_sha256_of_the_bytes() {
        // FIPS 180-2, appendix B.1.
        assert_eq!(Digest::of(b"abc").0[..4], [0xba, 0x78, 0x16, 0xbf]);
        assert_eq!(format!("{:?}", Digest::of(b"abc")), "Digest(…)");
    }

    #[test]
    fn credential_id_reads_what_it_writes() {
        let id = CredentialId(0x00ab_cdef);
        assert_eq!(id.to_string(), "0000000000abcdef");
        assert_eq!(id.to_string().parse(), Ok(id));
    }
}
