//! The crowd's own books: what each buyer asked for and was answered, held against what the service says now.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::cluster::Cluster;

/// Until then a hold may be open, or a step be repeated.
const SETTLED_AFTER: Duration = Duration::from_secs(25);
/// Buyers who are looked up between faults; at the end it is all of them.
const SAMPLE: usize = 60;
/// Tries of one look-up.
const TRIES: usize = 40;

/// What the last final answer to a buyer said of the reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answered {
    Nothing,
    Held,
    /// With the ids of the tickets.
    Confirmed(Vec<String>),
    Cancelled,
    Expired,
}

/// One buyer who has gone home.
#[derive(Clone, Debug)]
pub struct Record {
    pub bearer: String,
    /// Points of a charge that was answered.
    pub charged: i64,
    /// Points of a charge that was never answered.
    pub perhaps_charged: i64,
    /// Keys of orders; each may lead to one reservation.
    pub orders: usize,
    /// The reservation that was answered, if any.
    pub reservation: Option<String>,
    pub answered: Answered,
    /// A payment or cancellation was sent and never answered.
    pub is_uncertain: bool,
    pub went_home: Instant,
}

#[derive(Default)]
pub struct Books {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    waiting: Vec<Record>,
    verified: usize,
    /// Performance and seat of each confirmed reservation, and the reservation.
    sold: HashMap<(String, i64), String>,
    outcomes: HashMap<String, u64>,
    slow_answers: u64,
    violations: Vec<String>,
}

impl Books {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add(&self, record: Record, outcome: &str) {
        let mut inner = self.lock();
        *inner.outcomes.entry(outcome.to_owned()).or_default() += 1;
        inner.waiting.push(record);
    }

    /// An instance that ran took longer than the contract allows.
    pub fn note_slow_answer(&self) {
        self.lock().slow_answers += 1;
    }

    pub fn slow_answers(&self) -> u64 {
        self.lock().slow_answers
    }

    pub fn violation(&self, text: String) {
        eprintln!("VIOLATION: {text}");
        self.lock().violations.push(text);
    }

    pub fn outcomes(&self) -> HashMap<String, u64> {
        self.lock().outcomes.clone()
    }

    pub fn verified(&self) -> usize {
        self.lock().verified
    }

    /// Looks up buyers whose business must be settled by now: some, or at the end all. Returns what is wrong, all in all.
    pub async fn verify(&self, cluster: &Cluster, all: bool) -> Vec<String> {
        let due: Vec<Record> = {
            let mut inner = self.lock();
            let is_due = |record: &Record| all || record.went_home.elapsed() > SETTLED_AFTER;
            let most = if all { usize::MAX } else { SAMPLE };
            let (due, later): (Vec<_>, Vec<_>) = inner.waiting.drain(..).partition(is_due);
            let mut due = due;
            inner.waiting = later;
            inner.waiting.extend(due.drain(most.min(due.len())..));
            due
        };
        for record in due {
            if let Err(problem) = self.verify_one(cluster, &record, all).await {
                self.violation(format!("{problem}; the buyer's books: {record:?}"));
            }
            self.lock().verified += 1;
        }
        self.lock().violations.clone()
    }

    async fn verify_one(&self, cluster: &Cluster, record: &Record, at_the_end: bool) -> Result<(), String> {
        let reservations = look_up(cluster, &record.bearer, "/v1/reservations?limit=100").await?;
        let balance = look_up(cluster, &record.bearer, "/v1/points").await?["balance"].as_i64().unwrap_or(-1);
        let items = reservations["items"].as_array().cloned().unwrap_or_default();
        let open = |item: &&Value| item["status"] == "held" || item["status"] == "pending";
        if let Some(open) = items.iter().find(open) {
            return match at_the_end {
                true => Err(format!("a reservation is open for ever: {open}")),
                // It is looked up again later.
                false => {
                    self.lock().waiting.push(record.clone());
                    Ok(())
                }
            };
        }
        let live: Vec<&Value> = items.iter().filter(|item| item["status"] == "confirmed").collect();
        if items.len() > record.orders || live.len() > 1 {
            return Err(format!("{} orders led to {items:?}", record.orders));
        }
        let spent: i64 = live.iter().filter_map(|item| item["amount"].as_i64()).sum();
        let expected = [record.charged - spent, record.charged + record.perhaps_charged - spent];
        if !expected.contains(&balance) {
            return Err(format!("the balance is {balance} and not one of {expected:?}: {items:?}"));
        }
        self.sell(&live)?;
        let own = record.reservation.as_ref().and_then(|id| items.iter().find(|item| item["id"] == **id));
        let status = own.and_then(|item| item["status"].as_str());
        let fits = match &record.answered {
            Answered::Nothing => true,
            Answered::Held => {
                record.is_uncertain || matches!(status, Some("expired" | "cancelled" | "failed"))
            }
            Answered::Confirmed(tickets) => {
                let same = own.is_some_and(|item| tickets_of(item) == *tickets);
                (status == Some("confirmed") && same) || (record.is_uncertain && status == Some("cancelled"))
            }
            Answered::Cancelled => status == Some("cancelled"),
            Answered::Expired => matches!(status, Some("expired" | "failed" | "cancelled")),
        };
        if fits { Ok(()) } else { Err(format!("the reservation is {status:?}: {own:?}")) }
    }

    fn sell(&self, live: &[&Value]) -> Result<(), String> {
        let mut inner = self.lock();
        for item in live {
            let id = item["id"].as_str().unwrap_or_default().to_owned();
            let performance = item["performance_id"].as_str().unwrap_or_default();
            for seat in item["seats"].as_array().into_iter().flatten() {
                let place = (performance.to_owned(), seat["number"].as_i64().unwrap_or(-1));
                if let Some(other) = inner.sold.insert(place.clone(), id.clone())
                    && other != id
                {
                    return Err(format!("{place:?} is sold to {other} and to {id}"));
                }
            }
        }
        Ok(())
    }
}

/// The ids of a reservation's tickets, sorted.
pub fn tickets_of(item: &Value) -> Vec<String> {
    let tickets = item["tickets"].as_array().into_iter().flatten();
    let mut ids: Vec<String> =
        tickets.filter_map(|ticket| ticket["id"].as_str().map(str::to_owned)).collect();
    ids.sort();
    ids
}

async fn look_up(cluster: &Cluster, bearer: &str, path: &str) -> Result<Value, String> {
    let mut last = String::new();
    for attempt in 0..TRIES {
        let instance = &cluster.instances[attempt % cluster.instances.len()];
        let request = cluster.client.get(format!("{}{path}", instance.url())).bearer_auth(bearer);
        match request.send().await {
            Ok(answer) if answer.status().is_success() => match answer.json().await {
                Ok(value) => return Ok(value),
                Err(error) => last = error.to_string(),
            },
            Ok(answer) => last = answer.status().to_string(),
            Err(error) => last = error.to_string(),
        }
        sleep(Duration::from_millis(250)).await;
    }
    Err(format!("{path} cannot be read: {last}"))
}
