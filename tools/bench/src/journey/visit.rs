//! One visit, from the join to the payment, and when each part of it was due.

use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use crate::client::{Caller, Client};
use crate::timing::Timings;

/// How long a visitor waits in line before the run fails.
const PATIENCE: Duration = Duration::from_secs(300);

/// The parts that are timed, in the order of [`Visits::parts`].
pub(super) const PARTS: [&str; 6] = ["whole", "join", "poll", "seats", "hold", "payment"];

/// A visitor, the concert, and the seat to buy.
#[derive(Clone, Debug)]
pub(super) struct Visitor {
    pub caller: Caller,
    pub concert: Uuid,
    pub performance: Uuid,
    pub seat: u32,
}

/// How long each part of visits took.
#[derive(Clone, Debug, Default)]
pub(super) struct Visits {
    /// As [`PARTS`] names them.
    pub parts: [Timings; PARTS.len()],
    /// The pauses that the service asked each visitor for, in sum; the whole does not include them.
    pub paused: Timings,
}

/// The times of one visit.
#[derive(Debug)]
pub(super) struct Visit {
    whole: Duration,
    join: Duration,
    polls: Vec<Duration>,
    seats: Duration,
    hold: Duration,
    payment: Duration,
    paused: Duration,
}

impl Visits {
    /// Adds a visit.
    pub(super) fn add(&mut self, visit: &Visit) {
        let Visit { whole, join, polls, seats, hold, payment, paused } = visit;
        let once = [(0, whole), (1, join), (3, seats), (4, hold), (5, payment)];
        once.into_iter().for_each(|(part, took)| self.parts[part].add_duration(*took));
        polls.iter().for_each(|took| self.parts[2].add_duration(*took));
        self.paused.add_duration(*paused);
    }

    /// How many visits were completed.
    pub(super) fn count(&self) -> u64 {
        self.parts[0].count()
    }
}

impl Visitor {
    /// Joins the line when it is due, polls at the asked interval until admitted, looks at the seats, holds one and pays. A part is due when the one
    /// before it was answered, a poll when its pause is over; the time of each counts from then.
    pub(super) async fn visit(mut self, client: &Client, due: Instant) -> anyhow::Result<Visit> {
        let (status, mut look) = client.join(self.concert, &self.caller).await?;
        if status != 201 {
            bail!("a newcomer was answered {status}");
        }
        let join = due.elapsed();
        let (mut polls, mut paused) = (Vec::new(), Duration::ZERO);
        while look.activated_at.is_none() {
            if paused > PATIENCE {
                bail!("a visitor was not admitted within {} s", PATIENCE.as_secs());
            }
            self.caller.queue_token = look.token;
            let pause = Duration::from_millis(look.poll_after_ms);
            let asks = Instant::now() + pause;
            sleep_until(asks).await;
            look = client.look(&self.caller).await?;
            polls.push(asks.elapsed());
            paused += pause;
        }
        self.caller.queue_token = look.token;
        let [seats, hold, payment] = self.book(client).await?;
        let whole = due.elapsed().saturating_sub(paused);
        Ok(Visit { whole, join, polls, seats, hold, payment, paused })
    }

    /// Looks at the seats, holds one and pays, as an admitted visitor; returns how long each part took.
    async fn book(&self, client: &Client) -> anyhow::Result<[Duration; 3]> {
        let (caller, performance) = (&self.caller, self.performance);
        let begun = Instant::now();
        let map = client.get(&format!("/v1/performances/{performance}/seats"), caller).await?;
        let seats = begun.elapsed();
        let begun = Instant::now();
        let held = client.reserve(caller, performance, self.seat).await?;
        let hold = begun.elapsed();
        let reservation = held.id()?;
        let begun = Instant::now();
        let paid = client.pay(caller, reservation).await?;
        let payment = begun.elapsed();
        match (map.status, held.status, paid.status) {
            (200, 201, 201) => Ok([seats, hold, payment]),
            (map, held, status) => {
                bail!("seats were answered {map}, a hold {held}, its payment {status} {}", paid.body())
            }
        }
    }
}
