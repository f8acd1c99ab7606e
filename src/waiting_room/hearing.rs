//! Whom this instance has heard of since it last told the others, and how that is told.
//!
//! A report is plain bytes, sixteen for each: the id of the process, the concert, for how many seconds nothing more needs
//! to be heard of these users, then one user after the other. Users and not places, because a user is found in a line in
//! whatever order it stands.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use crate::ids::{ConcertId, UserId};

/// Users of one report: half of what a server accepts in a message.
const MOST: usize = 32_000;
/// What an id takes.
const ID: usize = 16;

/// The notes of one instance.
#[derive(Debug)]
pub struct Hearing {
    /// Which process this is, so that it does not listen to itself.
    pub own: Uuid,
    /// By concert and patience.
    heard: Mutex<HashMap<(ConcertId, u32), Vec<UserId>>>,
    anew: AtomicU32,
}

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
        Self { own, heard: Mutex::default(), anew: AtomicU32::new(0) }
    }

    /// A user in line was heard of, and needs not to be for so many seconds.
    pub fn note(&self, concert: ConcertId, user: UserId, patience: u32) {
        self.heard().entry((concert, patience)).or_default().push(user);
    }

    /// What has to be told: each user once, in messages that are not too long. Nothing if nobody was heard of.
    pub fn take(&self) -> Vec<Bytes> {
        let heard = std::mem::take(&mut *self.heard());
        let mut reports = Vec::new();
        for ((concert, patience), users) in heard {
            let users = distinct(users);
            reports.extend(users.chunks(MOST).map(|users| write(self.own, concert, patience, users)));
        }
        reports
    }

    /// While nothing can be told: each user is kept once, however often it was heard of.
    pub fn tidy(&self) {
        for users in self.heard().values_mut() {
            *users = distinct(std::mem::take(users));
        }
    }

    /// From this second on, since the start, this instance could hear; what was before, it may have missed.
    pub fn begin_anew(&self, now: u32) {
        self.anew.fetch_max(now, Ordering::Relaxed);
    }

    /// Since which second this instance has heard without a gap.
    pub fn anew(&self) -> u32 {
        self.anew.load(Ordering::Relaxed)
    }

    fn heard(&self) -> MutexGuard<'_, HashMap<(ConcertId, u32), Vec<UserId>>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
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

fn distinct(mut users: Vec<UserId>) -> Vec<UserId> {
    users.sort_unstable();
    users.dedup();
    users
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_who_was_heard_of_is_told_once_in_messages_that_a_server_accepts() {
        let hearing = Hearing::new(Uuid::from_u128(7));
        assert!(hearing.take().is_empty(), "nothing is said when nobody was heard of");
        let concert = ConcertId::from_u128(1);
        for number in 0..100_000u128 {
            hearing.note(concert, UserId::from_u128(number % 50_000), 61);
        }
        hearing.tidy();
        hearing.note(concert, UserId::from_u128(1), 61);
        let reports = hearing.take();
        assert!(reports.iter().all(|report| report.len() < 1_000_000));
        let read: Vec<Report> = reports.iter().map(|report| Report::read(report).unwrap()).collect();
        let head = |report: &Report| (report.from, report.concert, report.patience);
        assert!(read.iter().all(|report| head(report) == (hearing.own, concert, 61)));
        let users: Vec<u128> =
            read.iter().flat_map(|report| &report.users).map(|user| user.as_u128()).collect();
        assert_eq!(users, (0..50_000).collect::<Vec<_>>());
        assert!(hearing.take().is_empty());
    }

    #[test]
    fn what_is_not_a_report_is_not_read() {
        for bytes in [&[0; 0][..], &[1; 32], &[1; 63]] {
            assert_eq!(Report::read(bytes), None);
        }
        assert_eq!(Report::read(&[1; 48]).map(|report| report.users.len()), Some(0));
    }
}
