//! Starts the sagas that take confirmed reservations back: for a buyer, for staff, and for a date that was cancelled.

use fail::fail_point;
use saga_protocol::spans;
use serde_json::{Map, Value};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::orchestrator::{self, Engine};
use crate::saga::{NewSaga, Saga};
use crate::steps::DATE_CANCELLED;
use crate::store;
use crate::store::claims::{Claims, Key};
use crate::store::operations::{self, ActRow};
use crate::store::redemptions;
use crate::store::reservations::{self, BookingInput, Claimed};
use crate::store::write_batch::WriteBatch;
use crate::trace_context;

/// The workflow of a cancellation.
const WORKFLOW: &str = "cancellation";

/// Which cancellations to start.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// Reservations, each with the id of its cancellation.
    pub wanted: &'a [(Uuid, Uuid)],
    /// The idempotency key that is claimed with it.
    pub key: Option<&'a Key>,
    /// The act of staff, who may do it at any time. It is recorded if a cancellation starts.
    pub by_staff: Option<&'a ActRow<'a>>,
}

impl<'a> Order<'a> {
    /// Cancellations without a key.
    pub fn of(wanted: &'a [(Uuid, Uuid)]) -> Self {
        Self { wanted, key: None, by_staff: None }
    }
}

/// Starts the cancellation of confirmed reservations, each with the id beside it, and claims the idempotency key, in one
/// transaction. Answers the reservations whose cancellation was started: another one may have won, or the date has begun.
///
/// # Errors
/// [`store::claims::is_taken`] says whether another request has the key.
pub async fn start(pool: &PgPool, engine: &Engine, order: Order<'_>) -> store::Result<Vec<Uuid>> {
    let Order { wanted, key, by_staff } = order;
    let begun = spans::begin();
    let reservations: Vec<Uuid> = wanted.iter().map(|(reservation, _)| *reservation).collect();
    let mut tx = pool.begin().await?;
    // The bookings' rows are locked first: the numbers of a cancellation's events begin after its booking's last one.
    let (bookings, now) = store::sagas::lock(&mut tx, &reservations).await?;
    let claimed = reservations::claim_cancellations(&mut tx, wanted, by_staff.is_some(), now).await?;
    if claimed.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<Uuid> = claimed.iter().map(|claimed| claimed.input.reservation_id).collect();
    let booking_of = |id: Uuid| bookings.iter().find(|booking| booking.id == id);
    let trace_of = |id: Uuid| booking_of(id).map(|booking| booking.trace.unwrap_or(booking.id));
    let sagas = claimed.iter().map(|claimed| {
        let id = claimed.input.reservation_id;
        // The number of a booking that was purged is gone, and milliseconds since 1970 stand in: no saga has as many events.
        let seq = booking_of(id).map_or_else(|| now.timestamp_millis(), |booking: &Saga| booking.seq);
        let (seq, input) = (seq + claimed.events, fields(&claimed.input));
        NewSaga { id: claimed.cancellation, subject_id: id, input, trace: trace_of(id), seq }
    });
    let mut changes = WriteBatch::default();
    let effects = orchestrator::start(&mut changes, engine, WORKFLOW, sagas.collect(), now)?;
    Claims::of(std::iter::once(key.map(|key| &key.asked))).add_to(&mut changes, |_| true);
    changes.write(&mut tx).await?;
    undo_scans(&mut tx, &claimed, by_staff).await?;
    if let Some(act) = by_staff {
        operations::record_act(&mut *tx, act).await?;
    }
    tx.commit().await?;
    fail_point!("start::committed");
    for claimed in &claimed {
        let about = claimed.input.reservation_id;
        let (saga, trace, about) = (claimed.cancellation, trace_of(about), Some(about));
        let started = orchestrator::Started { workflow: WORKFLOW, saga, trace, about };
        orchestrator::record_start(started, begun, trace_context::current());
    }
    engine.dispatch_detached(effects);
    Ok(ids)
}

/// Takes the scans of tickets back that are about to be void: at the word of staff, or because the date was cancelled.
async fn undo_scans(
    conn: &mut PgConnection,
    claimed: &[Claimed],
    by_staff: Option<&ActRow<'_>>,
) -> store::Result<()> {
    let (actor, reason) = by_staff.map_or(("boxoffice", DATE_CANCELLED), |act| (act.actor, act.reason));
    let is_undone = |claimed: &&Claimed| by_staff.is_some() || claimed.is_date_cancelled;
    let ids: Vec<Uuid> =
        claimed.iter().filter(is_undone).map(|claimed| claimed.input.reservation_id).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let tickets = redemptions::redeemed_tickets_of(&mut *conn, &ids).await?;
    if !tickets.is_empty() {
        redemptions::undo(conn, &tickets, actor, reason).await?;
    }
    Ok(())
}

/// The input of a booking or a cancellation, as its saga has it.
pub fn fields(input: &BookingInput) -> Map<String, Value> {
    match serde_json::to_value(input) {
        Ok(Value::Object(fields)) => fields,
        _ => unreachable!("the input of a booking has named fields, and each has a form in JSON"),
    }
}
