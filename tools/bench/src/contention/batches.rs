//! Batches as the service's workers do them: what has come meanwhile is taken together, by one loop for seats and one
//! for points.
//!
//! Rows are read in the order of their keys, each request is decided in memory against what the ones before it have left,
//! and what has changed is written by one statement if it is still as it was read, else once more under locks: by the store's own
//! functions, on other tables.

use std::sync::Arc;

use anyhow::Context;
use sqlx::PgPool;
use tokio::sync::{mpsc, oneshot};

use super::cell::decided;
use super::cost::Cost;
use crate::store::rivals::{self, Deed, PERFORMANCE, Request};
use boxoffice::config::Control;
use boxoffice::store;
use boxoffice::store::batch_tx::{BatchTx, with_lock_fallback};
use boxoffice::store::payments::NewEntry;
use boxoffice::store::seats::{Key, Seat, SeatStatus, Wanted};
use boxoffice::store::tracked_rows::TrackedRows;
use boxoffice::store::write_batch::WriteBatch;

/// Requests of one batch at most.
const MOST: usize = 256;
/// Requests that may wait.
const WAITING: usize = 4_096;

type Asked = (Request, oneshot::Sender<bool>);

/// A handle on the two loops. They end when it is dropped.
#[derive(Debug)]
pub(super) struct Batches {
    seats: mpsc::Sender<Asked>,
    points: mpsc::Sender<Asked>,
}

impl Batches {
    pub(super) fn start(pool: &PgPool, cost: &Arc<Cost>) -> Self {
        let start = || {
            let (sender, receiver) = mpsc::channel(WAITING);
            tokio::spawn(serve(pool.clone(), Arc::clone(cost), receiver));
            sender
        };
        Self { seats: start(), points: start() }
    }

    /// Waits until the request was done in a batch; says whether it was granted.
    pub(super) async fn ask(&self, request: &Request) -> anyhow::Result<bool> {
        let (answer, answered) = oneshot::channel();
        let serving = if request.deed == Deed::Hold { &self.seats } else { &self.points };
        serving.send((*request, answer)).await.context("the loop of batches has ended")?;
        answered.await.context("the batch failed")
    }
}

async fn serve(pool: PgPool, cost: Arc<Cost>, mut asked: mpsc::Receiver<Asked>) {
    let mut batch = Vec::with_capacity(MOST);
    while asked.recv_many(&mut batch, MOST).await > 0 {
        let (requests, answers): (Vec<Request>, Vec<_>) = batch.drain(..).unzip();
        match handle(&pool, &cost, &requests).await {
            Ok(granted) => {
                for (answer, granted) in answers.into_iter().zip(granted) {
                    // The caller may have gone.
                    let _sent = answer.send(granted);
                }
            }
            // The callers get an error because their senders are dropped.
            Err(error) => tracing::error!(%error, "a batch failed"),
        }
    }
}

async fn handle(pool: &PgPool, cost: &Cost, requests: &[Request]) -> store::Result<Vec<bool>> {
    with_lock_fallback(Control::Optimistic, |control| attempt(pool, cost, requests, control)).await
}

/// Which are granted.
async fn attempt(
    pool: &PgPool,
    cost: &Cost,
    requests: &[Request],
    control: Control,
) -> store::Result<Vec<bool>> {
    let mut attempt = BatchTx::begin(pool, control).await?;
    let mut changes = WriteBatch::default();
    let granted = match requests.first().map(|request| request.deed) {
        Some(Deed::Hold) => hold(&mut attempt, &mut changes, requests).await?,
        _ => enter(&mut attempt, &mut changes, requests).await?,
    };
    let begun_and_ended = if control == Control::Pessimistic { 2 } else { 0 };
    cost.asked(1, 1 + u64::from(!changes.is_empty()) + begun_and_ended);
    attempt.write(changes).await?;
    Ok(granted)
}

async fn hold(
    attempt: &mut BatchTx,
    changes: &mut WriteBatch,
    requests: &[Request],
) -> store::Result<Vec<bool>> {
    let seat = |request: &Request| Wanted {
        performance_id: PERFORMANCE,
        number: request.place,
        buyer: None,
        pays: false,
    };
    let wanted: Vec<Wanted> = requests.iter().map(seat).collect();
    if let Some(first) = requests.first() {
        attempt.note_time(first.at);
    }
    let found = store::seats::read(attempt, &wanted, 0).await?;
    let mut seats: TrackedRows<Key, Seat> =
        found.into_iter().map(|found| (found.seat.key(), found.seat)).collect();
    let mut decide = |request: &Request| {
        let key = (PERFORMANCE, request.place);
        let free = seats.get(&key).map(|seat| i64::from(seat.status == SeatStatus::Free));
        if free.and_then(|free| decided(request, free)).is_none() {
            return false;
        }
        if let Some(seat) = seats.change(&key) {
            seat.status = SeatStatus::Held;
            seat.holder = Some(request.id);
            seat.expires_at = Some(request.until());
            seat.claimable_at = Some(request.until());
        }
        true
    };
    let granted: Vec<bool> = requests.iter().map(&mut decide).collect();
    store::seats::save(changes, &seats);
    Ok(granted)
}

/// The same for accounts: charges and uses, with their entries in the ledger.
async fn enter(
    attempt: &mut BatchTx,
    changes: &mut WriteBatch,
    requests: &[Request],
) -> store::Result<Vec<bool>> {
    let users: Vec<_> = requests.iter().map(|request| rivals::user(request.place)).collect();
    let mut balances = store::payments::read_balances(attempt, &users).await?;
    let mut entries = Vec::new();
    let mut decide = |request: &Request| {
        let user_id = rivals::user(request.place);
        let balance = balances.get(&user_id).and_then(|balance| decided(request, *balance));
        let (Some(balance), Some(row)) = (balance, balances.change(&user_id)) else { return false };
        *row = balance;
        entries.push(NewEntry {
            id: request.id,
            user_id,
            kind: request.deed.kind(),
            amount: request.amount,
            balance,
            reservation_id: request.id,
            reverses_id: None,
        });
        true
    };
    let granted: Vec<bool> = requests.iter().map(&mut decide).collect();
    if let Some(last) = requests.last().filter(|_| !entries.is_empty()) {
        store::payments::save_balances(changes, &balances, last.at);
        store::payments::enter(changes, &entries, last.at);
    }
    Ok(granted)
}
