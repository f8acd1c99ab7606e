//! The change of one place that this instance has granted and not yet written, and the next write that it needs.
//!
//! A place can have several changes at once. They are tried in this order: restore a lost place, end it, end its silence,
//! begin or extend its session.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;

use super::super::line::View;
use super::super::place::{Claims, Condition, Entry, Event, Outcome, Place, PlaceStatus, next};
use crate::clock::plus;

/// The changes of one place that are still to be written.
#[derive(Clone, Copy, Debug)]
pub struct PendingWrite {
    pub place: Place,
    pub(super) changes: Changes,
    created: Instant,
    pub(super) not_before: Instant,
    /// Increases with every change, so that a change made during a write is not lost.
    version: u32,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Changes {
    pub(super) restore: Option<RestorePlace>,
    pub(super) is_ended: bool,
    /// When the owner, who had been silent, sent a heartbeat.
    pub(super) heartbeat_at: Option<DateTime<Utc>>,
    pub(super) session: SessionChange,
}

/// A place that NATS lost before it was journalled. Its owner has presented the signed token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RestorePlace {
    place: Place,
    issued_at: DateTime<Utc>,
    /// The admission, or else the join. A payment since then has ended the place.
    since: DateTime<Utc>,
}

/// The session of a place, as far as this instance has begun or extended it.
#[derive(Clone, Copy, Debug)]
pub(super) struct SessionChange {
    /// The session has begun and lasts until then.
    pub(super) used_until: Option<DateTime<Utc>>,
    /// The owner holds a seat until then.
    pub(super) held_until: Option<DateTime<Utc>>,
    max_length: TimeDelta,
}

/// What must be written next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextWrite {
    /// Every change is written or no longer matters.
    Nothing,
    /// The watch has not shown the place, or its admission, yet: try again soon.
    NotSeenYet,
    /// Write this status, if the key still has the entry's revision.
    Status(Entry, PlaceStatus),
    /// Write the lost place under this condition, unless its owner has paid since then.
    Restore(Condition, Entry, DateTime<Utc>),
    /// Delete the key under this condition; `in_line` if the place was not admitted.
    Delete { condition: Condition, in_line: bool },
}

impl PendingWrite {
    /// No changes yet. `session_max` limits a session from its admission on.
    pub(super) fn new(place: Place, session_max: TimeDelta) -> Self {
        let now = Instant::now();
        let session = SessionChange { used_until: None, held_until: None, max_length: session_max };
        let changes = Changes { restore: None, is_ended: false, heartbeat_at: None, session };
        Self { place, changes, created: now, not_before: now, version: 0 }
    }

    /// Replaces the changes of an older place of the same user. The version continues.
    pub(super) fn replacing(self, older: &Self) -> Self {
        Self { version: older.version, ..self }
    }

    /// Notes that the changes have grown: they are due at once.
    pub(super) fn note_change(&mut self) {
        self.version += 1;
        self.not_before = self.created;
    }

    /// Whether nothing has been added since `earlier`.
    pub(super) fn is_same_as(&self, earlier: &Self) -> bool {
        self.version == earlier.version && self.place == earlier.place
    }

    pub fn age(&self) -> Duration {
        self.created.elapsed()
    }

    /// When the session of this place ends by these changes, if it was admitted at `admitted_at`.
    pub(super) fn session_end(&self, admitted_at: Option<DateTime<Utc>>) -> Option<DateTime<Utc>> {
        self.changes.session.end(admitted_at)
    }

    /// The next write. `view` is what memory knows of the key, up to the revision `seen` of the bucket.
    pub fn next_write(&self, view: &View, seen: u64) -> NextWrite {
        let Changes { restore, is_ended, heartbeat_at, session } = self.changes;
        if let Some(restore) = restore.filter(|_| !is_ended)
            && let Some((condition, entry)) = restore.next_write(view)
        {
            return NextWrite::Restore(condition, entry, restore.since);
        }
        let Some(entry) = view.entry else {
            return if seen >= self.place { NextWrite::Nothing } else { NextWrite::NotSeenYet };
        };
        if entry.place > self.place {
            return NextWrite::Nothing;
        }
        if is_ended {
            return self.end_write(&entry);
        }
        if view.is_over(self.place) {
            return NextWrite::Nothing;
        }
        if let Some(now) = heartbeat_at.filter(|_| entry.place == self.place)
            && let Some(Outcome::Write(status)) = next(&entry, Event::Heartbeat { now })
        {
            return NextWrite::Status(entry, status);
        }
        match session.end(None) {
            None => NextWrite::Nothing,
            Some(_) if entry.place < self.place => NextWrite::NotSeenYet,
            Some(_) => session.next_write(&entry),
        }
    }

    fn end_write(&self, entry: &Entry) -> NextWrite {
        match next(entry, Event::End) {
            Some(Outcome::Delete) if entry.revision >= self.place => NextWrite::Delete {
                condition: Condition::Revision(entry.revision),
                in_line: entry.status.is_in_line(),
            },
            _ => NextWrite::NotSeenYet,
        }
    }
}

impl RestorePlace {
    pub(super) fn of(claims: &Claims) -> Self {
        let since = claims.activated_at.unwrap_or(claims.issued_at);
        Self { place: claims.place, issued_at: claims.issued_at, since }
    }

    /// `None` once the place is written, or if it is over. A newer place of the same user that still waits is replaced, as
    /// in a restoration of the whole line.
    fn next_write(&self, view: &View) -> Option<(Condition, Entry)> {
        let condition = match view.entry {
            _ if view.is_over(self.place) => return None,
            None => Condition::Revision(0),
            Some(newer) if newer.place > self.place && newer.status.is_in_line() => {
                Condition::Revision(newer.revision)
            }
            Some(_) => return None,
        };
        let entry = Entry {
            revision: self.place,
            place: self.place,
            issued_at: self.issued_at,
            status: PlaceStatus::Waiting,
        };
        Some((condition, entry))
    }
}

impl SessionChange {
    fn end(&self, admitted_at: Option<DateTime<Utc>>) -> Option<DateTime<Utc>> {
        self.used_until.max(self.held_until).map(|until| until.min(self.latest_end(admitted_at)))
    }

    fn latest_end(&self, admitted_at: Option<DateTime<Utc>>) -> DateTime<Utc> {
        admitted_at.map_or(DateTime::<Utc>::MAX_UTC, |at| plus(at, self.max_length))
    }

    fn next_write(&self, entry: &Entry) -> NextWrite {
        let PlaceStatus::Active { activated_at, .. } = entry.status else {
            return NextWrite::NotSeenYet;
        };
        let admitted_at = Some(activated_at);
        let until = self.end(admitted_at).filter(|_| self.used_until.is_some());
        let begun = until.map(|until| Event::Use { until });
        let held =
            self.held_until.map(|until| Event::Hold { until: until.min(self.latest_end(admitted_at)) });
        let outcome = [begun, held].into_iter().flatten().find_map(|event| next(entry, event));
        match outcome {
            Some(Outcome::Write(status)) => NextWrite::Status(*entry, status),
            Some(Outcome::Delete) | None => NextWrite::Nothing,
        }
    }
}
