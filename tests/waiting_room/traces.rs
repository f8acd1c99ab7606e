//! Delete markers of ended places are removed from the bucket, a short while after their ends are in the journal.

use std::time::Duration;

use boxoffice::bus::subjects;
use boxoffice::ids;
use boxoffice::waiting_room::{Refused, Sessions, Status};
use chrono::{TimeDelta, Utc};
use tokio::time::Instant;

use super::surroundings::{Instance, LONG, concert, env, join_at_once, until};
use crate::common::Env;

const SHORT: Sessions = Sessions { session: Duration::from_secs(3), claim: Duration::from_secs(2), ..LONG };
/// The lease, and the marker of a restored bucket.
const OWN_KEYS: u64 = 2;

async fn keys(env: &Env) -> u64 {
    env.bus.jetstream.get_stream(subjects::QUEUE_TOKENS_STREAM).await.unwrap().cached_info().state.messages
}

async fn until_keys(env: &Env, most: u64) {
    let start = Instant::now();
    while keys(env).await > most {
        assert!(start.elapsed() < Duration::from_secs(60), "{} keys lie in the bucket", keys(env).await);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn ended_places_leave_no_keys_behind() {
    let env = env().await;
    let concert = concert(&env.pool, 1_000, 600_000).await;
    let here = Instance::start(&env.nats_url, &env.pool, SHORT, true).await;
    let there = Instance::start(&env.nats_url, &env.pool, SHORT, true).await;
    let users: Vec<_> = (0..400).map(|_| ids::new()).collect();
    let joined = join_at_once(&[&here], &users, concert).await;
    let places: Vec<_> = joined.iter().map(|joined| here.claims(&joined.token)).collect();
    assert!(keys(&env).await >= 400);
    // Some leave, some use their sessions, and some never book.
    futures::future::join_all(places[..150].iter().map(|claims| here.room.end(claims))).await;
    for claims in &places[150..300] {
        here.until_active(claims).await;
        let _ = there.room.pass(Some(&there.room.look(claims).token), claims.user, concert);
    }
    until_keys(&env, OWN_KEYS).await;
    assert!(places.iter().all(|claims| here.status(claims) == Status::Expired));
}

#[tokio::test]
async fn an_ended_session_stays_ended_without_its_trace() {
    let env = env().await;
    let concert = concert(&env.pool, 10, 6_000).await;
    let here = Instance::start(&env.nats_url, &env.pool, SHORT, true).await;
    let places = here.join_many(concert, 2).await;
    let mut tokens = Vec::new();
    for claims in &places {
        here.until_active(claims).await;
        here.room.pass(Some(&here.room.look(claims).token), claims.user, concert).unwrap();
        here.room.extend_to(claims.user, concert, Utc::now() + TimeDelta::minutes(10));
        let token = here.room.look(claims);
        assert!(token.expires_in_seconds.unwrap() > 500);
        tokens.push(token.token);
    }
    here.room.end(&places[0]).await;
    // The other session, the lease and the marker.
    until_keys(&env, OWN_KEYS + 1).await;

    // This instance has never seen the delete marker.
    let late = Instance::start(&env.nats_url, &env.pool, SHORT, false).await;
    assert_eq!(late.room.pass(Some(&tokens[0]), places[0].user, concert), Err(Refused::Expired));
    assert!(late.room.pass(Some(&tokens[1]), places[1].user, concert).is_ok());
    let again = late.join(places[0].user, concert).await;
    assert!(again.created);
    let claims = late.claims(&again.token);
    until("the new place is admitted", || late.status(&claims) == Status::Active).await;
}
