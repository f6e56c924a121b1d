//! Says once that client addresses are those of a proxy, so that everybody shares one counter.

use crate::accept::head::Head;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

/// Looks for peers that are proxies and were not named as such.
#[derive(Debug)]
pub struct ProxyAlarm {
    is_silent: AtomicBool,
}

impl ProxyAlarm {
    /// Silent from the start if trusted proxies are configured: somebody has thought of it.
    pub fn new(has_trusted_proxies: bool) -> Self {
        Self { is_silent: AtomicBool::new(has_trusted_proxies) }
    }

    /// Warns the first time that a request seems to come through a proxy.
    pub(in crate::throttle) fn look(&self, head: &Head) {
        if self.is_silent.load(Ordering::Relaxed) {
            return;
        }
        let peer = head.peer.address.ip();
        if is_near(peer) && head.claimed.names_a_client() && !self.is_silent.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                network.peer.address = %peer,
                "requests come through a proxy that is not trusted, so all its clients are counted as one: name it \
                 in [clients] trusted_proxies"
            );
        }
    }
}

/// An address where one's own proxies are, and no clients from outside.
fn is_near(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            // RFC 6598: shared address space.
            let is_shared = first == 100 && second & 0xc0 == 64;
            address.is_loopback() || address.is_private() || address.is_link_local() || is_shared
        }
        IpAddr::V6(address) => {
            address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_looked_for_nearby() {
        for (address, expected) in [
            ("127.0.0.1", true),
            ("10.1.2.3", true),
            ("172.31.0.1", true),
            ("192.168.0.1", true),
            ("100.64.0.1", true),
            ("100.128.0.1", false),
            ("192.0.2.1", false),
            ("::1", true),
            ("fd00::1", true),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_near(address.parse().unwrap()), expected, "{address}");
        }
    }
}
