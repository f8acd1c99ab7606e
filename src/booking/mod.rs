//! The booking service: reserve, pay, cancel. It starts the saga or sends it a signal, and waits a
//! limited time for the result.
//!
//! Sagas are inserted in one transaction for all callers that are waiting at that moment; the hold inserts the reservation.
//! The wait is registered before the commit and ends with a message; the reservation, read from its row, is
//! the answer either way.

pub mod resend;
mod direct_events;
mod charges;
mod reads;
mod start;

use std::time::Duration;

use saga_protocol::spans;
use serde_json::Map;
use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::start::Started;
use crate::background::Tasks;
use crate::cancellation;
use crate::clock::Clock;
use crate::ids;
use crate::orchestrator::{self, Batcher, Engine, SignalError, Verdict, Waiting, batcher};
use crate::saga::{Signal, Status};
use crate::steps::BookingCache;
use crate::store::claims::{Key, is_taken};
pub use crate::store::reservations::NewReservation as Order;
use crate::store::reservations::{NewReservation, Reservation, ReservationStatus};
use crate::{store, trace_context};
pub use charges::ChargeReplay;
pub use direct_events::DirectReplay;

/// The longest wait for a reservation to be read again once its saga has begun: then the caller is answered without.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// The booking service: turns buyers' requests into sagas and signals.
#[derive(Clone, Debug)]
pub struct BookingService {
    pool: PgPool,
    engine: Engine,
    orders: Batcher<start::Request, Started>,
    reads: mpsc::Sender<reads::Request>,
    cache: BookingCache,
    patience: Duration,
}

/// What a request has come to when the caller is answered.
#[derive(Clone, Debug)]
pub enum Answer {
    /// It is decided; the reservation holds the result.
    Settled(Box<Reservation>),
    /// It is still under way; the reservation can be read at any time.
    Pending(Box<Reservation>),
}

/// Why a request was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum BookingError {
    #[error("there is no such reservation")]
    Unknown,
    /// Nothing was begun, or it is unknown whether it was; asking again is safe.
    #[error("the box office cannot take this right now")]
    Unavailable,
    /// Nothing was begun: another request has the idempotency key.
    #[error("another request has this Idempotency-Key")]
    KeyTaken,
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl From<SignalError> for BookingError {
    fn from(_: SignalError) -> Self {
        Self::Unavailable
    }
}

impl BookingService {
    /// Opens the service: starts the task that turns waiting orders into sagas.
    pub fn open(
        pool: PgPool,
        engine: Engine,
        cache: BookingCache,
        patience: Duration,
        tasks: &Tasks,
        stop: &CancellationToken,
    ) -> Self {
        let (orders, requests) = batcher("orders", |request: &start::Request| request.order.id);
        tasks.supervise("orders", start::run(engine.clone(), requests, stop.clone()));
        let (reads, requests) = mpsc::channel(4_096);
        tasks.supervise("reads of reservations", reads::run(engine.clone(), requests, stop.clone()));
        Self { pool, engine, orders, reads, cache, patience }
    }

    /// Reserves seats, and pays for them if that is wanted at once. An order whose id exists already leads to that
    /// reservation: asking again starts nothing.
    pub async fn reserve(&self, order: NewReservation) -> Result<Answer, BookingError> {
        self.reserve_under(order, None).await
    }

    /// The same; an idempotency key is claimed with the order.
    pub async fn reserve_under(
        &self,
        order: NewReservation,
        key: Option<&Key>,
    ) -> Result<Answer, BookingError> {
        let (id, pay_now, trace) = (order.id, order.pay_now, order.trace);
        let waiting = self.engine.waiting(id);
        let seen = Reservation::begun(&order.input(), Clock::default().now());
        let request = start::Request { order, key: key.map(|key| key.asked.clone()) };
        let begun = spans::begin();
        let started = self.orders.ask(request).await.ok_or(BookingError::Unavailable)?;
        if started == Started::New {
            let start = orchestrator::Started { workflow: "booking", saga: id, trace, about: None };
            orchestrator::record_start(start, begun, trace_context::current());
        }
        decide_key(key, started != Started::KeyTaken)?;
        let (new, settled) = (started == Started::New, settles(pay_now));
        // An existing reservation may have any status by now.
        self.settle(&waiting, id, new, settled, new.then_some(&seen)).await
    }

