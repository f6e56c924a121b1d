//! `[clients]`: whose word about the client's address is believed.

use ipnet::IpNet;

use crate::config::problem::{Fault, Problems};
use crate::config::raw;

/// Who the client is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Clients {
    /// Peers whose `X-Forwarded-*` and `Forwarded` are believed; none by default.
    pub trusted_proxies: Vec<IpNet>,
}

impl Clients {
    pub(super) fn from_raw(raw: raw::Clients, problems: &mut Problems) -> Self {
        let networks = raw.trusted_proxies.map(toml::Spanned::into_inner).unwrap_or_default();
        for network in &networks {
            if network.value.prefix_len() == 0 {
                let fault = Fault::new("every peer is trusted, so any client can claim any address");
                problems.warn(&network.span, fault.help("list the addresses of your own proxies"));
            }
        }
        Self { trusted_proxies: networks.into_iter().map(|network| network.value).collect() }
    }
}
