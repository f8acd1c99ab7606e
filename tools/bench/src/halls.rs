//! Hundreds of thousands of seats on sale: as many dates of one concert as they need.

use serde_json::Value;
use uuid::Uuid;

use super::client::Client;
use super::crowd;
use super::stage::Stage;

/// Seats of one date: the most that the service allows.
const HALL: u32 = 100_000;

/// The dates, and how many seats each has.
#[derive(Clone, Debug)]
pub(super) struct Halls {
    pub concert: Uuid,
    pub dates: Vec<Uuid>,
    pub seats_each: u32,
}

impl Halls {
    /// Puts so many seats on sale, or a few more; `queue` is how their line is run.
    pub(super) async fn open(
        stage: &Stage,
        client: &Client,
        queue: Value,
        seats: u32,
    ) -> anyhow::Result<Self> {
        Self::of_size(stage, client, queue, seats, HALL).await
    }

    /// The same with so many seats of one date at most.
    pub(super) async fn of_size(
        stage: &Stage,
        client: &Client,
        queue: Value,
        seats: u32,
        most: u32,
    ) -> anyhow::Result<Self> {
        let seats_each = seats.clamp(1, most);
        let (concert, first) = crowd::sale(stage, client, queue, seats_each).await?;
        let mut dates = vec![first];
        for _ in 1..seats.div_ceil(seats_each) {
            dates.push(crowd::date(stage, client, concert, seats_each).await?);
        }
        Ok(Self { concert, dates, seats_each })
    }

    /// Date and number of the seat that stands at this place among all of them; none behind the last.
    pub(super) fn seat(&self, place: u32) -> Option<(Uuid, u32)> {
        let date = self.dates.get((place / self.seats_each) as usize)?;
        Some((*date, place % self.seats_each + 1))
    }
}
