//! The rules of holds, and how a release takes one back.

use chrono::TimeDelta;

use super::*;
use crate::steps::tests::{booking, job, limits, now, output, rejection, seat};
use crate::store::reservations::BookingInput;

/// Seats 1 to 3 at 10 points each, free and on sale; a buyer may have three.
fn work() -> Decisions {
    let limits = Limits { ended_holds: 2, ..limits() };
    let buyer = booking(0, &[]).input;
    let owned = [((buyer.user_id, buyer.performance_id), Owned::default())];
    Decisions {
        seats: (1..=3).map(|number| (seat(number).key(), seat(number))).collect(),
        owned: owned.into_iter().collect(),
        ..Decisions::new(limits)
    }
}

fn hold(work: &mut Decisions, booking: Booking, now: DateTime<Utc>) -> Outcome {
    work.hold(&job(HOLD, Direction::Do, booking), now)
}

fn holders(work: &Decisions) -> Vec<Option<u128>> {
    work.seats.iter().map(|(_, seat)| seat.holder.map(|holder| holder.as_u128())).collect()
}

#[test]
fn hold_takes_all_its_seats_until_its_end() {
    let mut work = work();
    let output = output(hold(&mut work, booking(7, &[1, 3]), now()));
    assert_eq!(output["amount"], 20);
    assert_eq!(output["expires_at"], time(now() + TimeDelta::seconds(300)));
    assert_eq!(output["claimable_at"], time(now() + TimeDelta::seconds(315)));
    assert_eq!(holders(&work), [Some(7), None, Some(7)]);
    let hold = &work.holds[0];
    assert_eq!((hold.status, hold.amount, hold.lines.0.len()), (ReservationStatus::Held, 20, 2));
    let mut notice = SeatNotice::default();
    notice.add(&booking(7, &[]));
    assert_eq!(work.notice, notice);
}

#[test]
fn hold_is_all_or_nothing() {
    let mut work = work();
    hold(&mut work, booking(7, &[2]), now());
    work.notice = SeatNotice::default();
    let refused = rejection(hold(&mut work, booking(8, &[1, 2]), now()));
    assert_eq!(refused, ("seat_taken".to_owned(), json!({ "seats": [2] })));
    assert_eq!(holders(&work), [None, Some(7), None]);
    assert_eq!(work.holds[1].status, ReservationStatus::Failed);
    assert_eq!(work.notice, SeatNotice::default(), "no seat has changed");
}

#[test]
fn hold_checks_seats_sale_and_limit() {
    let mut work = work();
    assert_eq!(rejection(hold(&mut work, booking(7, &[1, 9]), now())).1, json!({ "seats": [9] }));
    hold(&mut work, booking(7, &[1, 2]), now());
    work.limits.seats_per_user = 2;
    assert_eq!(rejection(hold(&mut work, booking(8, &[3]), now())).0, "too_many_seats");
    let later = now() + TimeDelta::hours(1);
    assert_eq!(rejection(hold(&mut work, booking(8, &[3]), later)).0, "sale_not_open");
}

#[test]
fn too_many_ended_holds_must_wait() {
    let mut work = work();
    let buyer = booking(7, &[1]);
    let limited_since = Some(now() - TimeDelta::minutes(50));
    let account = Owned { limited_since, ..Owned::default() };
    work.owned.insert((buyer.input.user_id, buyer.input.performance_id), account);
    let (code, detail) = rejection(hold(&mut work, buyer, now()));
    let until = time(now() + TimeDelta::minutes(10));
    let expected = json!({ "limit": 2, "retry_after_seconds": 601, "until": until });
    assert_eq!((code.as_str(), detail), ("rate_limited", expected));
}