    /// Pays for a held reservation, and says whether it was this call that began the payment. One under way already
    /// is waited for: paying twice charges once.
    pub async fn pay(&self, id: Uuid) -> Result<(Answer, bool), BookingError> {
        self.pay_seen(id, None, None).await
    }

    /// The same for a reservation as the caller has seen it: if it cannot be read once the payment has begun, the payment is
    /// still under way for that one. An idempotency key is claimed with the payment.
    pub async fn pay_seen(
        &self,
        id: Uuid,
        seen: Option<&Reservation>,
        key: Option<&Key>,
    ) -> Result<(Answer, bool), BookingError> {
        let waiting = self.engine.waiting(id);
        let began = self.signal(id, "pay", key).await?;
        Ok((self.settle(&waiting, id, began, is_at_rest, seen.filter(|_| began)).await?, began))
    }

    /// Gives the saga a signal; says whether that moved it.
    async fn signal(&self, id: Uuid, signal: &str, key: Option<&Key>) -> Result<bool, BookingError> {
        self.cache.signalled(id);
        let signal = Signal { name: signal.to_owned(), payload: Map::new() };
        let verdict = self.engine.signal_under(id, signal, key.map(|key| key.asked.clone())).await?;
        decide_key(key, verdict.is_some())?;
        Ok(verdict == Some(Verdict::Moved))
    }

    /// Takes a hold back, or a confirmed reservation. Whether it may be is for the caller to have checked; a
    /// reservation that moved on in between is answered as it is.
    pub async fn cancel(&self, id: Uuid) -> Result<Answer, BookingError> {
        self.cancel_under(id, None).await
    }

    /// The same; an idempotency key is claimed with what the call begins, if it begins anything.
    pub async fn cancel_under(&self, id: Uuid, key: Option<&Key>) -> Result<Answer, BookingError> {
        let reservation = self.find(id).await?;
        if let Some(begun) = reservation.cancellation_id {
            return self.settle_cancellation(&self.engine.waiting(begun), reservation, begun).await;
        }
        if reservation.status != ReservationStatus::Confirmed {
            let waiting = self.engine.waiting(id);
            let began = self.signal(id, "cancel", key).await?;
            let seen = Some(&reservation).filter(|_| began);
            return self.settle(&waiting, id, began, is_at_rest, seen).await;
        }
        let cancellation = ids::new();
        let waiting = self.engine.waiting(cancellation);
        let wanted = [(id, cancellation)];
        let order = cancellation::Order { key, ..cancellation::Order::of(&wanted) };
        let started = cancellation::start(&self.pool, &self.engine, order).await;
        if started.as_ref().is_err_and(is_taken) {
            decide_key(key, false)?;
        }
        if !started?.is_empty() {
            decide_key(key, true)?;
            return self.settle_cancellation(&waiting, reservation, cancellation).await;
        }
        // Another request's cancellation won; the answer is the same.
        let reservation = self.find(id).await?;
        match reservation.cancellation_id {
            Some(theirs) => self.settle_cancellation(&self.engine.waiting(theirs), reservation, theirs).await,
            None => Ok(Answer::Settled(Box::new(reservation))),
        }
    }

    /// Waits for a reservation that an earlier call began, as that call did.
    pub async fn resume(&self, id: Uuid, pay_now: bool) -> Result<Answer, BookingError> {
        let waiting = self.engine.waiting(id);
        self.settle(&waiting, id, false, settles(pay_now), None).await
    }

