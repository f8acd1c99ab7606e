//! Notices of changed seats, for the copies of seat maps that every instance keeps.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::Booking;
use crate::bus::messages::SeatsChanged;
use crate::bus::{Bus, subjects};

/// The performances whose seats a batch has changed, and their concerts.
#[derive(Debug, Default, PartialEq)]
pub(super) struct SeatNotice {
    performances: BTreeSet<Uuid>,
    concerts: BTreeSet<Uuid>,
}

impl SeatNotice {
    /// The seats of this booking have changed.
    pub(super) fn add(&mut self, booking: &Booking) {
        self.performances.insert(booking.input.performance_id);
        self.concerts.insert(booking.input.concert_id);
    }

    /// Publishes one core message for the whole batch. Without a connection no instance gets it; each reads its copies anew
    /// after a second anyway.
    pub(super) async fn publish(self, bus: &Bus) {
        if self.performances.is_empty() {
            return;
        }
        let message = SeatsChanged {
            performances: self.performances.into_iter().collect(),
            concerts: self.concerts.into_iter().collect(),
        };
        if let Ok(body) = serde_json::to_vec(&message)
            && let Err(error) = bus.notify(subjects::SEATS_CHANGED, body.into()).await
        {
            tracing::debug!(%error, "a notice of changed seats was not sent; seat maps follow within a second");
        }
    }
}
