//! Seats: hold, and beside it release. A hold is all or nothing.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

use super::books::Books;
use super::{Booking, Job};
use crate::saga::Direction;
use crate::store::reservations::{Change, End};
use crate::store::seats::{ENDED_HOLDS_WINDOW, Seat};

impl Books {
    /// Holds all the seats, or none and says why.
    pub(super) fn hold(&mut self, job: &mut Job, booking: &Booking) {
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
        let (expires_at, claimable_at) = self.hold_ends(booking);
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

    /// Until when a payment is accepted, and until when one under way keeps the seats. Both end when the performance starts:
    /// what is paid later could not be given back.
    fn hold_ends(&self, booking: &Booking) -> (DateTime<Utc>, DateTime<Utc>) {
        let expires_at = self.now + self.limits.hold;
        let claimable_at = expires_at + self.limits.grace;
        match booking.keys().find_map(|key| self.seats.get(&key)) {
            Some(seat) => (expires_at.min(seat.starts_at), claimable_at.min(seat.starts_at)),
            None => (expires_at, claimable_at),
        }
    }

    fn may_hold(&self, booking: &Booking) -> Result<(), (&'static str, Value)> {
        let unknown: Vec<i32> = self.numbers(booking, |seat| seat.is_none());
        let first = booking.keys().next().and_then(|key| self.seats.get(&key));
        let Some(first) = first.filter(|_| unknown.is_empty()) else {
            return Err(("seat_unknown", json!({ "seats": unknown })));
        };
        if self.now < first.sale_opens_at || self.now >= first.sale_ends_at() {
            return Err((
                "sale_not_open",
                json!({ "opens_at": first.sale_opens_at, "closes_at": first.sale_ends_at() }),
            ));
        }
        let account = self.owned.get(&(booking.user_id, booking.performance_id));
        let released = account.and_then(|account| account.released.as_ref());
        let released: Vec<i32> = released.iter().flat_map(|lists| lists.iter().flatten()).copied().collect();
        let mut taken = self.numbers(booking, |seat| seat.is_some_and(|seat| !seat.is_free(self.now)));
        let mine = booking.seats.iter().filter(|number| released.contains(number) && !taken.contains(number));
        let just_cancelled: Vec<i32> = mine.copied().collect();
        taken.extend(&just_cancelled);
        taken.sort_unstable();
        if !just_cancelled.is_empty() {
            return Err(("seat_taken", json!({ "seats": taken, "just_cancelled": just_cancelled })));
        }
        if !taken.is_empty() {
            return Err(("seat_taken", json!({ "seats": taken })));
        }
        if let Some(since) = account.and_then(|account| account.limited_since) {
            let until = since + ENDED_HOLDS_WINDOW;
            let seconds = (until - self.now).num_seconds().max(0) + 1;
            let limit = self.limits.ended_holds;
            return Err((
                "rate_limited",
                json!({ "limit": limit, "retry_after_seconds": seconds, "until": time(until) }),
            ));
        }
        let (owned, limit) = (account.map_or(0, |account| account.seats), self.limits.seats_per_user);
        if owned + booking.seats.len() as i64 > limit {
            return Err(("too_many_seats", json!({ "limit": limit, "owned": owned })));
        }
        Ok(())
    }

    /// Frees whatever the reservation still has. What it lost or never had stays as it is.
    pub(super) fn release(&mut self, job: &mut Job, booking: &Booking) {
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
    use sqlx::types::Json;

    use super::super::tests::{answer, booking, limits, refusal};
    use super::*;
    use crate::saga::Outcome;
    use crate::store::seats::{Key, Owned};
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
            starts_at: now + TimeDelta::hours(2),
        };
        let limits = Limits { ended_holds: 2, ..limits() };
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
    fn too_many_ended_holds_have_to_wait_for_the_first() {
        let mut floor = floor();
        let buyer = booking(7, &[1]);
        let limited_since = Some(floor.now - TimeDelta::minutes(50));
        let account = Owned { limited_since, ..Owned::default() };
        floor.owned.insert((buyer.user_id, buyer.performance_id), account);
        let (code, detail) = refusal(hold(&mut floor, &buyer));
        let until = time(floor.now + TimeDelta::minutes(10));
        let expected = json!({ "limit": 2, "retry_after_seconds": 601, "until": until });
        assert_eq!((code.as_str(), detail), ("rate_limited", expected));
    }

    #[test]
    fn seats_just_cancelled_are_taken_for_their_own_user() {
        let mut floor = floor();
        let buyer = booking(7, &[1, 2]);
        let account = Owned { released: Some(Json(vec![vec![2, 3], vec![3]])), ..Owned::default() };
        floor.owned.insert((buyer.user_id, buyer.performance_id), account);
        let refused = refusal(hold(&mut floor, &buyer));
        let expected = json!({ "seats": [2], "just_cancelled": [2] });
        assert_eq!(refused, ("seat_taken".to_owned(), expected));
        assert!(matches!(hold(&mut floor, &booking(8, &[1])), Outcome::Done { .. }), "another seat is free");
    }

    #[test]
    fn sale_and_hold_end_when_the_performance_starts() {
        let mut floor = floor();
        let starts_at = floor.now + TimeDelta::seconds(100);
        let keys: Vec<Key> = floor.seats.iter().map(|(key, _)| *key).collect();
        keys.iter().for_each(|key| floor.seats.change(key).unwrap().starts_at = starts_at);
        let Outcome::Done { output } = hold(&mut floor, &booking(7, &[1])) else { panic!("not held") };
        assert_eq!(output["expires_at"], time(starts_at));
        assert_eq!(output["claimable_at"], time(starts_at));
        floor.now = starts_at;
        let (code, detail) = refusal(hold(&mut floor, &booking(8, &[2])));
        assert_eq!(
            (code.as_str(), &detail["closes_at"]),
            ("sale_not_open", &json!(starts_at)),
            "as the window says it"
        );
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
