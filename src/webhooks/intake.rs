//! Takes events from the stream and queues each for the endpoints that want it.

use std::time::Duration;

use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::pull;
use serde_json::json;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::bus::deliveries::acknowledge;
use crate::bus::events::{EventMessage, read_events};
use crate::bus::{Bus, Deliveries, subjects, topology};
use crate::store::webhook_deliveries::{self, NewDelivery};
use crate::store::webhooks::{self, Subscription};
use crate::{ids, store};

const CONSUMER: &str = "webhooks";
/// How long a message may stay unacknowledged: shorter than the lease, so that the next holder gets the messages of the one before
/// it first, and their order is kept.
const ACK_WAIT: Duration = Duration::from_secs(10);
/// The pause before a batch is tried again that Postgres did not take.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Queues events until `stop` is cancelled.
pub(super) async fn run(pool: &PgPool, bus: &Bus, stop: &CancellationToken) {
    let config = pull::Config {
        ack_wait: ACK_WAIT,
        // A message is never given up: it comes again until Postgres has taken it.
        max_deliver: -1,
        ..topology::work_consumer(CONSUMER, subjects::ALL_EVENTS)
    };
    let mut deliveries = Deliveries::of(bus, subjects::EVENTS, config);
    loop {
        let batch = deliveries.next(stop).await;
        if batch.is_empty() {
            return;
        }
        while let Err(error) = store::bounded(queue(pool, &batch)).await {
            tracing::warn!(%error, "events could not be queued for webhooks; they are tried again");
            if stop.run_until_cancelled(tokio::time::sleep(RETRY_PAUSE)).await.is_none() {
                return;
            }
        }
        for message in &batch {
            acknowledge(message).await;
        }
    }
}

async fn queue(pool: &PgPool, batch: &[Message]) -> store::Result<()> {
    let subscriptions = webhooks::subscriptions(pool).await?;
    let events: Vec<EventMessage> = batch.iter().flat_map(|message| read(&message.payload)).collect();
    let new: Vec<NewDelivery> = events
        .iter()
        .flat_map(|event| wanted(&subscriptions, event).map(move |one| delivery(one, event)))
        .collect();
    if !new.is_empty() {
        webhook_deliveries::enqueue(pool, &new).await?;
    }
    Ok(())
}

/// The events of a message. One that cannot be read is skipped, because a redelivery would not help.
fn read(payload: &[u8]) -> Vec<EventMessage> {
    read_events(payload).unwrap_or_else(|error| {
        tracing::error!(%error, "a message of events cannot be read; no webhook gets it");
        Vec::new()
    })
}

/// The endpoints that get an event: it happened after they were added, and they want events of its name.
fn wanted<'a>(all: &'a [Subscription], event: &'a EventMessage) -> impl Iterator<Item = &'a Subscription> {
    all.iter().filter(move |one| event.at >= one.created_at && is_wanted(&one.events, &event.name))
}

fn is_wanted(filters: &[String], name: &str) -> bool {
    let fits = |filter: &String| match filter.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => filter == name,
    };
    filters.is_empty() || filters.iter().any(fits)
}

fn delivery(endpoint: &Subscription, event: &EventMessage) -> NewDelivery {
    let body = json!({
        "type": event.name, "timestamp": event.at, "id": event.id, "subject_id": event.subject_id,
        "sequence": event.sequence, "data": event.data,
    });
    NewDelivery {
        id: ids::new(),
        endpoint_id: endpoint.id,
        event_id: event.id.clone(),
        event: event.name.clone(),
        subject_id: event.subject_id,
        sequence: event.sequence,
        body: body.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_names_or_beginnings() {
        let filters = |all: &[&str]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(is_wanted(&[], "points.entry"));
        assert!(is_wanted(&filters(&["saga.stuck", "points.entry"]), "points.entry"));
        assert!(is_wanted(&filters(&["reservation.*"]), "reservation.paid"));
        assert!(!is_wanted(&filters(&["reservation.*"]), "points.entry"));
        assert!(!is_wanted(&filters(&["points"]), "points.entry"));
    }
}
