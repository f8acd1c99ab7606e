//! Faults in the middle of an on-sale: lost streams, lost alarms, two processes whose clocks disagree.

use std::sync::Arc;
use std::time::Duration;

use boxoffice::app::{App, Role};
use boxoffice::booking::{Answer, Order};
use boxoffice::bus::subjects;
use boxoffice::ids;
use boxoffice::store;
use boxoffice::store::reservations::{Reservation, ReservationStatus};
use futures::future::join_all;
use sqlx::AssertSqlSafe;

use crate::common::app::{TestApp, assert_good, start};

/// A small on-sale at one instance: each buyer tries a few seats, and pays, cancels or lets the hold run out.
async fn on_sale(test: Arc<TestApp>, booking: boxoffice::booking::BookingService, buyers: i32) {
    let each = (0..buyers).map(|buyer| {
        let (test, booking) = (Arc::clone(&test), booking.clone());
        tokio::spawn(async move {
            let user = test.user(1_000).await;
            for attempt in 0..4 {
                let order = Order {
                    id: ids::new(),
                    user_id: user,
                    concert_id: test.concert,
                    performance_id: test.performance,
                    seats: vec![1 + (buyer * 7 + attempt * 13) % 50],
                    best: None,
                    block: None,
                    access_code: None,
                    pay_now: false,
                    trace: None,
                };
                let Some(held) = decided(&booking.reserve(order).await) else {
                    continue;
                };
                if held.status != ReservationStatus::Held {
                    continue;
                }
                match buyer % 5 {
                    0 => {}
                    1 => drop(booking.cancel(held.id).await),
                    _ => drop(booking.pay(held.id).await),
                }
            }
        })
    });
    for buyer in join_all(each).await {
        buyer.unwrap();
    }
}

fn decided<E>(answer: &Result<Answer, E>) -> Option<Reservation> {
    match answer {
        Ok(Answer::Settled(reservation)) => Some((**reservation).clone()),
        _ => None,
    }
}

/// Every saga ends, and the books are right.
async fn ends_right(test: &TestApp) {
    test.until(60, "every saga to end", || async {
        store::sagas::count_open(&test.app.pool).await.unwrap().is_empty()
    })
    .await;
    assert_good(&test.app).await;
    let sold = sqlx::query_scalar::<_, i64>("select count(*) from seats where status = 'sold'");
    assert!(sold.fetch_one(&test.app.pool).await.unwrap() > 0, "nothing was sold at all");
}

