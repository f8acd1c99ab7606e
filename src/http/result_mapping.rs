//! Maps the state of a reservation to the result of a request: fulfilled, pending, or the reason why it failed.

use std::time::Duration;

use serde_json::Value;

use super::error::Code;
use super::problem::{Problem, Result};
use crate::store::reservations::{Reservation, ReservationStatus};

/// The state that a request wants for its reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    Held,
    Paid,
}

/// Whether a settled reservation has the wanted state; an error if it will never have it. `Ok(false)`: still pending, for
/// example because an operator has to act first.
pub fn is_fulfilled(reservation: &Reservation, wanted: Wanted) -> Result<bool> {
    use ReservationStatus as R;
    let ran_out = reservation.reason.as_deref() == Some(Code::HoldExpired.row().1);
    match (reservation.status, wanted) {
        (R::Confirmed, _) | (R::Held, Wanted::Held) => Ok(true),
        // It was held, and its owner has cancelled it since.
        (R::Cancelled, Wanted::Held) => Ok(true),
        (R::Held, Wanted::Paid) => insufficient(reservation).map_or(Ok(false), Err),
        (R::Pending, _) => Ok(false),
        (R::Expired, _) => Err(expired()),
        (R::Cancelled | R::Failed, _) if ran_out => Err(expired()),
        (R::Cancelled | R::Failed, _) => Err(not_payable(reservation)),
    }
}

/// Whether a reservation had the wanted state, whatever has become of it since.
pub fn was_fulfilled(reservation: &Reservation, wanted: Wanted) -> bool {
    let was_confirmed =
        reservation.status == ReservationStatus::Confirmed || reservation.cancellation_id.is_some();
    match wanted {
        Wanted::Held => was_confirmed || reservation.expires_at.is_some(),
        Wanted::Paid => was_confirmed,
    }
}

/// The addition for seats that this user gave back a moment ago, which others may take first.
fn cancelled(about: Option<&Value>) -> &'static str {
    match about.and_then(|about| about.get("just_cancelled")) {
        Some(_) => " Seats of a hold that you cancelled are open to others first, for 5 s.",
        None => "",
    }
}

/// The problem of a failed reservation.
pub fn refusal(reservation: &Reservation) -> Problem {
    let reason = reservation.reason.as_deref().unwrap_or_default();
    let about = reservation.detail.as_ref();
    let seats = about.and_then(|about| about.get("seats")).and_then(|seats| seats.as_array()).cloned();
    let named: Vec<String> = seats.iter().flatten().map(ToString::to_string).collect();
    let named = named.join(", ");
    let code = Code::named(reason).unwrap_or(Code::Unavailable);
    let detail = match code {
        Code::SeatTaken => {
            format!("Already reserved: {named}. None of the seats is held for you.{}", cancelled(about))
        }
        Code::SeatUnknown => match about.and_then(|about| about.get("section")).and_then(Value::as_str) {
            Some(section) => format!("There is no section {section:?}."),
            None => format!("There are no such seats: {named}."),
        },
        Code::NoSeatsTogether => {
            match about.and_then(|about| about.get("largest_group")).and_then(Value::as_u64) {
                Some(largest @ 1..) => {
                    format!("So many such seats are not free; the same request for {largest} would succeed.")
                }
                _ => "No such seat is free.".to_owned(),
            }
        }
        Code::TooManySeats => {
            let number =
                |name| about.and_then(|about| about.get(name)).map_or("some".to_owned(), ToString::to_string);
            let (limit, owned) = (number("limit"), number("owned"));
            format!("One user may hold and own {limit} seats of one performance; you have {owned} already.")
        }
        Code::RateLimited => {
            let number = |name| {
                about.and_then(|about| about.get(name)).map_or("too many".to_owned(), ToString::to_string)
            };
            let limit = number("limit");
            let until = number("until");
            let until = until.trim_matches('"');
            format!(
                "{limit} of your holds for this concert ended within the last hour, run out, cancelled or failed; the limit is {limit}. Wait until {until}, and try again."
            )
        }
        Code::AccessCodeUsedUp => {
            "Other reservations use the access code up; their ends give uses back.".to_owned()
        }
        Code::SaleNotOpen => "This performance is not on sale now.".to_owned(),
        _ => "The seats could not be held in time; none is held. Try again.".to_owned(),
    };
    let mut problem = Problem::new(code, detail);
    for (name, value) in about.and_then(|about| about.as_object()).into_iter().flatten() {
        problem = problem.with(name, value.clone());
    }
    let wait = about.and_then(|about| about.get("retry_after_seconds")).and_then(Value::as_u64);
    match wait {
        Some(seconds) => problem.after(Duration::from_secs(seconds)),
        None => problem,
    }
}

