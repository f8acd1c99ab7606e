//! The queue token object that clients see, and the estimate of the waiting time.

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
    /// Over: it expired, was given up, or was used for a payment.
    Expired,
}

/// The phase of a sale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The sale has not opened, and no user is admitted.
    NotOpen,
    /// Users gather before the opening, and none is admitted.
    PreQueue,
    /// Users are admitted.
    Open,
    /// An operator has paused the admission.
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

/// A place in line, as its owner sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct QueueToken {
    /// Send this as `Queue-Token` from now on. It changes with the admission.
    pub token: String,
    pub concert_id: Uuid,
    /// The owner of the place.
    pub user_id: Uuid,
    /// Where the place stands.
    pub status: Status,
    /// The phase of the sale.
    pub phase: Phase,
    /// How many seats are left, roughly.
    pub inventory: Inventory,
    /// When the sale opens or has opened; null while unknown.
    pub opens_at: Option<DateTime<Utc>>,
    /// Whole seconds until the opening; null once it has opened.
    pub opens_in_seconds: Option<i64>,
    /// 1 = next to be admitted. Null unless waiting, null before the opening, whose lottery decides the order, and
    /// null while an instance that has just started does not know it exactly.
    pub position: Option<u64>,
    /// How many users wait before this place; null where `position` is null.
    pub ahead: Option<u64>,
    /// Estimated seconds until admission; null unless waiting, and null if there are too few data.
    pub eta_seconds: Option<u64>,
    /// Whether there is an estimate. It uses the configured rate and the rate at which places are released.
    pub eta_known: bool,
    /// When to ask again, in milliseconds from now.
    pub poll_after_ms: u64,
    /// When the user joined.
    pub issued_at: DateTime<Utc>,
    /// When the user was admitted; null while waiting.
    pub activated_at: Option<DateTime<Utc>>,
    /// When the session ends; null while waiting.
    pub expires_at: Option<DateTime<Utc>>,
    /// Whole seconds until `expires_at`, so that the client's clock does not matter; never below 0.
    pub expires_in_seconds: Option<i64>,
    /// Until when the place of a silent user would have been kept, on the first request after the silence; otherwise
    /// null.
    pub grace_until: Option<DateTime<Utc>>,
}

impl QueueToken {
    /// Whole seconds, rounded up.
    pub fn retry_after_seconds(&self) -> u64 {
        self.poll_after_ms.div_ceil(1_000)
    }
}

/// The data of an estimate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EstimateInput {
    /// Whether users are admitted: the sale is neither paused nor over.
    pub moving: bool,
    pub free: u64,
    /// Admissions per minute in force.
    pub per_minute: u32,
    /// Places released per second; `None` if too few were measured.
    pub freed_per_second: Option<f64>,
}

/// Estimated seconds until the place at `rank` is admitted; `None` if there are too few data.
pub fn estimate(rank: u64, input: &EstimateInput) -> Option<u64> {
    if !input.moving {
        return None;
    }
    let set = f64::from(input.per_minute) / 60.0;
    if set <= 0.0 {
        return None;
    }
    // Free places are given at the configured rate, the others as they are released.
    let behind = rank.saturating_sub(input.free);
    let mut seconds = (rank - behind) as f64 / set;
    if behind > 0 {
        seconds += behind as f64 / input.freed_per_second.filter(|freed| *freed > 0.0)?.min(set);
    }
    Some(seconds.ceil().max(1.0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOVING: EstimateInput =
        EstimateInput { moving: true, free: 10, per_minute: 600, freed_per_second: None };

    #[test]
    fn rate_alone_decides_while_places_are_free() {
        assert_eq!(estimate(1, &MOVING), Some(1));
        assert_eq!(estimate(10, &MOVING), Some(1));
        assert_eq!(estimate(11, &MOVING), None, "no place has been left yet: there is no rate");
    }

    #[test]
    fn release_rate_decides_behind_a_full_line() {
        let full = EstimateInput { free: 0, freed_per_second: Some(0.5), ..MOVING };
        assert_eq!(estimate(60, &full), Some(120));
        assert_eq!(
            estimate(60, &EstimateInput { per_minute: 20, ..full }),
            Some(180),
            "never faster than the rate"
        );
        assert_eq!(
            estimate(60, &EstimateInput { free: 10, ..full }),
            Some(101),
            "ten at the rate, fifty behind them"
        );
    }

    #[test]
    fn paused_line_has_no_estimate() {
        assert_eq!(estimate(1, &EstimateInput { moving: false, ..MOVING }), None);
        assert_eq!(estimate(1, &EstimateInput { per_minute: 0, ..MOVING }), None);
    }
}
