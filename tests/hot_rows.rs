//! The tables that every booking writes: what keeps their rows right, where the schema has no foreign key.

use boxoffice::store;
use boxoffice::store::changes::Changes;
use boxoffice::store::payments::{self, NewPayment};
use boxoffice::store::reservations::{self, Change};
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

fn payment(reservation: &str) -> NewPayment {
    NewPayment {
        id: Uuid::now_v7(),
        reservation_id: reservation.parse().unwrap(),
        user_id: Uuid::now_v7(),
        amount: 0,
        status: "succeeded",
        entry_id: None,
        paid_at: Some(Utc::now()),
    }
}

async fn payments_of(conn: &mut PgConnection) -> i64 {
    sqlx::query_scalar("select count(*) from payments").fetch_one(conn).await.unwrap()
}

#[tokio::test]
async fn insert_that_comes_out_short_fails_whole() {
    let pool = good_database().await;
    let mut conn = pool.acquire().await.unwrap();
    let before = payments_of(&mut conn).await;
    // The second reservation is not paid yet; the first one is, and its payment is not written again.
    let (paid, open) = ("00000000-0000-7000-8000-000000000001", "00000000-0000-7000-8000-000000000002");
    let mut changes = Changes::default();
    payments::pay(&mut changes, &[payment(open), payment(paid)], Utc::now());
    let failed = changes.write(&mut conn).await;
    assert!(
        !failed.as_ref().is_err_and(store::changes::is_not_as_read),
        "it fails again when it is done again"
    );
    assert_eq!(code(failed), "23000");
    assert_eq!(payments_of(&mut conn).await, before);

    let mut changes = Changes::default();
    payments::pay(&mut changes, &[payment(open)], Utc::now());
    changes.write(&mut conn).await.unwrap();
    assert_eq!(payments_of(&mut conn).await, before + 1);
}

#[tokio::test]
async fn step_cannot_change_a_missing_reservation() {
    let pool = good_database().await;
    let mut conn = pool.acquire().await.unwrap();
    let change = |id: Uuid| Change { id, status: Some("confirmed"), ..Change::default() };
    let known: Uuid = "00000000-0000-7000-8000-000000000002".parse().unwrap();
    let mut changes = Changes::default();
    reservations::change(&mut changes, &[change(known), change(Uuid::now_v7())], Utc::now());
    assert_eq!(code(changes.write(&mut conn).await), "23000");

    // Two changes of one reservation are one row.
    let mut changes = Changes::default();
    reservations::change(&mut changes, &[change(known), change(known)], Utc::now());
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
