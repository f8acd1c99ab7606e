//! Settings apply at runtime on every instance: rate and cap, and what operators see and do.

use std::time::Duration;

use boxoffice::ids;
use boxoffice::store::queue::SettingsChange;
use boxoffice::waiting_room::{Phase, RoomError, Status};
use chrono::{TimeDelta, Utc};
use tokio::time::Instant;

use super::surroundings::{Instance, LONG, TESTER, Witness, concert, env, until, within};

const NOTHING: SettingsChange = SettingsChange {
    max_active: None,
    admit_per_minute: None,
    min_rate: None,
    max_rate: None,
    pre_queue_at: None,
    opens_at: None,
    paused: None,
};

#[tokio::test]
async fn settings_are_in_force_everywhere_within_a_second() {
    let env = env().await;
    let concert = concert(&env.pool, 0, 6_000).await;
    let leader = Instance::start(&env.nats_url, &env.pool, LONG, true).await;
    let other = Instance::start(&env.nats_url, &env.pool, LONG, false).await;
    let places = leader.join_many(concert, 4).await;
    let second = Duration::from_secs(1);

    other.change(concert, SettingsChange { max_active: Some(2), ..NOTHING }).await;
    within(second, "two are admitted", || leader.status(&places[1]) == Status::Active).await;
    other.change(concert, SettingsChange { max_active: Some(1), ..NOTHING }).await;
    until("the cap is known", || leader.room.overview()[0].settings.max_active == 1).await;
    assert!(places[..2].iter().all(|claims| leader.status(claims) == Status::Active), "no user is evicted");

    // Like another program would: without a notification.
    sqlx::query("update queue_settings set max_active = 3").execute(&env.pool).await.unwrap();
    within(2 * second, "a third is admitted", || leader.status(&places[2]) == Status::Active).await;
    until("the fourth is next", || other.position(&places[3]) == Some(1)).await;
}

#[tokio::test]
async fn paused_and_unopened_lines_admit_no_user() {
    let env = env().await;
    let concert = concert(&env.pool, 10, 6_000).await;
    let leader = Instance::start(&env.nats_url, &env.pool, LONG, true).await;
    leader.change(concert, SettingsChange { paused: Some(true), ..NOTHING }).await;
    let claims = leader.join_many(concert, 1).await.remove(0);
    let phase = || leader.room.look(&claims).phase;
    assert_eq!(phase(), Phase::Paused);

    let opens_at = Utc::now() + TimeDelta::milliseconds(1_500);
    let change = SettingsChange { paused: Some(false), opens_at: Some(Some(opens_at)), ..NOTHING };
    leader.change(concert, change).await;
    assert_eq!(phase(), Phase::NotOpen);
    let early = SettingsChange { pre_queue_at: Some(Some(Utc::now())), ..NOTHING };
    leader.change(concert, early).await;
    assert_eq!(phase(), Phase::PreQueue);
    until("it opens", || phase() == Phase::Open).await;
    assert!(Utc::now() >= opens_at);
    let late =
        within(Duration::from_millis(1_200), "the line moves", || leader.status(&claims) == Status::Active);
    late.await;
    assert!(leader.room.look(&claims).activated_at.unwrap() >= opens_at);
}

#[tokio::test]
async fn admission_rate_allows_one_second_of_burst() {
    let env = env().await;
    // Five per second.
    let concert = concert(&env.pool, 0, 300).await;
    let leader = Instance::start(&env.nats_url, &env.pool, LONG, true).await;
    let places = leader.join_many(concert, 30).await;
    let witness = Witness::start(&env.bus).await;
    let admitted = || witness.ask(|seen| seen.admitted.len());

    let start = Instant::now();
    leader.change(concert, SettingsChange { max_active: Some(100), ..NOTHING }).await;
    until("the first second's worth is in", || admitted() >= 5).await;
    assert!(start.elapsed() < Duration::from_millis(1_900), "the bucket is full at the start");
    until("fifteen are in", || admitted() >= 15).await;
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(1_950), "fifteen after {took:?}: faster than the rate");
    assert!(took < Duration::from_secs(6), "fifteen after {took:?}: slower than the rate");
    assert!(leader.room.look(&places[29]).eta_known);
}

#[tokio::test]
async fn operator_admits_above_the_rate_within_the_cap() {
    let env = env().await;
    let concert = concert(&env.pool, 3, 0).await;
    let leader = Instance::start(&env.nats_url, &env.pool, LONG, true).await;
    let other = Instance::start(&env.nats_url, &env.pool, LONG, false).await;
    let places = leader.join_many(concert, 5).await;
    until("the lease is taken", || leader.room.overview()[0].length == 5).await;

    let mut admitted = Err(RoomError::Unavailable);
    for _ in 0..20 {
        // No instance answers before one leads.
        admitted = other.room.admit(concert, 2, TESTER).await;
        if admitted.is_ok() {
            break;
        }
    }
    assert_eq!(admitted, Ok(2));
    assert_eq!(other.room.admit(concert, 10, TESTER).await, Ok(1));
    other.until_active(&places[2]).await;
    until("the fourth is next", || other.position(&places[3]) == Some(1)).await;
    assert_eq!(other.room.admit(ids::new(), 1, TESTER).await, Err(RoomError::NotFound));

    let seen = other.room.overview_of(concert).await.unwrap();
    assert_eq!((seen.length, seen.active, seen.admitted_last_minute), (2, 3, 3));
    assert_eq!(seen.oldest_waiter_since, Some(places[3].issued_at));
}
