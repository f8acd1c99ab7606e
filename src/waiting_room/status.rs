//! What a client sees of a place in line: the queue token object, its estimate and when to ask again.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// Where a place stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// In line.
    Waiting,
    /// Admitted: may book.
    Active,
    /// Over: ran out, was given up, or was used for a payment.
    Expired,
}

/// What the sale of a concert is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nobody is admitted yet.
    NotOpen,
    /// Early comers gather; nobody is admitted yet.
    PreQueue,
    /// The line moves.
    Open,
    /// Stopped by an operator for a while.
    Paused,
    /// Every seat is sold.
    SoldOut,
    /// No sale is open or to come.
    Closed,
}

/// How many seats are left, roughly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Inventory {
    /// More than a tenth of the seats.
    Available,
    /// A tenth or fewer.
    Low,
    /// None: every seat is sold.
    SoldOut,
}

/// A place in the line of a concert, as its owner sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct QueueToken {
    /// What to send as `Queue-Token` from now on; it is issued anew on admission.
    pub token: String,
    /// The concert whose line it is.
    pub concert_id: Uuid,
    /// Whose place it is.
    pub user_id: Uuid,
    /// Where the place stands.
    pub status: Status,
    /// What the sale is doing.
    pub phase: Phase,
    /// How many seats are left, roughly.
    pub inventory: Inventory,
    /// 1 = next to be admitted; null unless waiting.
    pub position: Option<u64>,
    /// How many wait before this place; null unless waiting.
    pub ahead: Option<u64>,
    /// Estimated seconds until admission; null if there is nothing to estimate from, and unless waiting.
    pub eta_seconds: Option<u64>,
    /// Whether the estimate rests on the rate and the admissions seen.
    pub eta_known: bool,
    /// When to ask again, in milliseconds from now.
    pub poll_after_ms: u64,
    /// When the place was taken.
    pub issued_at: DateTime<Utc>,
    /// When it was admitted; null while waiting.
    pub activated_at: Option<DateTime<Utc>>,
    /// When the session ends; null while waiting.
    pub expires_at: Option<DateTime<Utc>>,
    /// The same, in whole seconds from now, so that the client's clock does not matter; never below 0.
    pub expires_in_seconds: Option<i64>,
    /// Until when the place of somebody who went silent was going to be kept, told when it is asked for again; null for
    /// whoever is in line.
    pub grace_until: Option<DateTime<Utc>>,
}

/// What an estimate rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// Whether the line moves: not paused, not over, not before its opening.
    pub moving: bool,
    /// How long until it opens, if it is not open yet and the time is known.
    pub opens_in: Option<Duration>,
    /// Places that are free this moment.
    pub free: u64,
    /// The rate that is set.
    pub per_minute: u32,
    /// Admissions seen in the last minute.
    pub admitted_last_minute: u32,
}

/// Fewer admissions than these in a minute say nothing about the next one.
const ENOUGH_TO_GO_BY: u32 = 3;

/// Estimated seconds until the place at `rank` is admitted; nothing if there is nothing to go by.
pub fn estimate(rank: u64, outlook: &Outlook) -> Option<u64> {
    let opens_in = match outlook.opens_in {
        Some(opens_in) => opens_in.as_secs_f64(),
        None if outlook.moving => 0.0,
        None => return None,
    };
    let set = f64::from(outlook.per_minute) / 60.0;
    let seen = f64::from(outlook.admitted_last_minute) / 60.0;
    let per_second = if rank <= outlook.free {
        set
    } else if outlook.admitted_last_minute >= ENOUGH_TO_GO_BY {
        set.min(seen)
    } else {
        return None;
    };
    (per_second > 0.0).then(|| (opens_in + rank as f64 / per_second).ceil().max(1.0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOVING: Outlook =
        Outlook { moving: true, opens_in: None, free: 10, per_minute: 600, admitted_last_minute: 0 };

    #[test]
    fn with_free_places_the_rate_alone_decides() {
        assert_eq!(estimate(1, &MOVING), Some(1));
        assert_eq!(estimate(10, &MOVING), Some(1));
        assert_eq!(estimate(11, &MOVING), None, "nobody has left yet: nothing to go by");
    }

    #[test]
    fn behind_a_full_house_the_admissions_seen_decide() {
        let full = Outlook { free: 0, admitted_last_minute: 30, ..MOVING };
        assert_eq!(estimate(60, &full), Some(120));
        assert_eq!(
            estimate(60, &Outlook { per_minute: 20, ..full }),
            Some(180),
            "never faster than the rate"
        );
    }

    #[test]
    fn a_line_that_does_not_move_has_no_estimate_unless_its_opening_is_known() {
        assert_eq!(estimate(1, &Outlook { moving: false, ..MOVING }), None);
        assert_eq!(estimate(1, &Outlook { per_minute: 0, ..MOVING }), None);
        let early = Outlook { moving: false, opens_in: Some(Duration::from_secs(90)), ..MOVING };
        assert_eq!(estimate(5, &early), Some(91));
    }
}
