//! One buyer, from signing up to holding tickets, or not.
//!
//! A buyer knows how many points must be left in the end, and says so if the service thinks otherwise.

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
use super::wire::{Concert, Payment, Place, PlaceStatus, Points, Problem, Reservation, User};

/// How long the service may take with what it does by itself: ending a hold, a session, a refund.
const TIDYING: Duration = Duration::from_secs(6);
/// A hold longer than this is not waited for.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// The sale that all buyers of a scenario go to.
pub(super) struct Sale {
    /// The one everybody wants comes first.
    pub concerts: Vec<Concert>,
    /// The moment at which whoever is still in line, or without seats, goes home.
    pub home_time: Instant,
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
    /// What the balance must be when all is done.
    points: i64,
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
            points: 0,
        }
    }

    /// Lives through the on-sale. Whatever should not have been answered goes to the tally.
    pub(super) async fn live(mut self, number: usize) {
        if let Err(surprise) = self.story(number).await {
            self.sale
                .tally
                .surprise(format!("buyer {number} ({:?}): {surprise}", self.temper));
        }
    }

    async fn story(&mut self, number: usize) -> Result<(), Surprise> {
        self.sign_up(number).await?;
        // Seven of ten want the first concert.
        let wanted = if self.rng.random_bool(0.7) {
            0
        } else {
            self.sale.concerts.len() - 1
        };
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
            Temper::DoubleClick => self.pay_twice(&path, reservation).await?,
            Temper::Late => {
                sleep(hold.min(LONGEST_WAIT).mul_f64(self.rng.random_range(0.6..1.15))).await;
                if !self.pay(&path, reservation).await? {
                    self.leave().await?;
                }
            }
            Temper::Never if hold > LONGEST_WAIT => self.sale.tally.count(Happening::GaveUp),
            Temper::Never => {
                sleep(hold).await;
                self.see_it_expire(&path).await?;
                self.leave().await?;
            }
            Temper::DropsHold => {
                self.think(100..1_000).await;
                self.cancel(&path, Happening::CancelledHold).await?;
                self.leave().await?;
            }
            Temper::Refunds => {
                if self.pay(&path, reservation).await? {
                    self.think(100..800).await;
                    self.cancel(&path, Happening::CancelledTicket).await?;
                    self.points += reservation.amount;
                }
            }
        }
        Ok(())
    }

    async fn sign_up(&mut self, number: usize) -> Result<(), Surprise> {
        let name = json!({ "name": format!("Buyer {number}") });
        let user: User = self
            .must(&Request::post(Call::Account, "/v1/users", name))
            .await?;
        self.bearer = user.access_token;
        let points = if self.temper == Temper::Short {
            1
        } else {
            1_000 * self.rng.random_range(60..200)
        };
        self.charge(points).await
    }

    async fn charge(&mut self, amount: i64) -> Result<(), Surprise> {
        let request = Request::post(Call::Account, "/v1/points/charges", json!({ "amount": amount }));
        let after: Points = self.must(&request.by(&self.bearer)).await?;
        self.points += amount;
        if after.balance != self.points {
            return Err(Surprise(format!(
                "the balance is {} instead of {}",
                after.balance, self.points
            )));
        }
        Ok(())
    }

    /// False if the house is sold out.
    async fn join(&mut self, concert: Uuid) -> Result<bool, Surprise> {
        let path = format!("/v1/concerts/{concert}/queue-tokens");
        match self
            .send::<Place>(&Request::post(Call::Join, &path, Value::Null).by(&self.bearer))
            .await?
        {
            Reply::Good(place) => {
                self.sale.tally.count(Happening::Joined);
                self.place = place.token;
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
            if sold_out || Instant::now() >= self.sale.home_time {
                let why = if sold_out {
                    Happening::SoldOut
                } else {
                    Happening::GaveUp
                };
                self.sale.tally.count(why);
                self.leave().await?;
                return Ok(false);
            }
            let next = Instant::now() + Duration::from_millis(place.poll_after_ms);
            sleep_until(next.min(self.sale.home_time)).await;
        }
    }

    async fn look(&mut self) -> Result<Place, Surprise> {
        let request = Request::get(Call::Place, "/v1/queue-tokens/current");
        let place: Place = self
            .must(&request.by(&self.bearer).with_place(&self.place))
            .await?;
        self.place.clone_from(&place.token);
        Ok(place)
    }

    async fn leave(&mut self) -> Result<(), Surprise> {
        let request = Request::delete(Call::Join, "/v1/queue-tokens/current");
        self.must::<Option<Value>>(&request.by(&self.bearer).with_place(&self.place))
            .await?;
        Ok(())
    }

    /// Pays, topping up once if the points do not suffice. False if the hold had run out.
    async fn pay(&mut self, path: &str, reservation: &Reservation) -> Result<bool, Surprise> {
        let mut short = false;
        loop {
            match self.try_to_pay(path).await? {
                Reply::Good(payment) => {
                    self.take_tickets(&payment, reservation)?;
                    self.see_the_place_end().await?;
                    return Ok(true);
                }
                Reply::Refused(problem) if problem.code == "insufficient_points" && !short => {
                    short = true;
                    self.top_up(&problem).await?;
                }
                Reply::Refused(problem) if problem.code == "hold_expired" => {
                    self.see_it_expire(path).await?;
                    return Ok(false);
                }
                Reply::Refused(problem) => return Err(unexpected("paying", &problem)),
            }
        }
    }

    async fn try_to_pay(&self, path: &str) -> Result<Reply<Payment>, Surprise> {
        let path = format!("{path}/payment");
        let request = Request::post(Call::Pay, &path, Value::Null);
        self.send(&request.by(&self.bearer).with_place(&self.place)).await
    }

    async fn pay_twice(&mut self, path: &str, reservation: &Reservation) -> Result<(), Surprise> {
        match tokio::try_join!(self.try_to_pay(path), self.try_to_pay(path))? {
            (Reply::Good(first), Reply::Good(second)) if first == second => {
                self.take_tickets(&first, reservation)?;
                self.see_the_place_end().await
            }
            (Reply::Good(..), Reply::Good(..)) => Err(Surprise("two payments for one reservation".into())),
            (Reply::Refused(problem), _) | (_, Reply::Refused(problem)) => {
                Err(unexpected("paying twice", &problem))
            }
        }
    }

    fn take_tickets(&mut self, payment: &Payment, reservation: &Reservation) -> Result<(), Surprise> {
        let mut seats: Vec<i32> = reservation.seats.iter().map(|seat| seat.number).collect();
        let mut tickets: Vec<i32> = payment.tickets.iter().map(|ticket| ticket.seat).collect();
        seats.sort_unstable();
        tickets.sort_unstable();
        if seats != tickets || payment.amount != reservation.amount {
            return Err(Surprise(format!("paid for {reservation:?}, got {payment:?}")));
        }
        self.points -= payment.amount;
        self.sale.tally.count(Happening::Paid);
        Ok(())
    }

    async fn top_up(&mut self, problem: &Problem) -> Result<(), Surprise> {
        self.sale.tally.count(Happening::Short);
        let number = |name: &str| problem.more.get(name).and_then(Value::as_i64);
        let (Some(balance), Some(required)) = (number("balance"), number("required")) else {
            return Err(unexpected(
                "paying with too few points, without being told how many,",
                problem,
            ));
        };
        self.charge(required - balance).await?;
        self.sale.tally.count(Happening::ToppedUp);
        Ok(())
    }

    /// A completed payment ends the place in line: at once here, within a second on other instances.
    async fn see_the_place_end(&mut self) -> Result<(), Surprise> {
        let patience = Instant::now() + TIDYING;
        while self.look().await?.status != PlaceStatus::Expired {
            if Instant::now() > patience {
                return Err(Surprise("the place in line outlived the payment".into()));
            }
            sleep(Duration::from_millis(250)).await;
        }
        Ok(())
    }

    async fn see_it_expire(&mut self, path: &str) -> Result<(), Surprise> {
        let patience = Instant::now() + TIDYING;
        loop {
            let reservation: Reservation = self.must(&Request::get(Call::Own, path).by(&self.bearer)).await?;
            match reservation.status.as_str() {
                "expired" => break,
                "held" if Instant::now() < patience => sleep(Duration::from_millis(250)).await,
                other => return Err(Surprise(format!("a hold that ran out is {other}"))),
            }
        }
        self.sale.tally.count(Happening::Expired);
        Ok(())
    }

    async fn cancel(&mut self, path: &str, happening: Happening) -> Result<(), Surprise> {
        let path = format!("{path}/cancellation");
        let request = Request::post(Call::Cancel, &path, Value::Null);
        match self.send::<Reservation>(&request.by(&self.bearer)).await? {
            Reply::Good(reservation) if reservation.status == "cancelled" => {
                self.sale.tally.count(happening);
                Ok(())
            }
            Reply::Good(reservation) => Err(Surprise(format!(
                "a cancelled reservation is {}",
                reservation.status
            ))),
            Reply::Refused(problem) => Err(unexpected("cancelling", &problem)),
        }
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
    Surprise(format!(
        "{what} was refused: {} {} ({})",
        problem.status, problem.code, problem.detail
    ))
}
