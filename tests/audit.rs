//! Every other test relies on the audit, so these tests check the audit itself: it accepts a consistent set of rows, and it
//! finds each broken row under the name of its invariant and under no other.

use boxoffice::audit::{self, Invariant, Report, Verdict};
use boxoffice::store;
use sqlx::PgPool;

use crate::common::{fresh_database, superuser};

/// A reservation in each state that a busy sale shows; the comments in it name the ids used below.
const GOOD: &str = include_str!("data/audit_good.sql");

async fn good_database() -> PgPool {
    let pool = empty_database().await;
    make_good(&pool).await;
    pool
}

pub async fn make_good(pool: &PgPool) {
    sqlx::raw_sql(GOOD).execute(pool).await.unwrap();
}

async fn empty_database() -> PgPool {
    store::open(&fresh_database().await, 4).unwrap()
}

pub async fn audit_after(damage: &'static str) -> Report {
    let url = fresh_database().await;
    let pool = store::open(&url, 4).unwrap();
    make_good(&pool).await;
    // Some damage leaves out the triggers that would prevent it, which only a superuser can.
    let damaged = sqlx::raw_sql(damage).execute(&superuser(&url).await).await;
    damaged.unwrap_or_else(|error| panic!("{damage}: {error}"));
    audit::run(&pool).await.unwrap()
}

/// The damage breaks this invariant and no other, and the offender is named.
pub async fn finds(invariant: Invariant, offender: &str, damage: &'static str) {
    let report = audit_after(damage).await;
    let found: Vec<Invariant> = report.broken.iter().map(|broken| broken.invariant).collect();
    assert_eq!(found, [invariant], "after: {damage}\n{report:#?}");
    assert_eq!(report.verdict, Verdict::Broken);
    assert!(!report.is_good(false));
    let examples = &report.broken[0].examples;
    assert!(examples.iter().any(|example| example.id.ends_with(offender)), "after: {damage}\n{examples:#?}");
    assert!(report.broken[0].count >= i64::try_from(examples.len()).unwrap());
}

pub async fn stays_good(change: &'static str) {
    let report = audit_after(change).await;
    assert_eq!(report.verdict, Verdict::Good, "after: {change}\n{:#?}", report.broken);
}

#[tokio::test]
async fn a_consistent_sale_is_good_and_counted() {
    let pool = good_database().await;
    let report = audit::run(&pool).await.unwrap();
    assert_eq!(report.verdict, Verdict::Good, "{:#?}", report.broken);
    assert!(report.is_good(true));
    let counted = report.counted;
    assert_eq!((counted.seats_free, counted.seats_held, counted.seats_sold), (4, 2, 4));
    assert_eq!((counted.tickets_valid, counted.confirmed_reservations, counted.confirmed_lines), (3, 2, 3));
    assert_eq!((counted.accounts, counted.points, counted.points_taken), (2, 600, 600));
    assert_eq!((counted.sagas_open, counted.sagas_stuck, counted.sagas_ended), (3, 0, 6));
}

#[tokio::test]
async fn an_empty_database_is_good() {
    let report = audit::run(&empty_database().await).await.unwrap();
    assert_eq!(report.verdict, Verdict::Good, "{:#?}", report.broken);
}

#[tokio::test]
async fn sold_seats_are_tickets_are_confirmed_lines() {
    let broken = Invariant::SoldSeats;
    finds(broken, "/1", "update tickets set status = 'void', voided_at = now() where seat = 1").await;
    finds(broken, "/1", "update seats set status = 'free', holder = null where number = 1").await;
    finds(broken, "/9", "update seats set status = 'sold', holder = gen_random_uuid() where number = 9")
        .await;
    finds(
        broken,
        "/9",
        "insert into tickets (id, reservation_id, performance_id, seat, code, status, issued_at)
         select gen_random_uuid(), reservation_id, performance_id, 9, 'more', 'valid', now() from tickets where seat = 1",
    )
    .await;
    finds(
        broken,
        "01",
        "update reservations set lines = '[]' where id = '00000000-0000-7000-8000-000000000001'",
    )
    .await;
    // A cancellation that has ended and left its seat sold.
    finds(
        broken,
        "/6",
        "update sagas set status = saga_status('completed'), finished_at = now(), due_at = null
          where id = '00000000-0000-7000-8000-000000000015';
          set session_replication_role = replica;
          delete from ledger_entries where id = '00000000-0000-7000-8000-0000000000f5';
          update accounts set balance = 700 where balance = 550",
    )
    .await;
}

