//! Every way of concurrency control that is measured, under contention, against real servers: no seat is sold twice,
//! no charge and no use is lost, no balance goes below zero. And the check finds each of these errors.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use boxoffice::ids;
use boxoffice_bench::contention::{
    Acknowledged, Arena, CONNECTIONS, Cell, Contention, LIFE, Span, Way, measure,
};
use boxoffice_bench::store::rivals::{self, Deed, Request};
use chrono::Utc;
use futures::future::join_all;
use tokio::time::{Instant, sleep};

use crate::common::Env;

/// Who wants the one seat. A lock in NATS is asked for again and again by all who wait: a thousand of them keep the machine
/// busy for most of a minute.
fn buyers(way: Way) -> usize {
    if way == Way::KvLock { 200 } else { 1_000 }
}

async fn arena() -> (Env, Arc<Arena>) {
    let env = Env::start().await;
    let arena = Arena::open(&env.pool, &env.database_url, &env.bus, CONNECTIONS).await.unwrap();
    (env, Arc::new(arena))
}

fn request(deed: Deed, amount: i64) -> Request {
    Request { id: ids::new(), deed, place: 1, amount, at: Utc::now() }
}

/// Asks for all of it at once; what was granted, and how many that were.
async fn all_at_once(arena: &Arena, way: Way, requests: &[Request]) -> (Acknowledged, usize) {
    let answers = join_all(requests.iter().map(|request| arena.ask(way, request))).await;
    let (mut acknowledged, mut granted) = (Acknowledged::default(), 0);
    for (request, answer) in requests.iter().zip(answers) {
        if answer.unwrap() {
            acknowledged.granted(request);
            granted += 1;
        }
    }
    (acknowledged, granted)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_sells_a_hot_seat_once() {
    let (_env, arena) = arena().await;
    for way in Way::ALL {
        arena.reset(Deed::Hold).await.unwrap();
        let requests: Vec<Request> = (0..buyers(way)).map(|_| request(Deed::Hold, 1)).collect();
        let (acknowledged, granted) = all_at_once(&arena, way, &requests).await;
        assert_eq!(granted, 1, "{way:?}");
        assert_eq!(acknowledged.check(&arena, Deed::Hold).await.unwrap(), 0, "{way:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_charges_and_uses_add_up() {
    let (_env, arena) = arena().await;
    for way in Way::ALL {
        arena.reset(Deed::Use).await.unwrap();
        // The 1,000 points that are there pay for ten uses, the forty charges for twenty more, wherever they come in between.
        let (uses, charges) = ((0..60).map(|_| (Deed::Use, 100)), (0..40).map(|_| (Deed::Charge, 50)));
        let requests: Vec<Request> =
            uses.chain(charges).map(|(deed, amount)| request(deed, amount)).collect();
        let (acknowledged, granted) = all_at_once(&arena, way, &requests).await;
        assert!((50..=70).contains(&granted), "{way:?}: {granted}");
        assert_eq!(acknowledged.check(&arena, Deed::Use).await.unwrap(), 0, "{way:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_is_correct_under_contention() {
    let (_env, arena) = arena().await;
    let mut granted: BTreeMap<&str, u64> = BTreeMap::new();
    for cell in Cell::all(32, 1).into_iter().filter(|cell| cell.contention == Contention::Extreme) {
        let measured = measure(&arena, cell, Span::of(Duration::from_millis(250))).await.unwrap();
        assert_eq!(measured.errors(), 0, "{measured:?}");
        *granted.entry(cell.way.name()).or_default() += measured.granted;
    }
    assert!(granted.len() == Way::ALL.len() && granted.values().all(|count| *count > 0), "{granted:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn uncontrolled_writes_are_found_by_the_check() {
    let (_env, arena) = arena().await;
    for (deed, amount) in [(Deed::Hold, 1), (Deed::Charge, 100), (Deed::Use, 100)] {
        arena.reset(deed).await.unwrap();
        let (one, other) = (request(deed, amount), request(deed, amount));
        let mut conn = arena.pool().acquire().await.unwrap();
        let read = rivals::read(&mut conn, &one, false).await.unwrap();
        let left = if deed == Deed::Charge { read.stock + amount } else { read.stock - amount };
        let mut acknowledged = Acknowledged::default();
        for request in [&one, &other] {
            assert!(rivals::write(&mut conn, request, left, None).await.unwrap());
            acknowledged.granted(request);
        }
        assert_ne!(acknowledged.check(&arena, deed).await.unwrap(), 0, "{deed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn former_lock_holder_cannot_write() {
    let (_env, arena) = arena().await;
    arena.reset(Deed::Use).await.unwrap();
    let (locks, mut conn) = (arena.locks(), arena.pool().acquire().await.unwrap());
    // The second time there is the trace of a deletion, and the lock has to end by itself all the same.
    locks.give_back(locks.take(1).await.unwrap()).await;
    let asleep = locks.take(1).await.unwrap();
    assert_eq!(locks.try_to_take(1).await.unwrap(), None, "a lock has one holder");
    let (late, early) = (request(Deed::Use, 100), request(Deed::Use, 100));
    let read = rivals::read(&mut conn, &late, false).await.unwrap();
    let (begun, mut next) = (Instant::now(), None);
    while next.is_none() && begun.elapsed() < 5 * LIFE {
        sleep(Duration::from_millis(50)).await;
        next = locks.try_to_take(1).await.unwrap();
    }
    let next = next.expect("a lock that is not given back ends by itself");
    assert!(next.revision > asleep.revision);
    assert_eq!(arena.fenced(&early, next.revision).await.unwrap(), Some(true));

    let versions = Some((read.version, i64::try_from(asleep.revision).unwrap()));
    let written = rivals::write(&mut conn, &late, read.stock - 100, versions).await.unwrap();
    assert!(!written, "what was read under a lost lock is not written");
    assert_eq!(arena.fenced(&late, asleep.revision).await.unwrap(), None, "nor what is read after it");
    let mut acknowledged = Acknowledged::default();
    acknowledged.granted(&early);
    assert_eq!(acknowledged.check(&arena, Deed::Use).await.unwrap(), 0);
}
