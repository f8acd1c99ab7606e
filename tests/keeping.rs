//! Retention: ended sagas are purged by age, with their history and without table scans; all others stay.

use boxoffice::app::{App, Role};
use boxoffice::ids;
use boxoffice::store::reservations::ReservationStatus;
use boxoffice::store::{self, retention};
use chrono::{NaiveDate, TimeDelta, Utc};
use sqlx::PgPool;
use uuid::Uuid;

use crate::common::app::{TestApp, assert_good, settled, until};
use crate::common::program::Program;
use crate::events::published;

const MONTH: TimeDelta = TimeDelta::days(30);

/// An id as it was made so many days ago.
fn old_id(days_ago: i64, number: u128) -> Uuid {
    let moment = Utc::now() - TimeDelta::days(days_ago);
    Uuid::from_u128(ids::first_of(moment).as_u128() | 0x7 << 76 | 0x8 << 60 | number)
}

fn day(days_ago: i64) -> NaiveDate {
    (Utc::now() - TimeDelta::days(days_ago)).date_naive()
}

/// The service without its clock: nothing is forgotten but by the test.
async fn without_clock() -> TestApp {
    TestApp::roles(&[], &[Role::Orchestrator, Role::Worker]).await
}

fn part(days_ago: i64) -> String {
    format!("saga_history_p{}", day(days_ago).format("%Y%m%d"))
}

async fn add_days(pool: &PgPool, days_ago: &[i64]) {
    for days_ago in days_ago {
        let mut tx = pool.begin().await.unwrap();
        assert!(retention::add_day(&mut tx, day(*days_ago)).await.unwrap());
        tx.commit().await.unwrap();
    }
}

/// Ended sagas at rest that began and ended so many days ago, each with three rows of history.
async fn add_ended(pool: &PgPool, days_ago: i64, count: u32) {
    let bits = "lpad(to_hex(extract(epoch from now() - $1)::bigint * 1000), 12, '0')";
    let sagas = format!(
        "insert into sagas (id, definition, subject_id, status, step, direction, visit, attempt, resend_count, entered_at, sent_at, seq,
             created_at, updated_at, finished_at)
         select ({bits} || '7fff8000' || lpad(to_hex(n), 12, '0'))::uuid, d.code, gen_random_uuid(), saga_status('completed'),
             saga_step(d.code, 'confirm'), 0, 1, 0, 0, now(), now(), 3, now() - $1, now() - $1, now() - $1
         from generate_series(1, $2) as n, workflow_definitions d
         where d.workflow = 'booking' and d.version = 1 returning id"
    );
    let insert = format!(
        "with added as ({sagas})
         insert into saga_history (saga_id, seq, at, event, step, direction, visit, attempt)
         select id, seq, now(), 1, 3, 0, 1, 0 from added, generate_series(1, 3) as seq"
    );
    sqlx::query(sqlx::AssertSqlSafe(insert))
        .bind(TimeDelta::days(days_ago).to_std().unwrap())
        .bind(i32::try_from(count).unwrap())
        .execute(pool)
        .await
        .unwrap();
}

/// Makes it so that a saga ended so many days ago.
async fn end_in_the_past(pool: &PgPool, saga: Uuid, days_ago: i64) {
    at_rest(pool, saga).await;
    sqlx::query("update sagas set finished_at = now() - $2 where id = $1")
        .bind(saga)
        .bind(TimeDelta::days(days_ago).to_std().unwrap())
        .execute(pool)
        .await
        .unwrap();
}

async fn at_rest(pool: &PgPool, saga: Uuid) {
    until(10, "the saga to be at rest", || async {
        let mut found = store::sagas::get(pool, saga).await.unwrap();
        store::flights::show_next_look(pool, found.as_mut_slice()).await.unwrap();
        found.is_some_and(|saga| saga.status.is_end() && saga.due_at.is_none())
    })
    .await;
}

/// Where a saga's history lies, and its numbers.
async fn history_of(pool: &PgPool, saga: Uuid) -> Vec<(String, i64)> {
    sqlx::query_as("select tableoid::regclass::text, seq from saga_history where saga_id = $1 order by seq")
        .bind(saga)
        .fetch_all(pool)
        .await
        .unwrap()
}

async fn count(pool: &PgPool, table: &'static str) -> i64 {
    let sql = sqlx::AssertSqlSafe(format!("select count(*) from {table}"));
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
}

