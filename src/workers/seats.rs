//! Seats: hold, and beside it release. A hold is all or nothing.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

use super::books::Books;
use super::{Booking, Job};
use crate::saga::Direction;
use crate::store::reservations::{Change, End};
use crate::store::seats::{LATELY, Seat};

impl Books {
    /// Holds all the seats, or none and says why.
    pub(super) fn hold(&mut self, job: &mut Job<'_>, booking: &Booking) {
        if let Err((code, detail)) = self.may_hold(booking) {
            self.decided.push(Change {
                id: booking.reservation_id,
                status: Some("failed"),
                reason: Some(code.to_owned()),
                detail: Some(detail.clone()),
                ..Change::default()
            });
            return job.rejected(code, detail);
        }
        let (expires_at, claimable_at) =
            (self.now + self.limits.hold, self.now + self.limits.hold + self.limits.grace);
        let mut lines = Vec::with_capacity(booking.seats.len());
        let mut amount = 0;
        for key in booking.keys() {
            let Some(seat) = self.seats.change(&key) else {
                continue;
            };
            "held".clone_into(&mut seat.status);
            seat.holder = Some(booking.reservation_id);
            seat.expires_at = Some(expires_at);
            seat.claimable_at = Some(claimable_at);
            amount += seat.price;
            lines.push(json!({ "number": seat.number, "section": seat.section, "price": seat.price }));
        }
        if let Some(owned) = self.owned.change(&(booking.user_id, booking.performance_id)) {
            owned.seats += booking.seats.len() as i64;
        }
        self.decided.push(Change {
            id: booking.reservation_id,
            status: Some("held"),
            lines: Some(json!(lines)),
            amount: Some(amount),
            expires_at: Some(expires_at),
            claimable_at: Some(claimable_at),
            ..Change::default()
        });
        job.done([
            ("amount", json!(amount)),
            ("lines", json!(lines)),
            ("expires_at", time(expires_at)),
            ("claimable_at", time(claimable_at)),
        ]);
    }

    fn may_hold(&self, booking: &Booking) -> Result<(), (&'static str, Value)> {
        let unknown: Vec<i32> = self.numbers(booking, |seat| seat.is_none());
        let first = booking.keys().next().and_then(|key| self.seats.get(&key));
        let Some(first) = first.filter(|_| unknown.is_empty()) else {
            return Err(("seat_unknown", json!({ "seats": unknown })));
        };
        if self.now < first.sale_opens_at || self.now >= first.sale_closes_at {
            return Err((
                "sale_not_open",
                json!({ "opens_at": first.sale_opens_at, "closes_at": first.sale_closes_at }),
            ));
        }
        let taken = self.numbers(booking, |seat| seat.is_some_and(|seat| !seat.is_free(self.now)));
        if !taken.is_empty() {
            return Err(("seat_taken", json!({ "seats": taken })));
        }
        let account = self.owned.get(&(booking.user_id, booking.performance_id)).copied().unwrap_or_default();
        if let (most @ 1.., true) = (self.limits.expired_holds, account.expired >= self.limits.expired_holds)
        {
            let wait = account.first_expired.map_or(LATELY, |first| first + LATELY - self.now);
            let seconds = wait.num_seconds().max(0) + 1;
            return Err(("rate_limited", json!({ "limit": most, "retry_after_seconds": seconds })));
        }
        let (owned, limit) = (account.seats, self.limits.seats_per_user);
        if owned + booking.seats.len() as i64 > limit {
            return Err(("too_many_seats", json!({ "limit": limit, "owned": owned })));
        }
        Ok(())
    }

    /// Frees whatever the reservation still has. What it lost or never had stays as it is.
    pub(super) fn release(&mut self, job: &mut Job<'_>, booking: &Booking) {
        for key in booking.keys() {
            let has = |seat: &Seat| seat.holder == Some(booking.reservation_id);
            if !self.seats.get(&key).is_some_and(has) {
                continue;
            }
            let Some(seat) = self.seats.change(&key) else {
                continue;
            };
            "free".clone_into(&mut seat.status);
            seat.holder = None;
            seat.expires_at = None;
            seat.claimable_at = None;
        }
        // As a step of a cancellation the reservation has its end already.
        if job.command.direction == Direction::Undo {
            let (status, reason) = end_of(job.command.reason.as_deref());
            self.ends.push(End { id: booking.reservation_id, status, reason });
        }
        job.done([]);
    }
}

impl Seat {
    /// Free for anybody: never taken, or held beyond the time that even a payment under way may take.
    fn is_free(&self, now: DateTime<Utc>) -> bool {
        self.status == "free" || (self.status == "held" && self.claimable_at.is_some_and(|at| at <= now))
    }
}

/// How a reservation ends by the reason for which its saga turned back.
fn end_of(reason: Option<&str>) -> (&'static str, Option<String>) {
    match reason {
        Some("hold_expired") => ("expired", Some("hold_expired".to_owned())),
        Some("cancelled") => ("cancelled", None),
        other => ("failed", Some(other.unwrap_or("unavailable").to_owned())),
    }
}

