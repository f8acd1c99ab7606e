//! The buyers: they arrive steadily, try again like good clients when an answer is missing, and write down what they were answered.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use chrono::{TimeDelta, Utc};
use rand::RngExt;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep};
use uuid::Uuid;

use crate::books::{Answered, Books, Record, tickets_of};
use crate::cluster::Cluster;

const PERFORMANCES: usize = 4;
const SEATS: i64 = 4_000;
const PRICE: i64 = 10;
const POINTS: i64 = 1_000;
/// How long one request is tried again.
const GIVE_UP_AFTER: Duration = Duration::from_secs(90);
/// An answer that the contract promises within 5 s.
const SLOW: Duration = Duration::from_millis(5_500);

/// What buyers need to know.
struct Shop {
    client: reqwest::Client,
    urls: Vec<String>,
    concert: String,
    performances: Vec<String>,
    books: Arc<Books>,
}

pub struct Crowd {
    stop: watch::Sender<bool>,
    arriving: tokio::task::JoinHandle<()>,
}

/// A final answer.
struct Answer {
    status: u16,
    body: Value,
}

/// A request that was never answered for good.
struct Unanswered;

impl Crowd {
    /// Puts a concert on sale and lets buyers arrive.
    pub async fn start(cluster: &Cluster, books: Arc<Books>, per_second: u32) -> anyhow::Result<Self> {
        let shop = Arc::new(Shop::open(cluster, books).await?);
        let (stop, mut stopped) = watch::channel(false);
        let arriving = tokio::spawn(async move {
            let mut buyers = JoinSet::new();
            let mut arrivals = interval(Duration::from_secs(1) / per_second);
            loop {
                tokio::select! {
                    _ = arrivals.tick() => {}
                    _ = stopped.changed() => break,
                }
                let shop = Arc::clone(&shop);
                buyers.spawn(async move { shop.visit().await });
                while buyers.try_join_next().is_some() {}
            }
            while buyers.join_next().await.is_some() {}
        });
        Ok(Self { stop, arriving })
    }

    /// Lets no buyer arrive any more and waits for those who are there.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        if let Err(error) = self.arriving.await {
            eprintln!("the crowd ended early: {error}");
        }
    }
}

impl Shop {
    async fn open(cluster: &Cluster, books: Arc<Books>) -> anyhow::Result<Self> {
        let made = cluster.command(&["keys", "create", "--role", "admin", "--name", "chaos"]).await?;
        let key = made["key"].as_str().context("no key was made")?;
        let urls: Vec<String> = cluster.instances.iter().map(|instance| instance.url()).collect();
        let post = async |path: String, body: Value| -> anyhow::Result<String> {
            let request = cluster.client.post(format!("{}{path}", urls[0])).bearer_auth(key).json(&body);
            let answer: Value = request.send().await?.error_for_status()?.json().await?;
            Ok(answer["id"].as_str().context("it has no id")?.to_owned())
        };
        let queue = json!({ "max_active": 10_000, "admit_per_minute": 60_000 });
        let concert = json!({ "name": "Chaos", "description": "Breaks", "queue": queue });
        let concert = post("/v1/admin/concerts".to_owned(), concert).await?;
        let now = Utc::now();
        let mut performances = Vec::new();
        for day in 0..PERFORMANCES {
            let starts_at = now + TimeDelta::days(30 + i64::try_from(day)?);
            let performance = json!({
                "venue": "The Hall", "starts_at": starts_at, "duration_minutes": 120,
                "sale_opens_at": now - TimeDelta::hours(1), "sale_closes_at": now + TimeDelta::days(20),
                "seats": [{ "from": 1, "to": SEATS, "section": "A", "price": PRICE }],
            });
            performances.push(post(format!("/v1/admin/concerts/{concert}/performances"), performance).await?);
        }
        Ok(Self { client: cluster.client.clone(), urls, concert, performances, books })
    }

    /// One buyer, from the door to home.
    async fn visit(&self) {
        let mut record = Record {
            bearer: String::new(),
            charged: 0,
            perhaps_charged: 0,
            orders: 0,
            reservation: None,
            answered: Answered::Nothing,
            is_uncertain: false,
            went_home: Instant::now(),
        };
        let outcome = match self.buy(&mut record).await {
            Ok(outcome) => outcome,
            Err(Unanswered) => "unanswered".to_owned(),
        };
        record.went_home = Instant::now();
        if !record.bearer.is_empty() {
            self.books.add(record, &outcome);
        }
    }

    async fn buy(&self, record: &mut Record) -> Result<String, Unanswered> {
        let user = self.ask(Method::POST, "/v1/users", &[], Some(json!({ "name": "A buyer" }))).await?;
        record.bearer = user.body["access_token"].as_str().unwrap_or_default().to_owned();
        let bearer = format!("Bearer {}", record.bearer);
        let key = Uuid::new_v4().to_string();
        record.perhaps_charged = POINTS;
        let headers = [("authorization", bearer.as_str()), ("idempotency-key", key.as_str())];
        let body = json!({ "amount": POINTS });
        let charge = self.ask(Method::POST, "/v1/points/charges", &headers, Some(body)).await?;
        (record.charged, record.perhaps_charged) = if charge.status == 201 { (POINTS, 0) } else { (0, 0) };
        if charge.status != 201 {
            return Ok(refused("charge", &charge));
        }
        let (id, token) = match self.hold(record, &bearer).await? {
            Ok(held) => held,
            Err(outcome) => return Ok(outcome),
        };
        self.decide(record, &bearer, &id, &token).await
    }

