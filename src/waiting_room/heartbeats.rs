//! The heartbeats of users that this instance has received and not yet reported to the others, and the format of a
//! report.
//!
//! A report is a sequence of 16-byte values: the id of the process, the concert, the number of seconds for which its
//! users are trusted, and then the users. It has users and not places, because a line finds its entries by user.
//!
//! Heartbeats are divided into shares by user, and one share is sent at a time. So two hundred thousand users never
//! make one large report, and requests hardly ever wait for the lock.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use crate::ids::{ConcertId, UserId};

pub const SHARES: usize = 16;
const MAX_USERS_PER_REPORT: usize = 4_096;
const ID_BYTES: usize = 16;

#[derive(Debug)]
pub struct Heartbeats {
    /// The id of this process. It ignores its own reports.
    pub own: Uuid,
    shares: [Mutex<ShareOfUsers>; SHARES],
    continuous_since: AtomicU32,
}

/// Users by concert, each with the number of seconds for which it is trusted.
type ShareOfUsers = HashMap<ConcertId, HashMap<UserId, u32>>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The process that sent it.
    pub from: Uuid,
    pub concert: ConcertId,
    /// How long the users are trusted, from the arrival of the report.
    pub trust_seconds: u32,
    pub users: Vec<UserId>,
}

impl Heartbeats {
    pub fn new(own: Uuid) -> Self {
        Self { own, shares: Default::default(), continuous_since: AtomicU32::new(0) }
    }

    /// Records a heartbeat of a user in line, who is trusted for so many seconds.
    pub fn record(&self, concert: ConcertId, user: UserId, trust_seconds: u32) {
        let mut shares = self.shares(share_of(user));
        let known = shares.entry(concert).or_default().entry(user).or_insert(trust_seconds);
        *known = trust_seconds.max(*known);
    }

    /// Takes the reports of one share, in messages of limited size. Each user appears once.
    pub fn take(&self, share: usize) -> impl Iterator<Item = Bytes> + use<> {
        let (shares, own) = (std::mem::take(&mut *self.shares(share)), self.own);
        shares.into_iter().flat_map(move |(concert, users)| {
            let mut by_trust: BTreeMap<u32, Vec<UserId>> = BTreeMap::new();
            for (user, trust_seconds) in users {
                by_trust.entry(trust_seconds).or_default().push(user);
            }
            by_trust.into_iter().flat_map(move |(trust_seconds, users)| {
                let parts: Vec<_> = users
                    .chunks(MAX_USERS_PER_REPORT)
                    .map(|part| write(own, concert, trust_seconds, part))
                    .collect();
                parts
            })
        })
    }

    /// Heartbeats before this second, counted from the start of the process, may have been missed.
    pub fn mark_gap(&self, now: u32) {
        self.continuous_since.fetch_max(now, Ordering::Relaxed);
    }

    /// The second since which no heartbeats were missed.
    pub fn continuous_since(&self) -> u32 {
        self.continuous_since.load(Ordering::Relaxed)
    }

    fn shares(&self, share: usize) -> MutexGuard<'_, ShareOfUsers> {
        self.shares[share % SHARES].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Report {
    /// `None` if the message is not a report.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (ids, rest) = bytes.as_chunks::<ID_BYTES>();
        let [from, concert, trust_seconds, users @ ..] = ids else {
            return None;
        };
        rest.is_empty().then(|| Self {
            from: Uuid::from_bytes(*from),
            concert: ConcertId::from_bytes(*concert),
            trust_seconds: u32::try_from(u128::from_be_bytes(*trust_seconds)).unwrap_or(u32::MAX),
            users: users.iter().map(|user| UserId::from_bytes(*user)).collect(),
        })
    }
}

fn write(from: Uuid, concert: ConcertId, trust_seconds: u32, users: &[UserId]) -> Bytes {
    let mut bytes = BytesMut::with_capacity((users.len() + 3) * ID_BYTES);
    for id in [from, concert, Uuid::from_u128(trust_seconds.into())].iter().chain(users) {
        bytes.extend_from_slice(id.as_bytes());
    }
    bytes.freeze()
}

/// The lower bits of a user's id are random.
fn share_of(user: UserId) -> usize {
    user.as_u128() as usize % SHARES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_heartbeat_is_reported_once_in_shares() {
        let (hearing, concert) = (Heartbeats::new(Uuid::from_u128(7)), ConcertId::from_u128(1));
        let take = |share| {
            let reports: Vec<Bytes> = hearing.take(share).collect();
            assert!(reports.iter().all(|report| report.len() < 100_000));
            reports.iter().map(|report| Report::read(report).unwrap()).collect::<Vec<_>>()
        };
        assert!((0..SHARES).all(|share| take(share).is_empty()), "without heartbeats there are no shares");
        for number in 0..200_000u128 {
            hearing.record(concert, UserId::from_u128(number % 100_000), 60 + (number / 100_000) as u32);
        }
        hearing.record(concert, UserId::from_u128(1), 60);
        let mut listed = Vec::new();
        for share in 0..SHARES {
            let reports = take(share);
            let head = |report: &Report| (report.from, report.concert, report.trust_seconds);
            assert!(reports.iter().all(|report| head(report) == (hearing.own, concert, 61)));
            let users: Vec<u128> =
                reports.iter().flat_map(|report| &report.users).map(|user| user.as_u128()).collect();
            assert!(users.len() < 100_000 / SHARES * 2, "{} at a time", users.len());
            listed.extend(users);
        }
        listed.sort_unstable();
        assert_eq!(listed, (0..100_000).collect::<Vec<_>>());
        assert!((0..SHARES).all(|share| take(share).is_empty()));
    }

    #[test]
    fn what_is_not_a_report_is_not_read() {
        for bytes in [&[0; 0][..], &[1; 32], &[1; 63]] {
            assert_eq!(Report::read(bytes), None);
        }
        assert_eq!(Report::read(&[1; 48]).map(|report| report.users.len()), Some(0));
    }

    proptest::proptest! {
        #[test]
        fn reports_are_read_or_refused(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let report = Report::read(&bytes);
            let is_report = bytes.len() >= 3 * ID_BYTES && bytes.len().is_multiple_of(ID_BYTES);
            proptest::prop_assert_eq!(report.is_some(), is_report);
        }
    }
}
