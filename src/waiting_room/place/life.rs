//! A place from joining to its end: one pure function says what may become of it.
//!
//! ```text
//! waiting ── not heard of ──▶ silent (grace) ── heard of ──▶ waiting
//!
//! waiting ── admitted ──▶ active (claim window) ── first use ──▶ active (session) ── held a seat ──▶ active (longer)
//!    │                       │                                        │
//!    └── given up, too old ──┴──────── paid, given up, ran out ───────┴──▶ gone: the key is deleted
//!                                          (and silent, when the grace is over)
//! ```
//!
//! What is stored is the [`Record`], one key of the bucket; what the line keeps in memory is an [`Entry`].

#![warn(clippy::arithmetic_side_effects)] // numbers and times from outside

use std::time::Duration;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::token::{Claims, Place};
use crate::bus::incarnation;
use crate::clock::{self, plus};
use crate::ids::{ConcertId, UserId};

/// After this long in line a place is given up: nobody waits for a day, and the key must not live for ever.
pub const LONGEST_WAIT: TimeDelta = TimeDelta::hours(24);
/// How long a key outlives the end of its place; it only cleans up what nobody deleted.
const KEY_OUTLIVES: TimeDelta = TimeDelta::hours(1);
/// No two times of one place lie further apart: a wait, a session and what its holds add, each a day at most.
const LONGEST_LIFE: TimeDelta = TimeDelta::days(7);

/// How a place stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// In line.
    Waiting,
    /// In line, but nobody has heard of its owner for a while: not admitted, and kept until then.
    Silent { grace_until: DateTime<Utc> },
    /// Admitted. `used` is false until the first booking request: so long only the claim window is granted.
    Active { activated_at: DateTime<Utc>, expires_at: DateTime<Utc>, used: bool },
}

/// A place as it was last written, and at which revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The revision of the last write.
    pub revision: u64,
    /// The revision of the first one: the order of arrival.
    pub place: Place,
    /// When the place was taken.
    pub issued_at: DateTime<Utc>,
    /// How it stands.
    pub standing: Standing,
}

/// What may happen to a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is this place's turn.
    Admit { now: DateTime<Utc>, claim: Duration },
    /// Its owner booked: the session begins and lasts at least until then.
    Use { until: DateTime<Utc> },
    /// Its owner holds a seat until then.
    Hold { until: DateTime<Utc> },
    /// Nobody has heard of its owner for too long.
    Miss { now: DateTime<Utc>, grace: Duration },
    /// Its owner was heard of.
    Hear { now: DateTime<Utc> },
    /// It was given up, or used for a payment.
    End,
    /// Somebody looks whether its time is over.
    Look { now: DateTime<Utc> },
}

/// What must be written because of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The place as it stands from now on.
    Write(Standing),
    /// The place is over; its key is deleted.
    Delete,
}

/// What an event makes of a place; nothing if it changes nothing.
pub fn next(entry: &Entry, event: Event) -> Option<Outcome> {
    use Standing::{Active, Silent, Waiting};
    match (entry.standing, event) {
        (Waiting, Event::Admit { now, claim }) => {
            let standing = Active { activated_at: now, expires_at: after(now, claim), used: false };
            Some(Outcome::Write(standing))
        }
        (Waiting, Event::Miss { now, grace }) => {
            Some(Outcome::Write(Silent { grace_until: after(now, grace) }))
        }
        (Silent { .. }, Event::Hear { now }) => (!entry.is_over(now)).then_some(Outcome::Write(Waiting)),
        (Active { activated_at, expires_at, used }, Event::Use { until }) => {
            let longer = Active { activated_at, expires_at: expires_at.max(until), used: true };
            (!used).then_some(Outcome::Write(longer))
        }
        (Active { activated_at, expires_at, .. }, Event::Hold { until }) => {
            let longer = Active { activated_at, expires_at: until, used: true };
            (until > expires_at).then_some(Outcome::Write(longer))
        }
        (_, Event::End) => Some(Outcome::Delete),
        (_, Event::Look { now }) => (entry.end() <= now).then_some(Outcome::Delete),
        (Waiting | Silent { .. }, Event::Use { .. } | Event::Hold { .. })
        | (Silent { .. } | Active { .. }, Event::Admit { .. } | Event::Miss { .. })
        | (Waiting | Active { .. }, Event::Hear { .. }) => None,
    }
}

impl Standing {
    /// Whether the place is in line: not admitted yet.
    pub fn is_in_line(&self) -> bool {
        !matches!(self, Self::Active { .. })
    }
}

