//! What goes on while a server stands still: JetStream takes nothing, and the rest of the service does not wait for it.

use std::time::{Duration, Instant};

use boxoffice::bus::messages;
use boxoffice::bus::publish::publish;
use boxoffice::saga::Status;
use boxoffice::store;
use boxoffice::store::reservations::ReservationStatus;
use uuid::Uuid;

use super::common::app::{TestApp, until};

/// Charges that wait to be announced: one after the other, each would hold up the sweeper for five seconds.
const CHARGES: i64 = 40;

async fn status(test: &TestApp, saga: Uuid) -> Status {
    store::sagas::get(&test.app.pool, saga).await.unwrap().expect("the saga is there").status
}

#[tokio::test]
async fn sweeper_runs_while_jetstream_is_frozen() {
    let test = TestApp::with(&["--hold-seconds", "8"]).await;
    let user = test.user(0).await;
    let held = test.reserve(user, &[1]).await;
    assert_eq!(held.status, ReservationStatus::Held);
    test.env.freeze_nats();
    for _ in 0..CHARGES {
        test.charge(user, 1).await;
    }
    until(30, "the hold's alarm", || async { status(&test, held.id).await != Status::Waiting }).await;
    test.env.thaw_nats();
    until(30, "the hold's end", || async { test.find(held.id).await.status == ReservationStatus::Expired })
        .await;
    until(60, "the charges to be announced", || async {
        !store::pulse::pulse(&test.app.pool).await.unwrap().charges
    })
    .await;
    test.check_books().await;
}

#[tokio::test]
async fn publish_ends_while_jetstream_is_frozen() {
    let test = TestApp::start().await;
    test.env.freeze_nats();
    let (begin, sagas) = (Instant::now(), vec![Uuid::from_u128(1); 1_000]);
    let alarm = |saga: &Uuid| messages::alarm_off(*saga);
    let error = publish(&test.env.bus, &sagas, alarm).await.unwrap_err().to_string();
    assert!(error.contains("1000 messages"), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(20), "it took {:?}", begin.elapsed());
    test.env.thaw_nats();
    publish(&test.env.bus, &sagas, alarm).await.unwrap();
}
