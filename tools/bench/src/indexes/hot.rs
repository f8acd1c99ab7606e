//! The statements that are executed again and again, each with the indexes that keep it quick: those of a booking, of the
//! sweeper, of the lists for operators, and of what every buyer reads.
//!
//! They are the store's own functions, called with a booking out of many.

use chrono::{DateTime, TimeDelta, Utc};
use futures::FutureExt;
use futures::future::BoxFuture;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::store::plans;
use boxoffice::config::Control;
use boxoffice::ids;
use boxoffice::saga::{Saga, Status};
use boxoffice::store::codes::Codes;
use boxoffice::store::reservations::{Reservation, ReservationStatus};
use boxoffice::store::saga_search::Filter;
use boxoffice::store::seats::{Seat, Wanted};
use boxoffice::store::tracked_rows::TrackedRows;
use boxoffice::store::write_batch::WriteBatch;
use boxoffice::store::{
    Result, audit, catalog, due, history, payments, points, reservations, retention, saga_search, sagas,
    seats, tickets,
};

/// A page of a list.
const PAGE: i64 = 50;

/// What the statements are about: a finished booking, as it stands.
#[derive(Clone, Debug)]
pub struct Sample {
    now: DateTime<Utc>,
    codes: Codes,
    saga: Saga,
    user: Uuid,
    concert: Uuid,
    reservation: Reservation,
    seat: Seat,
    balance: i64,
}

/// A statement and the indexes that it must use.
pub struct Hot {
    /// What it is for.
    pub what: &'static str,
    /// The table whose plan is looked at.
    pub table: &'static str,
    /// The indexes; the parts of a table have them under names of their own that begin alike.
    pub indexes: &'static [&'static str],
    /// Executes it.
    pub run: Run,
}

/// On what it is executed.
pub enum Run {
    /// A connection, in a transaction that is rolled back.
    Within(for<'a> fn(&'a mut PgConnection, &'a Sample) -> BoxFuture<'a, Result<()>>),
    /// The same, as parts of the statement that writes a batch.
    Writes(fn(&mut WriteBatch, &Sample)),
    /// A pool: it has a transaction of its own, and changes nothing.
    Alone(for<'a> fn(&'a PgPool, &'a Sample) -> BoxFuture<'a, Result<()>>),
}

impl Sample {
    /// A booking from the middle of all finished ones.
    ///
    /// # Errors
    /// When there is none.
    pub async fn take(pool: &PgPool) -> Result<Self> {
        let id = plans::some_booking(pool).await?;
        let reservation =
            reservations::get(&mut *pool.acquire().await?, id).await?.ok_or(sqlx::Error::RowNotFound)?;
        let saga = sagas::get(pool, id).await?.ok_or(sqlx::Error::RowNotFound)?;
        let mut tx = pool.begin().await?;
        let now = boxoffice::store::now(&mut *tx).await?;
        let number = reservation.seats.first().copied().ok_or(sqlx::Error::RowNotFound)?;
        let wanted = Wanted { performance_id: reservation.performance_id, number, buyer: None, pays: false };
        let found = seats::find(&mut tx, &[wanted], Some(now), 0, Control::Optimistic).await?.pop();
        tx.rollback().await?;
        let seat = found.ok_or(sqlx::Error::RowNotFound)?.seat;
        let balance = points::balance(pool, reservation.user_id).await?;
        let codes = Codes::register(pool, &"indexes".into()).await?;
        Ok(Self {
            now,
            codes,
            saga,
            user: reservation.user_id,
            concert: reservation.concert_id,
            reservation,
            seat,
            balance,
        })
    }

    fn id(&self) -> Uuid {
        self.saga.id
    }

    fn date(&self) -> Uuid {
        self.seat.performance_id
    }
}

const fn hot(what: &'static str, table: &'static str, indexes: &'static [&'static str], run: Run) -> Hot {
    Hot { what, table, indexes, run }
}

fn read_seat<'a>(
    conn: &'a mut PgConnection,
    of: &'a Sample,
    buyer: Option<Uuid>,
) -> BoxFuture<'a, Result<()>> {
    let wanted = Wanted { performance_id: of.date(), number: of.seat.number, buyer, pays: true };
    async move { seats::find(conn, &[wanted], Some(of.now), 0, Control::Optimistic).await.map(drop) }.boxed()
}

