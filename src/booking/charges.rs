//! Charges are announced like every ledger entry. They have no saga to be their outbox, so each leaves a note in
//! its own transaction; notes are taken away once JetStream has the events.

use uuid::Uuid;

use super::{Desk, DeskError};
use crate::bus::events::{EventBatch, EventMessage, event_batches};
use crate::bus::publish::publish;
use crate::orchestrator::charge_event;
use crate::store;

/// Most charges of one pass.
const LIMIT: i64 = 500;

impl Desk {
    /// Announces the charges that are not announced yet, a bounded number at once. Two instances may announce
    /// the same one: the event's id is the entry's.
    pub async fn announce_forgotten_charges(&self) -> Result<usize, DeskError> {
        let charges = store::payments::unannounced(&self.pool, LIMIT).await?;
        if charges.is_empty() {
            return Ok(0);
        }
        let events: Vec<EventMessage> = charges.iter().map(charge_event).collect();
        publish(&self.engine.bus, &event_batches(&events), EventBatch::outgoing)
            .await
            .map_err(|_| DeskError::Unavailable)?;
        let ids: Vec<Uuid> = charges.iter().map(|charge| charge.id).collect();
        store::payments::announced(&self.pool, &ids).await?;
        Ok(charges.len())
    }
}
