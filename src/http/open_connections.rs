//! The open connections of one instance: how many each address has, and which one closes to make room for another.
//!
//! At the bound on all connections those without a request close first, the oldest of them before the others. Then an idle
//! connection of an address that has more connections than the newcomer's closes. A connection with a request under way
//! is never closed for another.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// No request so far.
const SILENT: u64 = 0;
/// A request is under way.
const BUSY: u64 = 1;
/// It closes to make room for another.
const EVICTED: u64 = 2;
/// From here on: idle since so many milliseconds after the connection was opened.
const IDLE: u64 = 3;

/// A connection this young may have sent a request that was not read yet, and is not closed for another.
const SILENT_GRACE: Duration = Duration::from_millis(300);

/// Which bound a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    /// That on all connections of the instance.
    All,
    /// That on the connections of one address.
    Address,
}

/// One connection, as its own task and the others see it.
#[derive(Debug)]
pub(super) struct Connection {
    id: u64,
    /// Who is counted for it; none for a trusted proxy.
    address: Option<IpAddr>,
    opened_at: Instant,
    phase: AtomicU64,
    /// When the first byte of the head came that is not complete yet, in milliseconds after the opening, plus one.
    head_began: AtomicU64,
    evicted: Notify,
}

/// How long a connection may take with what it does between two requests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// From the opening to the first byte.
    pub first_byte: Duration,
    /// From the first byte of a head to its last.
    pub head: Duration,
    /// From an answer to the first byte of the next head.
    pub keep_alive: Duration,
}

impl Connection {
    fn new(id: u64, address: Option<IpAddr>) -> Self {
        let (phase, head_began) = (AtomicU64::new(SILENT), AtomicU64::new(0));
        Self { id, address, opened_at: Instant::now(), phase, head_began, evicted: Notify::new() }
    }

    /// One that is counted nowhere.
    pub(super) fn uncounted() -> Arc<Self> {
        Arc::new(Self::new(0, None))
    }

    /// Returns when this connection has to close to make room for another.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }

    /// Bytes came.
    pub(super) fn received(&self) {
        if self.phase.load(Ordering::Relaxed) != BUSY && self.head_began.load(Ordering::Relaxed) == 0 {
            self.head_began.store(self.age() + 1, Ordering::Relaxed);
        }
    }

    /// When it closes unless something comes; never while a request is under way.
    pub(super) fn closes_at(&self, patience: Patience) -> Option<Instant> {
        let phase = self.phase.load(Ordering::Relaxed);
        if phase == BUSY {
            return None;
        }
        let head_began = self.head_began.load(Ordering::Relaxed).checked_sub(1);
        let (since, wait) = match (head_began, phase) {
            (Some(began), _) => (began, patience.head),
            (None, SILENT | EVICTED) => (0, patience.first_byte),
            (None, idle) => (idle - IDLE, patience.keep_alive),
        };
        Some(self.opened_at + Duration::from_millis(since) + wait)
    }

    /// A request has come; returns false if the connection closes to make room. `was_silent` is called for the first one.
    fn begin(&self, was_silent: impl FnOnce()) -> bool {
        let mut phase = self.phase.load(Ordering::Acquire);
        while phase != EVICTED {
            match self.phase.compare_exchange(phase, BUSY, Ordering::AcqRel, Ordering::Acquire) {
                Ok(SILENT) => {
                    self.head_began.store(0, Ordering::Relaxed);
                    was_silent();
                    return true;
                }
                Ok(_) => {
                    self.head_began.store(0, Ordering::Relaxed);
                    return true;
                }
                Err(now) => phase = now,
            }
        }
        false
    }

    fn end(&self) {
        self.head_began.store(0, Ordering::Relaxed);
        self.phase.store(IDLE + self.age(), Ordering::Release);
    }