/// The rejected payment that the saga keeps, with balance and required points.
pub fn insufficient(reservation: &Reservation) -> Option<Problem> {
    let rejection = reservation.saga_rejection.as_ref()?;
    let detail = rejection.get("detail")?;
    let (balance, required) = (detail.get("balance")?.as_i64()?, detail.get("required")?.as_i64()?);
    let words =
        format!("You have {balance} points and need {required}. The hold stays: top up and pay again.");
    Some(Problem::new(Code::InsufficientPoints, words).with("balance", balance).with("required", required))
}

/// 410: the hold has expired.
pub fn expired() -> Problem {
    Problem::new(Code::HoldExpired, "The hold has run out; nothing was charged, or it was refunded.")
}

/// 409 with the status of the reservation.
pub fn not_payable(reservation: &Reservation) -> Problem {
    let status = serde_json::json!(reservation.status);
    let words = match reservation.reason.as_deref().and_then(Code::named) {
        Some(Code::PerformanceCancelled) => {
            "The performance was cancelled; nothing was charged, or it was refunded."
        }
        _ => "This reservation cannot be paid in the state it is in.",
    };
    Problem::new(Code::ReservationNotPayable, words).with("reservation_status", status)
}

#[cfg(test)]
mod tests {
    use super::super::payments::tests::reservation;
    use super::*;
    use crate::saga::Status as S;

    #[test]
    fn each_status_maps_to_a_result() {
        use ReservationStatus as R;
        let check = |status, reason: Option<&str>, held, paid| {
            let reservation = Reservation {
                reason: reason.map(str::to_owned),
                ..reservation(status, Some(S::Compensated))
            };
            let codes = [Wanted::Held, Wanted::Paid]
                .map(|wanted| is_fulfilled(&reservation, wanted).map_err(|problem| problem.code()));
            assert_eq!(codes, [held, paid], "{status:?} {reason:?}");
        };
        check(R::Confirmed, None, Ok(true), Ok(true));
        check(R::Held, None, Ok(true), Ok(false));
        check(R::Pending, None, Ok(false), Ok(false));
        check(R::Cancelled, Some("cancelled"), Ok(true), Err(Code::ReservationNotPayable));
        let (expired, failed) = (Err(Code::HoldExpired), Err(Code::ReservationNotPayable));
        check(R::Expired, Some("hold_expired"), expired, expired);
        check(R::Failed, Some("hold_expired"), expired, expired);
        check(R::Failed, Some("unavailable"), failed, failed);
    }

    #[test]
    fn fulfilled_requests_stay_fulfilled() {
        use ReservationStatus as R;
        let check = |status, held, paid| {
            let reservation = reservation(status, Some(S::Compensated));
            let fulfilled = [Wanted::Held, Wanted::Paid].map(|wanted| was_fulfilled(&reservation, wanted));
            assert_eq!(fulfilled, [held, paid], "{status:?}");
        };
        check(R::Held, true, false);
        check(R::Expired, true, false);
        check(R::Confirmed, true, true);
        let never_held = Reservation { expires_at: None, ..reservation(R::Failed, Some(S::Compensated)) };
        assert!(!was_fulfilled(&never_held, Wanted::Held));
        let cancellation_id = Some(uuid::Uuid::nil());
        let refunded = Reservation { cancellation_id, ..reservation(R::Cancelled, Some(S::Completed)) };
        assert!(was_fulfilled(&refunded, Wanted::Paid));
    }

    #[test]
    fn too_few_points_name_balance_and_required() {
        let mut held = reservation(ReservationStatus::Held, Some(S::Waiting));
        assert!(insufficient(&held).is_none());
        held.saga_rejection = Some(serde_json::json!({
            "step": "pay", "code": "insufficient_points", "detail": { "balance": 5, "required": 100 },
        }));
        let body = insufficient(&held).unwrap().body();
        assert_eq!((&body["balance"], &body["required"]), (&5.into(), &100.into()));
    }
}
