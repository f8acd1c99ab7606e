//! One simulated buyer: signs up, waits in line, chooses seats, and pays, gives them back or forgets them.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{Crowd, Standing};
use crate::ids;

/// Over how long a crowd arrives, in milliseconds.
const ARRIVAL_MS: Range<u64> = 0..12_000;
/// How long a buyer looks at dates and seats, in milliseconds.
const CHOOSING_MS: Range<u64> = 2_000..9_000;
/// How long a buyer takes to pay, in milliseconds.
const PAYING_MS: Range<u64> = 2_000..9_000;
/// What each buyer has to spend.
const POINTS: i64 = 200_000;
/// How often a buyer tries other seats when another one was faster.
const TRIES: u32 = 6;
/// How often a request that is not settled (202, 429, 503) is sent again.
const REPEATS: u32 = 6;

/// Why a buyer goes home early.
#[derive(Debug, thiserror::Error)]
pub(super) enum GoesHome {
    #[error("no answer: {0}")]
    NoAnswer(#[from] reqwest::Error),
    #[error("refused: {0}")]
    Refused(String),
    #[error("{0}")]
    Why(&'static str),
}

pub(super) struct Buyer {
    crowd: Arc<Crowd>,
    number: u32,
    standing: Standing,
    bearer: String,
    place: String,
}

impl Buyer {
    pub(super) fn new(crowd: Arc<Crowd>, number: u32) -> Self {
        Self { crowd, number, standing: Standing::Arriving, bearer: String::new(), place: String::new() }
    }

    pub(super) async fn live(&mut self) -> Result<(), GoesHome> {
        pause(ARRIVAL_MS).await;
        let name = json!({ "name": format!("Simulated buyer {}", self.number) });
        self.bearer = text(&self.post("/v1/users", Some(name)).await?, "access_token")?;
        self.post("/v1/points/charges", Some(json!({ "amount": POINTS }))).await?;
        let path = format!("/v1/concerts/{}/queue-tokens", self.crowd.concert);
        self.place = text(&self.post(&path, None).await?, "token")?;
        self.stand(Standing::Waiting);
        self.wait_in_line().await?;
        self.stand(Standing::Choosing);
        let reservation = self.choose().await?;
        self.stand(Standing::Holding);
        self.decide(&reservation).await
    }

    /// Counts the buyer as gone, unless tickets were bought.
    pub(super) fn go_home(&mut self) {
        if self.standing != Standing::Bought {
            self.stand(Standing::Gone);
        }
    }

    fn stand(&mut self, standing: Standing) {
        self.crowd.standing[self.standing as usize].fetch_sub(1, Ordering::Relaxed);
        self.crowd.standing[standing as usize].fetch_add(1, Ordering::Relaxed);
        self.standing = standing;
    }

    /// Asks for the place as often as the service says, until it is this buyer's turn.
    async fn wait_in_line(&mut self) -> Result<(), GoesHome> {
        loop {
            let place = self.send(Method::GET, "/v1/queue-tokens/current", None, None).await?;
            self.place = text(&place, "token")?;
            match place["status"].as_str() {
                Some("active") => return Ok(()),
                Some("expired") => return Err(GoesHome::Why("the place has ended")),
                _ if place["inventory"] == "sold_out" => {
                    self.leave().await?;
                    return Err(GoesHome::Why("sold out"));
                }
                _ => sleep(Duration::from_millis(place["poll_after_ms"].as_u64().unwrap_or(2_000))).await,
            }
        }
    }

    /// Holds one to three seats; returns the path of the reservation.
    async fn choose(&mut self) -> Result<String, GoesHome> {
        let party = rand::random_range(1..=3_usize);
        let mut taken = HashSet::new();
        for _ in 0..TRIES {
            let path = format!("/v1/concerts/{}/performances", self.crowd.concert);
            let dates = self.send(Method::GET, &path, None, None).await?;
            let dates = dates["items"].as_array().cloned().unwrap_or_default();
            pause(CHOOSING_MS).await;
            let Some(date) = (!dates.is_empty()).then(|| &dates[rand::random_range(0..dates.len())]) else {
                continue;
            };
            let date = text(date, "id")?;
            let path = format!("/v1/performances/{date}/seats?status=free");
            let map = self.send(Method::GET, &path, None, None).await?;
            let free =
                map["seats"].as_array().into_iter().flatten().filter_map(|seat| seat["number"].as_i64());
            let free: Vec<i64> = free.filter(|number| !taken.contains(number)).collect();
            if free.is_empty() {
                continue;
            }
            let from = rand::random_range(0..free.len());
            let seats: Vec<i64> = free.into_iter().skip(from).take(party).collect();
            let wanted = json!({ "performance_id": date, "seats": seats });
            match self.post("/v1/reservations", Some(wanted)).await {
                Ok(held) => return Ok(format!("/v1/reservations/{}", text(&held, "id")?)),
                Err(GoesHome::Refused(code)) if code == "seat_taken" => taken.extend(seats),
                Err(error) => return Err(error),
            }
        }
        self.leave().await?;
        Err(GoesHome::Why("no seats to be had"))
    }

    /// Most buyers pay; some give the seats back, and a few forget them.
    async fn decide(&mut self, reservation: &str) -> Result<(), GoesHome> {
        pause(PAYING_MS).await;
        match rand::random_range(0..100) {
            0..85 => {
                self.post(&format!("{reservation}/payment"), None).await?;
                self.stand(Standing::Bought);
                Ok(())
            }
            85..95 => {
                self.post(&format!("{reservation}/cancellation"), None).await?;
                self.leave().await
            }
            _ => self.leave().await,
        }
    }

    async fn leave(&self) -> Result<(), GoesHome> {
        self.send(Method::DELETE, "/v1/queue-tokens/current", None, None).await.map(drop)
    }

    async fn post(&self, path: &str, body: Option<Value>) -> Result<Value, GoesHome> {
        self.send(Method::POST, path, body, Some(ids::new().to_string())).await
    }

    /// Sends a request until its answer is final.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        key: Option<String>,
    ) -> Result<Value, GoesHome> {
        for _ in 0..REPEATS {
            let mut request = self.crowd.http.request(method.clone(), format!("{}{path}", self.crowd.base));
            for (name, value) in
                [("authorization", format!("Bearer {}", self.bearer)), ("queue-token", self.place.clone())]
            {
                if !value.trim_end().is_empty() && value != "Bearer " {
                    request = request.header(name, value);
                }
            }
            if let Some(key) = &key {
                request = request.header("idempotency-key", key);
            }
            if let Some(body) = &body {
                request = request.json(body);
            }
            let (status, answer) = {
                let _turn =
                    self.crowd.requests.acquire().await.map_err(|_| GoesHome::Why("the crowd is over"))?;
                let answer = request.send().await?;
                (answer.status(), answer.json::<Value>().await.unwrap_or_default())
            };
            let code = answer["code"].as_str().unwrap_or_default();
            match status {
                StatusCode::ACCEPTED | StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {}
                _ if code == "request_in_progress" => {}
                status if status.is_success() => return Ok(answer),
                _ => return Err(GoesHome::Refused(code.to_owned())),
            }
            sleep(Duration::from_secs(1)).await;
        }
        Err(GoesHome::Why("the service was too busy"))
    }
}

async fn pause(milliseconds: Range<u64>) {
    sleep(Duration::from_millis(rand::random_range(milliseconds))).await;
}

fn text(answer: &Value, name: &'static str) -> Result<String, GoesHome> {
    answer[name].as_str().map(str::to_owned).ok_or(GoesHome::Why("an answer has another shape"))
}
