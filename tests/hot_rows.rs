//! The tables that every booking writes: what keeps their rows right, where the schema has few constraints.

use boxoffice::store;
use boxoffice::store::payments::{self, PaymentStatus, PaymentWithoutEntry};
use boxoffice::store::reservations;
use boxoffice::store::write_batch::WriteBatch;
use chrono::Utc;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::common::fresh_database;

/// The same consistent rows that the audit is tested with.
const GOOD: &str = include_str!("data/audit_good.sql");

async fn good_database() -> PgPool {
    let pool = store::open(&fresh_database().await, 2).unwrap();
    sqlx::raw_sql(GOOD).execute(&pool).await.unwrap();
    pool
}

/// The SQLSTATE of what failed.
fn code(failed: Result<(), sqlx::Error>) -> String {
    let error = failed.expect_err("it has to fail");
    error.as_database_error().and_then(|error| error.code()).expect("the database refuses it").into_owned()
}

fn payment(reservation: &str) -> PaymentWithoutEntry {
    PaymentWithoutEntry {
        id: Uuid::now_v7(),
        reservation_id: reservation.parse().unwrap(),
        user_id: Uuid::now_v7(),
        amount: 0,
        status: PaymentStatus::Succeeded,
        paid_at: Some(Utc::now()),
    }
}

async fn payments_of(conn: &mut PgConnection) -> i64 {
    sqlx::query_scalar("select count(*) from payments_without_entry").fetch_one(conn).await.unwrap()
}

#[tokio::test]
async fn insert_that_comes_out_short_fails_whole() {
    let pool = good_database().await;
    let mut conn = pool.acquire().await.unwrap();
    let before = payments_of(&mut conn).await;
    // One reservation is not paid yet; the other one is, and its payment is not written again.
    let (paid, open) = ("00000000-0000-7000-8000-000000000007", "00000000-0000-7000-8000-000000000002");
    let mut changes = WriteBatch::default();
    payments::pay_without_entry(&mut changes, &[payment(open), payment(paid)], Utc::now());
    let failed = changes.write(&mut conn).await;
    assert!(
        !failed.as_ref().is_err_and(store::write_batch::is_stale_read),
        "it fails again when it is done again"
    );
    assert_eq!(code(failed), "23000");
    assert_eq!(payments_of(&mut conn).await, before);

    let mut changes = WriteBatch::default();
    payments::pay_without_entry(&mut changes, &[payment(open)], Utc::now());
    changes.write(&mut conn).await.unwrap();
    assert_eq!(payments_of(&mut conn).await, before + 1);
}

#[tokio::test]
async fn step_cannot_change_a_missing_reservation() {
    let pool = good_database().await;
    let mut conn = pool.acquire().await.unwrap();
    let known: Uuid = "00000000-0000-7000-8000-000000000002".parse().unwrap();
    let mut changes = WriteBatch::default();
    reservations::confirm(&mut changes, &[known, Uuid::now_v7()], Utc::now());
    assert_eq!(code(changes.write(&mut conn).await), "23000");

    // A reservation that is named twice is one row.
    let mut changes = WriteBatch::default();
    reservations::confirm(&mut changes, &[known, known], Utc::now());
    changes.write(&mut conn).await.unwrap();
}

#[tokio::test]
async fn what_bookings_name_cannot_be_deleted() {
    let pool = good_database().await;
    let deletions = [
        "delete from concerts",
        "delete from performances",
        "delete from seats where number = 1",
        "delete from reservations where id = '00000000-0000-7000-8000-000000000001'",
        "delete from accounts where balance = 50",
    ];
    for deletion in deletions {
        let deleted = sqlx::raw_sql(deletion).execute(&pool).await.map(drop);
        assert_eq!(code(deleted), "23503", "{deletion}");
    }
    let unused = "
        insert into concerts (id, name, description) values ('00000000-0000-7000-8000-0000000000c1', 'Unsold', '');
        insert into performances (id, concert_id, venue, starts_at, duration_minutes, sale_opens_at, sale_closes_at,
                                  seats_total)
        select '00000000-0000-7000-8000-0000000000d1', '00000000-0000-7000-8000-0000000000c1', venue, starts_at,
            duration_minutes, sale_opens_at, sale_closes_at, 1 from performances;
        insert into seats (performance_id, number, section, price)
        values ('00000000-0000-7000-8000-0000000000d1', 1, 'A', 1);
        insert into accounts (user_id) values (gen_random_uuid());
        delete from concerts where id = '00000000-0000-7000-8000-0000000000c1';
        delete from seats where number = 10;
        delete from reservations where id = '00000000-0000-7000-8000-000000000003';
        delete from accounts where balance = 0";
    sqlx::raw_sql(unused).execute(&pool).await.expect("rows that no other row names can be deleted");
}

