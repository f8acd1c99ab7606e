//! Silent users: they are skipped, keep the place for a while, wait again after a heartbeat, and lose it otherwise.

use std::sync::Arc;
use std::time::Duration;

use boxoffice::ids;
use boxoffice::store::queue::SettingsChange;
use boxoffice::waiting_room::{Claims, Sessions, Status};
use chrono::{TimeDelta, Utc};
use futures::StreamExt;
use tokio::time::Instant;

use super::leaders::Line;
use super::surroundings::{Instance, LONG, Witness, concert, env, until, within};

/// At the front the poll interval is 1.5 s, and three of them must not count as silence.
const QUIET: Sessions = Sessions { silence: Duration::from_secs(2), ..LONG };
const NOTHING: Duration = Duration::from_secs(5);

fn cap(max_active: i32) -> SettingsChange {
    SettingsChange { max_active: Some(max_active), ..SettingsChange::default() }
}

fn silent(instance: &Instance) -> u64 {
    instance.room.overview().iter().map(|line| line.silent).sum()
}

#[tokio::test]
async fn silent_user_is_skipped_and_keeps_the_rank() {
    let env = env().await;
    let concert = concert(&env.pool, 0, 6_000_000).await;
    let leader = Instance::start(&env.nats_url, &env.pool, QUIET, true).await;
    let other = Instance::start(&env.nats_url, &env.pool, QUIET, false).await;
    let witness = Witness::start(&env.bus).await;
    let places = other.join_many(concert, 4).await;
    // One polls, one has a stream, and two do neither. None of them uses the instance that leads.
    let (room, listener) = (Arc::clone(&other.room), places[3].clone());
    let listening = tokio::spawn(async move { room.changes(listener).for_each(async |_| ()).await });
    until("two are silent", || {
        let told = other.room.look(&places[1]);
        assert_eq!((told.position, told.grace_until), (Some(2), None), "who is silent keeps the rank");
        silent(&leader) == 2
    })
    .await;
    leader.change(concert, cap(1)).await;
    other.until_active(&places[1]).await;
    leader.change(concert, cap(2)).await;
    until("the listener is next", || witness.ask(|seen| seen.admitted.len()) == 2).await;
    let admitted = witness.ask(|seen| seen.admitted.clone());
    assert_eq!(admitted, [places[1].place, places[3].place]);
    until("the places are known to be silent", || silent(&other) == 2).await;

    let back = other.room.look(&places[2]);
    assert_eq!((back.status, back.position), (Status::Waiting, Some(2)));
    let grace =
        back.grace_until.expect("the answer has the time until which the place was kept") - Utc::now();
    assert!(grace > TimeDelta::seconds(120) && grace <= TimeDelta::seconds(180), "{grace}");
    until("it is in line again everywhere", || silent(&leader) == 1 && silent(&other) == 1).await;
    assert_eq!(other.room.look(&places[2]).grace_until, None);
    leader.change(concert, cap(3)).await;
    other.until_active(&places[2]).await;
    assert_eq!(other.position(&places[0]), Some(1), "and the first one is still the first");
    let seen = leader.room.overview_of(concert).await.unwrap();
    assert!(seen.silenced_last_minute >= 2, "{seen:?}");
    listening.abort();
}

#[tokio::test]
async fn place_ends_after_the_grace() {
    let env = env().await;
    let concert = concert(&env.pool, 0, 6_000).await;
    let sessions = Sessions { grace: Duration::from_secs(1), ..QUIET };
    let leader = Instance::start(&env.nats_url, &env.pool, sessions, true).await;
    let other = Instance::start(&env.nats_url, &env.pool, sessions, false).await;
    let places = other.join_many(concert, 2).await;
    until("the one who asks is the first", || other.position(&places[1]) == Some(1)).await;
    assert_eq!(leader.status(&places[0]), Status::Expired);
    assert_eq!(other.status(&places[0]), Status::Expired);
    let again = other.join(places[0].user, concert).await;
    assert_eq!((again.created, again.token.position), (true, Some(2)));
}

#[tokio::test]
async fn new_leader_waits_a_full_silence() {
    let env = env().await;
    let concert = concert(&env.pool, 0, 6_000).await;
    let api = Instance::start(&env.nats_url, &env.pool, QUIET, false).await;
    api.join_many(concert, 3).await;
    // No instance leads, and no heartbeat arrives for longer than the shortest silence.
    tokio::time::sleep(NOTHING + Duration::from_secs(2)).await;
    let start = Instant::now();
    let leader = Instance::start(&env.nats_url, &env.pool, QUIET, true).await;
    until("all are silent", || silent(&leader) == 3).await;
    assert!(start.elapsed() >= NOTHING, "after {:?}", start.elapsed());
}

#[tokio::test]
async fn unreported_heartbeat_ends_a_wrong_silence() {
    let env = env().await;
    let concert = concert(&env.pool, 0, 6_000).await;
    let line = Line::to(&env.nats_url).await;
    let leader = Instance::start(&env.nats_url, &env.pool, QUIET, true).await;
    let cut_off = Instance::start(&line.url, &env.pool, QUIET, false).await;
    let places = cut_off.join_many(concert, 3).await;
    let ask = |claims: &[Claims]| claims.iter().for_each(|claims| drop(cut_off.room.look(claims)));
    line.hold();
    until("the leader takes them for silent", || {
        ask(&places);
        silent(&leader) == 3
    })
    .await;
    line.release();
    within(Duration::from_secs(3), "they are in line again", || silent(&leader) == 0).await;
    assert_eq!(leader.position(&places[2]), Some(3));
}

#[tokio::test]
async fn shown_rank_never_gets_worse() {
    let env = env().await;
    let concert = concert(&env.pool, 0, 6_000_000).await;
    let sessions = Sessions { claim: Duration::from_secs(1), ..LONG };
    let first = Instance::start(&env.nats_url, &env.pool, sessions, true).await;
    let second = Instance::start(&env.nats_url, &env.pool, sessions, false).await;
    let both = [&first, &second];
    let mut places = Vec::new();
    let mut shown = vec![[u64::MAX; 2]; 60];
    for turn in 0..60 {
        let joined = both[turn % 2].join(ids::new(), concert).await;
        places.push(first.claims(&joined.token));
        // One of the instances may not have seen it yet.
        both[turn % 2].room.end(&places[turn / 3]).await;
        first.change(concert, cap(turn as i32 / 4)).await;
        for (claims, shown) in places.iter().zip(&mut shown) {
            for (instance, shown) in both.iter().zip(shown) {
                let Some(rank) = instance.position(claims) else { continue };
                assert!(rank <= *shown, "{shown} and then {rank}");
                *shown = rank;
            }
        }
    }
    until("both report the same", || {
        places.iter().all(|claims| first.position(claims) == second.position(claims))
    })
    .await;
}