#[tokio::test(flavor = "multi_thread")]
async fn sagas_end_right_after_all_streams_are_deleted() {
    let test = Arc::new(TestApp::with(&["--hold-seconds", "3", "--payment-grace-seconds", "3"]).await);
    let sale = tokio::spawn(on_sale(Arc::clone(&test), test.app.booking.clone(), 60));
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        for stream in [subjects::STEPS, subjects::SAGAS, subjects::TIMERS, subjects::EVENTS] {
            // It may be gone already.
            let _deleted = test.app.bus.jetstream.delete_stream(stream).await;
        }
    }
    sale.await.unwrap();
    ends_right(&test).await;
    let next = test.user(0).await;
    let free = sqlx::query_scalar::<_, i32>("select number from seats where status = 'free' limit 1");
    let free = free.fetch_one(&test.app.pool).await.unwrap();
    test.until(15, "the sale to go on", || async {
        decided(&test.app.booking.reserve(test.order(next, &[free])).await).is_some()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_with_clocks_apart_serve_one_sale() {
    let flags = ["--hold-seconds", "3", "--payment-grace-seconds", "3"];
    let test = Arc::new(TestApp::with(&flags).await);
    let ahead = test.another(&[&flags[..], &["--clock-skew-ms", "5000"]].concat()).await;
    let (one, other) = (
        on_sale(Arc::clone(&test), test.app.booking.clone(), 40),
        on_sale(Arc::clone(&test), ahead.booking.clone(), 40),
    );
    tokio::join!(one, other);
    let apart = (test.app.clock.now() - ahead.clock.now()).abs();
    assert!(
        apart < chrono::TimeDelta::milliseconds(250),
        "the clocks follow the database's, but are {apart} apart"
    );
    ends_right(&test).await;
    ahead.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broker_timer_ends_a_hold_without_sweeper() {
    let test = TestApp::roles(&["--hold-seconds", "1"], &[Role::Api, Role::Orchestrator, Role::Worker]).await;
    let user = test.user(0).await;
    let held = test.reserve(user, &[1]).await;
    test.until(4, "the hold to expire", || async {
        test.find(held.id).await.status == ReservationStatus::Expired
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sweeper_ends_a_hold_without_its_timer() {
    let test = TestApp::roles(&["--hold-seconds", "1"], &[Role::Api, Role::Worker, Role::Scheduler]).await;
    let user = test.user(0).await;
    let held = test.reserve(user, &[1]).await;
    test.app.bus.jetstream.delete_stream(subjects::TIMERS).await.unwrap();
    test.until(6, "the hold to expire", || async {
        test.find(held.id).await.status == ReservationStatus::Expired
    })
    .await;
}

/// One cannot be read, one stands at a step that its definition does not have, one cannot be written.
#[tokio::test(flavor = "multi_thread")]
async fn unmovable_sagas_do_not_hold_up_others() {
    let test = TestApp::roles(&["--hold-seconds", "2"], &[Role::Api, Role::Worker, Role::Scheduler]).await;
    let user = test.user(0).await;
    let mut held = Vec::new();
    for seat in 1..=4 {
        held.push(test.reserve(user, &[seat]).await.id);
    }
    let [unreadable, misplaced, unwritable, well] = held[..] else { panic!("four are held") };
    let run = async |sql: &str| sqlx::raw_sql(AssertSqlSafe(sql)).execute(&test.app.pool).await.unwrap();
    let booking = "(select code from workflow_definitions where workflow = 'booking' and version = 1)";
    let long_due = "due_at = clock_timestamp() - interval '1 hour'";
    run(&format!(
        "create function refuse() returns trigger language plpgsql
             as 'begin raise check_violation using message = ''refused on purpose''; end';
         create trigger refused before update of status on sagas for each row
             when (old.id = '{unwritable}') execute function refuse();
         update sagas set definition = -1, {long_due} where id = '{unreadable}';
         update sagas set step = 9, {long_due} where id = '{misplaced}';
         update sagas set {long_due} where id = '{unwritable}';"
    ))
    .await;
    let status = async |id| test.find(id).await.status;
    test.until(8, "the other hold to expire", || async { status(well).await == ReservationStatus::Expired })
        .await;
    let put_off: i64 =
        sqlx::query_scalar("select count(*) from sagas where due_at > clock_timestamp() and id = any($1)")
            .bind(&held[..3])
            .fetch_one(&test.app.pool)
            .await
            .unwrap();
    assert_eq!(put_off, 3, "they do not stand before the others");
    run(&format!(
        "drop trigger refused on sagas;
         update sagas set definition = {booking}, {long_due} where id = '{unreadable}';
         update sagas set step = 1, {long_due} where id = '{misplaced}';
         update sagas set {long_due} where id = '{unwritable}';"
    ))
    .await;
    for id in [unreadable, misplaced, unwritable] {
        test.until(8, "it to expire", || async { status(id).await == ReservationStatus::Expired }).await;
    }
}

/// Committed, but never published: the process stopped in between. The next start's sweeper brings it on.
#[tokio::test(flavor = "multi_thread")]
async fn unpublished_commits_resume_after_a_start() {
    let test = TestApp::roles(&["--settle-ms", "1"], &[Role::Api]).await;
    let user = test.user(0).await;
    let order = test.order(user, &[1]);
    let id = order.id;
    drop(test.app.booking.reserve(order).await.unwrap());
    let mut steps = test.app.bus.jetstream.get_stream(subjects::STEPS).await.unwrap();
    test.until(5, "the command to be out", || async {
        let mut steps = steps.clone();
        steps.info().await.unwrap().state.messages == 1
    })
    .await;
    steps.purge().await.unwrap();
    assert_eq!(steps.info().await.unwrap().state.messages, 0);
    let next: App = start(&test.env, &[], &[Role::Worker, Role::Scheduler]).await;
    test.until(12, "the seat to be held", || async { test.find(id).await.status == ReservationStatus::Held })
        .await;
    next.stop().await;
}

/// A hold that fell due while every process was down is over as soon as one is up.
#[tokio::test(flavor = "multi_thread")]
async fn overdue_hold_ends_when_the_service_starts() {
    let mut test = TestApp::with(&["--hold-seconds", "2"]).await;
    let user = test.user(0).await;
    let held = test.reserve(user, &[1]).await;
    let (env, app) = (&test.env, test.app);
    app.stop().await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    test.app = start(env, &[], &Role::ALL).await;
    test.until(5, "the hold to expire", || async {
        test.find(held.id).await.status == ReservationStatus::Expired
    })
    .await;
    assert_eq!(test.reserve(user, &[1]).await.status, ReservationStatus::Held);
    test.check_books().await;
}

/// Each role alone in its process, two workers among them: nothing is tied to one of them.
#[tokio::test(flavor = "multi_thread")]
async fn separate_role_processes_serve_one_sale() {
    let flags = ["--hold-seconds", "2", "--payment-grace-seconds", "2"];
    let test = Arc::new(TestApp::roles(&flags, &[Role::Api]).await);
    let mut others = Vec::new();
    for role in [Role::Worker, Role::Worker, Role::Orchestrator, Role::Scheduler] {
        others.push(start(&test.env, &flags, &[role]).await);
    }
    on_sale(Arc::clone(&test), test.app.booking.clone(), 40).await;
    ends_right(&test).await;
    for other in others {
        other.stop().await;
    }
}
