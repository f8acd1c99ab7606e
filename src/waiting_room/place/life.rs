//! The life of a place from joining to its end, as one pure function.
//!
//! ```text
//! waiting ── no heartbeat ──▶ silent (grace) ── heartbeat ──▶ waiting
//!
//! waiting ── admitted ──▶ active (claim window) ── first use ──▶ active (session) ── held a seat ──▶ active (longer)
//!    │                       │                                        │
//! │                       │                                        │
//!                                          (and silent, when the grace is over)
//! ```
//!
//! The bucket stores a [`Record`] for each place, and memory an [`Entry`].

#![warn(clippy::arithmetic_side_effects)] // numbers and times from outside

use std::time::Duration;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::token::{Claims, Place};
use crate::bus::incarnation;
use crate::clock::{self, plus};
use crate::ids::{ConcertId, UserId};

/// A place in line ends after this time, so that keys do not live for ever.
pub const LONGEST_WAIT: TimeDelta = TimeDelta::hours(24);
/// How long a key outlives its place. The TTL only removes keys that no instance has deleted.
const KEY_OUTLIVES: TimeDelta = TimeDelta::hours(1);
/// Two times of one place are never further apart: a wait, a session and its holds take at most a day each.
const LONGEST_LIFE: TimeDelta = TimeDelta::days(7);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaceStatus {
    /// In line.
    Waiting,
    /// In line, but without heartbeats: not admitted, and kept until the grace ends.
    Silent { grace_until: DateTime<Utc> },
    /// Admitted. Before the first booking request `used` is false, and `expires_at` is the end of the claim window.
    Active { activated_at: DateTime<Utc>, expires_at: DateTime<Utc>, used: bool },
}

/// A place as it was last written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The revision of the last write.
    pub revision: u64,
    /// The revision of the first write: the order of arrival.
    pub place: Place,
    /// When the user joined.
    pub issued_at: DateTime<Utc>,
    pub status: PlaceStatus,
}

/// An event of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The user is admitted.
    Admit { now: DateTime<Utc>, claim: Duration },
    /// The user books for the first time: the session begins and lasts at least until then.
    Use { until: DateTime<Utc> },
    /// The user holds a seat until then.
    Hold { until: DateTime<Utc> },
    /// The user has sent no heartbeat for too long.
    GoSilent { now: DateTime<Utc>, grace: Duration },
    /// The user has sent a heartbeat.
    Heartbeat { now: DateTime<Utc> },
    /// The user gives the place up, or has paid.
    End,
    /// Checks whether the place has expired.
    CheckEnd { now: DateTime<Utc> },
}

/// What to write after an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The new status.
    Write(PlaceStatus),
    /// The key is to be deleted.
    Delete,
}

/// What an event does to a place; `None` if it changes nothing.
pub fn next(entry: &Entry, event: Event) -> Option<Outcome> {
    use PlaceStatus::{Active, Silent, Waiting};
    match (entry.status, event) {
        (Waiting, Event::Admit { now, claim }) => {
            let status = Active { activated_at: now, expires_at: after(now, claim), used: false };
            Some(Outcome::Write(status))
        }
        (Waiting, Event::GoSilent { now, grace }) => {
            Some(Outcome::Write(Silent { grace_until: after(now, grace) }))
        }
        (Silent { .. }, Event::Heartbeat { now }) => (!entry.is_over(now)).then_some(Outcome::Write(Waiting)),
        (Active { activated_at, expires_at, used }, Event::Use { until }) => {
            let longer = Active { activated_at, expires_at: expires_at.max(until), used: true };
            (!used).then_some(Outcome::Write(longer))
        }
        (Active { activated_at, expires_at, .. }, Event::Hold { until }) => {
            let longer = Active { activated_at, expires_at: until, used: true };
            (until > expires_at).then_some(Outcome::Write(longer))
        }
        (_, Event::End) => Some(Outcome::Delete),
        (_, Event::CheckEnd { now }) => (entry.end() <= now).then_some(Outcome::Delete),
        (Waiting | Silent { .. }, Event::Use { .. } | Event::Hold { .. })
        | (Silent { .. } | Active { .. }, Event::Admit { .. } | Event::GoSilent { .. })
        | (Waiting | Active { .. }, Event::Heartbeat { .. }) => None,
    }
}

impl PlaceStatus {
    /// Whether the place has not been admitted yet.
    pub fn is_in_line(&self) -> bool {
        !matches!(self, Self::Active { .. })
    }
}

impl Entry {
    /// When the place ends if nothing happens before.
    pub fn end(&self) -> DateTime<Utc> {
        let too_old = plus(self.issued_at, LONGEST_WAIT);
        match self.status {
            PlaceStatus::Waiting => too_old,
            PlaceStatus::Silent { grace_until } => grace_until.min(too_old),
            PlaceStatus::Active { expires_at, .. } => expires_at,
        }
    }

    /// Whether the place has expired, deleted or not.
    pub fn is_over(&self, now: DateTime<Utc>) -> bool {
        next(self, Event::CheckEnd { now }) == Some(Outcome::Delete)
    }