    /// Closes it if it still is in this phase.
    fn evict(&self, phase: u64) -> bool {
        let evicted =
            self.phase.compare_exchange(phase, EVICTED, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if evicted {
            self.evicted.notify_one();
        }
        evicted
    }

    /// Since when it is idle, if it is: its phase, and the time.
    fn idle_since(&self) -> Option<(u64, Instant)> {
        let phase = self.phase.load(Ordering::Acquire);
        let idle = phase.checked_sub(IDLE)?;
        Some((phase, self.opened_at + Duration::from_millis(idle)))
    }

    fn age(&self) -> u64 {
        u64::try_from(self.opened_at.elapsed().as_millis()).unwrap_or(u64::MAX / 2)
    }
}

/// All open connections. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct OpenConnections(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    most: usize,
    /// Most of one address; 0 for no limit.
    most_per_address: u32,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    last_id: u64,
    connections: BTreeMap<u64, Arc<Connection>>,
    /// Those without a request so far, the oldest first.
    silent: BTreeSet<u64>,
    addresses: HashMap<IpAddr, u32>,
}

/// A place among the open connections; dropping it gives the place back.
#[derive(Debug)]
pub(super) struct Opened {
    pub connection: Arc<Connection>,
    all: OpenConnections,
}

/// A request under way; dropping it ends the request.
#[derive(Debug)]
pub(super) struct Busy(Arc<Connection>);

impl OpenConnections {
    /// None are open.
    pub(super) fn new(most: usize, most_per_address: u32) -> Self {
        Self(Arc::new(Inner { most, most_per_address, open: Mutex::default() }))
    }

    /// A place for a connection of this address (none for a trusted proxy), or the bound that it is over.
    pub(super) fn admit(&self, address: Option<IpAddr>) -> Result<Opened, Bound> {
        let mut open = self.locked();
        let of_address = address.and_then(|address| open.addresses.get(&address)).copied().unwrap_or(0);
        let per_address = self.0.most_per_address;
        if per_address > 0 && of_address >= per_address && !open.evict_silent(address) {
            return Err(Bound::Address);
        }
        if open.connections.len() >= self.0.most && !open.evict_silent(None) && !open.evict_idle(of_address) {
            return Err(Bound::All);
        }
        let connection = open.insert(address);
        metrics::gauge!("boxoffice_http_connections").increment(1.0);
        Ok(Opened { connection, all: self.clone() })
    }

    /// A request has come on this connection; none if it closes to make room.
    pub(super) fn begin(&self, connection: &Arc<Connection>) -> Option<Busy> {
        let began = connection.begin(|| {
            self.locked().silent.remove(&connection.id);
        });
        began.then(|| Busy(Arc::clone(connection)))
    }