#[tokio::test]
async fn each_hot_table_has_at_most_one_check() {
    let pool = good_database().await;
    let sql = "
        select c.relname::text, k.conname::text from pg_class c
        left join pg_constraint k on k.conrelid = c.oid and k.contype in ('c', 'f')
        where c.relname in ('sagas', 'saga_history', 'seats', 'reservations', 'accounts', 'ledger_entries', 'payments_without_entry', 'tickets')
            and c.relnamespace = 'public'::regnamespace
            and k.conname is distinct from 'seats_performance'
        order by 1, 2";
    let found: Vec<(String, Option<String>)> = sqlx::query_as(sql).fetch_all(&pool).await.unwrap();
    let found: Vec<(&str, Option<&str>)> =
        found.iter().map(|(table, check)| (table.as_str(), check.as_deref())).collect();
    let expected = [
        ("accounts", Some("accounts_never_below_zero")),
        ("ledger_entries", Some("ledger_entries_amount")),
        ("payments_without_entry", None),
        ("reservations", Some("reservations_amount")),
        ("saga_history", None),
        ("sagas", Some("sagas_sound")),
        ("seats", Some("seats_owner_named")),
        ("tickets", None),
    ];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn tickets_have_two_indexes_with_entries() {
    let pool = good_database().await;
    // A sale makes no entry in an index over ranges of pages.
    let sql = "
        select i.indexrelid::regclass::text from pg_index i
        join pg_class c on c.oid = i.indexrelid
        join pg_am a on a.oid = c.relam
        where i.indrelid = 'tickets'::regclass and a.amname <> 'brin' order by 1";
    let found: Vec<String> = sqlx::query_scalar(sql).fetch_all(&pool).await.unwrap();
    assert_eq!(found, ["tickets_one_valid_per_seat", "tickets_pkey"]);
    let again =
        "insert into tickets (id, reservation_id, performance_id, seat, code, status, issued_at, voided_at)
                 select gen_random_uuid(), reservation_id, performance_id, seat, 'again', 'void', now(), now()
                 from tickets where seat = 1";
    assert_eq!(code(sqlx::raw_sql(again).execute(&pool).await.map(drop)), "23505");
}

#[tokio::test]
async fn checks_that_are_left_refuse() {
    let pool = good_database().await;
    let refused = [
        "update sagas set due_at = null where status = saga_status('waiting')",
        "update sagas set due_at = 'infinity' where status = saga_status('waiting')",
        "update sagas set status = 7 where status = saga_status('running')",
        "update sagas set visit = 0 where status = saga_status('running')",
        "update sagas set direction = 2 where status = saga_status('running')",
        "update sagas set due_at = '-infinity' where status = saga_status('completed')",
        "update seats set holder = null where number = 3",
        "update accounts set balance = -1 where balance = 50",
        "update reservations set amount = -1",
        "insert into ledger_entries (id, user_id, kind, amount, balance, created_at)
         values (gen_random_uuid(), '00000000-0000-7000-8000-0000000000a1', 'charge', 0, 550, now())",
    ];
    for sql in refused {
        assert_eq!(code(sqlx::raw_sql(sql).execute(&pool).await.map(drop)), "23514", "{sql}");
    }
}

#[tokio::test]
async fn rows_that_cannot_be_read_stop_no_others() {
    let pool = good_database().await;
    let damage = "
        update reservations set expires_at = 'infinity', claimable_at = '-infinity'
        where id = '00000000-0000-7000-8000-000000000002';
        update sagas set due_at = now() - interval '1 s' where status = saga_status('running');
        update sagas set definition = -1 where id = '00000000-0000-7000-8000-000000000006'";
    sqlx::raw_sql(damage).execute(&pool).await.unwrap();
    let ids = ["00000000-0000-7000-8000-000000000002", "00000000-0000-7000-8000-000000000001"];
    let ids = ids.map(|id| id.parse::<Uuid>().unwrap());
    let found = reservations::get_many(&mut pool.acquire().await.unwrap(), &ids).await.unwrap();
    let times: Vec<_> =
        found.iter().map(|one| (one.id, one.expires_at.is_some(), one.claimable_at.is_some())).collect();
    assert_eq!(times, [(ids[0], false, false), (ids[1], true, true)]);

    let mut conn = pool.acquire().await.unwrap();
    let due = store::due::lock(&mut conn, Utc::now(), Utc::now(), 10).await.unwrap();
    let readable: Vec<String> = due.sagas.iter().map(|saga| saga.id.to_string()).collect();
    assert_eq!(readable, ["00000000-0000-7000-8000-000000000015"]);
    assert_eq!(due.unreadable.len(), 1, "{:?}", due.unreadable);
}
