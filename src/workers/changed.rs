//! What a batch has changed about seats, told to whoever keeps maps of them.

use std::collections::BTreeSet;

use serde_json::Value;
use uuid::Uuid;

use super::Service;
use crate::bus::messages::SeatsChanged;
use crate::bus::{Bus, subjects};
use crate::saga::{Command, Outcome};

/// The dates that have other seats now, and their concerts.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Changed {
    performances: BTreeSet<Uuid>,
    concerts: BTreeSet<Uuid>,
}

impl Changed {
    /// Notes what came of a command.
    pub(super) fn note(&mut self, command: &Command, outcome: &Outcome) {
        let moves_seats = matches!(Service::of(&command.subject), Some(Service::Seats | Service::Tickets));
        if !moves_seats || !matches!(outcome, Outcome::Done { .. }) {
            return;
        }
        let id = |name: &str| command.context.get(name).and_then(Value::as_str)?.parse::<Uuid>().ok();
        self.performances.extend(id("performance_id"));
        self.concerts.extend(id("concert_id"));
    }

    /// One core message for the whole batch, if there is anything to tell. Without a connection nobody hears it, and
    /// copies that are older than the bound are not given out anyway.
    pub(super) async fn tell(self, bus: &Bus) {
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
            tracing::debug!(%error, "nobody was told of changed seats; they are seen within a second");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::super::tests::command;
    use super::*;
    use crate::saga::Direction;

    #[test]
    fn only_what_was_done_to_seats_is_told() {
        let (performance, concert) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let context = json!({ "performance_id": performance, "concert_id": concert });
        let note = |subject: &str, outcome| {
            let (subject, context) = (subject.to_owned(), context.clone().into());
            let command = Command { subject, context, ..command(Direction::Do, None) };
            let mut changed = Changed::default();
            changed.note(&command, &outcome);
            changed
        };
        let done = || Outcome::Done { output: Map::new() };
        let told = Changed { performances: [performance].into(), concerts: [concert].into() };
        assert_eq!(note("seats.hold", done()), told);
        assert_eq!(note("tickets.issue", done()), told);
        assert_eq!(note("points.deduct", done()), Changed::default());
        assert_eq!(note("seats.hold", Outcome::rejected("seat_taken")), Changed::default());
    }
}
