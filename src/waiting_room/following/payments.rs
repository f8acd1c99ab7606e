//! Ends sessions after payments also where the instance that answered the payment died before it could.
//!
//! A durable consumer of the confirmations. Only the session that was alive when the payment was made is ended: whoever
//! joined anew since keeps the new place.

use std::time::Duration;

use async_nats::jetstream::Message;
use chrono::{DateTime, Utc};
use futures::StreamExt;
use futures::future::join_all;
use serde::Deserialize;

use super::super::hall::Hall;
use super::super::place::{Claims, Standing};
use crate::bus::deliveries::{acknowledge, again_after};
use crate::bus::events::{EventMessage, read_events};
use crate::bus::{Deliveries, subjects, topology};
use crate::ids::{ConcertId, UserId};

/// The consumer's name on the stream of domain events.
const CONSUMER: &str = "waiting-room";
/// The event that ends a session.
const CONFIRMED: &str = "reservation.confirmed";
/// Events handled at once.
const WIDTH: usize = 64;
/// How long an end may take to be written before the event is tried again.
const PATIENCE: Duration = Duration::from_secs(2);

/// A payment that ends the session of its buyer.
#[derive(Debug)]
struct Confirmed {
    at: DateTime<Utc>,
    buyer: Buyer,
}

/// The part of the event's data that matters here.
#[derive(Debug, Deserialize)]
struct Buyer {
    user_id: UserId,
    concert_id: ConcertId,
}

/// Runs until the process stops.
pub async fn run(hall: &Hall) {
    // Without the line in memory there is nothing to compare with.
    let mut seen = hall.memory.subscribe();
    let complete = seen.wait_for(|_| hall.memory.is_complete());
    if hall.stop.run_until_cancelled(complete).await.is_none() {
        return;
    }
    let config = topology::work_consumer(CONSUMER, &subjects::event(CONFIRMED));
    let mut deliveries = Deliveries::of(&hall.bus, subjects::EVENTS, config);
    loop {
        let batch = deliveries.next(&hall.stop).await;
        if batch.is_empty() {
            return;
        }
        futures::stream::iter(&batch).for_each_concurrent(WIDTH, |message| handle(hall, message)).await;
    }
}

async fn handle(hall: &Hall, message: &Message) {
    let sessions = read(&message.payload).into_iter().filter_map(|event| session_to_end(hall, &event));
    let ends = sessions.map(|claims| async move { hall.end(&claims, PATIENCE).await });
    let is_done = join_all(ends).await.into_iter().all(|is_done| is_done);
    if is_done {
        acknowledge(message).await;
    } else {
        again_after(message, PATIENCE).await;
    }
}

/// The payments of a message. What cannot be read is left out: it would not be read the next time either.
fn read(payload: &[u8]) -> Vec<Confirmed> {
    let events = read_events(payload).unwrap_or_else(|error| {
        tracing::error!(%error, "events that cannot be read are left out");
        Vec::new()
    });
    let confirmed = |event: EventMessage| match Buyer::deserialize(&*event.data) {
        Ok(buyer) => Some(Confirmed { at: event.at, buyer }),
        Err(error) => {
            tracing::error!(%error, event = event.id, "an event that cannot be read is left out");
            None
        }
    };
    events.into_iter().filter_map(confirmed).collect()
}

/// The session that was alive when the payment was made, if it still is.
fn session_to_end(hall: &Hall, event: &Confirmed) -> Option<Claims> {
    let Buyer { user_id, concert_id } = event.buyer;
    let entry = hall.memory.view(concert_id, user_id).entry?;
    match entry.standing {
        Standing::Active { activated_at, .. } if activated_at <= event.at => {
            Some(entry.claims(user_id, concert_id))
        }
        Standing::Active { .. } | Standing::Silent { .. } | Standing::Waiting => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::hostile::like;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use uuid::Uuid;

    fn event() -> Value {
        json!({
            "id": "one:2:reservation.confirmed", "type": "reservation.confirmed", "at": "2026-01-01T00:00:00Z",
            "subject_id": Uuid::nil(), "sequence": 2, "traceparent": "00-1-2-01",
            "data": { "user_id": Uuid::from_u128(1), "concert_id": Uuid::from_u128(2), "seats": [1, 2], "amount": 200 },
        })
    }

    fn read_one(event: &[u8]) -> Vec<Confirmed> {
        read(&[b"{\"version\":2,\"events\":[", event, b"]}"].concat())
    }

    proptest! {
        #[test]
        fn confirmations_are_read_or_refused(
            event in like(event()),
            body in like(json!({ "version": 2, "events": [event(), event()] })),
        ) {
            for confirmed in read_one(&event).into_iter().chain(read(&body)) {
                prop_assert!(clock::is_plausible(confirmed.at), "{:?}", confirmed);
            }
        }
    }

    #[test]
    fn confirmations_name_the_sessions_that_end() {
        let body = json!({ "version": 2, "events": [event(), event()] }).to_string();
        let confirmed = read(body.as_bytes());
        assert_eq!(confirmed.len(), 2);
        let Confirmed { at, buyer } = &confirmed[1];
        assert_eq!(at.timestamp(), 1_767_225_600);
        assert_eq!((buyer.user_id, buyer.concert_id), (Uuid::from_u128(1), Uuid::from_u128(2)));
    }
}