    /// A reservation that an earlier call began, once it has come to what that call waited for.
    pub async fn settled(&self, id: Uuid, pay_now: bool) -> Result<Option<Reservation>, BookingError> {
        match self.find(id).await {
            Ok(reservation) => Ok(Some(reservation).filter(settles(pay_now))),
            Err(BookingError::Unknown) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the cancellation of a cancelled reservation is over, its refund included.
    pub async fn is_cancelled(&self, reservation: &Reservation) -> Result<bool, BookingError> {
        let Some(cancellation) = reservation.cancellation_id else {
            return Ok(is_at_rest(reservation));
        };
        let saga = store::sagas::get(&self.pool, cancellation).await?;
        Ok(saga.is_none_or(|saga| saga.status.is_end()))
    }

    /// One reservation as it stands.
    pub async fn find(&self, id: Uuid) -> Result<Reservation, BookingError> {
        reads::find(&self.pool, &self.reads, id).await
    }

    /// Waits for the reservation to settle. What this call has not begun may have settled before: it is looked at first. What
    /// it has begun stays under way, as it was last `seen`, if it cannot be read.
    async fn settle(
        &self,
        waiting: &Waiting,
        id: Uuid,
        began: bool,
        settled: impl Fn(&Reservation) -> bool,
        seen: Option<&Reservation>,
    ) -> Result<Answer, BookingError> {
        let until = Instant::now() + self.patience;
        let mut look = !began;
        loop {
            let given_up = !look && timeout_at(until, waiting.changed()).await.is_err();
            let woken = !look && !given_up;
            look = false;
            // This process may have written what the caller waits for.
            if woken && let Some(reservation) = self.cache.get(id, &settled) {
                return Ok(Answer::Settled(Box::new(reservation)));
            }
            let found = timeout(READ_TIMEOUT, self.find(id)).await.unwrap_or(Err(BookingError::Unavailable));
            let reservation = match (found, seen) {
                (Ok(reservation), _) => reservation,
                (Err(_), Some(seen)) => return Ok(Answer::Pending(Box::new(seen.clone()))),
                (Err(error), None) => return Err(error),
            };
            if settled(&reservation) {
                return Ok(Answer::Settled(Box::new(reservation)));
            }
            if given_up {
                return Ok(Answer::Pending(Box::new(reservation)));
            }
        }
    }

    /// Waits for the refund, which goes on as long as it must: if it cannot be read it is still under way.
    async fn settle_cancellation(
        &self,
        waiting: &Waiting,
        mut reservation: Reservation,
        cancellation: Uuid,
    ) -> Result<Answer, BookingError> {
        let until = Instant::now() + self.patience;
        loop {
            let read = async {
                let saga = store::sagas::get(&self.pool, cancellation).await?;
                Ok::<_, BookingError>((saga, self.find(reservation.id).await?))
            };
            let Ok(Ok((saga, found))) = timeout(READ_TIMEOUT, read).await else {
                return Ok(Answer::Pending(Box::new(reservation)));
            };
            reservation = found;
            if saga.is_none_or(|saga| saga.status.is_end()) {
                return Ok(Answer::Settled(Box::new(reservation)));
            }
            if timeout_at(until, waiting.changed()).await.is_err() {
                return Ok(Answer::Pending(Box::new(reservation)));
            }
        }
    }
}

/// What a call waits for: that the seats are held or not, or with a payment that all is over.
fn settles(pay_now: bool) -> fn(&Reservation) -> bool {
    if pay_now { is_at_rest } else { is_decided }
}

/// Takes note of what became of a key that was to be claimed.
fn decide_key(key: Option<&Key>, is_claimed: bool) -> Result<(), BookingError> {
    if let Some(key) = key {
        key.decide(is_claimed);
    }
    if is_claimed { Ok(()) } else { Err(BookingError::KeyTaken) }
}

/// Its seats are held, or it is known that they are not.
fn is_decided(reservation: &Reservation) -> bool {
    reservation.status != ReservationStatus::Pending
}

/// Its saga is at rest: it waits for the buyer, has ended, or needs an operator.
fn is_at_rest(reservation: &Reservation) -> bool {
    reservation.saga_status.is_none_or(Status::is_settled)
}