impl Entry {
    /// When the place is over, if nothing happens before.
    pub fn end(&self) -> DateTime<Utc> {
        let too_old = plus(self.issued_at, LONGEST_WAIT);
        match self.standing {
            Standing::Waiting => too_old,
            Standing::Silent { grace_until } => grace_until.min(too_old),
            Standing::Active { expires_at, .. } => expires_at,
        }
    }

    /// Whether the place's time is over, deleted or not.
    pub fn is_over(&self, now: DateTime<Utc>) -> bool {
        next(self, Event::Look { now }) == Some(Outcome::Delete)
    }

    /// Whether its revision, place and times can belong to one place. Records, journal rows and tokens are read only then:
    /// all that counts with them later relies on it.
    pub fn is_possible(&self) -> bool {
        let near = |time: DateTime<Utc>| {
            clock::is_plausible(time) && time.signed_duration_since(self.issued_at).abs() <= LONGEST_LIFE
        };
        let times = match self.standing {
            Standing::Waiting => [self.issued_at; 2],
            Standing::Silent { grace_until } => [self.issued_at, grace_until],
            Standing::Active { activated_at, expires_at, .. } => [activated_at, expires_at],
        };
        (1..=self.revision).contains(&self.place)
            && i64::try_from(self.revision).is_ok()
            && clock::is_plausible(self.issued_at)
            && times.into_iter().all(near)
    }

    /// What its owner's token says.
    pub fn claims(&self, user: UserId, concert: ConcertId) -> Claims {
        let (activated_at, expires_at) = match self.standing {
            Standing::Waiting | Standing::Silent { .. } => (None, None),
            Standing::Active { activated_at, expires_at, .. } => (Some(activated_at), Some(expires_at)),
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

/// A place as it lies in the bucket.
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
    /// The first revision; a first write cannot know it, and needs not.
    place: Option<Place>,
    #[serde(default)]
    used: bool,
    /// Of somebody in line who went silent: until when the place is kept.
    #[serde(
        default,
        deserialize_with = "clock::optional::deserialize",
        skip_serializing_if = "Option::is_none"
    )]
    grace_until: Option<DateTime<Utc>>,
    /// Tells apart two first writes of the same millisecond, so that each writer knows its own again.
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

    /// A place that stands anew.
    pub fn standing(user: UserId, concert: ConcertId, entry: &Entry, standing: Standing) -> Self {
        let record =
            Self { place: Some(entry.place), nonce: None, ..Self::joining(user, concert, entry.issued_at) };
        match standing {
            Standing::Waiting => record,
            Standing::Silent { grace_until } => Self { grace_until: Some(grace_until), ..record },
            Standing::Active { activated_at, expires_at, used } => Self {
                status: RecordStatus::Active,
                activated_at: Some(activated_at),
                expires_at: Some(expires_at),
                used,
                ..record
            },
        }
    }

    /// Reads what lies in the bucket at `revision`; nothing if it is not a place, or one whose numbers and times cannot be.
    pub fn read(bytes: &[u8], revision: u64) -> Option<Entry> {
        let record: Self = serde_json::from_slice(bytes).ok()?;
        let standing = match (record.status, record.activated_at, record.expires_at) {
            (RecordStatus::Waiting, ..) => match record.grace_until {
                Some(grace_until) => Standing::Silent { grace_until },
                None => Standing::Waiting,
            },
            (RecordStatus::Active, Some(activated_at), Some(expires_at)) => {
                Standing::Active { activated_at, expires_at, used: record.used }
            }
            (RecordStatus::Active, ..) => return None,
        };
        let place = record.place.unwrap_or(revision);
        // The line keeps microseconds.
        let entry = Entry { revision, place, issued_at: record.issued_at.trunc_subsecs(6), standing };
        entry.is_possible().then_some(entry)
    }

