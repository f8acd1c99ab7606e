//! What must be known of a workflow to try it: how one begins, how a step's own service comes to say no, and what is
//! there when all is done or undone. A workflow or a step that has no row here fails the tests.

use boxoffice::booking::Order;
use boxoffice::saga::Status;
use boxoffice::store::reservations::{Reservation, ReservationStatus};
use boxoffice::{ids, store};
use uuid::Uuid;

use super::post::Rules;
use super::stage::{PRICE, Stage};
use crate::common::app::{begin_saga, until};

/// How the service of a step comes to say no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum No {
    /// Somebody else has the seat.
    SeatTaken,
    /// The buyer cannot pay.
    TooFewPoints,
    /// The seat went to somebody else at the last moment.
    SeatLost,
}

/// A step's row.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What its service refuses, and with which code; none if it has no reason to ever say no.
    pub no: Option<(No, &'static str)>,
    /// Whether a refusal may come without the service having seen the command: with some, saying no leaves a trace.
    pub stand_in: bool,
}

/// What is known of a step.
pub fn row(workflow: &str, step: &str) -> Row {
    let (no, stand_in) = match (workflow, step) {
        ("booking", "reserve") => (Some((No::SeatTaken, "seat_taken")), false),
        ("booking", "pay") => (Some((No::TooFewPoints, "insufficient_points")), true),
        ("booking", "confirm") => (Some((No::SeatLost, "hold_expired")), true),
        ("cancellation", "void" | "refund" | "release") => (None, true),
        ("parcel", "pack" | "load" | "send" | "tell") => (None, true),
        _ => panic!("no row says how the step {step} of the workflow {workflow} is tried"),
    };
    Row { no, stand_in }
}

/// A saga that was begun, and what it is about.
#[derive(Clone, Debug)]
pub struct Begun {
    pub saga: Uuid,
    /// The reservation and its buyer; nobody of a saga that is about something else.
    pub reservation: Option<Uuid>,
    pub user: Uuid,
    pub seat: i32,
}

/// Begins a saga whose commands go by these rules.
pub async fn begin(stage: &Stage, workflow: &str, rules: Rules, no: Option<No>) -> Begun {
    match workflow {
        "booking" => booking(stage, rules, no).await,
        "cancellation" => cancellation(stage, rules).await,
        "parcel" => parcel(stage, rules).await,
        _ => panic!("no row says how the workflow {workflow} begins"),
    }
}

async fn booking(stage: &Stage, rules: Rules, no: Option<No>) -> Begun {
    let (user, seat) = (ids::new(), stage.seat());
    if no != Some(No::TooFewPoints) {
        charge(stage, user).await;
    }
    if no == Some(No::SeatTaken) {
        take(stage, seat).await;
    }
    let id = ids::new();
    stage.post.instruct(id, rules).await;
    order(stage, id, user, seat).await;
    Begun { saga: id, reservation: Some(id), user, seat }
}

async fn order(stage: &Stage, id: Uuid, user: Uuid, seat: i32) {
    let (concert_id, performance_id) = (stage.concert, stage.performance);
    let order = Order {
        id,
        user_id: user,
        concert_id,
        performance_id,
        seats: vec![seat],
        pay_now: false,
        trace: None,
    };
    stage.desk.reserve(order).await.unwrap();
}

/// Somebody else takes a seat, and must still have it at the end.
pub async fn take(stage: &Stage, seat: i32) {
    let id = ids::new();
    stage.post.instruct(id, Rules::default()).await;
    order(stage, id, ids::new(), seat).await;
    until(20, "the seat to be held", || async { stage.saga(id).await.status == Status::Waiting }).await;
    stage.remember_guest(id);
}

/// Gives a buyer the points for one seat.
pub async fn charge(stage: &Stage, user: Uuid) {
    store::points::charge(stage.pool(), ids::new(), user, PRICE).await.unwrap().unwrap();
}

async fn cancellation(stage: &Stage, rules: Rules) -> Begun {
    let sold = booking(stage, Rules::default(), None).await;
    until(20, "the seat to be held", || async { stage.saga(sold.saga).await.status == Status::Waiting })
        .await;
    stage.desk.pay(sold.saga).await.unwrap();
    until(20, "the seat to be sold", || async { stage.saga(sold.saga).await.status == Status::Completed })
        .await;
    stage.desk.cancel(sold.saga).await.unwrap();
    let saga = find(stage, sold.saga).await.cancellation_id.expect("the cancellation has begun");
    stage.post.instruct(saga, rules).await;
    Begun { saga, ..sold }
}

async fn parcel(stage: &Stage, rules: Rules) -> Begun {
    let saga = ids::new();
    stage.post.instruct(saga, rules).await;
    begin_saga(&stage.engine, "parcel", saga).await;
    Begun { saga, reservation: None, user: saga, seat: 0 }
}

pub async fn find(stage: &Stage, reservation: Uuid) -> Reservation {
    store::reservations::get(stage.pool(), reservation).await.unwrap().expect("it is there")
}

/// Makes the service of a step say no to what it is about to be asked, where that was not done at the beginning.
pub async fn bring_about(stage: &Stage, begun: &Begun, no: No) {
    if no == No::SeatLost {
        let freed = sqlx::query(
            "update seats set status = 'free', holder = null, expires_at = null, claimable_at = null
             where performance_id = $1 and number = $2",
        );
        freed.bind(stage.performance).bind(begun.seat).execute(stage.pool()).await.unwrap();
    }
}

/// Takes away what made the service say no.
pub async fn make_good(stage: &Stage, begun: &Begun, no: Option<No>) {
    if no == Some(No::TooFewPoints) {
        charge(stage, begun.user).await;
    }
}

/// What must be there at the end: all of a completed saga, nothing of a compensated one.
pub async fn check_slate(stage: &Stage, workflow: &str, begun: &Begun, status: Status, reason: Option<&str>) {
    let Some(reservation) = begun.reservation else {
        for step in &stage.definition(workflow).steps {
            let effects = i64::from(status == Status::Completed && step.command.is_some());
            assert_eq!(stage.post.parcels.effects(begun.saga, &step.name).await, effects, "{}", step.name);
        }
        return;
    };
    let found = find(stage, reservation).await;
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
    let seats = has.bind(reservation).fetch_one(stage.pool()).await.unwrap();
    let any = sqlx::query_scalar::<_, i64>("select count(*) from seats where holder = $1");
    let any = any.bind(reservation).fetch_one(stage.pool()).await.unwrap();
    assert_eq!((seats, any), (i64::from(sold), i64::from(sold)), "seats sold and seats had");
    let taken = sqlx::query_scalar::<_, i64>(
        "select coalesce(sum(case kind when 'use' then amount when 'refund' then -amount end), 0)::bigint
         from ledger_entries where reservation_id = $1",
    );
    let taken = taken.bind(reservation).fetch_one(stage.pool()).await.unwrap();
    assert_eq!(taken, if sold { PRICE } else { 0 }, "points taken");
}
