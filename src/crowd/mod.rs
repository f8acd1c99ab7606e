//! Simulated buyers of local mode: a crowd comes to one concert, so that a visitor sees the line and the seats move.
//!
//! The buyers call the public API of this process at its own address, as browsers do, with a bounded number of requests at
//! once. One crowd at a time; each buyer, and so the crowd, ends after a bounded time.

mod buyer;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::background::Tasks;
use crate::ids::ConcertId;
use buyer::Buyer;

/// Most buyers of one crowd.
pub const BUYERS_MAX: u32 = 500;
/// Requests of all buyers under way at once.
const REQUESTS_AT_ONCE: usize = 16;
/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// After this time a buyer goes home, wherever they stand.
const BUYER_TIME: Duration = Duration::from_secs(300);

/// Where a buyer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Arriving,
    Waiting,
    Choosing,
    Holding,
    Bought,
    Gone,
}

/// A crowd: how many of its buyers do what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Crowd)]
pub struct CrowdView {
    /// Whether any of its buyers is still on the way. If false and `buyers` is 0, there was no crowd yet.
    pub running: bool,
    /// The concert that it came to.
    pub concert_id: Option<Uuid>,
    pub buyers: u32,
    /// Not in line yet.
    pub arriving: u32,
    /// In line.
    pub waiting: u32,
    /// Admitted, without seats.
    pub choosing: u32,
    /// With seats that are not paid.
    pub holding: u32,
    /// Went home with tickets.
    pub bought: u32,
    /// Went home without tickets.
    pub gone: u32,
}

/// The crowds of this process, one at a time.
pub struct Crowds {
    base: String,
    latest: Mutex<Option<Arc<Crowd>>>,
    tasks: Tasks,
    stop: CancellationToken,
}

impl Crowds {
    /// No crowd yet. `address` is where this process answers the public API.
    pub fn new(address: SocketAddr, tasks: &Tasks, stop: &CancellationToken) -> Self {
        let base = format!("http://{}", reachable(address));
        Self { base, latest: Mutex::new(None), tasks: tasks.clone(), stop: stop.clone() }
    }

    /// Lets a crowd come; none if one is still there.
    pub fn start(&self, concert: ConcertId, buyers: u32) -> Result<Option<CrowdView>, reqwest::Error> {
        let http = reqwest::Client::builder()
            .timeout(REQUEST_TIMEOUT)
            .pool_max_idle_per_host(REQUESTS_AT_ONCE)
            .user_agent("boxoffice-crowd")
            .build()?;
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.as_ref().is_some_and(|crowd| crowd.view().running) {
            return Ok(None);
        }
        let crowd = Arc::new(Crowd::new(concert, buyers, http, &self.base));
        *latest = Some(Arc::clone(&crowd));
        let view = crowd.view();
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            stop.run_until_cancelled(crowd.live()).await;
            crowd.running.store(false, Ordering::Relaxed);
        });
        Ok(Some(view))
    }

    /// The crowd that came last.
    pub fn latest(&self) -> CrowdView {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.as_ref().map(|crowd| crowd.view()).unwrap_or_default()
    }
}

/// An address of this machine for a listener on all of its addresses.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

struct Crowd {
    concert: ConcertId,
    buyers: u32,
    http: reqwest::Client,
    base: String,
    requests: Semaphore,
    running: AtomicBool,
    /// How many buyers stand where, by [`Standing`].
    standing: [AtomicU32; 6],
}

impl Crowd {
    fn new(concert: ConcertId, buyers: u32, http: reqwest::Client, base: &str) -> Self {
        let crowd = Self {
            concert,
            buyers,
            http,
            base: base.to_owned(),
            requests: Semaphore::new(REQUESTS_AT_ONCE),
            running: AtomicBool::new(true),
            standing: Default::default(),
        };
        crowd.standing[Standing::Arriving as usize].store(buyers, Ordering::Relaxed);
        crowd
    }

    fn view(&self) -> CrowdView {
        let count = |standing: Standing| self.standing[standing as usize].load(Ordering::Relaxed);
        CrowdView {
            running: self.running.load(Ordering::Relaxed),
            concert_id: Some(self.concert),
            buyers: self.buyers,
            arriving: count(Standing::Arriving),
            waiting: count(Standing::Waiting),
            choosing: count(Standing::Choosing),
            holding: count(Standing::Holding),
            bought: count(Standing::Bought),
            gone: count(Standing::Gone),
        }
    }

    async fn live(self: &Arc<Self>) {
        let mut buyers = JoinSet::new();
        for number in 1..=self.buyers {
            let mut buyer = Buyer::new(Arc::clone(self), number);
            buyers.spawn(async move {
                match tokio::time::timeout(BUYER_TIME, buyer.live()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(%error, "a simulated buyer went home"),
                    Err(_) => tracing::debug!("a simulated buyer took too long"),
                }
                buyer.go_home();
            });
        }
        while buyers.join_next().await.is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listener_on_all_addresses_is_called_at_loopback() {
        let check = |listens: &str, called: &str| {
            assert_eq!(reachable(listens.parse().unwrap()).to_string(), called);
        };
        check("0.0.0.0:8080", "127.0.0.1:8080");
        check("[::]:8080", "[::1]:8080");
        check("192.0.2.1:80", "192.0.2.1:80");
    }
}