/// Forgets until nothing old is left; another instance may have the turn.
async fn forget(app: &App) {
    until(10, "the old sagas to be gone", || async {
        app.engine.purge(MONTH).await.unwrap();
        let old = "sagas where finished_at < now() - interval '30 days' and due_at is null";
        count(&app.pool, old).await == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn purge_removes_ended_sagas_and_keeps_holds() {
    let test = without_clock().await;
    let pool = &test.app.pool;
    add_days(pool, &[40, 33, 20]).await;
    let user = test.user(1_000).await;
    let mut reserved = Vec::new();
    for (number, days_ago) in [(1, 40), (2, 40), (3, 33), (4, 20)] {
        let mut order = test.order(user, &[number]);
        order.id = old_id(days_ago, number.try_into().unwrap());
        reserved.push(settled(test.app.booking.reserve(order).await.unwrap()).id);
    }
    let [over, open, late, recent] = reserved[..] else { panic!("four were reserved") };
    for (saga, ended) in [(over, 40), (late, 5), (recent, 20)] {
        test.pay(saga).await;
        end_in_the_past(pool, saga, ended).await;
    }
    add_ended(pool, 40, 2_345).await;
    assert!(history_of(pool, open).await[0].0.starts_with("saga_history_p2"));

    forget(&test.app).await;
    assert!(store::sagas::get(pool, over).await.unwrap().is_none());
    assert_eq!(history_of(pool, over).await, []);
    assert_eq!(count(pool, "sagas").await, 3);
    let days = retention::days(pool).await.unwrap();
    assert!(!days.contains(&day(40)) && !days.contains(&day(33)) && days.contains(&day(20)), "{days:?}");
    assert!(days.contains(&day(0)) && days.contains(&day(-7)), "{days:?}");
    // Their day is gone, they are not.
    let before = history_of(pool, open).await;
    assert!(
        !before.is_empty() && before.iter().all(|(part, _)| part == "saga_history_default"),
        "{before:?}"
    );
    assert_eq!(history_of(pool, late).await.len(), 5);
    assert_eq!(history_of(pool, recent).await.len(), 5);

    assert_eq!(test.pay(open).await.status, ReservationStatus::Confirmed);
    let numbers: Vec<i64> = history_of(pool, open).await.into_iter().map(|(_, seq)| seq).collect();
    assert_eq!(numbers, (1..=5).collect::<Vec<_>>());
    assert_good(&test.app).await;
    // Once it has ended and grown old, what the default part has of it goes with it.
    end_in_the_past(pool, open, 31).await;
    forget(&test.app).await;
    assert_eq!(history_of(pool, open).await, []);
    assert_good(&test.app).await;
}

/// Counted by Postgres itself, in the transaction that cleans.
#[tokio::test(flavor = "multi_thread")]
async fn cleaning_reads_no_table_from_end_to_end() {
    let test = without_clock().await;
    let pool = &test.app.pool;
    add_days(pool, &[40, 10]).await;
    add_ended(pool, 40, 1_500).await;
    add_ended(pool, 10, 4_000).await;
    sqlx::raw_sql("analyze").execute(pool).await.unwrap();
    // A connection of its own, because Postgres publishes the counts of a session with a delay.
    let alone = store::open(&test.env.database_url, 1).unwrap();
    let mut tx = alone.begin().await.unwrap();
    assert!(retention::take_turn(&mut tx).await.unwrap());
    assert_eq!(retention::delete_ended(&mut tx, Utc::now() - MONTH, 1_000).await.unwrap(), 1_000);
    retention::drop_day(&mut tx, day(40)).await.unwrap();
    let scans: Vec<(String, i64, i64)> = sqlx::query_as(
        "select relname::text, seq_scan, coalesce(idx_scan, 0) from pg_stat_xact_user_tables
         where relname like 'saga%' order by relname",
    )
    .fetch_all(&mut *tx)
    .await
    .unwrap();
    tx.commit().await.unwrap();
    let whole: Vec<_> = scans.iter().filter(|(_, whole, _)| *whole > 0).collect();
    assert!(whole.is_empty(), "{whole:?}");
    assert!(scans.iter().any(|(table, _, index)| table == "sagas" && *index > 0), "{scans:?}");
    // Those that were not deleted yet have kept their history.
    assert_eq!(count(pool, "sagas").await, 4_500);
    assert_eq!(count(pool, "saga_history_default").await, 3 * 500);
    assert_eq!(count(pool, "saga_history").await, 3 * 4_500);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_instances_may_forget_at_once_and_again() {
    let test = without_clock().await;
    let pool = &test.app.pool;
    add_days(pool, &[40, 36]).await;
    add_ended(pool, 40, 2_500).await;
    add_ended(pool, 36, 1_200).await;
    let (mut sagas, mut days) = (0, 0);
    for _ in 0..3 {
        let all = futures::future::join_all((0..4).map(|_| test.app.engine.purge(MONTH))).await;
        for one in all {
            let one = one.unwrap();
            (sagas, days) = (sagas + one.sagas, days + one.days);
        }
    }
    assert_eq!((sagas, days), (3_700, 2));
    assert_eq!((count(pool, "sagas").await, count(pool, "saga_history").await), (0, 0));
    let again = test.app.engine.purge(MONTH).await.unwrap();
    assert_eq!((again.sagas, again.days), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn day_without_a_partition_is_still_sold() {
    let test = without_clock().await;
    let pool = &test.app.pool;
    let drop = format!("drop table {}, {}", part(0), part(-1));
    sqlx::raw_sql(sqlx::AssertSqlSafe(drop)).execute(pool).await.unwrap();
    let user = test.user(1_000).await;
    let first = test.reserve(user, &[1]).await;
    assert_eq!(history_of(pool, first.id).await[0].0, "saga_history_default");

    // The day that has begun stays where it is; the next one gets its part.
    test.app.engine.purge(MONTH).await.unwrap();
    let days = retention::days(pool).await.unwrap();
    assert!(!days.contains(&day(0)) && days.contains(&day(-1)), "{days:?}");
    assert_eq!(test.pay(first.id).await.status, ReservationStatus::Confirmed);
    assert_eq!(history_of(pool, first.id).await.len(), 5);
    let second = test.reserve(user, &[2]).await;
    assert_eq!(test.pay(second.id).await.status, ReservationStatus::Confirmed);
    assert_good(&test.app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reservation_without_its_saga_can_be_cancelled() {
    let test = TestApp::start().await;
    let pool = &test.app.pool;
    add_days(pool, &[50]).await;
    let user = test.user(1_000).await;
    let mut bought = Vec::new();
    for seat in [1, 2] {
        let mut order = test.order(user, &[seat]);
        order.id = old_id(50, seat.try_into().unwrap());
        let held = settled(test.app.booking.reserve(order).await.unwrap());
        assert_eq!(test.pay(held.id).await.status, ReservationStatus::Confirmed);
        end_in_the_past(pool, held.id, 50).await;
        bought.push(held.id);
    }
    let [kept, returned] = bought[..] else { panic!("two were bought") };
    forget(&test.app).await;
    assert!(store::sagas::get(pool, returned).await.unwrap().is_none());
    let ran = Program::of(&test.env).run(&format!("saga show {returned}")).await;
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains(&format!("there is no saga {returned}")), "{}", ran.err);

    for id in [kept, returned] {
        let read = test.find(id).await;
        assert_eq!((read.status, read.saga_status), (ReservationStatus::Confirmed, None));
        assert_eq!(read.tickets.len(), 1);
        assert_eq!(test.pay(id).await.status, ReservationStatus::Confirmed, "paying again changes nothing");
    }
    assert_eq!(test.balance(user).await, 800);
    assert_eq!(test.cancel(returned).await.status, ReservationStatus::Cancelled);
    assert_eq!(test.cancel(returned).await.status, ReservationStatus::Cancelled, "and again");
    assert_eq!(test.balance(user).await, 900);
    assert_good(&test.app).await;

    let story = || async {
        let events = published(&test).await.into_iter().filter(|event| event.subject_id == returned);
        events.map(|event| (event.name, event.sequence)).collect::<Vec<_>>()
    };
    until(5, "all events", || async { story().await.len() == 6 }).await;
    let (told, later) = (story().await, story().await.split_off(4));
    assert_eq!(later[1].0, "reservation.cancelled");
    assert!(told[..4].iter().all(|(_, number)| *number < later[0].1), "{told:?}");
    assert!(later.is_sorted_by_key(|(_, number)| *number), "{told:?}");
}
