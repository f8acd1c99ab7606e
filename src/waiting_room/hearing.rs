//! Whom this instance has heard of since it last told the others, and how that is told.
//!
//! A report is plain bytes, sixteen for each: the id of the process, the concert, for how many seconds nothing more needs
//! to be heard of these users, then one user after the other. Users and not places, because a user is found in a line in
//! whatever order it stands.
//!
//! The notes lie in shares by user. One share is told at a time, so that two hundred thousand who ask never become one
//! great report, and those who are noted down meanwhile hardly ever wait for it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use crate::ids::{ConcertId, UserId};

/// In how many shares the notes lie.
pub const SHARES: usize = 16;
/// Users of one report.
const MOST: usize = 4_096;
/// What an id takes.
const ID: usize = 16;

/// The notes of one instance.
#[derive(Debug)]
pub struct Hearing {
    /// Which process this is, so that it does not listen to itself.
    pub own: Uuid,
    heard: [Mutex<Heard>; SHARES],
    anew: AtomicU32,
}

/// Who was heard of in which line, each once, and for how long nothing more needs to be.
type Heard = HashMap<ConcertId, HashMap<UserId, u32>>;

/// A report, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Which process it comes from.
    pub from: Uuid,
    /// In which concert's line.
    pub concert: ConcertId,
    /// For how many seconds nothing more needs to be heard of them.
    pub patience: u32,
    /// Whom it has heard of.
    pub users: Vec<UserId>,
}

impl Hearing {
    /// Has heard nobody.
    pub fn new(own: Uuid) -> Self {
        Self { own, heard: Default::default(), anew: AtomicU32::new(0) }
    }

    /// A user in line was heard of, and needs not to be for so many seconds.
    pub fn note(&self, concert: ConcertId, user: UserId, patience: u32) {
        let mut heard = self.heard(share_of(user));
        let known = heard.entry(concert).or_default().entry(user).or_insert(patience);
        *known = patience.max(*known);
    }

    /// What has to be told of one share: each user once, in messages that are not too long. Nothing if nobody in it was
    /// heard of.
    pub fn take(&self, share: usize) -> impl Iterator<Item = Bytes> + use<> {
        let (heard, own) = (std::mem::take(&mut *self.heard(share)), self.own);
        heard.into_iter().flat_map(move |(concert, users)| {
            let mut of_patience: BTreeMap<u32, Vec<UserId>> = BTreeMap::new();
            for (user, patience) in users {
                of_patience.entry(patience).or_default().push(user);
            }
            of_patience.into_iter().flat_map(move |(patience, users)| {
                let parts: Vec<_> =
                    users.chunks(MOST).map(|part| write(own, concert, patience, part)).collect();
                parts
            })
        })
    }

    /// From this second on, since the start, this instance could hear; what was before, it may have missed.
    pub fn begin_anew(&self, now: u32) {
        self.anew.fetch_max(now, Ordering::Relaxed);
    }

    /// Since which second this instance has heard without a gap.
    pub fn anew(&self) -> u32 {
        self.anew.load(Ordering::Relaxed)
    }

    fn heard(&self, share: usize) -> MutexGuard<'_, Heard> {
        self.heard[share % SHARES].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Report {
    /// Reads a message; nothing if it is not a report.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (ids, rest) = bytes.as_chunks::<ID>();
        let [from, concert, patience, users @ ..] = ids else {
            return None;
        };
        rest.is_empty().then(|| Self {
            from: Uuid::from_bytes(*from),
            concert: ConcertId::from_bytes(*concert),
            patience: u32::try_from(u128::from_be_bytes(*patience)).unwrap_or(u32::MAX),
            users: users.iter().map(|user| UserId::from_bytes(*user)).collect(),
        })
    }
}

fn write(from: Uuid, concert: ConcertId, patience: u32, users: &[UserId]) -> Bytes {
    let mut bytes = BytesMut::with_capacity((users.len() + 3) * ID);
    for id in [from, concert, Uuid::from_u128(patience.into())].iter().chain(users) {
        bytes.extend_from_slice(id.as_bytes());
    }
    bytes.freeze()
}

/// The end of an id is chance.
fn share_of(user: UserId) -> usize {
    user.as_u128() as usize % SHARES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_who_was_heard_of_is_told_once_and_never_more_than_a_share_of_them_at_a_time() {
        let (hearing, concert) = (Hearing::new(Uuid::from_u128(7)), ConcertId::from_u128(1));
        let take = |share| {
            let reports: Vec<Bytes> = hearing.take(share).collect();
            assert!(reports.iter().all(|report| report.len() < 100_000));
            reports.iter().map(|report| Report::read(report).unwrap()).collect::<Vec<_>>()
        };
        assert!((0..SHARES).all(|share| take(share).is_empty()), "nothing is said when nobody was heard of");
        for number in 0..200_000u128 {
            hearing.note(concert, UserId::from_u128(number % 100_000), 60 + (number / 100_000) as u32);
        }
        hearing.note(concert, UserId::from_u128(1), 60);
        let mut told = Vec::new();
        for share in 0..SHARES {
            let reports = take(share);
            let head = |report: &Report| (report.from, report.concert, report.patience);
            assert!(reports.iter().all(|report| head(report) == (hearing.own, concert, 61)));
            let users: Vec<u128> =
                reports.iter().flat_map(|report| &report.users).map(|user| user.as_u128()).collect();
            assert!(users.len() < 100_000 / SHARES * 2, "{} at a time", users.len());
            told.extend(users);
        }
        told.sort_unstable();
        assert_eq!(told, (0..100_000).collect::<Vec<_>>());
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
            let is_report = bytes.len() >= 3 * ID && bytes.len().is_multiple_of(ID);
            proptest::prop_assert_eq!(report.is_some(), is_report);
        }
    }
}
