//! The only worker is frozen for half a minute while bookings and payments continue. The backlog must not make a
//! healthy saga compensate.

use std::time::Duration;

use boxoffice::app::{App, Role};
use boxoffice::booking::Order;
use boxoffice::{ids, store};
use nix::sys::signal::Signal;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use uuid::Uuid;

use crate::common::Env;
use crate::common::app::{add_concert, add_performance, assert_good, start, until};
use crate::process::Process;

const BOOKING_INTERVAL: Duration = Duration::from_millis(100);
/// How long the worker runs before and after the freeze.
const RUN_BEFORE_FREEZE: Duration = Duration::from_secs(3);
/// Longer than the database allows an idle transaction, so that a transaction which was frozen is aborted.
const FREEZE: Duration = Duration::from_secs(31);
const RUN_AFTER_FREEZE: Duration = Duration::from_secs(2);
const PRICE: i64 = 100;

/// Books a seat for a new buyer at each interval until `end`, and pays for held seats.
async fn book_until(app: &App, concert_id: Uuid, performance_id: Uuid, end: Instant) -> i32 {
    let mut beat = interval(BOOKING_INTERVAL);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seat = 0;
    while Instant::now() < end {
        beat.tick().await;
        seat += 1;
        let user_id = ids::new();
        store::points::charge(&app.pool, ids::new(), user_id, PRICE).await.unwrap().unwrap();
        let order = Order {
            id: ids::new(),
            user_id,
            concert_id,
            performance_id,
            seats: vec![seat],
            best: None,
            block: None,
            access_code: None,
            pay_now: false,
            trace: None,
        };
        app.booking.reserve(order).await.unwrap();
        if seat % 5 == 0 {
            pay_what_is_held(app).await;
        }
    }
    seat
}

async fn pay_what_is_held(app: &App) {
    let held = sqlx::query_scalar::<_, Uuid>("select id from saga_view where status = 'waiting'");
    for id in held.fetch_all(&app.pool).await.unwrap() {
        app.booking.pay(id).await.unwrap();
    }
}

async fn count(app: &App, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(&app.pool).await.unwrap()
}

/// How many steps the worker has completed.
async fn done(app: &App) -> i64 {
    count(app, "select count(*) from history_view where event = 'done'").await
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_worker_costs_no_saga_its_seat() {
    let env = Env::start().await;
    // The buyers do not wait for replies.
    let app = start(&env, &["--settle-ms", "0"], &[Role::Orchestrator, Role::Scheduler]).await;
    let concert = add_concert(&app).await;
    let performance = add_performance(&app, concert, 1_000, PRICE).await;
    let worker = Process::start(&env, &[], "worker", &[]);
    let begin = Instant::now();
    let freeze = async {
        until(20, "the worker to work", || async { done(&app).await > 0 }).await;
        sleep_until(begin + RUN_BEFORE_FREEZE).await;
        worker.signal(Signal::SIGSTOP);
        let frozen = Instant::now();
        // The database may still commit what the worker had sent.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let before = done(&app).await;
        sleep_until(frozen + FREEZE).await;
        assert_eq!(done(&app).await, before, "another process did its work");
        worker.signal(Signal::SIGCONT);
    };
    let sale = book_until(&app, concert, performance, begin + RUN_BEFORE_FREEZE + FREEZE + RUN_AFTER_FREEZE);
    let ((), bookings) = tokio::join!(freeze, sale);
    until(60, "every saga to end", || async {
        pay_what_is_held(&app).await;
        store::sagas::count_open(&app.pool).await.unwrap().is_empty()
    })
    .await;
    assert!(bookings > 100, "there was no load: {bookings} bookings");
    let ended = sqlx::query_as::<_, (String, Option<String>, i64)>(
        "select status, reason, count(*) from reservations group by status, reason order by status, reason",
    );
    let ended = ended.fetch_all(&app.pool).await.unwrap();
    assert_eq!(ended, [("confirmed".to_owned(), None, i64::from(bookings))], "status, reason, bookings");
    let lost = "select count(*) from history_view where event in ('failed', 'deadline') or attempt > 0";
    assert_eq!(count(&app, lost).await, 0, "silence cost an attempt or a saga its deadline");
    assert_eq!(count(&app, "select sum(balance)::bigint from accounts").await, 0);
    assert_good(&app).await;
}
