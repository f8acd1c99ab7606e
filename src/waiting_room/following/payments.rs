//! Ends sessions after payments also where the instance that answered the payment died before it could.
//!
//! A durable consumer of the confirmations. Only the session that was alive when the payment was made is ended: whoever
//! joined anew since keeps the new place.

use std::time::Duration;

use async_nats::jetstream::Message;
use chrono::{DateTime, Utc};
use futures::StreamExt;
use serde::Deserialize;

use super::super::hall::Hall;
use super::super::place::{Claims, Standing};
use crate::bus::deliveries::{acknowledge, again_after};
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

/// The parts of the event that matter here.
#[derive(Debug, Deserialize)]
struct Confirmed {
    at: DateTime<Utc>,
    data: Buyer,
}

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
    let claims = match serde_json::from_slice::<Confirmed>(&message.payload) {
        Ok(event) => session_to_end(hall, &event),
        Err(error) => {
            tracing::error!(%error, subject = %message.subject, "an event that cannot be read is left out");
            None
        }
    };
    let is_done = match claims {
        Some(claims) => hall.end(&claims, PATIENCE).await,
        None => true,
    };
    if is_done {
        acknowledge(message).await;
    } else {
        again_after(message, PATIENCE).await;
    }
}

/// The session that was alive when the payment was made, if it still is.
fn session_to_end(hall: &Hall, event: &Confirmed) -> Option<Claims> {
    let Buyer { user_id, concert_id } = event.data;
    let entry = hall.memory.view(concert_id, user_id).entry?;
    match entry.standing {
        Standing::Active { activated_at, .. } if activated_at <= event.at => {
            Some(entry.claims(user_id, concert_id))
        }
        Standing::Active { .. } | Standing::Silent { .. } | Standing::Waiting => None,
    }
}
