//! Names that only the gateway may set: what any backend could read as an identity or as a forwarding field.
//!
//! CGI, WSGI and PHP fold names (RFC 3875 section 4.1.18), so they are compared after folding letter case and
//! every non-alphanumeric to `_`: `Remote-User`, `REMOTE_USER` and `remote.user` are one name.

use http::HeaderName;
use std::collections::HashSet;

/// Folded names that are removed from every request, whatever the configuration.
///
/// Identity fields of the gateways in the field, forwarding fields, and fields that rewrite target or method
/// (CVE-2018-14773), `Proxy` (CVE-2016-5385), and what CGI servers set themselves.
const NAMES: &[&str] = &[
    "auth_type",
    "auth_user",
    "authenticated_user",
    "cf_connecting_ip",
    "cf_connecting_ipv6",
    "client_ip",
    "content_length_override",
    "do_connecting_ip",
    "fastly_client_ip",
    "fly_client_ip",
    "forwarded",
    "forwarded_for",
    "forwarded_host",
    "forwarded_proto",
    "front_end_https",
    "logname",
    "oidc_access_token",
    "path_info",
    "path_translated",
    "proxy",
    "proxy_client_ip",
    "proxy_user",
    "request_uri",
    "script_name",
    "true_client_ip",
    "unencoded_url",
    "user",
    "user_name",
    "username",
    "wl_proxy_client_ip",
    "x_accel_mapping",
    "x_account",
    "x_appengine_user_ip",
    "x_auth_email",
    "x_auth_groups",
    "x_auth_name",
    "x_auth_user",
    "x_auth_username",
    "x_authenticated_email",
    "x_authenticated_groups",
    "x_authenticated_user",
    "x_authenticated_userid",
    "x_azure_clientip",
    "x_azure_socketip",
    "x_client_cert",
    "x_client_dn",
    "x_client_ip",
    "x_client_verify",
    "x_cluster_client_ip",
    "x_consumer_id",
    "x_consumer_username",
    "x_credential_identifier",
    "x_custom_ip_authorization",
    "x_email",
    "x_forwarded",
    "x_groups",
    "x_host",
    "x_http_host_override",
    "x_http_method",
    "x_http_method_override",
    "x_http_path_override",
    "x_identity",
    "x_method_override",
    "x_original_forwarded_for",
    "x_original_host",
    "x_original_method",
    "x_original_path",
    "x_original_remote_addr",
    "x_original_uri",
    "x_original_url",
    "x_originating_ip",
    "x_override_url",
    "x_preferred_username",
    "x_proxy_user",
    "x_proxyuser_ip",
    "x_real_ip",
    "x_remote_addr",
    "x_remote_ip",
    "x_request_id",
    "x_rewrite_path",
    "x_rewrite_url",
    "x_role",
    "x_roles",
    "x_scheme",
    "x_script_name",
    "x_sendfile_type",
    "x_url_scheme",
    "x_user",
    "x_user_email",
    "x_user_groups",
    "x_user_id",
    "x_user_name",
    "x_user_role",
    "x_user_roles",
    "x_userid",
    "x_username",
    "x_waws_unencoded_url",
];

/// Beginnings of folded names that are removed.
const PREFIXES: &[&str] = &[
    "cf_access_",
    "http_forwarded",
    "http_remote_",
    "http_x_forwarded_",
    "mellon_",
    "oidc_claim_",
    "remote_",
    "shib_",
    "ssl_client_",
    "tailscale_user_",
    "x_amzn_oidc_",
    "x_appengine_user_",
    "x_auth_request_",
    "x_authentik_",
    "x_envoy_external_",
    "x_envoy_original_",
    "x_forwarded_",
    "x_goog_authenticated_",
    "x_goog_iap_",
    "x_ms_client_principal",
    "x_pomerium_",
    "x_remote_",
    "x_ssl_client_",
    "x_token_user_",
    "x_vouch_",
    "x_webauth_",
];

/// Folded names that no client may send under another spelling: a lax backend would take it for the real one.
const SPELLINGS: &[&str] = &[
    "authorization",
    "connection",
    "content_encoding",
    "content_length",
    "content_type",
    "cookie",
    "expect",
    "host",
    "te",
    "trailer",
    "transfer_encoding",
    "upgrade",
];

/// The names that one configuration guards.
#[derive(Debug, Clone)]
pub struct GuardedNames {
    names: HashSet<Box<[u8]>, foldhash::fast::RandomState>,
    /// What has such a beginning at all, so that most fields are passed by a glance.
    beginnings: Box<[u8; BEGINNINGS]>,
}

/// Values of [`beginning`].
const BEGINNINGS: usize = 1 << 12;

/// A name begins so.
const OF_NAME: u8 = 1;
/// One of [`PREFIXES`] does.
const OF_PREFIX: u8 = 2;
/// One of [`SPELLINGS`] does.
const OF_SPELLING: u8 = 4;

