//! The tests of the leader on three servers, where a write needs a majority, and only one per fence may be under way.

use std::time::Duration;

use boxoffice::bus::subjects;
use boxoffice::ids;
use boxoffice::waiting_room::Sessions;

use super::journal::{
    join_soon, let_in, lines, lose_the_bucket, until_journalled, until_restored, witness_of_the_new_bucket,
};
use super::leaders::refuses_old_leases;
use super::surroundings::{Instance, LONG, Witness, add_waiting_user, concert, join_at_once, until};
use crate::common::cluster::Cluster;
use crate::common::fresh_database;

#[tokio::test]
async fn cluster_refuses_writes_of_old_leases() {
    let cluster = Cluster::start().await;
    let bus = cluster.connect().await;
    let pool = boxoffice::store::open(&fresh_database().await, 10).unwrap();
    let concert = concert(&pool, 10, 6_000_000).await;
    let sessions = Sessions { claim: Duration::from_secs(1), ..LONG };
    let start = async |n: usize| {
        let url = &cluster.urls[n];
        Instance::with_replicas(url, &pool, sessions, true, 3).await
    };
    let first = start(0).await;
    add_waiting_user(&first, &pool).await;
    refuses_old_leases(&bus).await;

    let witness = Witness::start(&bus).await;
    until("the first leads", || witness.ask(|seen| seen.leaders.len()) == 1).await;
    let second = start(1).await;
    let users: Vec<_> = (0..40).map(|_| ids::new()).collect();
    let joined = join_at_once(&[&first, &second], &users, concert).await;
    let mut places: Vec<_> = joined.iter().map(|one| second.claims(&one.token).place).collect();
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), 40, "one place per user");

    drop(first);
    until("all users are admitted", || witness.ask(|seen| seen.admitted.len()) >= 40).await;
    assert_eq!(witness.ask(|seen| seen.admitted.clone()), places);
    let most = witness.ask(|seen| seen.most);
    assert!(most <= 10, "{most} were active at once, the cap is 10");
}

#[tokio::test]
async fn cluster_restores_a_lost_bucket_in_order() {
    let cluster = Cluster::start().await;
    let bus = cluster.connect().await;
    let pool = boxoffice::store::open(&fresh_database().await, 10).unwrap();
    let concert = concert(&pool, 10, 6_000_000).await;
    let leader = Instance::with_replicas(&cluster.urls[0], &pool, LONG, true, 3).await;
    let other = Instance::with_replicas(&cluster.urls[1], &pool, LONG, false, 3).await;
    let users: Vec<_> = (0..60).map(|_| ids::new()).collect();
    let joined = join_at_once(&[&other], &users, concert).await;
    let mut places: Vec<_> = joined.iter().map(|one| other.claims(&one.token)).collect();
    places.sort_unstable_by_key(|claims| claims.place);
    until("the first are admitted", || lines(&leader) == (50, 10)).await;
    until_journalled(&pool, 50, 10, 0).await;

    lose_the_bucket(&bus).await;
    let witness = witness_of_the_new_bucket(&bus);
    let (witness, newcomer) = tokio::join!(witness, join_soon(&other, concert, ids::new()));
    let newcomer = other.claims(&newcomer.token);
    assert!(newcomer.place > places[59].place, "behind all");
    until_restored(&bus).await;
    let stream = bus.jetstream.get_stream(subjects::QUEUE_TOKENS_STREAM).await.unwrap();
    assert_eq!(stream.cached_info().config.num_replicas, 3, "the new one has as many copies");
    for instance in [&leader, &other] {
        until("the line is as it was", || lines(instance) == (51, 10)).await;
        for (index, claims) in places[10..].iter().chain([&newcomer]).enumerate() {
            until("the ranks are known", || instance.position(claims) == Some(index as u64 + 1)).await;
        }
    }
    let_in(&other, concert, 15).await;
    until("five more are in", || witness.ask(|seen| seen.admitted.len()) >= 15).await;
    let admitted = witness.ask(|seen| seen.admitted.clone());
    assert_eq!(admitted, places[..15].iter().map(|claims| claims.place).collect::<Vec<_>>());
    assert_eq!(witness.ask(|seen| seen.most), 15, "the cap was never exceeded");
}
