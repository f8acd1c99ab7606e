//! One buyer, from signing up to holding tickets, or not.
//!
//! A buyer computes its own final balance, and reports an error if the service's differs.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

use super::client::{Client, Reply, Request, Surprise};
use super::tally::{Call, Happening, Tally};
use super::temper::Temper;
use super::wire::{Concert, Place, PlaceStatus, Points, Problem, Reservation, User};

/// How long the service may take with what it does by itself: ending a hold, a session, a refund.
pub(super) const TIDYING: Duration = Duration::from_secs(6);
/// A hold longer than this is not waited for.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// The sale that all buyers of a scenario go to.
pub(super) struct Sale {
    /// The concert in most demand comes first.
    pub concerts: Vec<Concert>,
    /// A buyer who is still in line or without seats this long after joining leaves.
    pub patience: Duration,
    /// When all buyers without seats leave.
    pub closing_time: Instant,
    pub tally: Arc<Tally>,
}

/// A buyer and what they have in hand.
pub(super) struct Buyer {
    pub(super) client: Client,
    pub(super) sale: Arc<Sale>,
    pub(super) rng: StdRng,
    temper: Temper,
    pub(super) bearer: String,
    pub(super) place: String,
    /// When this buyer has waited long enough.
    pub(super) home_time: Instant,
    /// What the balance must be when all is done.
    pub(super) points: i64,
}

impl Buyer {
    pub(super) fn new(client: Client, sale: Arc<Sale>, mut rng: StdRng) -> Self {
        let temper = Temper::any(&mut rng);
        Self {
            client,
            sale,
            rng,
            temper,
            bearer: String::new(),
            place: String::new(),
            home_time: Instant::now(),
            points: 0,
        }
    }

    /// Takes part in the on-sale. Unexpected answers go to the tally.
    pub(super) async fn live(mut self, number: usize) {
        if let Err(surprise) = self.story(number).await {
            self.sale.tally.surprise(format!("buyer {number} ({:?}): {surprise}", self.temper));
        }
    }

    async fn story(&mut self, number: usize) -> Result<(), Surprise> {
        self.sign_up(number).await?;
        // Seven of ten want the first concert.
        let wanted = if self.rng.random_bool(0.7) { 0 } else { self.sale.concerts.len() - 1 };
        let concert = self.sale.concerts[wanted].id;
        if !self.join(concert).await? || !self.wait_in_line().await? {
            return Ok(());
        }
        self.sale.tally.count(Happening::Admitted);
        let Some(reservation) = self.choose(concert).await? else {
            self.sale.tally.count(Happening::GaveUp);
            self.leave().await?;
            return self.check_points().await;
        };
        self.sale.tally.count(Happening::Held);
        self.decide(&reservation).await?;
        self.check_points().await
    }

    async fn decide(&mut self, reservation: &Reservation) -> Result<(), Surprise> {
        let path = format!("/v1/reservations/{}", reservation.id);
        let hold = Duration::from_secs_f64(reservation.expires_in_seconds.unwrap_or(0.0).max(0.0));
        match self.temper {
            Temper::Prompt | Temper::Short => {
                self.think(50..300).await;
                self.pay(&path, reservation).await?;
            }
            Temper::DoubleClick => {
                self.pay_twice(&path, reservation).await?;
            }
            Temper::Late => {
                sleep(hold.min(LONGEST_WAIT).mul_f64(self.rng.random_range(0.6..1.15))).await;
                self.pay(&path, reservation).await?;
            }
            Temper::Never if hold > LONGEST_WAIT => self.sale.tally.count(Happening::GaveUp),
            Temper::Never => {
                sleep(hold).await;
                self.see_it_expire(&path).await?;
            }
            Temper::DropsHold => {
                self.think(100..1_000).await;
                if self.cancel(&path).await? {
                    self.sale.tally.count(Happening::CancelledHold);
                    self.leave().await?;
                }
            }
            Temper::Refunds => {
                if self.pay(&path, reservation).await? {
                    self.think(100..800).await;
                    self.take_back(&path, reservation).await?;
                }
            }
        }
        Ok(())
    }

    async fn sign_up(&mut self, number: usize) -> Result<(), Surprise> {
        let name = json!({ "name": format!("Buyer {number}") });
        let user: User = self.must(&Request::post(Call::Account, "/v1/users", name)).await?;
        self.bearer = user.access_token;
        let points = if self.temper == Temper::Short { 1 } else { 1_000 * self.rng.random_range(60..200) };
        self.charge(points).await
    }

