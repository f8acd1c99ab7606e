//! Sessions: who passes the gate, what extends a session, and what ends it.

use std::time::Duration;

use boxoffice::bus::events::{EventBatch, EventMessage, event_batches};
use boxoffice::bus::publish::publish;
use boxoffice::ids;
use boxoffice::waiting_room::{Claims, PassState, Refused, Sessions, Status};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

use super::surroundings::{Instance, LONG, concert, env, until, within};

const SHORT: Sessions = Sessions { session: Duration::from_secs(4), claim: Duration::from_secs(1), ..LONG };

fn token(instance: &Instance, claims: &Claims) -> String {
    instance.room.look(claims).token
}

#[tokio::test]
async fn gate_distinguishes_each_mistake() {
    let env = env().await;
    let (here, elsewhere) = (concert(&env.pool, 1, 6_000).await, concert(&env.pool, 1, 6_000).await);
    let instance = Instance::start(&env.nats_url, &env.pool, LONG, true).await;
    let [admitted, waiting] = [0, 1].map(|_| ids::new());
    let first = instance.claims(&instance.join(admitted, here).await.token);
    instance.until_active(&first).await;
    let second = instance.claims(&instance.join(waiting, here).await.token);
    let pass = |token: Option<&str>, user, concert| instance.room.pass(token, user, concert).err();

    let good = token(&instance, &first);
    assert_eq!(pass(Some(&good), admitted, here), None);
    assert_eq!(pass(None, admitted, here), Some(Refused::Required));
    assert_eq!(pass(Some("nonsense"), admitted, here), Some(Refused::Invalid));
    assert_eq!(pass(Some(&good), waiting, here), Some(Refused::WrongUser));
    assert_eq!(pass(Some(&good), admitted, elsewhere), Some(Refused::WrongConcert));
    assert_eq!(pass(Some(&token(&instance, &second)), waiting, here), Some(Refused::Waiting));
    instance.room.end(&first).await;
    assert_eq!(pass(Some(&good), admitted, here), Some(Refused::Expired));

    let for_payment = |token: Option<&str>| instance.room.pass_for_payment(token, admitted, here);
    assert!(matches!(for_payment(Some(&good)), Ok(PassState::NotLive(_, Refused::Expired))));
    assert_eq!(for_payment(None), Err(Refused::Required));
    assert_eq!(for_payment(Some("nonsense")), Err(Refused::Invalid));
}

#[tokio::test]
async fn ended_place_is_refused_everywhere_within_a_second() {
    let env = env().await;
    let concert = concert(&env.pool, 1, 6_000).await;
    let here = Instance::start(&env.nats_url, &env.pool, LONG, true).await;
    let there = Instance::start(&env.nats_url, &env.pool, LONG, false).await;
    let places = here.join_many(concert, 2).await;
    there.until_active(&places[0]).await;
    let good = token(&here, &places[0]);
    let (user, second) = (places[0].user, Duration::from_secs(1));
    assert!(there.room.pass(Some(&good), user, concert).is_ok());

    let ending = here.room.end(&places[0]);
    let refused = futures::future::join(ending, async {
        assert_eq!(here.room.pass(Some(&good), user, concert), Err(Refused::Expired));
        within(second, "the other instance refuses", || {
            there.room.pass(Some(&good), user, concert) == Err(Refused::Expired)
        })
        .await
    });
    refused.await;
    within(second, "the next is admitted", || there.status(&places[1]) == Status::Active).await;
    let again = there.join(user, concert).await;
    assert!(again.created && there.claims(&again.token).place > places[1].place);
}

#[tokio::test]
async fn unused_claim_window_ends_the_place() {
    let env = env().await;
    let concert = concert(&env.pool, 1, 6_000).await;
    let instance = Instance::start(&env.nats_url, &env.pool, SHORT, true).await;
    let places = instance.join_many(concert, 2).await;
    instance.until_active(&places[0]).await;
    let claimed = instance.room.look(&places[0]).expires_at.unwrap();
    until("the claim window is over", || {
        instance.room.look(&places[0]);
        Utc::now() >= claimed
    })
    .await;
    assert_eq!(instance.status(&places[0]), Status::Expired, "at its very end");
    within(Duration::from_secs(1), "the next is admitted", || instance.status(&places[1]) == Status::Active)
        .await;
    let seen = instance.room.overview_of(concert).await.unwrap();
    assert_eq!(seen.no_shows_last_minute, 1, "{seen:?}");
}

