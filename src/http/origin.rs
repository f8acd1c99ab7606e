//! Which address a request counts for: the peer of its connection, or the client that a trusted proxy names.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::HeaderMap;
use ipnet::IpNet;

/// The header in which each proxy writes, at the end, from whom it has the request.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// Requests under way of each address, and how many one may have.
#[derive(Clone, Debug)]
pub(super) struct AddressRequests {
    most: u32,
    open: Arc<Mutex<HashMap<IpAddr, u32>>>,
}

/// A request under way; dropping it ends the request.
#[derive(Debug)]
pub(super) struct OpenRequest {
    of: AddressRequests,
    address: IpAddr,
}

impl AddressRequests {
    /// At most so many of one address; 0 for no limit.
    pub(super) fn new(most: u32) -> Self {
        Self { most, open: Arc::default() }
    }

    /// A request of this address begins, unless it would be one too many: then the limit.
    pub(super) fn begin(&self, address: IpAddr) -> Result<OpenRequest, u32> {
        let mut open = self.locked();
        let count = open.entry(address).or_default();
        if self.most > 0 && *count >= self.most {
            return Err(self.most);
        }
        *count += 1;
        Ok(OpenRequest { of: self.clone(), address })
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        let mut open = self.of.locked();
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

/// Whether this is the address of a trusted proxy.
pub(super) fn is_trusted(trusted: &[IpNet], address: IpAddr) -> bool {
    trusted.iter().any(|network| network.contains(&address))
}

/// What counts as one address: of IPv6 the first half, for a household or a server has all of the second.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(whole) => Ipv6Addr::from_bits(whole.to_bits() & (u128::MAX << 64)).into(),
    }
}

/// Whom a trusted proxy names as the origin of a request; none if the peer is no trusted proxy, or names no other.
pub(super) fn forwarded(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Option<IpAddr> {
    let peer = peer.to_canonical();
    if !is_trusted(trusted, peer) {
        return None;
    }
    let origin = origin(peer, headers, trusted);
    (!is_trusted(trusted, origin)).then(|| network(origin))
}

/// The right-most address that is no trusted proxy: of the peer, and, as long as only trusted proxies stand behind it, of
/// what they wrote down. What a client wrote there itself stands further left, and is not looked at.
pub(super) fn origin(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let mut origin = peer.to_canonical();
    let lines: Vec<&str> =
        headers.get_all(FORWARDED_FOR).iter().filter_map(|line| line.to_str().ok()).collect();
    let mut named = lines.iter().rev().flat_map(|line| line.rsplit(','));
    while is_trusted(trusted, origin) {
        match named.next().and_then(read) {
            Some(address) => origin = address,
            // Not an address: the last known one counts.
            None => break,
        }
    }
    origin
}

/// An address as proxies write it: alone, or with a port.
fn read(named: &str) -> Option<IpAddr> {
    let named = named.trim();
    let bare = named.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(named);
    let address = bare.parse().ok().or_else(|| Some(named.parse::<SocketAddr>().ok()?.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(peer: &str, forwarded: &[&str], expected: &str) {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append(FORWARDED_FOR, line.parse().unwrap());
        }
        let found = origin(peer.parse().unwrap(), &headers, &trusted);
        assert_eq!(found, expected.parse::<IpAddr>().unwrap(), "{peer} {forwarded:?}");
    }

    #[test]
    fn only_a_trusted_proxy_may_name_an_address() {
        check("203.0.113.7", &[], "203.0.113.7");
        check("203.0.113.7", &["198.51.100.1"], "203.0.113.7");
        check("10.0.0.2", &["198.51.100.1"], "198.51.100.1");
        check("::ffff:10.0.0.2", &["198.51.100.1"], "198.51.100.1");
        check("fd00::2", &["2001:db8::1"], "2001:db8::1");
    }

    #[test]
    fn rightmost_address_without_a_proxy_counts() {
        check("10.0.0.2", &["192.0.2.66, 198.51.100.1, 10.1.2.3"], "198.51.100.1");
        check("10.0.0.2", &["192.0.2.66", "198.51.100.1,10.1.2.3", "10.9.9.9"], "198.51.100.1");
        check("10.0.0.2", &["10.1.2.3"], "10.1.2.3");
        check("10.0.0.2", &[], "10.0.0.2");
    }

    #[test]
    fn ports_and_brackets_parse_nonsense_stops() {
        check("10.0.0.2", &["198.51.100.1:4711"], "198.51.100.1");
        check("10.0.0.2", &["[2001:db8::1]:4711"], "2001:db8::1");
        check("10.0.0.2", &["[2001:db8::1]"], "2001:db8::1");
        check("10.0.0.2", &["::ffff:198.51.100.1"], "198.51.100.1");
        check("10.0.0.2", &["198.51.100.1, unknown, 10.1.2.3"], "10.1.2.3");
        check("10.0.0.2", &["198.51.100.1, "], "10.0.0.2");
    }
}
