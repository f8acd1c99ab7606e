//! Cancelling: a hold is released, a confirmed reservation refunded.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use uuid::Uuid;

use super::answer::Answer;
use super::auth::AuthUser;
use super::error::Code;
use super::keyed::{self, Earlier, Effect};
use super::problem::{Problem, Result};
use super::request::{Command, NoBody, PathId};
use super::reservation_view::ReservationView;
use super::reservations::{self, own, pending};
use super::state::AppState;
use crate::booking;
use crate::ids::{ReservationId, UserId};
use crate::saga;
use crate::store;
use crate::store::reservations::{Obstacle, Reservation, ReservationStatus};

/// Releases a hold, or refunds a confirmed reservation until its performance starts.
#[utoipa::path(post, path = "/v1/reservations/{reservation}/cancellation", tag = "reservations",
    params(("reservation" = Uuid, Path)), security(("user" = [])),
    responses((status = 200, body = ReservationView, description = "Cancelled, now or before"),
              (status = 202, body = ReservationView, description = "Not settled yet: see Location and Retry-After")),
    extensions(("x-problems" = json!(["not_found", "reservation_not_cancellable", "request_in_progress",
        "idempotency_key_reused"]))))]
pub async fn cancel(
    State(app): State<Arc<AppState>>,
    user: AuthUser,
    PathId(id): PathId,
    command: Command<NoBody>,
) -> Result<Response> {
    let (_, claim) = command.claimed_by(user.caller());
    keyed::once(&app.repeats, claim, &Cancel { app: &app, user: user.id, id }).await
}

/// A request to cancel a reservation.
struct Cancel<'a> {
    app: &'a AppState,
    user: UserId,
    id: ReservationId,
}

impl keyed::Request for Cancel<'_> {
    async fn work(&self, effect: &Effect) -> Result<Answer> {
        let Self { app, user, id } = *self;
        let reservation = own(app, id, user).await?;
        match stand(&reservation) {
            Stand::Cancelled if reservation.cancellation_id.is_none() => return Ok(view(app, reservation)),
            Stand::InProgress => return Err(in_progress()),
            Stand::Stuck => return Err(stuck()),
            Stand::Over => return Err(not_cancellable(&reservation)),
            Stand::Confirmed => {
                if let Some(obstacle) = store::reservations::obstacle(&app.pool, id).await? {
                    return Err(refused(obstacle, &reservation));
                }
            }
            // A refund may still be under way: it is waited for.
            Stand::Held | Stand::Cancelled => {}
        }
        settle(app, id, reservation.status, effect).await
    }

    async fn earlier_answer(&self, _: Earlier) -> Result<Option<Answer>> {
        let Self { app, user, id } = *self;
        let reservation = own(app, id, user).await?;
        let is_cancelled =
            stand(&reservation) == Stand::Cancelled && app.booking.is_cancelled(&reservation).await?;
        Ok(is_cancelled.then(|| view(app, reservation)))
    }
}

/// Where a reservation stands towards a cancellation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    Cancelled,
    InProgress,
    Held,
    Confirmed,
    /// Nothing happens to it before an operator has looked at it.
    Stuck,
    Over,
}

fn stand(reservation: &Reservation) -> Stand {
    use ReservationStatus as R;
    match (reservation.status, reservation.saga_status) {
        (R::Cancelled, _) => Stand::Cancelled,
        // Pending, where an operator has taken the hold as done.
        (R::Pending | R::Held, Some(saga::Status::Waiting)) => Stand::Held,
        (R::Pending | R::Held, Some(saga::Status::Running | saga::Status::Compensating)) => Stand::InProgress,
        (R::Pending | R::Held, Some(saga::Status::Stuck)) => Stand::Stuck,
        // Its saga has ended without it.
        (R::Pending | R::Held, _) => Stand::Over,
        (R::Confirmed, _) => Stand::Confirmed,
        (R::Expired | R::Failed, _) => Stand::Over,
    }
}

async fn settle(app: &AppState, id: Uuid, before: ReservationStatus, effect: &Effect) -> Result<Answer> {
    let reservation = match app.booking.cancel_under(id, effect.key()).await? {
        booking::Answer::Pending(reservation) => return Ok(pending(app, *reservation)),
        booking::Answer::Settled(reservation) => *reservation,
    };
    match (before, stand(&reservation)) {
        (_, Stand::Cancelled) => Ok(view(app, reservation)),
        // A payment came first; what it left can be cancelled in its turn.
        (ReservationStatus::Held, Stand::Confirmed | Stand::InProgress) => Err(in_progress()),
        (_, Stand::Held | Stand::InProgress | Stand::Stuck) => Ok(pending(app, reservation)),
        // An operator gave the cancellation up before it did anything: the next one can go through.
        (_, Stand::Confirmed) => match store::reservations::obstacle(&app.pool, id).await? {
            Some(obstacle) => Err(refused(obstacle, &reservation)),
            None => Err(in_progress()),
        },
        (_, Stand::Over) => Err(not_cancellable(&reservation)),
    }
}

fn view(app: &AppState, reservation: Reservation) -> Answer {
    Answer::ok(&reservations::view(app, reservation))
}

fn in_progress() -> Problem {
    Problem::new(Code::RequestInProgress, "The reservation is being worked on. Try again in a second.")
}

/// No time can be named after which it would work.
fn stuck() -> Problem {
    let words = "The reservation cannot go on by itself; an operator has to look at it first.";
    Problem::new(Code::ReservationNotCancellable, words)
}

fn refused(obstacle: Obstacle, reservation: &Reservation) -> Problem {
    not_cancellable_as(
        reservation,
        match obstacle {
            Obstacle::Started => "The performance has started; the reservation can no longer be cancelled.",
            Obstacle::Redeemed => {
                "A ticket was redeemed at the entrance; only the support desk can cancel the reservation."
            }
        },
    )
}

fn not_cancellable(reservation: &Reservation) -> Problem {
    not_cancellable_as(reservation, "The reservation has ended already.")
}

fn not_cancellable_as(reservation: &Reservation, words: &str) -> Problem {
    let status = serde_json::json!(reservation.status);
    Problem::new(Code::ReservationNotCancellable, words).with("reservation_status", status)
}

#[cfg(test)]
mod tests {
    use super::super::payments::tests::reservation;
    use super::*;
    use saga::Status as S;

    #[test]
    fn what_can_be_cancelled_and_what_cannot() {
        use ReservationStatus as R;
        let check =
            |status, saga, expected| assert_eq!(stand(&reservation(status, saga)), expected, "{status:?}");
        check(R::Held, Some(S::Waiting), Stand::Held);
        check(R::Held, Some(S::Running), Stand::InProgress);
        check(R::Held, Some(S::Compensating), Stand::InProgress);
        check(R::Pending, Some(S::Running), Stand::InProgress);
        check(R::Pending, Some(S::Waiting), Stand::Held);
        for status in [R::Pending, R::Held] {
            check(status, Some(S::Stuck), Stand::Stuck);
            for saga in [Some(S::Abandoned), Some(S::Completed), None] {
                check(status, saga, Stand::Over);
            }
        }
        check(R::Confirmed, Some(S::Completed), Stand::Confirmed);
        check(R::Confirmed, None, Stand::Confirmed);
        check(R::Cancelled, None, Stand::Cancelled);
        check(R::Expired, None, Stand::Over);
        check(R::Failed, None, Stand::Over);
    }
}