#[test]
fn cancelled_seats_stay_taken_for_their_user() {
    let mut work = work();
    let buyer = booking(7, &[1, 2]);
    let account = Owned { released: Some(Json(vec![vec![2, 3], vec![3]])), ..Owned::default() };
    work.owned.insert((buyer.input.user_id, buyer.input.performance_id), account);
    let refused = rejection(hold(&mut work, buyer, now()));
    let expected = json!({ "seats": [2], "just_cancelled": [2] });
    assert_eq!(refused, ("seat_taken".to_owned(), expected));
    output(hold(&mut work, booking(8, &[1]), now()));
}

#[test]
fn sale_and_hold_end_when_the_performance_starts() {
    let mut work = work();
    let starts_at = now() + TimeDelta::seconds(100);
    let keys: Vec<Key> = work.seats.iter().map(|(key, _)| *key).collect();
    keys.iter().for_each(|key| work.seats.change(key).unwrap().starts_at = starts_at);
    let output = output(hold(&mut work, booking(7, &[1]), now()));
    assert_eq!(output["expires_at"], time(starts_at));
    assert_eq!(output["claimable_at"], time(starts_at));
    let (code, detail) = rejection(hold(&mut work, booking(8, &[2]), starts_at));
    assert_eq!((code.as_str(), &detail["closes_at"]), ("sale_not_open", &json!(starts_at)));
}

#[test]
fn blocked_seats_are_for_their_guest_alone() {
    let mut work = work();
    let (block, ends_at) = (Uuid::from_u128(9), now() + TimeDelta::seconds(60));
    for number in [1, 2] {
        let seat = work.seats.change(&seat(number).key()).unwrap();
        (seat.status, seat.holder, seat.claimable_at) = (SeatStatus::Blocked, Some(block), Some(ends_at));
    }
    let sold_from = |block, booking: Booking| {
        let input = BookingInput { block: Some(block), ..booking.input };
        Booking { input, ..booking }
    };
    assert_eq!(rejection(hold(&mut work, booking(7, &[1, 3]), now())).1, json!({ "seats": [1] }));
    let strange = sold_from(Uuid::from_u128(10), booking(7, &[1]));
    assert_eq!(rejection(hold(&mut work, strange, now())).0, "seat_taken");
    // The sale has not opened, and the guest gets more seats than a buyer may have.
    work.limits.seats_per_user = 0;
    let early = now() - TimeDelta::days(1);
    output(hold(&mut work, sold_from(block, booking(8, &[1])), early));
    assert_eq!(holders(&work), [Some(8), Some(9), None]);
    work.limits.seats_per_user = 3;
    output(hold(&mut work, booking(7, &[2]), ends_at));
    assert_eq!(holders(&work)[1], Some(7), "a block ends by itself");
    let late = sold_from(block, booking(8, &[3]));
    assert_eq!(rejection(hold(&mut work, late, now() + TimeDelta::hours(2))).0, "sale_not_open");
}

#[test]
fn expired_hold_is_claimable_after_its_grace() {
    let mut work = work();
    hold(&mut work, booking(7, &[1]), now());
    let late = now() + TimeDelta::seconds(314);
    assert_eq!(rejection(hold(&mut work, booking(8, &[1]), late)).0, "seat_taken");
    hold(&mut work, booking(8, &[1]), late + TimeDelta::seconds(1));
    assert_eq!(holders(&work)[0], Some(8));
}

#[test]
fn release_frees_held_seats_and_ends_reservation() {
    let mut work = work();
    hold(&mut work, booking(7, &[1]), now());
    hold(&mut work, booking(8, &[2]), now());
    let undo =
        Job { reason: Some("hold_expired".to_owned()), ..job(RELEASE, Direction::Undo, booking(7, &[1, 2])) };
    output(work.release(&undo));
    assert_eq!(holders(&work), [None, Some(8), None]);
    let end = &work.ends[0];
    assert_eq!(end.id, Uuid::from_u128(7));
    assert_eq!((end.status, end.reason.as_deref()), (ReservationStatus::Expired, Some("hold_expired")));
}
