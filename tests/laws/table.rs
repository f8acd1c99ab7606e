//! Facts about each workflow that the law tests need: how a saga starts, why a step's service rejects, and which
//! effects exist at the end. A workflow or step without an entry fails the tests.

use boxoffice::booking::Order;
use boxoffice::saga::{Definition, Status};
use boxoffice::store::reservations::{Reservation, ReservationStatus};
use boxoffice::{ids, store};
use uuid::Uuid;

use super::command_proxy::Rules;
use super::harness::{Harness, PRICE};
use crate::common::app::{begin_saga, until};

/// Whether the costly laws try this step. Of the workflow with groups they try the members: its other step is like those of the sample.
pub fn is_tried(definition: &Definition, index: usize) -> bool {
    definition.name != "parallel" || definition.group(index).is_some()
}

/// Why the service of a step rejects its command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Another buyer holds the seat.
    SeatTaken,
    /// The buyer has too few points.
    TooFewPoints,
    /// The buyer lost the seat just before the confirmation.
    SeatLost,
}

#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The rejection of the step's own service and its code; `None` if it never rejects.
    pub no: Option<(Refusal, &'static str)>,
    /// Whether the proxy may reject in place of the service. Some services write a row when they reject.
    pub proxy_may_refuse: bool,
}

pub fn row(workflow: &str, step: &str) -> Row {
    let (no, proxy_may_refuse) = match (workflow, step) {
        ("booking", "reserve") => (Some((Refusal::SeatTaken, "seat_taken")), false),
        ("booking", "pay") => (Some((Refusal::TooFewPoints, "insufficient_points")), true),
        ("booking", "confirm") => (Some((Refusal::SeatLost, "hold_expired")), true),
        ("cancellation", "void" | "refund" | "release") => (None, true),
        ("sample", "pack" | "load" | "send" | "confirm") => (None, true),
        ("parallel", "road" | "rail" | "send" | "bill" | "notice") => (None, true),
        _ => panic!("no row says how the step {step} of the workflow {workflow} is tried"),
    };
    Row { no, proxy_may_refuse }
}

#[derive(Clone, Debug)]
pub struct StartedSaga {
    pub saga: Uuid,
    /// `None` for a saga that is not about a reservation.
    pub reservation: Option<Uuid>,
    pub user: Uuid,
    pub seat: i32,
}

/// Starts a saga whose commands follow these rules.
pub async fn begin(harness: &Harness, workflow: &str, rules: Rules, no: Option<Refusal>) -> StartedSaga {
    match workflow {
        "booking" => booking(harness, rules, no).await,
        "cancellation" => cancellation(harness, rules).await,
        "sample" | "parallel" => sample(harness, workflow, rules).await,
        _ => panic!("no row says how the workflow {workflow} begins"),
    }
}

async fn booking(harness: &Harness, rules: Rules, no: Option<Refusal>) -> StartedSaga {
    let (user, seat) = (ids::new(), harness.seat());
    if no != Some(Refusal::TooFewPoints) {
        charge(harness, user).await;
    }
    if no == Some(Refusal::SeatTaken) {
        take(harness, seat).await;
    }
    let id = ids::new();
    harness.proxy.instruct(id, rules).await;
    order(harness, id, user, seat).await;
    StartedSaga { saga: id, reservation: Some(id), user, seat }
}

async fn order(harness: &Harness, id: Uuid, user: Uuid, seat: i32) {
    let (concert_id, performance_id) = (harness.concert, harness.performance);
    let order = Order {
        id,
        user_id: user,
        concert_id,
        performance_id,
        seats: vec![seat],
        best: None,
        block: None,
        access_code: None,
        pay_now: false,
        trace: None,
    };
    harness.booking.reserve(order).await.unwrap();
}

/// Another buyer takes the seat, and must still hold it at the end.
pub async fn take(harness: &Harness, seat: i32) {
    let id = ids::new();
    harness.proxy.instruct(id, Rules::default()).await;
    order(harness, id, ids::new(), seat).await;
    until(20, "the seat to be held", || async { harness.saga(id).await.status == Status::Waiting }).await;
    harness.remember_holder(id);
}

