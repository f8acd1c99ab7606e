//! A counter sale: buyers with points, enough seats, and a cashier's key, which needs no place in line.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context;
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::client::{Answer, Caller, Client};
use super::halls::Halls;
use super::progress::Progress;
use super::stage::Stage;
use crate::store::rehearsal;
use boxoffice::ids;

/// Seats of one buyer in one date; the service allows twelve.
const EACH: u32 = 10;
/// Points of each buyer: enough for any number of seats.
const POINTS: i64 = 1_000_000_000;

/// What is sold at the counter, one seat after the other.
#[derive(Clone, Debug)]
pub(super) struct Counter {
    cashier: Caller,
    halls: Arc<Halls>,
    buyers: Arc<[Uuid]>,
    next: Arc<AtomicU32>,
}

/// A seat that was not ordered before, and its buyer.
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
        progress.begin("seats and buyers get ready", 0);
        let halls = Halls::open(stage, client, json!({}), seats).await?;
        let buyers: Vec<Uuid> = (0..halls.seats_each.div_ceil(EACH)).map(|_| ids::new()).collect();
        rehearsal::endow(&stage.pool, &buyers, POINTS).await?;
        let (cashier, halls) = (stage.cashier.clone(), Arc::new(halls));
        Ok(Self { cashier, halls, buyers: buyers.into(), next: Arc::default() })
    }

    /// The next seat. Those who come one after the other are different buyers.
    pub(super) fn next(&self) -> anyhow::Result<Lot> {
        let place = self.next.fetch_add(1, Ordering::Relaxed);
        let (performance, seat) = self.halls.seat(place).context("all seats are sold")?;
        Ok(Lot { performance, seat, buyer: self.buyer(place) })
    }

    /// A seat of the first date that this caller wants, as others do.
    pub(super) fn wanted(&self, seat: u32, caller: u32) -> Lot {
        Lot { performance: self.halls.dates[0], seat: seat + 1, buyer: self.buyer(caller) }
    }

    fn buyer(&self, number: u32) -> Uuid {
        self.buyers[number as usize % self.buyers.len()]
    }

    /// Sells it: held and paid in one request.
    pub(super) async fn sell(&self, client: &Client, lot: Lot) -> anyhow::Result<Answer> {
        let Lot { performance: performance_id, seat, buyer: user_id } = lot;
        let order = Order { user_id, performance_id, seats: [seat], pay: true };
        client.post_once("/v1/reservations", &self.cashier, &order).await
    }
}