/// All of them.
pub fn all() -> Vec<Hot> {
    [of_a_hold(), of_a_payment(), of_an_undo(), of_the_sweeper(), of_lists(), of_reads()]
        .into_iter()
        .flatten()
        .collect()
}

/// A row that is written as it was read.
fn written<K: Ord + Copy, V: Clone>(key: K, row: &V) -> TrackedRows<K, V> {
    let mut rows = TrackedRows::from_iter([(key, row.clone())]);
    // It counts as changed, whatever it is now.
    let _same = rows.change(&key);
    rows
}

fn of_a_hold() -> Vec<Hot> {
    use Run::{Within, Writes};
    vec![
        hot(
            "each step: read its saga",
            "sagas",
            &["sagas_pkey"],
            Within(|conn, of| {
                async move { sagas::read(conn, &[of.id()], Control::Optimistic).await.map(drop) }.boxed()
            }),
        ),
        hot(
            "each step: write its saga",
            "sagas",
            &["sagas_pkey"],
            Writes(|changes, of| sagas::save(changes, &of.codes, &written(of.saga.id, &of.saga))),
        ),
        hot(
            "hold: what the buyer has of this date",
            "reservations",
            &["reservations_of_user"],
            Within(|conn, of| read_seat(conn, of, Some(of.user))),
        ),
        hot(
            "hold, release, sale: read seats",
            "seats",
            &["seats_pkey"],
            Within(|conn, of| read_seat(conn, of, None)),
        ),
        hot(
            "hold, release, sale: write seats",
            "seats",
            &["seats_pkey"],
            Writes(|changes, of| seats::save(changes, &written(of.seat.key(), &of.seat))),
        ),
        hot(
            "sale: write the reservation",
            "reservations",
            &["reservations_pkey"],
            Writes(|changes, of| {
                reservations::confirm(changes, &[of.id()], of.now);
            }),
        ),
        hot(
            "answer: the reservation as its buyer sees it",
            "reservations",
            &["reservations_pkey", "sagas_pkey", "ledger_entries_one_use", "tickets_pkey"],
            Within(|conn, of| {
                async move { reservations::get_many(conn, &[of.id()]).await.map(drop) }.boxed()
            }),
        ),
    ]
}

fn of_a_payment() -> Vec<Hot> {
    use Run::{Within, Writes};
    vec![
        hot(
            "payment: read the account",
            "accounts",
            &["accounts_pkey"],
            Within(|conn, of| {
                async move { payments::balances_of(conn, &[of.user], Control::Optimistic).await.map(drop) }
                    .boxed()
            }),
        ),
        hot(
            "payment: write the account",
            "accounts",
            &["accounts_pkey"],
            Writes(|changes, of| payments::save_balances(changes, &written(of.user, &of.balance), of.now)),
        ),
        hot(
            "a saga that has ended rests",
            "sagas",
            &["sagas_pkey"],
            Within(|conn, of| async move { sagas::rest(conn, &[of.id()]).await }.boxed()),
        ),
    ]
}

fn of_an_undo() -> Vec<Hot> {
    use Run::{Within, Writes};
    vec![
        hot(
            "release: end the reservation",
            "reservations",
            &["reservations_pkey"],
            Writes(|changes, of| {
                let end = Reservation { status: ReservationStatus::Expired, ..of.reservation.clone() };
                reservations::end_open(changes, &[end], of.now);
            }),
        ),
        hot(
            "refund: what was paid and not given back",
            "ledger_entries",
            &["ledger_entries_one_use", "ledger_entries_reversed_once"],
            Within(|conn, of| async move { payments::open_uses(conn, &[of.id()]).await.map(drop) }.boxed()),
        ),
        hot(
            "refund: void the tickets",
            "tickets",
            &["tickets_pkey"],
            Writes(|changes, of| tickets::void(changes, &[of.id()], of.now)),
        ),
        hot(
            "a saga's history",
            "saga_history",
            &["saga_history_p"],
            Within(|conn, of| async move { history::of_sagas(conn, &[of.id()]).await.map(drop) }.boxed()),
        ),
    ]
}

