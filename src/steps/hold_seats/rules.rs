//! The rules of holds: what must be so for a buyer to get seats.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Booking, Decisions, time};
use crate::store::seats::{ENDED_HOLDS_WINDOW, Seat, SeatStatus};

/// Why a buyer gets no seats: the code, and what it is about.
#[derive(Debug)]
pub(super) struct Refusal {
    pub code: &'static str,
    pub detail: Value,
}

pub(super) fn refusal(code: &'static str, detail: Value) -> Refusal {
    Refusal { code, detail }
}

impl Decisions {
    /// Whether the seats that a booking names may be held for it.
    pub(super) fn may_hold(&self, booking: &Booking, now: DateTime<Utc>) -> Result<(), Refusal> {
        let unknown: Vec<i32> = booking.numbers(&self.seats, |seat| seat.is_none());
        let first = booking.keys().next().and_then(|key| self.seats.get(&key));
        let Some(first) = first.filter(|_| unknown.is_empty()) else {
            return Err(refusal("seat_unknown", json!({ "seats": unknown })));
        };
        if let Some(block) = booking.input.block {
            return self.may_sell_blocked(booking, block, first, now);
        }
        let count = booking.input.seats.len() as i64;
        let opens_at = self.access.opens_at(booking, count, first.sale_opens_at, now)?;
        check_sale(opens_at, first.sale_ends_at(), first.cancelled_at, now)?;
        let mut taken = booking.numbers(&self.seats, |seat| {
            seat.is_some_and(|seat| !seat.status.is_free(seat.claimable_at, now))
        });
        let released = self.just_cancelled(booking);
        let mine =
            booking.input.seats.iter().filter(|number| released.contains(number) && !taken.contains(number));
        let just_cancelled: Vec<i32> = mine.copied().collect();
        taken.extend(&just_cancelled);
        taken.sort_unstable();
        if !just_cancelled.is_empty() {
            return Err(refusal("seat_taken", json!({ "seats": taken, "just_cancelled": just_cancelled })));
        }
        if !taken.is_empty() {
            return Err(refusal("seat_taken", json!({ "seats": taken })));
        }
        self.check_limits(booking, count, now)
    }

    /// Whether staff may sell seats of a block to a guest. Neither the window of the sale nor the limits of buyers count.
    fn may_sell_blocked(
        &self,
        booking: &Booking,
        block: Uuid,
        first: &Seat,
        now: DateTime<Utc>,
    ) -> Result<(), Refusal> {
        let closes_at = first.cancelled_at.map_or(first.starts_at, |at| at.min(first.starts_at));
        if now >= closes_at {
            let detail = json!({ "closes_at": closes_at, "cancelled_at": first.cancelled_at });
            return Err(refusal("sale_not_open", detail));
        }
        let has = |seat: &Seat| seat.status == SeatStatus::Blocked && seat.holder == Some(block);
        let lost = booking.numbers(&self.seats, |seat| !seat.is_some_and(has));
        if lost.is_empty() { Ok(()) } else { Err(refusal("seat_taken", json!({ "seats": lost }))) }
    }

    /// The seats that are not offered to this buyer yet.
    pub(super) fn just_cancelled(&self, booking: &Booking) -> Vec<i32> {
        let account = self.owned.get(&(booking.input.user_id, booking.input.performance_id));
        let released = account.and_then(|account| account.released.as_ref());
        released.iter().flat_map(|lists| lists.iter().flatten()).copied().collect()
    }

    /// Whether this buyer may have so many seats more, and another hold.
    pub(super) fn check_limits(
        &self,
        booking: &Booking,
        count: i64,
        now: DateTime<Utc>,
    ) -> Result<(), Refusal> {
        let account = self.owned.get(&(booking.input.user_id, booking.input.performance_id));
        if let Some(since) = account.and_then(|account| account.limited_since) {
            let until = since + ENDED_HOLDS_WINDOW;
            let seconds = (until - now).num_seconds().max(0) + 1;
            let limit = self.limits.ended_holds;
            return Err(refusal(
                "rate_limited",
                json!({ "limit": limit, "retry_after_seconds": seconds, "until": time(until) }),
            ));
        }
        let (owned, limit) = (account.map_or(0, |account| account.seats), self.limits.seats_per_user);
        if owned + count > limit {
            return Err(refusal("too_many_seats", json!({ "limit": limit, "owned": owned })));
        }
        Ok(())
    }
}

/// Whether a date is sold at this time.
pub(super) fn check_sale(
    opens_at: DateTime<Utc>,
    ends_at: DateTime<Utc>,
    cancelled_at: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Result<(), Refusal> {
    let is_open = opens_at <= now && now < ends_at;
    if is_open {
        Ok(())
    } else {
        Err(refusal(
            "sale_not_open",
            json!({ "opens_at": opens_at, "closes_at": ends_at, "cancelled_at": cancelled_at }),
        ))
    }
}
