//! Ends sessions after payments, in case the instance that answered the payment stopped before it could. The task is a
//! durable consumer of the confirmations. It ends only a session that was active at the time of the payment; a place
//! that the user has taken since stays.

use std::time::Duration;

use async_nats::jetstream::Message;
use chrono::{DateTime, Utc};
use futures::StreamExt;
use futures::future::join_all;
use serde::Deserialize;

use super::super::place::{Claims, PlaceStatus};
use super::super::room_state::RoomState;
use crate::bus::deliveries::{acknowledge, again_after};
use crate::bus::events::{EventMessage, read_events};
use crate::bus::{Deliveries, subjects, topology};
use crate::ids::{ConcertId, UserId};

const CONSUMER: &str = "waiting-room";
const CONFIRMED: &str = "reservation.confirmed";
const MAX_CONCURRENT_EVENTS: usize = 64;
/// How long the write of an end may take before the event is redelivered.
const END_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug)]
struct Confirmed {
    at: DateTime<Utc>,
    buyer: Buyer,
}

/// The part of the event's data that identifies the session.
#[derive(Debug, Deserialize)]
struct Buyer {
    user_id: UserId,
    concert_id: ConcertId,
}

/// Runs until the process stops.
pub async fn run(room: &RoomState) {
    // The sessions must be in memory first.
    let mut seen = room.memory.subscribe();
    let complete = seen.wait_for(|_| room.memory.is_complete());
    if room.stop.run_until_cancelled(complete).await.is_none() {
        return;
    }
    let config = topology::work_consumer(CONSUMER, &subjects::event(CONFIRMED));
    let mut deliveries = Deliveries::of(&room.nats.bus, subjects::EVENTS, config);
    loop {
        let batch = deliveries.next(&room.stop).await;
        if batch.is_empty() {
            return;
        }
        futures::stream::iter(&batch)
            .for_each_concurrent(MAX_CONCURRENT_EVENTS, |message| handle(room, message))
            .await;
    }
}

async fn handle(room: &RoomState, message: &Message) {
    let sessions = read(&message.payload).into_iter().filter_map(|event| session_to_end(room, &event));
    let ends = sessions.map(|claims| async move { room.end(&claims, END_TIMEOUT).await });
    let is_done = join_all(ends).await.into_iter().all(|is_done| is_done);
    if is_done {
        acknowledge(message).await;
    } else {
        again_after(message, END_TIMEOUT).await;
    }
}

/// The payments of a message. An event that cannot be read is skipped, because a redelivery would not help.
fn read(payload: &[u8]) -> Vec<Confirmed> {
    let events = read_events(payload).unwrap_or_else(|error| {
        tracing::error!(%error, "a message of events cannot be read; it is skipped");
        Vec::new()
    });
    let confirmed = |event: EventMessage| match Buyer::deserialize(&*event.data) {
        Ok(buyer) => Some(Confirmed { at: event.at, buyer }),
        Err(error) => {
            tracing::error!(%error, event = event.id, "an event cannot be read; it is skipped");
            None
        }
    };
    events.into_iter().filter_map(confirmed).collect()
}

/// The session that was active at the time of the payment, if it still is.
fn session_to_end(room: &RoomState, event: &Confirmed) -> Option<Claims> {
    let Buyer { user_id, concert_id } = event.buyer;
    let entry = room.memory.view(concert_id, user_id).entry?;
    match entry.status {
        PlaceStatus::Active { activated_at, .. } if activated_at <= event.at => {
            Some(entry.claims(user_id, concert_id))
        }
        PlaceStatus::Active { .. } | PlaceStatus::Silent { .. } | PlaceStatus::Waiting => None,
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