#[tokio::test]
async fn no_seat_is_in_two_live_reservations() {
    // The newcomer is being cancelled, so that nothing but the doubled seat is wrong with it.
    finds(
        Invariant::DoubledSeats,
        "/1",
        "insert into reservations (id, user_id, concert_id, performance_id, status, seats, created_at, updated_at)
         select '00000000-0000-7000-8000-000000000008', user_id, concert_id, performance_id, 'confirmed', '{1}', now(), now()
         from reservations where id = '00000000-0000-7000-8000-000000000001';
         insert into sagas select (jsonb_populate_record(s, '{\"id\": \"00000000-0000-7000-8000-000000000018\",
             \"subject_id\": \"00000000-0000-7000-8000-000000000008\"}')).*
         from sagas s where id = '00000000-0000-7000-8000-000000000015'",
    )
    .await;
}

#[tokio::test]
async fn expired_hold_is_not_live_and_claimable() {
    stays_good(
        "delete from instances;
         update reservations set expires_at = now() - interval '20 s', claimable_at = now() - interval '5 s'
         where id = '00000000-0000-7000-8000-000000000002';
         insert into reservations (id, user_id, concert_id, performance_id, status, seats, expires_at, claimable_at,
                                   created_at, updated_at)
         select '00000000-0000-7000-8000-000000000008', user_id, concert_id, performance_id, 'held', '{3}',
             now() + interval '300 s', now() + interval '315 s', now(), now()
         from reservations where id = '00000000-0000-7000-8000-000000000001';
         update seats set holder = '00000000-0000-7000-8000-000000000008' where number = 3;
         insert into sagas select (jsonb_populate_record(s, '{\"id\": \"00000000-0000-7000-8000-000000000008\",
             \"subject_id\": \"00000000-0000-7000-8000-000000000008\"}')).*
         from sagas s where id = '00000000-0000-7000-8000-000000000002'",
    )
    .await;
}

#[tokio::test]
async fn held_seat_names_its_reservation() {
    let broken = Invariant::HeldSeats;
    finds(broken, "/3", "update seats set holder = gen_random_uuid() where number = 3").await;
    finds(
        broken,
        "02",
        "update seats set status = 'free', holder = null, expires_at = null, claimable_at = null
          where number = 3",
    )
    .await;
}

#[tokio::test]
async fn balance_equals_its_entries_and_is_not_negative() {
    let broken = Invariant::Balances;
    finds(broken, "a1", "update accounts set balance = balance + 1 where balance = 550").await;
    finds(
        broken,
        "fa",
        "set session_replication_role = replica;
         update ledger_entries set balance = 199 where id = '00000000-0000-7000-8000-0000000000fa'",
    )
    .await;
    let report = audit_after(
        "alter table accounts drop constraint accounts_never_below_zero;
         alter table ledger_entries drop constraint ledger_entries_amount;
         insert into accounts (user_id, balance) values ('00000000-0000-7000-8000-0000000000a3', -5);
         insert into ledger_entries (id, user_id, kind, amount, balance, created_at)
         values (gen_random_uuid(), '00000000-0000-7000-8000-0000000000a3', 'charge', -5, -5, now())",
    )
    .await;
    let found: Vec<Invariant> = report.broken.iter().map(|broken| broken.invariant).collect();
    assert_eq!(found, [broken, Invariant::RowRules], "{report:#?}");
    assert!(report.broken[0].examples[0].id.ends_with("a3"), "{report:#?}");
}

#[tokio::test]
async fn points_taken_match_paid_reservations() {
    let broken = Invariant::PointsTaken;
    // Taken while the saga still waits to be paid.
    finds(
        broken,
        "02",
        "insert into ledger_entries (id, user_id, kind, amount, balance, reservation_id, created_at)
         select '00000000-0000-7000-8000-0000000000f2', user_id, 'use', 150, 400, id, now()
         from reservations where id = '00000000-0000-7000-8000-000000000002';
         update accounts set balance = 400 where balance = 550",
    )
    .await;
    // Past paying, and nothing taken.
    finds(
        broken,
        "06",
        "set session_replication_role = replica;
         delete from ledger_entries where id = '00000000-0000-7000-8000-0000000000f6';
         update accounts set balance = 200 where balance = 50",
    )
    .await;
    // In the middle of the refund both are right: not yet, and just now.
    stays_good(
        "insert into ledger_entries (id, user_id, kind, amount, balance, reservation_id, reverses_id, created_at)
         select gen_random_uuid(), user_id, 'refund', amount, balance + amount, reservation_id, id, now()
         from ledger_entries where id = '00000000-0000-7000-8000-0000000000f5';
         update accounts set balance = 700 where balance = 550",
    )
    .await;
}

#[tokio::test]
async fn cancelled_date_keeps_no_seat_once_its_job_is_done() {
    const CANCELLED: &str = "
        insert into batch_jobs (id, actor, act, filter, reason, dry_run, rate_per_second, max_sagas, status, finished_at)
        values ('00000000-0000-7000-8000-0000000000bb', 'ada', 'cancel_performance', '{}', 'ill', false, 1, 1,
            'completed', now());
        update performances set cancelled_at = now(), cancellation_id = '00000000-0000-7000-8000-0000000000bb'";
    let report = audit_after(CANCELLED).await;
    let broken: Vec<Invariant> = report.broken.iter().map(|broken| broken.invariant).collect();
    assert_eq!(broken, [Invariant::CancelledDates], "{report:#?}");
    stays_good(format!("{CANCELLED}; update batch_jobs set status = 'stopped'").leak()).await;
    stays_good(format!("{CANCELLED}; update batch_jobs set failed = 1").leak()).await;
}

#[tokio::test]
async fn payments_agree_with_entries_and_reservations() {
    let broken = Invariant::Payments;
    // An entry took the points, and another payment has succeeded too.
    finds(
        broken,
        "b1",
        "insert into payments_without_entry (id, reservation_id, user_id, amount, status, paid_at, updated_at)
         select '00000000-0000-7000-8000-0000000000b1', id, user_id, 0, 'succeeded', now(), now()
         from reservations where id = '00000000-0000-7000-8000-000000000001'",
    )
    .await;
    // The entry that is reversed is missing.
    finds(
        broken,
        "f9",
        "set session_replication_role = replica;
         update ledger_entries set reverses_id = gen_random_uuid() where id = '00000000-0000-7000-8000-0000000000f9'",
    )
    .await;
    finds(broken, "07", "delete from payments_without_entry").await;
    finds(
        broken,
        "f9",
        "set session_replication_role = replica;
         update ledger_entries set user_id = '00000000-0000-7000-8000-0000000000a3'
         where id = '00000000-0000-7000-8000-0000000000f9';
         insert into accounts (user_id, balance) values ('00000000-0000-7000-8000-0000000000a3', 150);
         update ledger_entries set balance = 150 where id = '00000000-0000-7000-8000-0000000000f9';
         update ledger_entries set balance = 400 where id = '00000000-0000-7000-8000-0000000000f5';
         update accounts set balance = 400 where balance = 550",
    )
    .await;
}

#[tokio::test]
async fn every_saga_has_an_alarm_or_rests() {
    let broken = Invariant::SagasAwake;
    finds(
        broken,
        "02",
        "alter table sagas drop constraint sagas_sound;
         update sagas set due_at = null where id = '00000000-0000-7000-8000-000000000002'",
    )
    .await;
    finds(
        broken,
        "02",
        "update sagas set status = saga_status('compensated'), finished_at = now(), due_at = null
         where id = '00000000-0000-7000-8000-000000000002'",
    )
    .await;
    stays_good("update sagas set paused = true, due_at = null where status = saga_status('waiting')").await;
}

#[tokio::test]
async fn unswept_alarm_is_found_except_after_a_start() {
    finds(
        Invariant::SagasSwept,
        "15",
        "update sagas set due_at = now() - interval '61 s' where subject_id is not null and due_at is not null",
    )
    .await;
    stays_good("update sagas set due_at = now() - interval '50 s' where status = saga_status('running')")
        .await;
    stays_good(
        "update sagas set due_at = now() - interval '1 day' where status = saga_status('running');
         insert into instances (id, roles) values (gen_random_uuid(), '{worker}')",
    )
    .await;
}

#[tokio::test]
async fn hold_ends_in_time_unless_being_paid() {
    let broken = Invariant::HoldsEnd;
    let over = "update seats set expires_at = now() - interval '6 s', claimable_at = now() + interval '9 s'
                where number = ";
    finds(broken, "/3", format!("{over} 3").leak()).await;
    stays_good(format!("{over} 7").leak()).await;
    finds(
        broken,
        "/7",
        "update seats set expires_at = now() - interval '21 s', claimable_at = now() - interval '6 s' where number = 7",
    )
    .await;
    stays_good(
        format!("{over} 3; insert into instances (id, roles) values (gen_random_uuid(), '{{worker}}')")
            .leak(),
    )
    .await;
    stays_good(
        "update seats set expires_at = now() - interval '3 s', claimable_at = now() + interval '12 s' where number = 3",
    )
    .await;
}

#[tokio::test]
async fn stuck_sagas_are_listed_apart() {
    let report = audit_after(
        "update sagas set status = saga_status('stuck'), stuck_since = now(), due_at = null, reason = 'undo_failed'
         where id = '00000000-0000-7000-8000-000000000015'",
    )
    .await;
    assert_eq!(report.verdict, Verdict::Good, "{:#?}", report.broken);
    assert!(report.is_good(false) && !report.is_good(true));
    assert_eq!(report.stuck.len(), 1);
    assert_eq!(report.stuck[0].workflow, "cancellation");
    assert_eq!(report.stuck[0].reason.as_deref(), Some("undo_failed"));
}

#[tokio::test]
async fn audit_counts_all_and_names_a_hundred() {
    let report = audit_after(
        "insert into seats (performance_id, number, section, price, status, holder)
         select '00000000-0000-7000-8000-0000000000d0', n, 'A', 1, 'sold', gen_random_uuid()
         from generate_series(101, 250) as n",
    )
    .await;
    let broken = &report.broken[0];
    assert_eq!(broken.examples.len(), 100);
    assert_eq!(broken.count, 300, "each seat lacks a ticket and a reservation");
}

#[tokio::test]
async fn the_audit_needs_no_more_than_reading() {
    let pool = good_database().await;
    let mut snapshot = store::audit::snapshot(&pool).await.unwrap();
    let refused = sqlx::query("update seats set price = 1").execute(&mut *snapshot).await;
    assert!(refused.unwrap_err().to_string().contains("read-only"));
}

#[tokio::test]
async fn payer_buyer_and_saga_are_one_user() {
    let broken = Invariant::Payments;
    // Reservation 7 cost nothing, so no ledger entry names its buyer.
    finds(
        broken,
        "07",
        "update reservations set user_id = '00000000-0000-7000-8000-0000000000a1'
         where id = '00000000-0000-7000-8000-000000000007'",
    )
    .await;
    finds(
        broken,
        "01",
        "insert into saga_history (saga_id, seq, at, visit, attempt, event, step, direction, detail)
         values ('00000000-0000-7000-8000-000000000001', 1, now(), 1, 0, 0, 0, 0,
             '{\"reservation_id\": \"00000000-0000-7000-8000-000000000001\",
               \"user_id\": \"00000000-0000-7000-8000-0000000000a2\"}')",
    )
    .await;
    finds(
        broken,
        "02",
        "insert into saga_history (saga_id, seq, at, visit, attempt, event, step, direction, detail)
         values ('00000000-0000-7000-8000-000000000002', 1, now(), 1, 0, 0, 0, 0,
             '{\"reservation_id\": \"00000000-0000-7000-8000-000000000002\",
               \"user_id\": \"00000000-0000-7000-8000-0000000000a2\"}')",
    )
    .await;
    finds(
        broken,
        "02",
        "insert into saga_history (saga_id, seq, at, visit, attempt, event, step, direction, detail)
         values ('00000000-0000-7000-8000-000000000002', 1, now(), 1, 0, 0, 0, 0,
             '{\"reservation_id\": \"00000000-0000-7000-8000-000000000002\", \"seats\": [4]}')",
    )
    .await;
}
