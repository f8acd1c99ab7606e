//! Openings: users who joined before are ordered by a lottery that is the same everywhere and can be verified. Later
//! users are served in order.

use std::time::Duration;

use boxoffice::ids;
use boxoffice::store::queue::SettingsChange;
use boxoffice::waiting_room::{Claims, Draw, Phase, Status};
use chrono::{DateTime, TimeDelta, Utc};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::surroundings::{
    Instance, LONG, Witness, concert, empty_concert, env, join_at_once, performance_from, until, within,
};

fn opening(at: DateTime<Utc>) -> SettingsChange {
    SettingsChange { opens_at: Some(Some(at)), ..SettingsChange::default() }
}

async fn draw(instance: &Instance, concert: Uuid) -> Draw {
    instance.room.sale(concert).await.unwrap().draw.expect("an opening is known")
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// The order that follows from the published seed.
fn number(seed: &[u8], user: Uuid) -> Vec<u8> {
    Hmac::<Sha256>::new_from_slice(seed)
        .unwrap()
        .chain_update(user.as_bytes())
        .finalize()
        .into_bytes()
        .to_vec()
}

#[tokio::test]
async fn every_instance_draws_the_same_order() {
    let env = env().await;
    let concert = concert(&env.pool, 0, 6_000_000).await;
    let first = Instance::start(&env.nats_url, &env.pool, LONG, true).await;
    let second = Instance::start(&env.nats_url, &env.pool, LONG, false).await;
    first.change(concert, opening(Utc::now() + TimeDelta::hours(1))).await;
    let promised = draw(&second, concert).await;
    assert_eq!(promised.seed, None);
    let witness = Witness::start(&env.bus).await;
    let users: Vec<_> = (0..200).map(|_| ids::new()).collect();
    let mut early: Vec<Claims> = Vec::new();
    for half in users.chunks(100) {
        let joined = join_at_once(&[&first, &second], half, concert).await;
        early.extend(joined.chunks(2).map(|pair| first.claims(&pair[0].token)));
    }
    let place = second.room.look(&early[0]);
    assert_eq!(
        (place.phase, place.position, place.ahead, place.eta_seconds),
        (Phase::NotOpen, None, None, None)
    );
    assert!(place.opens_in_seconds > Some(3_500), "{place:?}");

    let opens_at = Utc::now() + TimeDelta::milliseconds(2_500);
    second.change(concert, opening(opens_at)).await;
    assert_eq!(draw(&second, concert).await, promised, "late users do not change the draw");
    until("the sale is open", || first.position(&early[0]).is_some()).await;
    assert!(Utc::now() >= opens_at);
    let late = second.join_many(concert, 5).await;

    let drawn = draw(&second, concert).await;
    let seed = bytes(drawn.seed.as_deref().expect("it is public now"));
    assert_eq!(Sha256::digest(&seed).to_vec(), bytes(&promised.seed_hash));
    early.sort_by_key(|claims| number(&seed, claims.user));
    let order: Vec<_> = early.into_iter().chain(late).collect();
    assert!(!order.is_sorted_by_key(|claims| claims.place));
    // This instance started after the opening.
    let third = Instance::start(&env.nats_url, &env.pool, LONG, false).await;
    for instance in [&first, &second, &third] {
        until("all are drawn", || instance.position(&order[204]) == Some(205)).await;
        for (index, claims) in order.iter().enumerate() {
            assert_eq!(instance.position(claims), Some(index as u64 + 1));
        }
    }
    let change = SettingsChange { max_active: Some(203), ..SettingsChange::default() };
    second.change(concert, change).await;
    until("203 are in", || witness.ask(|seen| seen.admitted.len()) == 203).await;
    let admitted = witness.ask(|seen| seen.admitted.clone());
    assert_eq!(admitted, order[..203].iter().map(|claims| claims.place).collect::<Vec<_>>());
    until("the rest moves up", || third.position(&order[204]) == Some(2)).await;
}

#[tokio::test]
async fn reopened_sale_draws_with_another_seed() {
    let env = env().await;
    let concert = concert(&env.pool, 0, 6_000).await;
    let instance = Instance::start(&env.nats_url, &env.pool, LONG, true).await;
    let places = instance.join_many(concert, 3).await;
    assert_eq!(instance.position(&places[2]), Some(3), "open since its date's window is");
    let before = draw(&instance, concert).await;
    assert!(before.seed.is_some());

    let opens_at = Utc::now() + TimeDelta::milliseconds(1_500);
    instance.change(concert, opening(opens_at)).await;
    let place = instance.room.look(&places[0]);
    assert_eq!((place.phase, place.position), (Phase::NotOpen, None));
    let after = draw(&instance, concert).await;
    assert!(after.seed_hash != before.seed_hash && after.seed.is_none());
    until("it is open again", || instance.position(&places[0]).is_some()).await;
    let opened = draw(&instance, concert).await;
    assert_eq!(opened.seed_hash, after.seed_hash);
    let again = opening(Utc::now() + TimeDelta::hours(1));
    instance.change(concert, again).await;
    assert_ne!(draw(&instance, concert).await.seed_hash, opened.seed_hash, "that seed was public");
}

#[tokio::test]
async fn sale_opens_with_its_first_window_only() {
    let env = env().await;
    let concert = empty_concert(&env.pool, 1, 6_000).await;
    let instance = Instance::start(&env.nats_url, &env.pool, LONG, true).await;
    let now = Utc::now();
    let at = |seconds: i64| now + TimeDelta::milliseconds(seconds * 1_000);
    performance_from(&env.pool, concert, at(2), at(5)).await;
    performance_from(&env.pool, concert, at(4), at(3_600)).await;
    // A sale of its own.
    performance_from(&env.pool, concert, at(7_200), at(9_000)).await;

    let places = instance.join_many(concert, 2).await;
    let seen = instance.room.look(&places[0]);
    assert_eq!((seen.status, seen.phase), (Status::Waiting, Phase::NotOpen));
    let opens_at = seen.opens_at.unwrap();
    assert!((opens_at - at(2)).abs() < TimeDelta::milliseconds(1), "{opens_at}");
    let someone = || places.iter().any(|claims| instance.status(claims) == Status::Active);
    within(Duration::from_secs(4), "one of them is admitted", someone).await;
    assert!(Utc::now() >= opens_at);

    until("the first date is over", || Utc::now() > at(6)).await;
    until("that is known", || instance.room.look(&places[0]).opens_at.is_some()).await;
    let later = instance.room.overview_of(concert).await.unwrap();
    assert_eq!(later.opens_at, Some(opens_at), "the other date has opened meanwhile: it is one sale");
    assert_eq!(later.length, 1);
}