    /// Goes through the line and holds seats: the reservation and the queue token, or how it ended.
    async fn hold(
        &self,
        record: &mut Record,
        bearer: &str,
    ) -> Result<Result<(String, String), String>, Unanswered> {
        let mut last = String::new();
        for _ in 0..8 {
            let Some(token) = self.line(bearer).await? else { continue };
            let (performance, first, count) = {
                let mut rng = rand::rng();
                let performance = rng.random_range(0..self.performances.len());
                (&self.performances[performance], rng.random_range(1..SEATS - 2), rng.random_range(1..=3))
            };
            let seats: Vec<i64> = (first..first + count).collect();
            let order = json!({ "performance_id": performance, "seats": seats });
            let key = Uuid::new_v4().to_string();
            let headers = [("authorization", bearer), ("queue-token", &token), ("idempotency-key", &key)];
            record.orders += 1;
            let answer = self.ask(Method::POST, "/v1/reservations", &headers, Some(order)).await?;
            if [200, 201].contains(&answer.status) && answer.body["status"] == "held" {
                let id = answer.body["id"].as_str().unwrap_or_default().to_owned();
                record.reservation = Some(id.clone());
                record.answered = Answered::Held;
                return Ok(Ok((id, token)));
            }
            last = refused("hold", &answer);
        }
        Ok(Err(last))
    }

    /// Waits for the turn; nothing if the place has ended meanwhile.
    async fn line(&self, bearer: &str) -> Result<Option<String>, Unanswered> {
        let join = format!("/v1/concerts/{}/queue-tokens", self.concert);
        let mut place = self.ask(Method::POST, &join, &[("authorization", bearer)], None).await?;
        let began = Instant::now();
        loop {
            let token = place.body["token"].as_str().unwrap_or_default().to_owned();
            match place.body["status"].as_str() {
                Some("active") => return Ok(Some(token)),
                Some("waiting") if began.elapsed() < GIVE_UP_AFTER => {}
                Some("waiting") => return Err(Unanswered),
                _ => return Ok(None),
            }
            let pause = place.body["poll_after_ms"].as_u64().unwrap_or(500).min(2_000);
            sleep(Duration::from_millis(pause)).await;
            let headers = [("authorization", bearer), ("queue-token", token.as_str())];
            place = self.ask(Method::GET, "/v1/queue-tokens/current", &headers, None).await?;
        }
    }

    /// Pays, cancels, pays and cancels, or does nothing any more.
    async fn decide(
        &self,
        record: &mut Record,
        bearer: &str,
        id: &str,
        token: &str,
    ) -> Result<String, Unanswered> {
        let kind = rand::rng().random_range(0..100);
        sleep(milliseconds(50..1_500)).await;
        if kind < 15 {
            return Ok("left unpaid".to_owned());
        }
        let headers = [("authorization", bearer), ("queue-token", token)];
        if kind >= 30 {
            record.is_uncertain = true;
            let path = format!("/v1/reservations/{id}/payment");
            let paid = self.ask(Method::POST, &path, &headers, None).await?;
            record.is_uncertain = false;
            if ![200, 201].contains(&paid.status) {
                if paid.status == 410 {
                    record.answered = Answered::Expired;
                }
                return Ok(refused("payment", &paid));
            }
            record.answered = Answered::Confirmed(tickets_of(&paid.body));
            if kind < 80 {
                return Ok("paid".to_owned());
            }
        }
        record.is_uncertain = true;
        let path = format!("/v1/reservations/{id}/cancellation");
        let cancelled = self.ask(Method::POST, &path, &headers, None).await?;
        record.is_uncertain = false;
        if cancelled.status == 200 {
            record.answered = Answered::Cancelled;
            return Ok("cancelled".to_owned());
        }
        Ok(refused("cancellation", &cancelled))
    }

    /// Sends a request until its answer is final, to one instance or the other.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Result<Answer, Unanswered> {
        let began = Instant::now();
        while began.elapsed() < GIVE_UP_AFTER {
            let url = &self.urls[rand::rng().random_range(0..self.urls.len())];
            let mut request = self.client.request(method.clone(), format!("{url}{path}"));
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            if let Some(body) = &body {
                request = request.json(body);
            }
            let sent = Instant::now();
            if let Ok(answer) = request.send().await {
                let status = answer.status().as_u16();
                let body: Value = answer.json().await.unwrap_or_default();
                if sent.elapsed() > SLOW {
                    self.books.note_slow_answer();
                }
                if status == 500 {
                    self.books.violation(format!("{method} {path} answered 500: {body}"));
                }
                let in_progress = body["code"] == "request_in_progress";
                if status != 202 && status != 429 && status < 500 && !in_progress {
                    return Ok(Answer { status, body });
                }
            }
            sleep(milliseconds(100..500)).await;
        }
        Err(Unanswered)
    }
}

/// A time of chance.
fn milliseconds(range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(rand::rng().random_range(range))
}

fn refused(what: &str, answer: &Answer) -> String {
    format!("{what} refused: {} {}", answer.status, answer.body["code"].as_str().unwrap_or_default())
}