fn time(at: DateTime<Utc>) -> Value {
    Value::String(at.to_rfc3339_opts(SecondsFormat::Micros, true))
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::super::tests::{answer, booking, limits, refusal};
    use super::*;
    use crate::saga::Outcome;
    use crate::store::seats::Owned;
    use crate::workers::Limits;

    /// Seats 1 to 3 at 10 points each, free and on sale; a buyer may have three.
    fn floor() -> Books {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let performance = booking(0, &[]).performance_id;
        let seat = |number| Seat {
            performance_id: performance,
            number,
            section: "A".to_owned(),
            price: 10,
            status: "free".to_owned(),
            holder: None,
            expires_at: None,
            claimable_at: None,
            sale_opens_at: now,
            sale_closes_at: now + TimeDelta::hours(1),
        };
        let limits = Limits { expired_holds: 2, ..limits() };
        let seats = (1..=3).map(|number| ((performance, number), seat(number)));
        let buyer = booking(0, &[]);
        let owned = [((buyer.user_id, performance), Owned::default())];
        Books { seats: seats.collect(), owned: owned.into_iter().collect(), ..Books::of(now, limits) }
    }

    fn hold(floor: &mut Books, booking: &Booking) -> Outcome {
        answer(Direction::Do, None, |job| floor.hold(job, booking))
    }

    fn holders(floor: &Books) -> Vec<Option<u128>> {
        floor.seats.iter().map(|(_, seat)| seat.holder.map(|holder| holder.as_u128())).collect()
    }

    #[test]
    fn a_hold_takes_all_its_seats_until_its_end() {
        let mut floor = floor();
        let Outcome::Done { output } = hold(&mut floor, &booking(7, &[1, 3])) else { panic!("not held") };
        assert_eq!(output["amount"], 20);
        assert_eq!(output["expires_at"], time(floor.now + TimeDelta::seconds(300)));
        assert_eq!(output["claimable_at"], time(floor.now + TimeDelta::seconds(315)));
        assert_eq!(holders(&floor), [Some(7), None, Some(7)]);
    }

    #[test]
    fn a_hold_that_loses_a_seat_takes_none_and_names_it() {
        let mut floor = floor();
        hold(&mut floor, &booking(7, &[2]));
        let refused = refusal(hold(&mut floor, &booking(8, &[1, 2])));
        assert_eq!(refused, ("seat_taken".to_owned(), json!({ "seats": [2] })));
        assert_eq!(holders(&floor), [None, Some(7), None]);
    }

    #[test]
    fn a_hold_needs_seats_that_exist_an_open_sale_and_room_under_the_limit() {
        let mut floor = floor();
        assert_eq!(refusal(hold(&mut floor, &booking(7, &[1, 9]))).1, json!({ "seats": [9] }));
        hold(&mut floor, &booking(7, &[1, 2]));
        floor.limits.seats_per_user = 2;
        assert_eq!(refusal(hold(&mut floor, &booking(8, &[3]))).0, "too_many_seats");
        floor.now += TimeDelta::hours(1);
        assert_eq!(refusal(hold(&mut floor, &booking(8, &[3]))).0, "sale_not_open");
    }

    #[test]
    fn whoever_lets_too_many_holds_run_out_has_to_wait_until_the_first_is_long_enough_ago() {
        let mut floor = floor();
        let buyer = booking(7, &[1]);
        let first_expired = Some(floor.now - TimeDelta::minutes(50));
        let account = Owned { seats: 0, expired: 2, first_expired };
        floor.owned.insert((buyer.user_id, buyer.performance_id), account);
        let (code, detail) = refusal(hold(&mut floor, &buyer));
        assert_eq!(
            (code.as_str(), detail),
            ("rate_limited", json!({ "limit": 2, "retry_after_seconds": 601 }))
        );
        floor.limits.expired_holds = 3;
        assert!(matches!(hold(&mut floor, &buyer), Outcome::Done { .. }));
        floor.limits.expired_holds = 0;
        assert!(matches!(hold(&mut floor, &booking(8, &[2])), Outcome::Done { .. }), "no limit");
    }

    #[test]
    fn a_hold_that_ran_out_can_be_claimed_after_its_grace() {
        let mut floor = floor();
        hold(&mut floor, &booking(7, &[1]));
        floor.now += TimeDelta::seconds(314);
        assert_eq!(refusal(hold(&mut floor, &booking(8, &[1]))).0, "seat_taken");
        floor.now += TimeDelta::seconds(1);
        hold(&mut floor, &booking(8, &[1]));
        assert_eq!(holders(&floor)[0], Some(8));
    }

    #[test]
    fn a_release_frees_what_is_still_held_and_ends_the_reservation_by_its_reason() {
        let mut floor = floor();
        hold(&mut floor, &booking(7, &[1]));
        hold(&mut floor, &booking(8, &[2]));
        let released = booking(7, &[1, 2]);
        answer(Direction::Undo, Some("hold_expired"), |job| floor.release(job, &released));
        assert_eq!(holders(&floor), [None, Some(8), None]);
        assert_eq!(
            floor.ends,
            [End { id: released.reservation_id, status: "expired", reason: Some("hold_expired".to_owned()) }]
        );
    }
}
