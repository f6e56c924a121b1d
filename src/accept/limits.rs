//! How many connections there may be: in all, and of one client address.

use ipnet::IpNet;
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many there may be.
#[derive(Debug, Clone)]
pub struct ConnectionBounds {
    /// In all.
    pub total_max: usize,
    /// Of one client address.
    pub per_address_max: usize,
    /// Proxies stand for many clients and are counted in the total only.
    pub trusted_proxies: Vec<IpNet>,
}

/// Counts connections; one per process.
#[derive(Debug)]
pub struct ConnectionLimits {
    bounds: RwLock<ConnectionBounds>,
    total: AtomicUsize,
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

/// Why a connection was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooMany {
    /// `[limits] connections`
    #[error("too many connections")]
    InAll,
    /// `[limits] connections_per_address`
    #[error("too many connections of this address")]
    OfAddress,
}

/// A place among the connections; given back when dropped.
#[derive(Debug)]
pub struct ConnectionPermit {
    limits: Arc<ConnectionLimits>,
    address: Option<IpAddr>,
}

impl ConnectionLimits {
    /// No connections yet.
    pub fn new(bounds: ConnectionBounds) -> Self {
        Self { bounds: RwLock::new(bounds), total: AtomicUsize::new(0), by_address: Mutex::default() }
    }

    /// Other bounds from now on; connections that are open stay.
    pub fn set(&self, bounds: ConnectionBounds) {
        *self.bounds.write() = bounds;
    }

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Takes a place for a connection from this address.
    ///
    /// # Errors
    /// If there is none.
    pub fn take(self: &Arc<Self>, address: IpAddr) -> Result<ConnectionPermit, TooMany> {
        let mut permit = ConnectionPermit { limits: Arc::clone(self), address: None };
        let bounds = self.bounds.read();
        if self.total.fetch_add(1, Ordering::AcqRel) >= bounds.total_max {
            return Err(TooMany::InAll);
        }
        if bounds.trusted_proxies.iter().any(|net| net.contains(&address)) {
            return Ok(permit);
        }
        let key = group(address);
        let mut counts = self.by_address.lock();
        let count = counts.entry(key).or_insert(0);
        if *count >= bounds.per_address_max {
            drop(counts);
            return Err(TooMany::OfAddress);
        }
        *count += 1;
        drop(counts);
        permit.address = Some(key);
        Ok(permit)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.limits.total.fetch_sub(1, Ordering::AcqRel);
        let Some(address) = self.address else { return };
        let mut counts = self.limits.by_address.lock();
        if let Some(count) = counts.get_mut(&address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&address);
            }
        }
    }
}

/// One subscriber has a whole /64 of IPv6.
fn group(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(total: usize, per_address: usize) -> Arc<ConnectionLimits> {
        let trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
        Arc::new(ConnectionLimits::new(ConnectionBounds {
            total_max: total,
            per_address_max: per_address,
            trusted_proxies,
        }))
    }

    #[test]
    fn places_are_given_back() {
        let limits = limits(2, 1);
        let client: IpAddr = "192.0.2.1".parse().unwrap();
        let permit = limits.take(client).unwrap();
        assert_eq!(limits.take(client).unwrap_err(), TooMany::OfAddress);
        drop(permit);
        assert!(limits.take(client).is_ok());
        assert!(limits.by_address.lock().is_empty());
    }

    #[test]
    fn the_total_is_bounded_for_proxies_too() {
        let limits = limits(2, 1);
        let proxy: IpAddr = "10.0.0.1".parse().unwrap();
        let _held = [limits.take(proxy).unwrap(), limits.take(proxy).unwrap()];
        assert_eq!(limits.take(proxy).unwrap_err(), TooMany::InAll);
    }

    #[test]
    fn a_subnet_of_ipv6_is_one_client() {
        let limits = limits(9, 1);
        let _held = limits.take("2001:db8::1".parse().unwrap()).unwrap();
        assert_eq!(limits.take("2001:db8::2".parse().unwrap()).unwrap_err(), TooMany::OfAddress);
        assert!(limits.take("2001:db8:0:1::1".parse().unwrap()).is_ok());
    }
}
