//! What a buyer does with a hold: pays, tops up, cancels, or sees it run out.

use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::buyer::{Buyer, TIDYING, unexpected};
use super::client::{Reply, Request, Surprise};
use super::tally::{Call, Happening};
use super::wire::{Payment, PlaceStatus, Problem, Reservation};

impl Buyer {
    /// Pays, topping up once if the points do not suffice. False if the hold had run out.
    pub(super) async fn pay(&mut self, path: &str, reservation: &Reservation) -> Result<bool, Surprise> {
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

    pub(super) async fn pay_twice(&mut self, path: &str, reservation: &Reservation) -> Result<(), Surprise> {
        match tokio::try_join!(self.try_to_pay(path), self.try_to_pay(path))? {
            (Reply::Good(first), Reply::Good(second)) if first == second => {
                self.take_tickets(&first, reservation)?;
                self.see_the_place_end().await
            }
            (Reply::Good(..), Reply::Good(..)) => Err(Surprise("two payments for one reservation".into())),
            (Reply::Refused(first), Reply::Refused(second))
                if first.code == "hold_expired" && second.code == "hold_expired" =>
            {
                self.see_it_expire(path).await
            }
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
            return Err(unexpected("paying with too few points, without their numbers,", problem));
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

    pub(super) async fn see_it_expire(&mut self, path: &str) -> Result<(), Surprise> {
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
        self.leave().await
    }

    /// Gives the hold back. False if it ran out on the way.
    pub(super) async fn cancel(&mut self, path: &str) -> Result<bool, Surprise> {
        match self.try_to_cancel(path).await? {
            Reply::Good(reservation) if reservation.status == "cancelled" => Ok(true),
            Reply::Good(reservation) => Err(Surprise(format!("a cancelled hold is {}", reservation.status))),
            Reply::Refused(problem) if problem.code == "reservation_not_cancellable" => {
                self.see_it_expire(path).await?;
                Ok(false)
            }
            Reply::Refused(problem) => Err(unexpected("cancelling a hold", &problem)),
        }
    }

    /// Gives the tickets back, for the points.
    pub(super) async fn take_back(&mut self, path: &str, reservation: &Reservation) -> Result<(), Surprise> {
        match self.try_to_cancel(path).await? {
            Reply::Good(cancelled) if cancelled.status == "cancelled" => {
                self.sale.tally.count(Happening::CancelledTicket);
                self.points += reservation.amount;
                Ok(())
            }
            Reply::Good(cancelled) => {
                Err(Surprise(format!("a reservation with its tickets given back is {}", cancelled.status)))
            }
            Reply::Refused(problem) => Err(unexpected("giving tickets back", &problem)),
        }
    }

    async fn try_to_cancel(&self, path: &str) -> Result<Reply<Reservation>, Surprise> {
        let path = format!("{path}/cancellation");
        self.send(&Request::post(Call::Cancel, &path, Value::Null).by(&self.bearer)).await
    }
}