#[tokio::test]
async fn first_use_begins_and_hold_extends_the_session() {
    let env = env().await;
    let concert = concert(&env.pool, 1, 6_000).await;
    let here = Instance::start(&env.nats_url, &env.pool, SHORT, true).await;
    let there = Instance::start(&env.nats_url, &env.pool, SHORT, false).await;
    let claims = here.join_many(concert, 1).await.remove(0);
    there.until_active(&claims).await;
    let claimed = there.room.look(&claims).expires_at.unwrap();

    let good = token(&there, &claims);
    there.room.pass(Some(&good), claims.user, concert).unwrap();
    let begun = |instance: &Instance| instance.room.look(&claims).expires_at.unwrap();
    assert!(begun(&there) >= claimed + TimeDelta::seconds(2), "granted at once, here");
    let session = begun(&there);
    until("the session is known elsewhere", || begun(&here) == session).await;

    let held = session + TimeDelta::seconds(30);
    there.room.extend_to(claims.user, concert, held);
    assert_eq!(begun(&there), held);
    until("the hold's end is known elsewhere", || begun(&here) == held).await;
    there.room.extend_to(claims.user, concert, session);
    assert_eq!(begun(&there), held, "never shorter");
}

#[tokio::test]
async fn holds_extend_a_session_within_bounds() {
    let env = env().await;
    let concert = concert(&env.pool, 1, 6_000).await;
    let sessions = Sessions { session_max: Duration::from_secs(5), ..SHORT };
    let here = Instance::start(&env.nats_url, &env.pool, sessions, true).await;
    let there = Instance::start(&env.nats_url, &env.pool, sessions, false).await;
    let places = here.join_many(concert, 2).await;
    there.until_active(&places[0]).await;
    let good = token(&there, &places[0]);
    let latest = there.room.look(&places[0]).activated_at.unwrap() + TimeDelta::seconds(5);

    // Hold, cancel, hold: each hold would extend the session by five minutes.
    let mut ends = Vec::new();
    while there.room.pass(Some(&good), places[0].user, concert).is_ok() {
        assert!(Utc::now() < latest + TimeDelta::seconds(5), "the session never ends");
        there.room.extend_to(places[0].user, concert, Utc::now() + TimeDelta::minutes(5));
        ends.extend(there.room.look(&places[0]).expires_at);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(ends.iter().max(), Some(&latest), "a hold makes it longer, up to the bound");
    for instance in [&here, &there] {
        instance.until_active(&places[1]).await;
        assert_eq!(instance.status(&places[0]), Status::Expired);
    }
}

#[tokio::test]
async fn payment_ends_session_without_its_instance() {
    let env = env().await;
    let concert = concert(&env.pool, 2, 6_000).await;
    let instance = Instance::start(&env.nats_url, &env.pool, LONG, true).await;
    let places = instance.join_many(concert, 2).await;
    for claims in &places {
        instance.until_active(claims).await;
    }
    let activated = |claims: &Claims| instance.room.look(claims).activated_at.unwrap();
    let before = activated(&places[0]) - TimeDelta::seconds(1);
    confirm(&env.bus, &places[0], before).await;
    confirm(&env.bus, &places[1], activated(&places[1]) + TimeDelta::seconds(1)).await;
    until("the second session ends", || instance.status(&places[1]) == Status::Expired).await;
    assert_eq!(instance.status(&places[0]), Status::Active, "it paid in an earlier session");
}

async fn confirm(bus: &boxoffice::bus::Bus, claims: &Claims, at: DateTime<Utc>) {
    let data = json!({"user_id": claims.user, "concert_id": claims.concert, "amount": 5});
    let (id, about) = (ids::new().to_string(), (ids::new(), 3));
    let event = EventMessage::new(id, "reservation.confirmed", at, about, ids::new(), data);
    publish(bus, &event_batches(&[event]), EventBatch::outgoing).await.unwrap();
}
