//! Which addresses webhooks may go to: by default public ones by HTTPS alone, so that the owner of an endpoint cannot reach what
//! only this machine's network can reach.
//!
//! A name is checked when it is resolved, and the connection goes to the addresses that were checked. Redirects are not followed.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// The longest address of an endpoint.
pub const URL_CHARS_MAX: usize = 2_000;

/// What is asked of the address of an endpoint.
#[derive(Clone, Copy, Debug)]
pub struct UrlRules {
    /// Whether private addresses and plain HTTP are allowed.
    pub allows_private: bool,
}

impl UrlRules {
    /// What is wrong with an address, if anything is. A name is not resolved here: what it resolves to may change.
    pub fn problem(self, text: &str) -> Option<String> {
        if text.chars().count() > URL_CHARS_MAX {
            return Some(format!("must have {URL_CHARS_MAX} characters or fewer"));
        }
        let Ok(url) = Url::parse(text) else {
            return Some("must be an address such as https://shop.example/hooks".to_owned());
        };
        let is_allowed = url.scheme() == "https" || (self.allows_private && url.scheme() == "http");
        if !is_allowed {
            return Some("must begin with https://".to_owned());
        }
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Some("must have no user, password or fragment".to_owned());
        }
        let address = literal(&url)?;
        (!self.allows(address)).then(|| format!("must not be the private address {address}"))
    }

    fn allows(self, address: IpAddr) -> bool {
        self.allows_private || is_public(address)
    }

    /// Whether a connection to this address of an endpoint may be made, as far as it has no name.
    pub(super) fn allows_literal(self, url: &Url) -> bool {
        literal(url).is_none_or(|address| self.allows(address))
    }
}

/// The address in a URL that has no name; none if it has one.
fn literal(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Domain(_) => None,
        Host::Ipv4(address) => Some(address.into()),
        Host::Ipv6(address) => Some(address.into()),
    }
}

/// Resolves names to addresses that are allowed, and to no others.
pub(super) struct CheckedResolver(pub UrlRules);

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let rules = self.0;
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let allowed: Vec<SocketAddr> =
                found.iter().copied().filter(|found| rules.allows(found.ip())).collect();
            if allowed.is_empty() {
                let text = format!("{} resolves to no public address", name.as_str());
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, text).into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// A client that makes connections by these rules only.
pub(super) fn client(rules: UrlRules) -> reqwest::Result<reqwest::Client> {
    // Another part of the process may have installed it before.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .dns_resolver(Arc::new(CheckedResolver(rules)))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .user_agent(concat!("boxoffice/", env!("CARGO_PKG_VERSION")))
        .timeout(super::retries::ATTEMPT_TIMEOUT)
        .build()
}

fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = match (a, b, c) {
        // This network, private networks, loopback.
        (0 | 10 | 127, ..) => true,
        // Shared by a provider, link-local, private.
        (100, 64..=127, _) | (169, 254, _) | (172, 16..=31, _) | (192, 168, _) => true,
        // For protocols, documentation and benchmarks; the old relays to IPv6.
        (192, 0, 0 | 2) | (192, 88, 99) | (198, 18..=19, _) | (198, 51, 100) | (203, 0, 113) => true,
        // Multicast, reserved, broadcast.
        (224..=255, ..) => true,
        _ => false,
    };
    !is_special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    // Global unicast, without what leads to an IPv4 address (Teredo, 6to4) or is for documentation.
    let is_global = (0x2000..=0x3fff).contains(&first);
    let is_special =
        (first == 0x2001 && (second < 0x0200 || second == 0x0db8)) || first == 0x2002 || first == 0x3fff;
    is_global && !is_special
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRICT: UrlRules = UrlRules { allows_private: false };

    #[test]
    fn private_addresses_are_known() {
        for public in ["8.8.8.8", "93.184.216.34", "172.32.0.1", "2606:4700::1111", "2a00:1450::1"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        let private = [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "192.168.1.1",
            "192.0.2.1",
            "198.18.0.1",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
        ];
        for private in private {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
    }

    #[test]
    fn urls_are_refused_with_a_reason() {
        assert_eq!(STRICT.problem("https://shop.example/hooks?a=b"), None);
        for (bad, word) in [
            ("shop.example", "such as"),
            ("http://shop.example/", "https://"),
            ("ftp://shop.example/", "https://"),
            ("https://user@shop.example/", "user"),
            ("https://user:pass@shop.example/", "user"),
            ("https://shop.example/#x", "fragment"),
            ("https://127.0.0.1/", "private address 127.0.0.1"),
            ("https://2130706433/", "private address 127.0.0.1"),
            ("https://0x7f.1/", "private address 127.0.0.1"),
            ("https://[::1]/", "private address ::1"),
            ("https://[::ffff:10.0.0.1]/", "private address"),
            ("https://169.254.169.254/latest", "private address"),
        ] {
            let problem = STRICT.problem(bad);
            assert!(problem.as_deref().is_some_and(|problem| problem.contains(word)), "{bad}: {problem:?}");
        }
        assert!(STRICT.problem(&format!("https://shop.example/{}", "a".repeat(2_000))).is_some());
        let lax = UrlRules { allows_private: true };
        assert_eq!((lax.problem("http://127.0.0.1:9/x"), lax.problem("http://10.0.0.1/")), (None, None));
        assert!(lax.problem("file:///etc/passwd").is_some());
    }

    #[tokio::test]
    async fn name_of_a_private_address_is_not_resolved() {
        let resolve = async |rules| CheckedResolver(rules).resolve("localhost".parse().unwrap()).await;
        let refused = resolve(STRICT).await.err().unwrap().to_string();
        assert!(refused.contains("no public address"), "{refused}");
        assert!(
            resolve(UrlRules { allows_private: true }).await.is_ok_and(|mut found| found.next().is_some())
        );
    }
}