    pub(super) async fn charge(&mut self, amount: i64) -> Result<(), Surprise> {
        let request = Request::post(Call::Account, "/v1/points/charges", json!({ "amount": amount }));
        let after: Points = self.must(&request.by(&self.bearer)).await?;
        self.points += amount;
        if after.balance != self.points {
            return Err(Surprise(format!("the balance is {} instead of {}", after.balance, self.points)));
        }
        Ok(())
    }

    /// False if the concert is sold out.
    async fn join(&mut self, concert: Uuid) -> Result<bool, Surprise> {
        let path = format!("/v1/concerts/{concert}/queue-tokens");
        match self.send::<Place>(&Request::post(Call::Join, &path, Value::Null).by(&self.bearer)).await? {
            Reply::Good(place) => {
                self.sale.tally.count(Happening::Joined);
                self.place = place.token;
                self.home_time = self.sale.closing_time.min(Instant::now() + self.sale.patience);
                Ok(true)
            }
            Reply::Refused(problem) if problem.code == "sold_out" => {
                self.sale.tally.count(Happening::SoldOut);
                Ok(false)
            }
            Reply::Refused(problem) => Err(unexpected("joining", &problem)),
        }
    }

    /// Asks for the place as often as the service says. True once admitted, false if it was left.
    async fn wait_in_line(&mut self) -> Result<bool, Surprise> {
        loop {
            let place = self.look().await?;
            match place.status {
                PlaceStatus::Active => return Ok(true),
                PlaceStatus::Expired => return Err(Surprise("a place in line ended by itself".into())),
                PlaceStatus::Waiting if place.position.is_none() => {
                    return Err(Surprise("a waiting place has no position".into()));
                }
                PlaceStatus::Waiting => {}
            }
            let sold_out = place.inventory == "sold_out";
            if sold_out || Instant::now() >= self.home_time {
                let why = if sold_out { Happening::SoldOut } else { Happening::GaveUp };
                self.sale.tally.count(why);
                self.leave().await?;
                return Ok(false);
            }
            let next = Instant::now() + Duration::from_millis(place.poll_after_ms);
            sleep_until(next.min(self.home_time)).await;
        }
    }

    pub(super) async fn look(&mut self) -> Result<Place, Surprise> {
        let request = Request::get(Call::Place, "/v1/queue-tokens/current");
        let place: Place = self.must(&request.by(&self.bearer).with_place(&self.place)).await?;
        self.place.clone_from(&place.token);
        Ok(place)
    }

    pub(super) async fn leave(&mut self) -> Result<(), Surprise> {
        let request = Request::delete(Call::Join, "/v1/queue-tokens/current");
        self.must::<Option<Value>>(&request.by(&self.bearer).with_place(&self.place)).await?;
        Ok(())
    }

    /// What is left is what was charged and not spent; a refund may take a moment.
    async fn check_points(&self) -> Result<(), Surprise> {
        let patience = Instant::now() + TIDYING;
        loop {
            let request = Request::get(Call::Own, "/v1/points");
            let points: Points = self.must(&request.by(&self.bearer)).await?;
            if points.balance == self.points {
                return Ok(());
            }
            if Instant::now() > patience {
                return Err(Surprise(format!(
                    "in the end the balance is {} instead of {}",
                    points.balance, self.points
                )));
            }
            sleep(Duration::from_millis(250)).await;
        }
    }

    pub(super) async fn think(&mut self, ms: std::ops::Range<u64>) {
        sleep(Duration::from_millis(self.rng.random_range(ms))).await;
    }

    pub(super) async fn send<T: DeserializeOwned>(
        &self,
        request: &Request<'_>,
    ) -> Result<Reply<T>, Surprise> {
        self.client.send(request).await
    }

    /// Sends what must not be refused.
    pub(super) async fn must<T: DeserializeOwned>(&self, request: &Request<'_>) -> Result<T, Surprise> {
        match self.send(request).await? {
            Reply::Good(body) => Ok(body),
            Reply::Refused(problem) => Err(unexpected("a plain call", &problem)),
        }
    }
}

pub(super) fn unexpected(what: &str, problem: &Problem) -> Surprise {
    Surprise(format!("{what} was refused: {} {} ({})", problem.status, problem.code, problem.detail))
}
