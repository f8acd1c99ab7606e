//! Lines that end with their sale: sold out, open again after a cancellation, closed.

use std::time::Duration;

use boxoffice::ids;
use boxoffice::waiting_room::{Inventory, Phase, RoomError, Status};
use chrono::{TimeDelta, Utc};
use sqlx::PgPool;
use uuid::Uuid;

use super::surroundings::{Instance, LONG, concert, empty_concert, env, performance_from, until, within};

async fn sell(pool: &PgPool, from: i32) {
    let sell = "update seats set status = 'sold', holder = performance_id where number >= $1";
    sqlx::query(sell).bind(from).execute(pool).await.unwrap();
}

async fn give_back(pool: &PgPool) {
    sqlx::query("update seats set status = 'free', holder = null where number = 1")
        .execute(pool)
        .await
        .unwrap();
}

fn seen(instance: &Instance, concert: Uuid) -> (Phase, Inventory) {
    let lines = instance.room.overview();
    let line = lines.iter().find(|line| line.concert_id == concert).unwrap();
    (line.phase, line.inventory)
}

#[tokio::test]
async fn sold_out_line_reopens_with_a_seat() {
    let env = env().await;
    let concert = concert(&env.pool, 1, 6_000).await;
    let leader = Instance::start(&env.nats_url, &env.pool, LONG, true).await;
    let other = Instance::start(&env.nats_url, &env.pool, LONG, false).await;
    let places = other.join_many(concert, 400).await;
    other.until_active(&places[0]).await;
    let waits = || places[1..].iter().filter(|claims| other.status(claims) == Status::Waiting).count();

    sell(&env.pool, 5).await;
    until("few are left", || seen(&other, concert) == (Phase::Open, Inventory::Low)).await;
    sell(&env.pool, 1).await;
    let second = Duration::from_secs(2);
    within(second, "it is sold out", || seen(&other, concert) == (Phase::SoldOut, Inventory::SoldOut)).await;
    assert_eq!(
        (other.room.look(&places[399]).phase, waits()),
        (Phase::SoldOut, 399),
        "known before the place ends"
    );
    within(Duration::from_secs(10), "the line ends", || waits() == 0).await;
    let over = other.room.look(&places[1]);
    assert_eq!((over.status, over.phase, over.position), (Status::Expired, Phase::SoldOut, None));
    assert_eq!(other.status(&places[0]), Status::Active, "who is in keeps the session");
    assert_eq!(leader.try_join(ids::new(), concert).await, Err(RoomError::SoldOut));

    give_back(&env.pool).await;
    within(2 * second, "it is open again", || seen(&leader, concert) == (Phase::Open, Inventory::Low)).await;
    leader.room.end(&places[0]).await;
    let joined = leader.join(places[1].user, concert).await;
    assert!(joined.created);
    other.until_active(&other.claims(&joined.token)).await;
}

#[tokio::test]
async fn a_line_ends_with_the_last_window() {
    let env = env().await;
    let concert = empty_concert(&env.pool, 0, 600).await;
    let now = Utc::now();
    let window = (now - TimeDelta::hours(1), now + TimeDelta::seconds(3));
    performance_from(&env.pool, concert, window.0, window.1).await;
    let instance = Instance::start(&env.nats_url, &env.pool, LONG, true).await;
    let waiter = instance.join_many(concert, 1).await.remove(0);
    until("it is closed", || instance.room.look(&waiter).phase == Phase::Closed).await;
    assert!(Utc::now() >= window.1);
    until("the line ends", || instance.status(&waiter) == Status::Expired).await;
}