    fn locked(&self) -> MutexGuard<'_, Open> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn insert(&mut self, address: Option<IpAddr>) -> Arc<Connection> {
        self.last_id += 1;
        let connection = Arc::new(Connection::new(self.last_id, address));
        self.connections.insert(self.last_id, Arc::clone(&connection));
        self.silent.insert(self.last_id);
        if let Some(address) = address {
            *self.addresses.entry(address).or_default() += 1;
        }
        connection
    }

    fn remove(&mut self, id: u64) {
        self.silent.remove(&id);
        let Some(address) = self.connections.remove(&id).and_then(|connection| connection.address) else {
            return;
        };
        if let Some(count) = self.addresses.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.addresses.remove(&address);
            }
        }
    }

    /// Closes the oldest connection without a request, of this address if one is given.
    fn evict_silent(&mut self, address: Option<IpAddr>) -> bool {
        let wanted = |connection: &Connection| address.is_none() || connection.address == address;
        let oldest = self.silent.iter().filter_map(|id| self.connections.get(id));
        let old_enough = oldest.take_while(|connection| connection.opened_at.elapsed() >= SILENT_GRACE);
        let evicted = old_enough.filter(|connection| wanted(connection)).find(|one| one.evict(SILENT));
        let Some(id) = evicted.map(|connection| connection.id) else { return false };
        self.remove(id);
        true
    }

    /// Closes the connection that is idle longest of those whose address has more connections than this.
    fn evict_idle(&mut self, fewer: u32) -> bool {
        let largest = self.addresses.values().copied().max().unwrap_or(0);
        if largest <= fewer {
            return false;
        }
        let count = |connection: &Connection| {
            connection.address.and_then(|address| self.addresses.get(&address)).copied().unwrap_or(0)
        };
        let idle = self.connections.values().filter(|connection| count(connection) > fewer);
        let idle = idle.filter_map(|connection| Some((connection, connection.idle_since()?)));
        let longest = idle.min_by_key(|(_, (_, since))| *since);
        let Some((connection, (phase, _))) = longest else { return false };
        let (id, evicted) = (connection.id, connection.evict(phase));
        if evicted {
            self.remove(id);
        }
        evicted
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        metrics::gauge!("boxoffice_http_connections").decrement(1.0);
        self.all.locked().remove(self.connection.id);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn address(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, last]))
    }

    fn is_evicted(opened: &Opened) -> bool {
        opened.connection.evicted().now_or_never().is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_silent_connection_makes_room() {
        let all = OpenConnections::new(3, 0);
        let [first, second, third] = [1, 1, 2].map(|last| all.admit(address(last)).unwrap());
        assert_eq!(all.admit(address(3)).unwrap_err(), Bound::All, "their requests may be on the way");
        tokio::time::advance(SILENT_GRACE).await;
        let busy = all.begin(&first.connection).unwrap();
        let newcomer = all.admit(address(3)).unwrap();
        assert_eq!([&first, &second, &third, &newcomer].map(is_evicted), [false, true, false, false]);
        assert!(all.begin(&second.connection).is_none(), "its request comes too late");
        drop(busy);
        drop(second);
        assert_eq!(all.locked().connections.len(), 3);
    }

    #[test]
    fn idle_connection_yields_to_a_smaller_address() {
        let all = OpenConnections::new(3, 0);
        let opened = [1, 1, 1].map(|last| all.admit(address(last)).unwrap());
        let mut busy = opened.each_ref().map(|opened| all.begin(&opened.connection));
        assert_eq!(all.admit(address(2)).unwrap_err(), Bound::All, "all are busy");
        busy[1] = None;
        assert_eq!(all.admit(address(1)).unwrap_err(), Bound::All, "it has as many");
        let newcomer = all.admit(address(2)).unwrap();
        assert_eq!(opened.each_ref().map(is_evicted), [false, true, false]);
        let _busy = all.begin(&newcomer.connection).unwrap();
        drop(opened);
        assert_eq!(all.locked().connections.len(), 1);
        assert_eq!(all.locked().addresses.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_are_limited_trusted_proxies_are_not() {
        let all = OpenConnections::new(100, 2);
        let opened = [1, 1].map(|last| all.admit(address(last)).unwrap());
        tokio::time::advance(SILENT_GRACE).await;
        let _third = all.admit(address(1)).unwrap();
        assert_eq!(opened.each_ref().map(is_evicted), [true, false], "the silent one went");
        let _busy = all.begin(&opened[1].connection).unwrap();
        assert_eq!(all.admit(address(1)).unwrap_err(), Bound::Address);
        tokio::time::advance(SILENT_GRACE).await;
        let _fourth = all.admit(address(1)).unwrap();
        let _other = all.admit(address(2)).unwrap();
        let proxied = [(); 10].map(|()| all.admit(None).unwrap());
        assert!(!proxied.iter().any(is_evicted));
    }

    #[tokio::test(start_paused = true)]
    async fn each_phase_has_a_time_of_its_own() {
        let seconds = Duration::from_secs;
        let patience = Patience { first_byte: seconds(10), head: seconds(40), keep_alive: seconds(75) };
        let all = OpenConnections::new(10, 0);
        let opened = all.admit(None).unwrap();
        let closes_in =
            || opened.connection.closes_at(patience).map(|at| at.duration_since(Instant::now()).as_secs());
        assert_eq!(closes_in(), Some(10));
        tokio::time::advance(seconds(3)).await;
        opened.connection.received();
        assert_eq!(closes_in(), Some(40));
        tokio::time::advance(seconds(3)).await;
        opened.connection.received();
        assert_eq!(closes_in(), Some(37), "from the first byte");
        let busy = all.begin(&opened.connection).unwrap();
        opened.connection.received();
        assert_eq!(closes_in(), None);
        drop(busy);
        assert_eq!(closes_in(), Some(75));
        tokio::time::advance(seconds(50)).await;
        opened.connection.received();
        assert_eq!(closes_in(), Some(40));
    }
}