    /// Whether revision, place and times can belong to one place. Records, journal rows and tokens are accepted only
    /// if so, because later computations rely on it.
    pub fn is_possible(&self) -> bool {
        let near = |time: DateTime<Utc>| {
            clock::is_plausible(time) && time.signed_duration_since(self.issued_at).abs() <= LONGEST_LIFE
        };
        let times = match self.status {
            PlaceStatus::Waiting => [self.issued_at; 2],
            PlaceStatus::Silent { grace_until } => [self.issued_at, grace_until],
            PlaceStatus::Active { activated_at, expires_at, .. } => [activated_at, expires_at],
        };
        (1..=self.revision).contains(&self.place)
            && i64::try_from(self.revision).is_ok()
            && clock::is_plausible(self.issued_at)
            && times.into_iter().all(near)
    }

    /// The claims of the owner's token.
    pub fn claims(&self, user: UserId, concert: ConcertId) -> Claims {
        let (activated_at, expires_at) = match self.status {
            PlaceStatus::Waiting | PlaceStatus::Silent { .. } => (None, None),
            PlaceStatus::Active { activated_at, expires_at, .. } => (Some(activated_at), Some(expires_at)),
        };
        let bucket = incarnation::of(self.revision);
        Claims {
            user,
            concert,
            place: self.place,
            issued_at: self.issued_at,
            activated_at,
            expires_at,
            bucket,
        }
    }
}

/// A place as the bucket stores it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    user: UserId,
    concert: ConcertId,
    status: RecordStatus,
    #[serde(deserialize_with = "clock::deserialize")]
    issued_at: DateTime<Utc>,
    #[serde(default, deserialize_with = "clock::optional::deserialize")]
    activated_at: Option<DateTime<Utc>>,
    #[serde(default, deserialize_with = "clock::optional::deserialize")]
    expires_at: Option<DateTime<Utc>>,
    /// The first revision. The first write cannot know it.
    place: Option<Place>,
    #[serde(default)]
    used: bool,
    /// Until when the place of a silent user is kept.
    #[serde(
        default,
        deserialize_with = "clock::optional::deserialize",
        skip_serializing_if = "Option::is_none"
    )]
    grace_until: Option<DateTime<Utc>>,
    /// Distinguishes two first writes of the same millisecond, so that each writer recognizes its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nonce: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RecordStatus {
    Waiting,
    Active,
}

impl Record {
    /// A new place at the end of the line.
    pub fn joining(user: UserId, concert: ConcertId, now: DateTime<Utc>) -> Self {
        Self {
            user,
            concert,
            status: RecordStatus::Waiting,
            issued_at: now,
            activated_at: None,
            expires_at: None,
            place: None,
            used: false,
            grace_until: None,
            nonce: Some(rand::random()),
        }
    }

    /// A place with a new status.
    pub fn with_status(user: UserId, concert: ConcertId, entry: &Entry, status: PlaceStatus) -> Self {
        let record =
            Self { place: Some(entry.place), nonce: None, ..Self::joining(user, concert, entry.issued_at) };
        match status {
            PlaceStatus::Waiting => record,
            PlaceStatus::Silent { grace_until } => Self { grace_until: Some(grace_until), ..record },
            PlaceStatus::Active { activated_at, expires_at, used } => Self {
                status: RecordStatus::Active,
                activated_at: Some(activated_at),
                expires_at: Some(expires_at),
                used,
                ..record
            },
        }
    }

    /// Reads the value of a key at `revision`; `None` if it is not a possible place.
    pub fn read(bytes: &[u8], revision: u64) -> Option<Entry> {
        let record: Self = serde_json::from_slice(bytes).ok()?;
        let status = match (record.status, record.activated_at, record.expires_at) {
            (RecordStatus::Waiting, ..) => match record.grace_until {
                Some(grace_until) => PlaceStatus::Silent { grace_until },
                None => PlaceStatus::Waiting,
            },
            (RecordStatus::Active, Some(activated_at), Some(expires_at)) => {
                PlaceStatus::Active { activated_at, expires_at, used: record.used }
            }
            (RecordStatus::Active, ..) => return None,
        };
        let place = record.place.unwrap_or(revision);
        // Memory keeps microseconds.
        let entry = Entry { revision, place, issued_at: record.issued_at.trunc_subsecs(6), status };
        entry.is_possible().then_some(entry)
    }