impl GuardedNames {
    /// The names that are always guarded, and these: the configured identity headers.
    pub fn new<'a>(configured: impl IntoIterator<Item = &'a HeaderName>) -> Self {
        let mut names: HashSet<Box<[u8]>, _> = HashSet::default();
        names.extend(NAMES.iter().map(|name| name.as_bytes().into()));
        names.extend(configured.into_iter().map(|name| fold(name.as_str()).into_boxed_slice()));
        let mut beginnings = Box::new([0; BEGINNINGS]);
        let names_begin = names.iter().map(|name| (name.as_ref(), OF_NAME));
        let prefixes_begin = PREFIXES.iter().map(|prefix| (prefix.as_bytes(), OF_PREFIX));
        let spellings_begin = SPELLINGS.iter().map(|name| (name.as_bytes(), OF_SPELLING));
        for (name, kind) in names_begin.chain(prefixes_begin).chain(spellings_begin) {
            if let Some(slot) = beginnings.get_mut(beginning(name)) {
                *slot |= kind;
            }
        }
        Self { names, beginnings }
    }

    /// Whether a client's field of this name is removed.
    pub fn contains(&self, name: &HeaderName) -> bool {
        let name = name.as_str().as_bytes();
        let found = self.beginnings.get(beginning(name)).copied().unwrap_or(u8::MAX);
        let may_be = |kind: u8| found & kind != 0;
        let is_misspelt = may_be(OF_SPELLING) && name.iter().any(|byte| !is_ordinary(*byte));
        if !may_be(OF_NAME) && !may_be(OF_PREFIX) && !is_misspelt {
            return false;
        }
        let mut space = [0; FOLDED_BYTES_MAX];
        let folded = fold_into(name, &mut space);
        (may_be(OF_NAME) && name.len() <= FOLDED_BYTES_MAX && self.names.contains(folded))
            || (may_be(OF_PREFIX) && PREFIXES.iter().any(|prefix| folded.starts_with(prefix.as_bytes())))
            || (is_misspelt && SPELLINGS.iter().any(|spelling| folded == spelling.as_bytes()))
    }
}

/// The first four bytes of a name once folded, scrambled to 12 bits: names that are equal when folded agree in it,
/// and so do a prefix of four bytes or more and what begins with it. Shorter listed names are whole names.
fn beginning(name: &[u8]) -> usize {
    let first = name.iter().take(4).fold(0_u32, |all, byte| all << 8 | u32::from(fold_byte(*byte)));
    usize::try_from(first.wrapping_mul(0x9e37_79b1) >> 20).unwrap_or(0)
}

/// No guarded name is longer; of longer ones the beginning is compared with the prefixes.
const FOLDED_BYTES_MAX: usize = 128;

/// Letters, digits and `-`: how fields are spelled in practice.
fn is_ordinary(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

fn fold_byte(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'_' }
}

fn fold_into<'a>(name: &[u8], space: &'a mut [u8; FOLDED_BYTES_MAX]) -> &'a [u8] {
    for (to, from) in space.iter_mut().zip(name) {
        *to = fold_byte(*from);
    }
    space.get(..name.len()).unwrap_or(space)
}

/// Whether two names are one for a CGI-like backend.
pub fn is_alias(name: &HeaderName, other: &HeaderName) -> bool {
    let (name, other) = (name.as_str().bytes(), other.as_str().bytes());
    name.len() == other.len() && name.map(fold_byte).eq(other.map(fold_byte))
}

/// The name that a CGI-like backend sees.
pub fn fold(name: &str) -> Vec<u8> {
    name.bytes().map(fold_byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn guarded() -> GuardedNames {
        GuardedNames::new([&HeaderName::from_static("x-who")])
    }

    #[test]
    fn aliases_of_identity_headers_are_guarded() {
        for name in [
            "remote-user",
            "remote_user",
            "remote.user",
            "remote~user",
            "remote-groups",
            "x-who",
            "x_who",
            "x.who",
            "x-forwarded-for",
            "x_forwarded_for",
            "x-forwarded-anything",
            "forwarded",
            "x-real-ip",
            "proxy",
            "x-http-method-override",
            "x-original-url",
            "x-rewrite-url",
            "x-request-id",
            "x-remote-user",
        ] {
            assert!(guarded().contains(&HeaderName::from_static(name)), "{name}");
        }
    }

    #[test]
    fn ordinary_fields_pass() {
        for name in [
            "host",
            "accept",
            "accept-encoding",
            "content-type",
            "content-length",
            "cookie",
            "user-agent",
            "origin",
            "referer",
            "x-csrftoken",
            "x-requested-with",
            "authorization",
            "transfer-encoding",
            "x-api_key",
            "traceparent",
            "if-none-match",
            "range",
            "x-who-else",
            "forwarded-nothing",
        ] {
            assert!(!guarded().contains(&HeaderName::from_static(name)), "{name}");
        }
    }

    #[test]
    fn other_spellings_of_framing_fields_are_guarded() {
        for name in
            ["transfer_encoding", "content_length", "content.length", "authorization_".trim_end_matches('_')]
        {
            let is_guarded = guarded().contains(&HeaderName::from_static(name));
            assert_eq!(is_guarded, name != "authorization", "{name}");
        }
    }

    #[test]
    fn prefixes_are_long_enough_for_a_glance() {
        assert!(PREFIXES.iter().all(|prefix| prefix.len() >= 4));
    }

    #[test]
    fn long_names_are_neither_missed_nor_a_panic() {
        let long = format!("x-forwarded-{}", "a".repeat(300));
        assert!(guarded().contains(&long.parse().unwrap()));
        assert!(!guarded().contains(&"a".repeat(300).parse().unwrap()));
    }

    proptest! {
        #[test]
        fn no_spelling_of_an_identity_header_passes(odd in "[-_.~!#$&'*+^`|]", upper: bool) {
            let name = format!("remote{odd}user");
            let name = if upper { name.to_uppercase() } else { name };
            prop_assert!(guarded().contains(&name.parse().unwrap()));
        }
    }
}
