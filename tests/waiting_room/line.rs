//! Joins: one place per user, in order of arrival, whatever happens to the servers.

use std::time::Duration;

use boxoffice::ids;
use boxoffice::store::queue::SettingsChange;
use boxoffice::waiting_room::{Phase, RoomError, Status};
use chrono::TimeDelta;
use futures::StreamExt;

use super::journal::lines;
use super::leaders::Line;
use super::surroundings::{
    Instance, LONG, Witness, concert, empty_concert, env, join_at_once, kill_nats, performance, until, within,
};

#[tokio::test]
async fn joins_at_two_instances_are_admitted_in_order() {
    let env = env().await;
    let concert = concert(&env.pool, 0, 6_000_000).await;
    let first = Instance::start(&env.nats_url, &env.pool, LONG, true).await;
    let second = Instance::start(&env.nats_url, &env.pool, LONG, false).await;
    let witness = Witness::start(&env.bus).await;
    let users: Vec<_> = (0..200).map(|_| ids::new()).collect();

    let joined = join_at_once(&[&first, &second], &users, concert).await;
    let mut places: Vec<_> = Vec::new();
    for pair in joined.chunks(2) {
        let [one, other] = [&pair[0], &pair[1]];
        assert_ne!(one.created, other.created, "one of the two has made the place");
        assert_eq!(one.token.token, other.token.token);
        places.push(first.claims(&one.token));
    }
    places.sort_by_key(|claims| claims.place);
    for instance in [&first, &second] {
        until("all are in line", || instance.position(&places[199]) == Some(200)).await;
        for (index, claims) in places.iter().enumerate() {
            assert_eq!(instance.position(claims), Some(index as u64 + 1));
        }
    }

    let change = SettingsChange { max_active: Some(50), ..SettingsChange::default() };
    second.change(concert, change).await;
    second.until_active(&places[49]).await;
    assert!(places[..50].iter().all(|claims| second.status(claims) == Status::Active));
    assert_eq!(second.position(&places[50]), Some(1));
    until("the witness has seen it", || witness.ask(|seen| seen.admitted.len()) == 50).await;
    let admitted = witness.ask(|seen| seen.admitted.clone());
    assert_eq!(admitted, places[..50].iter().map(|claims| claims.place).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_quiet_concert_has_no_wait() {
    let env = env().await;
    let instance = Instance::start(&env.nats_url, &env.pool, LONG, true).await;
    // The first admission waits until the lease is taken.
    let concert = concert(&env.pool, 10, 6_000).await;
    let first = instance.join(ids::new(), concert).await;
    instance.until_active(&instance.claims(&first.token)).await;

    // On a busy machine only some of the tries are fast enough.
    let mut joined = Vec::new();
    for _ in 0..5 {
        joined.push(instance.join(ids::new(), concert).await.token);
    }
    let at_once = joined.iter().find(|token| token.status == Status::Active);
    let token = at_once.expect("an answer that says active");
    assert!(token.activated_at.is_some() && token.expires_in_seconds.unwrap() > 50);
    assert_eq!(token.position, None);
}

#[tokio::test]
async fn rejoining_user_stands_at_the_end() {
    let env = env().await;
    let concert = concert(&env.pool, 0, 6_000).await;
    let instance = Instance::start(&env.nats_url, &env.pool, LONG, true).await;
    let other = Instance::start(&env.nats_url, &env.pool, LONG, false).await;
    let places = instance.join_many(concert, 3).await;

    instance.room.end(&places[0]).await;
    assert_eq!(instance.status(&places[0]), Status::Expired);
    assert_eq!(instance.position(&places[1]), Some(1));
    let again = other.join(places[0].user, concert).await;
    assert!(again.created);
    assert_eq!((again.token.status, again.token.position), (Status::Waiting, Some(3)));
    let claims = other.claims(&again.token);
    assert!(claims.place > places[2].place);
    assert_eq!(other.status(&places[0]), Status::Expired, "the old token stays dead");

    let change = SettingsChange { max_active: Some(3), ..SettingsChange::default() };
    instance.change(concert, change).await;
    for claims in [&places[1], &places[2], &claims] {
        other.until_active(claims).await;
    }
}

#[tokio::test]
async fn nats_killed_and_started_again_keeps_the_order() {
    let env = env().await;
    let concert = concert(&env.pool, 0, 6_000_000).await;
    let instance = Instance::start(&env.nats_url, &env.pool, LONG, true).await;
    let places = instance.join_many(concert, 30).await;

    kill_nats(&env);
    until("the loss is noticed", || !instance.room.is_connected()).await;
    assert_eq!(instance.try_join(ids::new(), concert).await, Err(RoomError::Unavailable));
    assert_eq!(instance.position(&places[29]), Some(30), "the position comes from memory");
    let env = env.restart_nats().await;

    until("the connection is back", || instance.room.is_connected()).await;
    let fresh = Instance::start(&env.nats_url, &env.pool, LONG, false).await;
    for (index, claims) in places.iter().enumerate() {
        assert_eq!(fresh.position(claims), Some(index as u64 + 1));
        assert_eq!(instance.position(claims), Some(index as u64 + 1));
    }
    let last = fresh.join(ids::new(), concert).await.token;
    assert_eq!(last.position, Some(31));

    let change = SettingsChange { max_active: Some(10), ..SettingsChange::default() };
    instance.change(concert, change).await;
    fresh.until_active(&places[9]).await;
    assert_eq!(fresh.position(&places[10]), Some(1));
}

#[tokio::test]
async fn changes_are_applied_during_a_bucket_check() {
    let env = env().await;
    let concert = concert(&env.pool, 0, 6_000).await;
    let line = Line::to(&env.nats_url).await;
    let unheard = Instance::start(&line.url, &env.pool, LONG, false).await;
    let other = Instance::start(&env.nats_url, &env.pool, LONG, false).await;
    other.join_many(concert, 1).await;
    until("it is known", || lines(&unheard) == (1, 0)).await;
    // Polls twice a second do not reach the server.
    line.hold();
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    other.join_many(concert, 1).await;
    within(Duration::from_secs(1), "the next is known", || lines(&unheard) == (2, 0)).await;
    line.release();
}

#[tokio::test]
async fn joins_of_ended_or_unknown_sales_fail() {
    let env = env().await;
    let instance = Instance::start(&env.nats_url, &env.pool, LONG, true).await;
    let join = |concert| instance.try_join(ids::new(), concert);

    assert_eq!(join(ids::new()).await, Err(RoomError::NotFound));
    let without_dates = empty_concert(&env.pool, 5, 600).await;
    assert_eq!(join(without_dates).await, Err(RoomError::QueueClosed));
    let over = empty_concert(&env.pool, 5, 600).await;
    performance(&env.pool, over, TimeDelta::seconds(-1)).await;
    assert_eq!(join(over).await, Err(RoomError::QueueClosed));

    let sold_out = concert(&env.pool, 5, 600).await;
    let early = instance.join(ids::new(), sold_out).await.token;
    sqlx::query("update seats set status = 'sold', holder = performance_id")
        .execute(&env.pool)
        .await
        .unwrap();
    until("the sale is known to be over", || {
        instance.room.look(&instance.claims(&early)).phase == Phase::SoldOut
    })
    .await;
    assert_eq!(join(sold_out).await, Err(RoomError::SoldOut));
    let again = instance.join(early.user_id, sold_out).await;
    assert!(!again.created, "a user who joined before gets the same place");
}

#[tokio::test]
async fn stream_shows_the_place_until_its_end() {
    let env = env().await;
    let concert = concert(&env.pool, 0, 6_000).await;
    let instance = Instance::start(&env.nats_url, &env.pool, LONG, true).await;
    let claims = instance.join_many(concert, 1).await.remove(0);
    let mut changes = Box::pin(instance.room.changes(claims.clone()));

    let first = changes.next().await.unwrap();
    assert_eq!((first.status, first.position), (Status::Waiting, Some(1)));
    let change = SettingsChange { max_active: Some(1), ..SettingsChange::default() };
    instance.change(concert, change).await;
    let mut second = changes.next().await.unwrap();
    while second.status == Status::Waiting {
        // The estimate may have changed before the status.
        second = changes.next().await.unwrap();
    }
    assert_eq!(second.status, Status::Active);
    assert_ne!(second.token, first.token, "the token is issued anew on admission");
    instance.room.end(&instance.claims(&second)).await;
    let last = changes.next().await.unwrap();
    assert_eq!((last.status, last.expires_in_seconds), (Status::Expired, Some(0)));
    assert_eq!(changes.next().await, None);
}