fn of_the_sweeper() -> Vec<Hot> {
    use Run::{Alone, Within};
    vec![
        hot(
            "sweeper: whose alarm has come",
            "sagas",
            &["sagas_due"],
            Within(|conn, of| async move { due::lock(conn, of.now, of.now, 256).await.map(drop) }.boxed()),
        ),
        hot(
            "cleaning: what ended long ago",
            "sagas",
            &["sagas_pkey"],
            Within(|conn, of| {
                let before = of.now - TimeDelta::days(365);
                async move { retention::delete_ended(conn, before, 500).await.map(drop) }.boxed()
            }),
        ),
        hot(
            "audit: what came about in the last minutes",
            "payments",
            &[
                "payments_without_entry_pkey",
                "reservations_pkey",
                "ledger_entries_pkey",
                "ledger_entries_of_user",
                "accounts_pkey",
                "tickets_pkey",
                "seats_pkey",
            ],
            Alone(|pool, of| {
                let minutes = TimeDelta::minutes(5);
                let range = ids::first_of(of.now - minutes)..ids::first_of(of.now + minutes);
                async move { audit::recent(pool, range, of.now).await.map(drop) }.boxed()
            }),
        ),
        hot(
            "metrics: sagas under way",
            "sagas",
            &["sagas_due"],
            Alone(|pool, _| async move { sagas::count_open(pool).await.map(drop) }.boxed()),
        ),
        hot(
            "metrics: sagas that are stuck",
            "sagas",
            &["sagas_stuck"],
            Alone(|pool, _| async move { saga_search::count_stuck(pool).await.map(drop) }.boxed()),
        ),
    ]
}

fn of_lists() -> Vec<Hot> {
    use Run::{Alone, Within};
    vec![
        hot(
            "operators: all sagas, newest first",
            "sagas",
            &["sagas_pkey"],
            Alone(|pool, _| search(pool, Filter::default())),
        ),
        hot(
            "operators: those under way",
            "sagas",
            &["sagas_due"],
            Alone(|pool, _| search(pool, Filter { open: true, ..Filter::default() })),
        ),
        hot(
            "operators: those that are stuck",
            "sagas",
            &["sagas_stuck"],
            Alone(|pool, _| search(pool, Filter { status: Some(Status::Stuck), ..Filter::default() })),
        ),
        hot(
            "operators: those of a reservation",
            "sagas",
            &["sagas_subject"],
            Alone(|pool, of| search(pool, Filter { subject_id: Some(of.id()), ..Filter::default() })),
        ),
        hot(
            "operators: those of a user",
            "reservations",
            &["reservations_of_user"],
            Alone(|pool, of| search(pool, Filter { user_id: Some(of.user), ..Filter::default() })),
        ),
        hot(
            "buyer: own reservations",
            "reservations",
            &["reservations_of_user"],
            Within(|conn, of| {
                async move { reservations::of_user(conn, of.user, None, PAGE).await.map(drop) }.boxed()
            }),
        ),
        hot(
            "buyer: own points",
            "accounts",
            &["accounts_pkey"],
            Within(|conn, of| async move { points::balance(conn, of.user).await.map(drop) }.boxed()),
        ),
        hot(
            "buyer: own ledger",
            "ledger_entries",
            &["ledger_entries_of_user"],
            Within(|conn, of| {
                async move { points::entries(conn, of.user, None, PAGE).await.map(drop) }.boxed()
            }),
        ),
    ]
}

fn of_reads() -> Vec<Hot> {
    use Run::Alone;
    vec![
        hot(
            "seat map: what is taken",
            "seats",
            &["seats_pkey"],
            Alone(|pool, of| {
                async move { catalog::taken_seats(pool, of.date(), of.now).await.map(drop) }.boxed()
            }),
        ),
        hot(
            "seat map: what never changes",
            "seats",
            &["seats_pkey"],
            Alone(|pool, of| async move { catalog::seat_places(pool, of.date()).await.map(drop) }.boxed()),
        ),
        hot(
            "dates: free seats of each",
            "performances",
            &["seats_pkey"],
            Alone(|pool, of| {
                async move { catalog::open_performances(pool, of.concert, of.now).await.map(drop) }.boxed()
            }),
        ),
    ]
}

fn search(pool: &PgPool, filter: Filter) -> BoxFuture<'_, Result<()>> {
    async move { saga_search::list(pool, &filter, None, PAGE).await.map(drop) }.boxed()
}
