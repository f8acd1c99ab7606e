//! An instance that starts while users join and are admitted shows no position before it is exact.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use boxoffice::ids;
use boxoffice::store::queue::SettingsChange;
use boxoffice::waiting_room::{Claims, Sessions, Status};
use uuid::Uuid;

use super::surroundings::{Instance, LONG, concert, env, join_at_once, until};

/// Longer than the test takes, so that no user becomes silent.
const PATIENT: Sessions = Sessions { silence: Duration::from_secs(600), ..LONG };
const PLACES: usize = 3_000;

/// Joins and leaves repeatedly until it is stopped.
async fn go_on(instance: Arc<Instance>, concert: Uuid, places: Vec<Claims>, stop: Arc<AtomicBool>) {
    for claims in places {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        instance.join(ids::new(), concert).await;
        instance.room.end(&claims).await;
    }
}

#[tokio::test]
async fn starting_instance_shows_no_position() {
    let env = env().await;
    let concert = concert(&env.pool, 0, 1_200).await;
    let old = Arc::new(Instance::start(&env.nats_url, &env.pool, PATIENT, true).await);
    let mut places = Vec::new();
    for _ in 0..PLACES / 250 {
        let users: Vec<_> = (0..250).map(|_| ids::new()).collect();
        let joined = join_at_once(&[&old], &users, concert).await;
        places.extend(joined.iter().map(|joined| old.claims(&joined.token)));
    }
    places.sort_by_key(|claims| claims.place);
    let sample: Vec<Claims> = places.iter().skip(PLACES / 2).step_by(PLACES / 40).cloned().collect();
    let change = SettingsChange { max_active: Some(100_000), ..SettingsChange::default() };
    old.change(concert, change).await;
    let stop = Arc::new(AtomicBool::new(false));
    let leaving = places[PLACES / 4..PLACES / 2].to_vec();
    let crowd = tokio::spawn(go_on(Arc::clone(&old), concert, leaving, Arc::clone(&stop)));

    let mut shown = 0;
    for _ in 0..2 {
        let new = Instance::begin(&env.nats_url, &env.pool, PATIENT, false).await;
        let mut looks_when_ready = 0;
        while looks_when_ready < 20 {
            for claims in &sample {
                let before = old.position(claims);
                let position = new.position(claims);
                let Some(position) = position else {
                    assert!(!new.room.look(claims).eta_known || new.room.ready());
                    continue;
                };
                assert!(new.room.ready(), "{position} is shown before the line is known");
                shown += 1;
                // The line moves. The new instance may be ahead or behind by the changes under way.
                let far = before.is_some_and(|before| position.abs_diff(before) > 500);
                assert!(!far, "place {} is {before:?} there and {position} here", claims.place);
            }
            looks_when_ready += u32::from(new.room.ready());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    assert!(shown > 0, "no position was ever shown");

    // Once the line stands still, both instances show the same.
    stop.store(true, Ordering::Relaxed);
    crowd.await.unwrap();
    old.change(concert, SettingsChange { paused: Some(true), ..SettingsChange::default() }).await;
    let new = Instance::start(&env.nats_url, &env.pool, PATIENT, false).await;
    let alike = |claims: &&Claims| old.position(claims) == new.position(claims);
    until("both show the same", || sample.iter().filter(|claims| !alike(claims)).count() == 0).await;
    let waiting = sample.iter().filter(|claims| old.status(claims) == Status::Waiting).count();
    assert!(waiting > 0, "all of the sample were admitted");
}