    /// The bytes to store.
    pub fn to_bytes(&self) -> bytes::Bytes {
        // A struct of plain fields always serialises; an empty value would read as "not a place".
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    /// How long the key may live from `now` on.
    pub fn key_life(&self, now: DateTime<Utc>) -> Duration {
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

    fn entry(standing: Standing) -> Entry {
        Entry { revision: 9, place: 7, issued_at: at(0), standing }
    }

    fn active(until: i64, used: bool) -> Standing {
        Standing::Active { activated_at: at(10), expires_at: at(until), used }
    }

    const CLAIM: Duration = Duration::from_secs(60);

    #[test]
    fn a_place_is_admitted_once_with_the_claim_window() {
        let event = Event::Admit { now: at(10), claim: CLAIM };
        assert_eq!(next(&entry(Standing::Waiting), event), Some(Outcome::Write(active(70, false))));
        assert_eq!(next(&entry(active(70, false)), event), None);
    }

    #[test]
    fn the_first_use_begins_the_session_and_later_ones_change_nothing() {
        let event = Event::Use { until: at(610) };
        assert_eq!(next(&entry(active(70, false)), event), Some(Outcome::Write(active(610, true))));
        assert_eq!(next(&entry(active(610, true)), Event::Use { until: at(900) }), None);
        assert_eq!(next(&entry(Standing::Waiting), event), None);
    }

    #[test]
    fn a_use_never_shortens_what_a_hold_has_granted() {
        let outcome = next(&entry(active(900, false)), Event::Use { until: at(610) });
        assert_eq!(outcome, Some(Outcome::Write(active(900, true))));
    }

    #[test]
    fn a_hold_makes_the_session_longer_and_never_shorter() {
        assert_eq!(
            next(&entry(active(70, false)), Event::Hold { until: at(310) }),
            Some(Outcome::Write(active(310, true)))
        );
        assert_eq!(next(&entry(active(610, true)), Event::Hold { until: at(310) }), None);
        assert_eq!(next(&entry(Standing::Waiting), Event::Hold { until: at(310) }), None);
    }

    #[test]
    fn who_is_silent_waits_on_when_heard_within_the_grace_and_is_not_admitted_before() {
        let silent = Standing::Silent { grace_until: at(100) };
        let miss = Event::Miss { now: at(40), grace: CLAIM };
        assert_eq!(next(&entry(Standing::Waiting), miss), Some(Outcome::Write(silent)));
        assert_eq!(next(&entry(silent), Event::Miss { now: at(50), grace: CLAIM }), None, "kept no longer");
        assert_eq!(next(&entry(silent), Event::Admit { now: at(50), claim: CLAIM }), None);
        let hear = |now| next(&entry(silent), Event::Hear { now: at(now) });
        assert_eq!((hear(99), hear(100)), (Some(Outcome::Write(Standing::Waiting)), None));
        assert!(!entry(silent).is_over(at(99)) && entry(silent).is_over(at(100)));
        for standing in [Standing::Waiting, active(70, true)] {
            assert_eq!(next(&entry(standing), Event::Hear { now: at(50) }), None);
        }
        assert_eq!(next(&entry(active(70, true)), miss), None);
    }

    #[test]
    fn an_end_ends_every_standing() {
        let silent = Standing::Silent { grace_until: at(100) };
        for standing in [Standing::Waiting, silent, active(70, false), active(610, true)] {
            assert_eq!(next(&entry(standing), Event::End), Some(Outcome::Delete));
        }
    }

    #[test]
    fn time_ends_a_session_at_its_very_moment_and_a_wait_after_a_day() {
        let session = entry(active(70, true));
        assert!(!session.is_over(at(69)));
        assert!(session.is_over(at(70)));
        let waiter = entry(Standing::Waiting);
        assert!(!waiter.is_over(at(86_399)));
        assert!(waiter.is_over(at(86_400)));
    }

    #[test]
    fn a_record_keeps_the_first_revision_as_the_place() {
        let (user, concert) = (crate::ids::new(), crate::ids::new());
        let joined = Record::joining(user, concert, at(0));
        let entry = Record::read(&joined.to_bytes(), 42).unwrap();
        assert_eq!((entry.place, entry.revision, entry.standing), (42, 42, Standing::Waiting));
        let admitted = Record::standing(user, concert, &entry, active(70, true));
        let entry = Record::read(&admitted.to_bytes(), 50).unwrap();
        assert_eq!((entry.place, entry.revision, entry.standing), (42, 50, active(70, true)));
        let silent = Standing::Silent { grace_until: at(200) };
        let skipped = Record::standing(user, concert, &entry, silent);
        let entry = Record::read(&skipped.to_bytes(), 60).unwrap();
        assert_eq!((entry.place, entry.revision, entry.standing), (42, 60, silent));
        assert_eq!(Record::read(b"{}", 1), None);
        assert_eq!(Record::read(b"", 1), None);
    }

    #[test]
    fn a_key_outlives_its_place_by_an_hour() {
        let (user, concert) = (crate::ids::new(), crate::ids::new());
        let admitted = Record::standing(user, concert, &entry(Standing::Waiting), active(70, false));
        assert_eq!(admitted.key_life(at(10)), Duration::from_secs(60 + 3600));
        assert_eq!(admitted.key_life(at(10_000)), Duration::from_secs(3600));
        assert_eq!(Record::joining(user, concert, at(0)).key_life(at(0)), Duration::from_secs(25 * 3600));
    }
}