    pub fn to_bytes(&self) -> bytes::Bytes {
        // A struct of plain fields always serializes. An empty value would not be read as a place.
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    /// The TTL of the key.
    pub fn key_ttl(&self, now: DateTime<Utc>) -> Duration {
        let end = plus(self.expires_at.unwrap_or(plus(self.issued_at, LONGEST_WAIT)), KEY_OUTLIVES);
        end.signed_duration_since(now).max(KEY_OUTLIVES).to_std().unwrap_or(Duration::from_secs(3600))
    }
}

fn after(now: DateTime<Utc>, pause: Duration) -> DateTime<Utc> {
    plus(now, TimeDelta::from_std(pause).unwrap_or(LONGEST_LIFE))
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_900_000_000 + seconds, 0).unwrap()
    }

    fn entry(status: PlaceStatus) -> Entry {
        Entry { revision: 9, place: 7, issued_at: at(0), status }
    }

    fn active(until: i64, used: bool) -> PlaceStatus {
        PlaceStatus::Active { activated_at: at(10), expires_at: at(until), used }
    }

    const CLAIM: Duration = Duration::from_secs(60);

    #[test]
    fn place_is_admitted_once() {
        let event = Event::Admit { now: at(10), claim: CLAIM };
        assert_eq!(next(&entry(PlaceStatus::Waiting), event), Some(Outcome::Write(active(70, false))));
        assert_eq!(next(&entry(active(70, false)), event), None);
    }

    #[test]
    fn only_the_first_use_begins_the_session() {
        let event = Event::Use { until: at(610) };
        assert_eq!(next(&entry(active(70, false)), event), Some(Outcome::Write(active(610, true))));
        assert_eq!(next(&entry(active(610, true)), Event::Use { until: at(900) }), None);
        assert_eq!(next(&entry(PlaceStatus::Waiting), event), None);
    }

    #[test]
    fn use_never_shortens_the_session() {
        let outcome = next(&entry(active(900, false)), Event::Use { until: at(610) });
        assert_eq!(outcome, Some(Outcome::Write(active(900, true))));
    }

    #[test]
    fn hold_only_extends_the_session() {
        assert_eq!(
            next(&entry(active(70, false)), Event::Hold { until: at(310) }),
            Some(Outcome::Write(active(310, true)))
        );
        assert_eq!(next(&entry(active(610, true)), Event::Hold { until: at(310) }), None);
        assert_eq!(next(&entry(PlaceStatus::Waiting), Event::Hold { until: at(310) }), None);
    }

    #[test]
    fn silent_place_waits_again_after_a_heartbeat() {
        let silent = PlaceStatus::Silent { grace_until: at(100) };
        let miss = Event::GoSilent { now: at(40), grace: CLAIM };
        assert_eq!(next(&entry(PlaceStatus::Waiting), miss), Some(Outcome::Write(silent)));
        assert_eq!(
            next(&entry(silent), Event::GoSilent { now: at(50), grace: CLAIM }),
            None,
            "kept no longer"
        );
        assert_eq!(next(&entry(silent), Event::Admit { now: at(50), claim: CLAIM }), None);
        let hear = |now| next(&entry(silent), Event::Heartbeat { now: at(now) });
        assert_eq!((hear(99), hear(100)), (Some(Outcome::Write(PlaceStatus::Waiting)), None));
        assert!(!entry(silent).is_over(at(99)) && entry(silent).is_over(at(100)));
        for status in [PlaceStatus::Waiting, active(70, true)] {
            assert_eq!(next(&entry(status), Event::Heartbeat { now: at(50) }), None);
        }
        assert_eq!(next(&entry(active(70, true)), miss), None);
    }

    #[test]
    fn an_end_ends_every_standing() {
        let silent = PlaceStatus::Silent { grace_until: at(100) };
        for status in [PlaceStatus::Waiting, silent, active(70, false), active(610, true)] {
            assert_eq!(next(&entry(status), Event::End), Some(Outcome::Delete));
        }
    }

    #[test]
    fn sessions_and_waits_expire_on_time() {
        let session = entry(active(70, true));
        assert!(!session.is_over(at(69)));
        assert!(session.is_over(at(70)));
        let waiter = entry(PlaceStatus::Waiting);
        assert!(!waiter.is_over(at(86_399)));
        assert!(waiter.is_over(at(86_400)));
    }

    #[test]
    fn record_keeps_its_first_revision() {
        let (user, concert) = (crate::ids::new(), crate::ids::new());
        let joined = Record::joining(user, concert, at(0));
        let entry = Record::read(&joined.to_bytes(), 42).unwrap();
        assert_eq!((entry.place, entry.revision, entry.status), (42, 42, PlaceStatus::Waiting));
        let admitted = Record::with_status(user, concert, &entry, active(70, true));
        let entry = Record::read(&admitted.to_bytes(), 50).unwrap();
        assert_eq!((entry.place, entry.revision, entry.status), (42, 50, active(70, true)));
        let silent = PlaceStatus::Silent { grace_until: at(200) };
        let skipped = Record::with_status(user, concert, &entry, silent);
        let entry = Record::read(&skipped.to_bytes(), 60).unwrap();
        assert_eq!((entry.place, entry.revision, entry.status), (42, 60, silent));
        assert_eq!(Record::read(b"{}", 1), None);
        assert_eq!(Record::read(b"", 1), None);
    }

    #[test]
    fn a_key_outlives_its_place_by_an_hour() {
        let (user, concert) = (crate::ids::new(), crate::ids::new());
        let admitted = Record::with_status(user, concert, &entry(PlaceStatus::Waiting), active(70, false));
        assert_eq!(admitted.key_ttl(at(10)), Duration::from_secs(60 + 3600));
        assert_eq!(admitted.key_ttl(at(10_000)), Duration::from_secs(3600));
        assert_eq!(Record::joining(user, concert, at(0)).key_ttl(at(0)), Duration::from_secs(25 * 3600));
    }
}
