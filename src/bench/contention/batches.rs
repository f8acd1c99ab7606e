//! Batches as the service's workers do them: what has come meanwhile is taken together, by one loop for seats and one
//! for points.
//!
//! Rows are read in the order of their keys, each request is decided in memory against what the ones before it have left,
//! and what has changed is written by one statement if it is still as it was read, else once more under locks: by the store's own
//! functions, on other tables.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use sqlx::PgPool;
use tokio::sync::{mpsc, oneshot};

use super::cell::decided;
use super::cost::Cost;
use crate::config::Control;
use crate::store;
use crate::store::attempt::Attempt;
use crate::store::changes::{Changes, is_not_as_read};
use crate::store::payments::{Account, NewEntry};
use crate::store::rivals::{self, Deed, PERFORMANCE, Request};
use crate::store::seats::{Seat, Wanted};

/// Requests of one batch at most.
const MOST: usize = 256;
/// Requests that may wait.
const WAITING: usize = 4_096;

type Asked = (Request, oneshot::Sender<bool>);

/// The two loops, as seen by those who ask. They end when it is dropped.
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
        serving.send((*request, answer)).await.context("nobody takes batches")?;
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
                    // Whoever asked may have gone.
                    let _told = answer.send(granted);
                }
            }
            // Whoever asked is told by the loss of the answer.
            Err(error) => tracing::error!(%error, "a batch failed"),
        }
    }
}

async fn handle(pool: &PgPool, cost: &Cost, requests: &[Request]) -> store::Result<Vec<bool>> {
    match attempt(pool, cost, requests, Control::Optimistic).await {
        Err(error) if is_not_as_read(&error) => attempt(pool, cost, requests, Control::Pessimistic).await,
        granted => granted,
    }
}

/// Which are granted.
async fn attempt(
    pool: &PgPool,
    cost: &Cost,
    requests: &[Request],
    control: Control,
) -> store::Result<Vec<bool>> {
    let mut attempt = Attempt::begin(pool, control).await?;
    let mut changes = Changes::default();
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
    attempt: &mut Attempt,
    changes: &mut Changes,
    requests: &[Request],
) -> store::Result<Vec<bool>> {
    let seat = |request: &Request| Wanted { performance_id: PERFORMANCE, number: request.place, buyer: None };
    let wanted: Vec<Wanted> = requests.iter().map(seat).collect();
    let now = requests.first().map_or_else(Default::default, |first| first.at);
    let control = attempt.control();
    let found = store::seats::read(attempt.conn(), &wanted, now, now, control).await?;
    let mut seats: BTreeMap<i32, Seat> =
        found.into_iter().map(|found| (found.seat.number, found.seat)).collect();
    let mut before = BTreeMap::new();
    let mut decide = |request: &Request| {
        let Some(seat) = seats.get_mut(&request.place) else { return false };
        if decided(request, i64::from(seat.status == "free")).is_none() {
            return false;
        }
        before.insert(request.place, seat.clone());
        "held".clone_into(&mut seat.status);
        seat.holder = Some(request.id);
        seat.expires_at = Some(request.until());
        seat.claimable_at = Some(request.until());
        true
    };
    let granted: Vec<bool> = requests.iter().map(&mut decide).collect();
    let held: Vec<(&Seat, &Seat)> =
        before.iter().filter_map(|(number, before)| Some((before, seats.get(number)?))).collect();
    if !held.is_empty() {
        store::seats::save(changes, &held);
    }
    Ok(granted)
}

/// The same for accounts: charges and uses, with their entries in the ledger.
async fn enter(
    attempt: &mut Attempt,
    changes: &mut Changes,
    requests: &[Request],
) -> store::Result<Vec<bool>> {
    let users: Vec<_> = requests.iter().map(|request| rivals::user(request.place)).collect();
    let control = attempt.control();
    let found = store::payments::read_accounts(attempt.conn(), &users, control).await?;
    let mut accounts: BTreeMap<_, Account> =
        found.into_iter().map(|account| (account.user_id, account)).collect();
    let (mut before, mut entries) = (BTreeMap::new(), Vec::new());
    let mut decide = |request: &Request| {
        let user_id = rivals::user(request.place);
        let Some(account) = accounts.get_mut(&user_id) else { return false };
        let Some(balance) = decided(request, account.balance) else { return false };
        before.entry(user_id).or_insert(account.balance);
        account.balance = balance;
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
        let balances: Vec<(i64, &Account)> =
            before.iter().filter_map(|(user, before)| Some((*before, accounts.get(user)?))).collect();
        store::payments::save_accounts(changes, &balances, last.at);
        store::payments::enter(changes, &entries, last.at);
    }
    Ok(granted)
}
