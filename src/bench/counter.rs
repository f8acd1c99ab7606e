//! The counter: buyers with points, seats in plenty, and a cashier's key that sells past the line.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::bail;
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::client::{Answer, Caller, Client};
use super::crowd;
use super::progress::Progress;
use super::stage::Stage;
use crate::ids;
use crate::store::rehearsal;

/// Seats of one date: the most that there may be.
const HALL: u32 = 100_000;
/// Seats of one buyer in one date; the service allows twelve.
const EACH: u32 = 10;
/// Buyers who get their points at once.
const AT_ONCE: usize = 10_000;
/// Points of each buyer: enough for any number of seats.
const POINTS: i64 = 1_000_000_000;

/// What is sold at the counter, one seat after the other.
#[derive(Clone, Debug)]
pub(super) struct Counter {
    cashier: Caller,
    halls: Arc<[Uuid]>,
    buyers: Arc<[Uuid]>,
    /// Seats of each date.
    hall: u32,
    next: Arc<AtomicU32>,
}

/// A seat that nobody has asked for yet, and who will.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lot {
    pub performance: Uuid,
    pub seat: u32,
    pub buyer: Uuid,
}

/// An order at the counter.
#[derive(Serialize)]
struct Order {
    user_id: Uuid,
    performance_id: Uuid,
    seats: [u32; 1],
    pay: bool,
}

impl Counter {
    /// Puts so many seats on sale and gives enough buyers their points.
    pub(super) async fn open(
        stage: &Stage,
        client: &Client,
        seats: u32,
        progress: &Progress,
    ) -> anyhow::Result<Self> {
        progress.begin("seats and buyers get ready", seats.into());
        let (mut halls, hall) = (Vec::new(), seats.clamp(1, HALL));
        for _ in 0..seats.div_ceil(hall) {
            let (_, performance) = crowd::sale(stage, client, json!({}), hall).await?;
            halls.push(performance);
            progress.more(hall.into());
        }
        let buyers: Vec<Uuid> = (0..hall.div_ceil(EACH)).map(|_| ids::new()).collect();
        for some in buyers.chunks(AT_ONCE) {
            rehearsal::endow(&stage.pool, some, POINTS).await?;
        }
        let cashier = stage.cashier.clone();
        Ok(Self { cashier, halls: halls.into(), buyers: buyers.into(), hall, next: Arc::default() })
    }

    /// The next seat. Those who come one after the other are different buyers.
    pub(super) fn next(&self) -> anyhow::Result<Lot> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let Some(performance) = self.halls.get((number / self.hall) as usize) else {
            bail!("all seats are sold: {} dates of {}", self.halls.len(), self.hall);
        };
        let buyer = self.buyers[number as usize % self.buyers.len()];
        Ok(Lot { performance: *performance, seat: number % self.hall + 1, buyer })
    }

    /// A seat of the first date that this caller wants, as others do.
    pub(super) fn wanted(&self, seat: u32, caller: u32) -> Lot {
        let buyer = self.buyers[caller as usize % self.buyers.len()];
        Lot { performance: self.halls[0], seat: seat + 1, buyer }
    }

    /// Sells it: held and paid in one request.
    pub(super) async fn sell(&self, client: &Client, lot: Lot) -> anyhow::Result<Answer> {
        let Lot { performance: performance_id, seat, buyer: user_id } = lot;
        let order = Order { user_id, performance_id, seats: [seat], pay: true };
        client.post_once("/v1/reservations", &self.cashier, &order).await
    }
}
