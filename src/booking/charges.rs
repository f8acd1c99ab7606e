//! Publishes the events of charges. Charges have no saga as their outbox, so each transaction adds a row to an outbox
//! table; the row is deleted once JetStream has the event.

use chrono::TimeDelta;
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use super::{BookingError, BookingService};
use crate::bus::events::{EventBatch, EventMessage, event_batches};
use crate::bus::publish::publish;
use crate::orchestrator::{Page, Wanted};
use crate::store::payments::Charge;
use crate::{ids, store};

/// Most charges of one pass.
const LIMIT: i64 = 500;
/// Most charges of one page of a replay.
const REPLAY_PAGE: usize = 200;
/// An id is made before its row, a request that is sent again up to a day; and clocks differ.
pub(super) const REPLAY_MARGIN: TimeDelta = TimeDelta::days(2);

impl BookingService {
    /// Announces the charges that are not announced yet, a bounded number at once. Two instances may announce
    /// the same one: the event's id is the entry's.
    pub async fn announce_forgotten_charges(&self) -> Result<usize, BookingError> {
        let charges = store::payments::unannounced(&self.pool, LIMIT).await?;
        if charges.is_empty() {
            return Ok(0);
        }
        let events: Vec<EventMessage> = charges.iter().map(charge_event).collect();
        publish(&self.engine.bus, &event_batches(&events), EventBatch::outgoing)
            .await
            .map_err(|_| BookingError::Unavailable)?;
        let ids: Vec<Uuid> = charges.iter().map(|charge| charge.id).collect();
        store::payments::announced(&self.pool, &ids).await?;
        Ok(charges.len())
    }
}

/// The event of a ledger entry that no saga made: a charge, or a refund by an operator.
fn charge_event(charge: &Charge) -> EventMessage {
    let data = json!({
        "entry_id": charge.id,
        "user_id": charge.user_id,
        "kind": charge.kind,
        "amount": charge.amount,
        "balance": charge.balance,
        "reservation_id": charge.reservation_id,
        "reverses_id": charge.reverses_id,
        "created_at": charge.created_at,
    });
    let (id, at) = (charge.id.to_string(), charge.created_at);
    let about = (charge.user_id, charge.position);
    EventMessage::new(id, "points.entry", at, about, charge.user_id, data)
}

/// Reads the charges whose events are published again, page by page along their ids.
#[derive(Debug)]
pub struct ChargeReplay<'a> {
    pool: &'a PgPool,
    wanted: &'a Wanted,
    from: Option<Uuid>,
}

impl<'a> ChargeReplay<'a> {
    /// Begins. Where single sagas or those of one workflow are wanted, no charges are.
    pub fn begin(pool: &'a PgPool, wanted: &'a Wanted) -> Self {
        let all = wanted.saga.is_none() && wanted.subject.is_none() && wanted.workflow.is_none();
        let first = wanted.since.map_or(Uuid::nil(), |since| ids::first_of(since - REPLAY_MARGIN));
        Self { pool, wanted, from: all.then_some(first) }
    }

    /// The next page; `None` after the last.
    pub async fn next(&mut self) -> store::Result<Option<Page>> {
        let Some(from) = self.from else { return Ok(None) };
        let limit = REPLAY_PAGE as i64;
        let charges = store::payments::charges(self.pool, from, self.wanted.ids_end(), limit).await?;
        let last = charges.last().filter(|_| charges.len() == REPLAY_PAGE);
        self.from = last.map(|charge| Uuid::from_u128(charge.id.as_u128().saturating_add(1)));
        let reached = charges.last().map(|charge| charge.created_at);
        let events = charges.iter().map(charge_event).filter(|event| self.wanted.includes(event)).collect();
        Ok(Some(Page { events, reached, ..Page::default() }))
    }
}