/// Charges the price of one seat.
pub async fn charge(harness: &Harness, user: Uuid) {
    store::points::charge(harness.pool(), ids::new(), user, PRICE).await.unwrap().unwrap();
}

async fn cancellation(harness: &Harness, rules: Rules) -> StartedSaga {
    let sold = booking(harness, Rules::default(), None).await;
    until(20, "the seat to be held", || async { harness.saga(sold.saga).await.status == Status::Waiting })
        .await;
    harness.booking.pay(sold.saga).await.unwrap();
    until(20, "the seat to be sold", || async { harness.saga(sold.saga).await.status == Status::Completed })
        .await;
    harness.booking.cancel(sold.saga).await.unwrap();
    let saga = find(harness, sold.saga).await.cancellation_id.expect("the cancellation has started");
    harness.proxy.instruct(saga, rules).await;
    StartedSaga { saga, ..sold }
}

async fn sample(harness: &Harness, workflow: &str, rules: Rules) -> StartedSaga {
    let saga = ids::new();
    harness.proxy.instruct(saga, rules).await;
    begin_saga(&harness.engine, workflow, saga).await;
    StartedSaga { saga, reservation: None, user: saga, seat: 0 }
}

pub async fn find(harness: &Harness, reservation: Uuid) -> Reservation {
    let mut conn = harness.pool().acquire().await.unwrap();
    store::reservations::get(&mut conn, reservation).await.unwrap().expect("it is there")
}

/// Causes the rejection, if that was not done at the start.
pub async fn cause_refusal(harness: &Harness, started: &StartedSaga, no: Refusal) {
    if no == Refusal::SeatLost {
        let freed = sqlx::query(
            "update seats set status = 'free', holder = null, expires_at = null, claimable_at = null
             where performance_id = $1 and number = $2",
        );
        freed.bind(harness.performance).bind(started.seat).execute(harness.pool()).await.unwrap();
    }
}

/// Removes the cause of the rejection.
pub async fn remove_cause(harness: &Harness, started: &StartedSaga, no: Option<Refusal>) {
    if no == Some(Refusal::TooFewPoints) {
        charge(harness, started.user).await;
    }
}

/// Checks that all effects of a completed saga exist, and none of a compensated one.
pub async fn check_effects(
    harness: &Harness,
    workflow: &str,
    started: &StartedSaga,
    status: Status,
    reason: Option<&str>,
) {
    let Some(reservation) = started.reservation else {
        for step in &harness.definition(workflow).steps {
            let effects = i64::from(status == Status::Completed && step.command.is_some());
            assert_eq!(
                harness.proxy.sample.effects(started.saga, &step.name).await,
                effects,
                "{}",
                step.name
            );
        }
        return;
    };
    let found = find(harness, reservation).await;
    let sold = workflow == "booking" && status == Status::Completed;
    let expected = match (workflow, sold, reason) {
        ("booking", true, _) => ReservationStatus::Confirmed,
        ("booking", false, Some("hold_expired")) => ReservationStatus::Expired,
        ("booking", false, Some("cancelled")) | ("cancellation", ..) => ReservationStatus::Cancelled,
        _ => ReservationStatus::Failed,
    };
    assert_eq!(found.status, expected, "the reservation, {reason:?}");
    let valid = found.tickets.iter().filter(|ticket| ticket.status == "valid").count();
    assert_eq!(valid, usize::from(sold), "valid tickets");
    let has =
        sqlx::query_scalar::<_, i64>("select count(*) from seats where holder = $1 and status = 'sold'");
    let seats = has.bind(reservation).fetch_one(harness.pool()).await.unwrap();
    let any = sqlx::query_scalar::<_, i64>("select count(*) from seats where holder = $1");
    let any = any.bind(reservation).fetch_one(harness.pool()).await.unwrap();
    assert_eq!((seats, any), (i64::from(sold), i64::from(sold)), "seats sold and seats had");
    let taken = sqlx::query_scalar::<_, i64>(
        "select coalesce(sum(case kind when 'use' then amount when 'refund' then -amount end), 0)::bigint
         from ledger_entries where reservation_id = $1",
    );
    let taken = taken.bind(reservation).fetch_one(harness.pool()).await.unwrap();
    assert_eq!(taken, if sold { PRICE } else { 0 }, "points taken");
}
