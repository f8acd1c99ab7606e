//! What a client sees of a place in line: the queue token object, its estimate and when to ask again.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// Where a place stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = QueueTokenStatus)]
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
    /// When the sale opens or has opened; null while that is not known.
    pub opens_at: Option<DateTime<Utc>>,
    /// The same, in whole seconds from now; null once it has opened.
    pub opens_in_seconds: Option<i64>,
    /// 1 = next to be admitted; null unless waiting, before the opening (then the early comers are drawn by lot), and while
    /// the instance that answers does not know it exactly, because it has just started.
    pub position: Option<u64>,
    /// How many wait before this place; null where `position` is.
    pub ahead: Option<u64>,
    /// Estimated seconds until admission; null if there is nothing to estimate from, and unless waiting.
    pub eta_seconds: Option<u64>,
    /// Whether there is an estimate: it rests on the rate that is set, and on how often places were given back.
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

impl QueueToken {
    /// When to ask again, in whole seconds, rounded up.
    pub fn retry_after_seconds(&self) -> u64 {
        self.poll_after_ms.div_ceil(1_000)
    }
}

/// What an estimate rests on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outlook {
    /// Whether the line moves: not paused, not over.
    pub moving: bool,
    /// Places that are free this moment.
    pub free: u64,
    /// The rate in force.
    pub per_minute: u32,
    /// How often a place is given back, as far as was measured.
    pub freed_per_second: Option<f64>,
}

/// Estimated seconds until the place at `rank` is admitted; nothing if there is nothing to go by.
pub fn estimate(rank: u64, outlook: &Outlook) -> Option<u64> {
    if !outlook.moving {
        return None;
    }
    let set = f64::from(outlook.per_minute) / 60.0;
    if set <= 0.0 {
        return None;
    }
    // The free places are given at the rate that is set, and the others as they are given back.
    let behind = rank.saturating_sub(outlook.free);
    let mut seconds = (rank - behind) as f64 / set;
    if behind > 0 {
        seconds += behind as f64 / outlook.freed_per_second.filter(|freed| *freed > 0.0)?.min(set);
    }
    Some(seconds.ceil().max(1.0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOVING: Outlook = Outlook { moving: true, free: 10, per_minute: 600, freed_per_second: None };

    #[test]
    fn with_free_places_the_rate_alone_decides() {
        assert_eq!(estimate(1, &MOVING), Some(1));
        assert_eq!(estimate(10, &MOVING), Some(1));
        assert_eq!(estimate(11, &MOVING), None, "nobody has left yet: nothing to go by");
    }

    #[test]
    fn behind_a_full_house_the_places_given_back_decide() {
        let full = Outlook { free: 0, freed_per_second: Some(0.5), ..MOVING };
        assert_eq!(estimate(60, &full), Some(120));
        assert_eq!(
            estimate(60, &Outlook { per_minute: 20, ..full }),
            Some(180),
            "never faster than the rate"
        );
        assert_eq!(
            estimate(60, &Outlook { free: 10, ..full }),
            Some(101),
            "ten at the rate, fifty behind them"
        );
    }

    #[test]
    fn a_line_that_does_not_move_has_no_estimate() {
        assert_eq!(estimate(1, &Outlook { moving: false, ..MOVING }), None);
        assert_eq!(estimate(1, &Outlook { per_minute: 0, ..MOVING }), None);
    }
}
