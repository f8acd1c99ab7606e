//! A lost line is restored, and the process that restores it is killed while users join.

use std::sync::Arc;
use std::time::Duration;

use boxoffice::bus::{Bus, subjects};
use boxoffice::ids;
use boxoffice::waiting_room::Claims;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::journal::{
    crowd, join_soon, let_in, lines, lose_the_bucket, place_of, until_journalled, until_restored,
    witness_of_the_new_bucket,
};
use super::kills::process;
use super::surroundings::{Instance, LONG, concert, env, until};

const CAP: u64 = 100;
const WAITING: u64 = 4_000;

/// The number of messages in the bucket, if it exists.
async fn in_the_bucket(bus: &Bus) -> u64 {
    let stream = bus.jetstream.get_stream(subjects::QUEUE_TOKENS_STREAM).await;
    stream.map_or(0, |stream| stream.cached_info().state.messages)
}

async fn is_restored(bus: &Bus) -> bool {
    let store = bus.jetstream.get_key_value(subjects::QUEUE_TOKENS).await.unwrap();
    store.get(subjects::QUEUE_RESTORED).await.unwrap().is_some()
}

/// Users who join one after the other during the test.
fn newcomers(instance: &Arc<Instance>, concert: Uuid, count: usize) -> JoinHandle<Vec<Claims>> {
    let instance = Arc::clone(instance);
    tokio::spawn(async move {
        let mut places = Vec::new();
        for _ in 0..count {
            let joined = join_soon(&instance, concert, ids::new()).await;
            places.push(instance.claims(&joined.token));
        }
        places
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_restoration_is_finished_by_the_next_leader() {
    let env = env().await;
    let concert = concert(&env.pool, CAP as i32, 6_000_000).await;
    let leader = process(&env, "api,scheduler").await;
    let other = Arc::new(Instance::start(&env.nats_url, &env.pool, LONG, false).await);
    let users = crowd(&env.bus, concert, (WAITING + CAP) as usize).await;
    until("the first are admitted", || lines(&other) == (WAITING, CAP)).await;
    until_journalled(&env.pool, WAITING as i64, CAP as i64, 0).await;
    let mut known = Vec::new();
    for rank in [1, 2_500, WAITING] {
        known.push((rank, place_of(&other, users[(CAP + rank) as usize - 1], concert).await));
    }
    let active = place_of(&other, users[7], concert).await;

    lose_the_bucket(&env.bus).await;
    let joining = newcomers(&other, concert, 60);
    let witness = witness_of_the_new_bucket(&env.bus).await;
    while in_the_bucket(&env.bus).await < 800 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    leader.kill().await;
    let written = in_the_bucket(&env.bus).await;
    assert!(written < WAITING && !is_restored(&env.bus).await, "{written}: it was killed too late to matter");
    let next = Instance::start(&env.nats_url, &env.pool, LONG, true).await;
    until_restored(&env.bus).await;
    let mut newcomers = joining.await.unwrap();
    newcomers.sort_by_key(|claims| claims.place);

    for instance in [&next, &*other] {
        until("all users are there", || lines(instance) == (WAITING + 60, CAP)).await;
        instance.until_active(&active).await;
        let behind = newcomers.iter().zip(WAITING + 1..).map(|(claims, rank)| (rank, claims.clone()));
        for (rank, claims) in known.iter().cloned().chain(behind) {
            until("the ranks are known", || instance.position(&claims).is_some()).await;
            assert_eq!(instance.position(&claims), Some(rank));
        }
    }
    let_in(&next, concert, 130).await;
    until("thirty more are in", || witness.ask(|seen| seen.admitted.len()) >= 130).await;
    let admitted = witness.ask(|seen| seen.admitted.clone());
    assert!(admitted.is_sorted() && admitted[100] == known[0].1.place, "each user once, and in order");
    assert_eq!(witness.ask(|seen| seen.most), 130, "the cap was never exceeded");
}
