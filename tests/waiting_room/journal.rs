//! NATS loses the line: it is restored from the journal in order, and ended places stay ended.

use std::path::Path;
use std::time::Duration;

use boxoffice::bus::{Bus, incarnation, subjects};
use boxoffice::ids;
use boxoffice::store::queue::SettingsChange;
use boxoffice::waiting_room::{Claims, Joined, Refused, Status};
use chrono::Utc;
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use super::surroundings::{Instance, LONG, Witness, concert, env, kill_nats, until, within};

/// Takes places for many users as an instance would, without waiting for each answer.
pub async fn crowd(bus: &Bus, concert: Uuid, count: usize) -> Vec<Uuid> {
    let users: Vec<Uuid> = (0..count).map(|_| ids::new()).collect();
    for some in users.chunks(1_000) {
        let mut written = Vec::new();
        for user in some {
            let record =
                json!({ "user": user, "concert": concert, "status": "waiting", "issued_at": Utc::now() });
            let key = subjects::queue_key(&subjects::queue_place(concert, *user));
            written.push(bus.jetstream.publish(key, record.to_string().into()).await.unwrap());
        }
        for one in written {
            one.await.unwrap();
        }
    }
    users
}

async fn journalled(pool: &PgPool, status: &str) -> i64 {
    let count = "select count(*) from queue_journal where status = $1";
    sqlx::query_scalar(count).bind(status).fetch_one(pool).await.unwrap()
}

pub async fn until_journalled(pool: &PgPool, waiting: i64, active: i64, ended: i64) {
    for _ in 0..600 {
        let now = [journalled(pool, "waiting").await, journalled(pool, "active").await];
        if (now, journalled(pool, "ended").await) == ([waiting, active], ended) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("the journal does not catch up");
}

pub async fn lose_the_bucket(bus: &Bus) {
    // The incarnation of a bucket is the second in which it is made. The next one must be made later.
    let made = incarnation::of(revision_of_the_bucket(bus).await);
    while incarnation::next(Utc::now(), 0) <= made {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bus.jetstream.delete_key_value(subjects::QUEUE_TOKENS).await.unwrap();
}

async fn revision_of_the_bucket(bus: &Bus) -> u64 {
    let mut stream = bus.jetstream.get_stream(subjects::QUEUE_TOKENS_STREAM).await.unwrap();
    stream.info().await.unwrap().state.last_sequence
}

/// Waits until the bucket has been made again, and watches it from its beginning.
pub async fn witness_of_the_new_bucket(bus: &Bus) -> Witness {
    for _ in 0..2_000 {
        if bus.jetstream.get_key_value(subjects::QUEUE_TOKENS).await.is_ok() {
            return Witness::start(bus).await;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("no instance makes the bucket again");
}

pub async fn until_restored(bus: &Bus) {
    for _ in 0..2_000 {
        if let Ok(store) = bus.jetstream.get_key_value(subjects::QUEUE_TOKENS).await
            && let Ok(Some(_)) = store.get(subjects::QUEUE_RESTORED).await
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the line is not restored");
}

pub async fn place_of(instance: &Instance, user: Uuid, concert: Uuid) -> Claims {
    let joined = instance.join(user, concert).await;
    assert!(!joined.created, "there was a place");
    instance.claims(&joined.token)
}

pub fn lines(instance: &Instance) -> (u64, u64) {
    let line = instance.room.overview().into_iter().max_by_key(|line| line.length + line.active);
    line.map_or((0, 0), |line| (line.length, line.active))
}

/// Joins as soon as the bucket exists.
pub async fn join_soon(instance: &Instance, concert: Uuid, user: Uuid) -> Joined {
    for _ in 0..20 {
        if let Ok(joined) = instance.try_join(user, concert).await {
            return joined;
        }
    }
    panic!("no user can join");
}

pub async fn let_in(instance: &Instance, concert: Uuid, most: i32) {
    let change = SettingsChange { max_active: Some(most), ..SettingsChange::default() };
    instance.change(concert, change).await;
}

#[tokio::test]
async fn deleted_bucket_with_ten_thousand_users_is_restored() {
    const CAP: usize = 100;
    let env = env().await;
    let concert = concert(&env.pool, CAP as i32, 6_000_000).await;
    let leader = Instance::start(&env.nats_url, &env.pool, LONG, true).await;
    let other = Instance::start(&env.nats_url, &env.pool, LONG, false).await;
    let users = crowd(&env.bus, concert, 10_000 + CAP + 3).await;
    until("the first are admitted", || lines(&leader) == (10_003, 100)).await;
    let spent = place_of(&leader, users[0], concert).await;
    for user in &users[..3] {
        let claims = place_of(&leader, *user, concert).await;
        leader.room.end(&claims).await;
    }
    until("the next are admitted", || lines(&leader) == (10_000, 100)).await;
    until_journalled(&env.pool, 10_000, 100, 3).await;
    let active = place_of(&other, users[50], concert).await;
    let mut waiting = Vec::new();
    for at in [103, 5_000, 10_102] {
        waiting.push((at as u64 - 102, place_of(&other, users[at], concert).await));
    }

    lose_the_bucket(&env.bus).await;
    let lost = std::time::Instant::now();
    let (witness, newcomer) =
        tokio::join!(witness_of_the_new_bucket(&env.bus), join_soon(&leader, concert, ids::new()));
    let made = lost.elapsed();
    assert!(leader.claims(&newcomer.token).place > waiting[2].1.place, "behind all");
    for (rank, claims) in &waiting {
        assert_eq!(other.position(claims), Some(*rank), "the shown ranks stay true meanwhile");
    }
    until_restored(&env.bus).await;
    println!("10,000 places: the bucket was made again after {made:?}, and whole after {:?}", lost.elapsed());
    for instance in [&leader, &other] {
        until("the line is as it was", || lines(instance) == (10_001, 100)).await;
        for (rank, claims) in &waiting {
            until("the ranks are known", || instance.position(claims) == Some(*rank)).await;
        }
        instance.until_active(&active).await;
        let token = instance.room.look(&active).token;
        assert!(instance.room.pass(Some(&token), users[50], concert).is_ok());
        let token = instance.room.look(&spent).token;
        assert_eq!(instance.room.pass(Some(&token), users[0], concert), Err(Refused::Expired));
    }

    leader.room.end(&place_of(&leader, users[50], concert).await).await;
    until("the next is admitted", || other.status(&waiting[0].1) == Status::Active).await;
    until("the witness has seen it", || witness.ask(|seen| seen.admitted.len()) == CAP + 1).await;
    let admitted = witness.ask(|seen| seen.admitted.clone());
    assert!(admitted.is_sorted(), "each user once, and in the order of arrival");
    assert_eq!(admitted.last(), Some(&waiting[0].1.place));
    assert_eq!(witness.ask(|seen| seen.most), CAP, "the cap was never exceeded");
}

#[tokio::test]
async fn line_is_restored_from_the_journal_alone() {
    let env = env().await;
    let concert = concert(&env.pool, 20, 6_000_000).await;
    let before = Instance::start(&env.nats_url, &env.pool, LONG, true).await;
    let users = crowd(&env.bus, concert, 1_021).await;
    until("the first are admitted", || lines(&before) == (1_001, 20)).await;
    let spent = place_of(&before, users[0], concert).await;
    before.room.end(&spent).await;
    until("the next is admitted", || lines(&before) == (1_000, 20)).await;
    until_journalled(&env.pool, 1_000, 20, 1).await;
    let [active, first, last] = [1, 21, 1_020].map(|at| users[at]);
    let mut places = Vec::new();
    for user in [active, first, last] {
        places.push(place_of(&before, user, concert).await);
    }
    drop(before);
    lose_the_bucket(&env.bus).await;

    // No instance gets requests before it knows the line.
    let witness = witness_of_the_new_bucket(&env.bus);
    let (after, witness) = tokio::join!(Instance::start(&env.nats_url, &env.pool, LONG, true), witness);
    assert_eq!(lines(&after), (1_000, 20));
    assert_eq!(after.status(&places[0]), Status::Active);
    let ranks = || (after.position(&places[1]), after.position(&places[2]));
    until("the ranks are known", || ranks() == (Some(1), Some(1_000))).await;
    let token = after.room.look(&spent).token;
    assert_eq!(after.room.pass(Some(&token), users[0], concert), Err(Refused::Expired));
    let again = after.join(users[0], concert).await;
    assert!(again.created && again.token.position == Some(1_001), "who has paid stands at the end");

    let_in(&after, concert, 30).await;
    until("ten more are in", || witness.ask(|seen| seen.admitted.len()) >= 30).await;
    let admitted = witness.ask(|seen| seen.admitted.clone());
    assert!(admitted.is_sorted() && admitted[20] == places[1].place, "each user once, and in order");
    assert_eq!(witness.ask(|seen| seen.most), 30);
}

#[tokio::test]
async fn unjournalled_place_is_restored_by_its_token() {
    let env = env().await;
    let concert = concert(&env.pool, 0, 6_000_000).await;
    let before = Instance::start(&env.nats_url, &env.pool, LONG, true).await;
    let early = before.join_many(concert, 2).await;
    until_journalled(&env.pool, 2, 0, 0).await;
    let mut lock = env.pool.begin().await.unwrap();
    sqlx::query("lock table queue_journal in access exclusive mode").execute(&mut *lock).await.unwrap();
    let late = before.join_many(concert, 3).await;
    let left = before.join_many(concert, 1).await.remove(0);
    before.room.end(&left).await;
    let_in(&before, concert, 1).await;
    before.until_active(&early[0]).await;
    let admitted = token_of(&before, &early[0]);
    let_in(&before, concert, 0).await;
    drop(before);
    lose_the_bucket(&env.bus).await;
    lock.rollback().await.unwrap();

    let after = Instance::start(&env.nats_url, &env.pool, LONG, true).await;
    let stranger = after.join_many(concert, 1).await.remove(0);
    assert_eq!(after.position(&stranger), Some(3), "the last ones are not known yet");
    // Admitted and never journalled: the token proves the place, but does not pass the gate.
    let pass = after.room.pass(Some(&admitted), early[0].user, concert);
    assert_eq!((pass, after.position(&early[0])), (Err(Refused::Waiting), Some(1)));
    // One asks for the place, one joins again with the token, and one joins without it.
    assert_eq!(after.status(&late[0]), Status::Waiting);
    until("the place is back", || after.position(&late[0]) == Some(3)).await;
    let old = token_of(&after, &late[1]);
    let again = after.join_again(late[1].user, concert, &old).await;
    assert_eq!((again.created, after.claims(&again.token).place), (false, late[1].place));
    let anew = after.join(late[2].user, concert).await;
    assert!(anew.created && after.claims(&anew.token).place > stranger.place);
    assert_eq!(after.status(&late[2]), Status::Waiting, "the older token is as good as ever");
    until("the older place wins", || after.position(&late[2]) == Some(5)).await;
    assert_eq!(after.position(&after.claims(&anew.token)), Some(5));
    assert_eq!(after.position(&early[1]), Some(2));
    assert_eq!(after.position(&stranger), Some(6));
    assert_eq!(after.status(&left), Status::Waiting, "an end of the last moment is forgotten with it");
}

#[tokio::test]
async fn slow_postgres_delays_no_end() {
    let env = env().await;
    let concert = concert(&env.pool, 0, 6_000_000).await;
    let before = Instance::start(&env.nats_url, &env.pool, LONG, true).await;
    let early = before.join_many(concert, 2).await;
    until_journalled(&env.pool, 2, 0, 0).await;
    let mut lock = env.pool.begin().await.unwrap();
    sqlx::query("lock table queue_journal in access exclusive mode").execute(&mut *lock).await.unwrap();
    let late = before.join_many(concert, 1).await.remove(0);
    drop(before);
    lose_the_bucket(&env.bus).await;
    lock.rollback().await.unwrap();

    let after = Instance::start(&env.nats_url, &env.pool, LONG, true).await;
    let mut lock = env.pool.begin().await.unwrap();
    sqlx::query("lock table payments in access exclusive mode").execute(&mut *lock).await.unwrap();
    assert_eq!(after.status(&late), Status::Waiting, "whether it was paid with is asked for now, in vain");
    after.room.end(&early[0]).await;
    until_journalled(&env.pool, 1, 0, 1).await;
    lock.rollback().await.unwrap();
    until("the place is back", || after.position(&late) == Some(2) && lines(&after) == (2, 0)).await;
}

#[tokio::test]
async fn unjournalled_payment_ends_its_place() {
    let env = env().await;
    let concert = concert(&env.pool, 2, 6_000_000).await;
    let before = Instance::start(&env.nats_url, &env.pool, LONG, true).await;
    let places = before.join_many(concert, 3).await;
    before.until_active(&places[1]).await;
    until_journalled(&env.pool, 1, 2, 0).await;
    drop(before);
    pay(&env.pool, places[0].user, concert).await;
    lose_the_bucket(&env.bus).await;

    let after = Instance::start(&env.nats_url, &env.pool, LONG, true).await;
    assert_eq!(after.status(&places[0]), Status::Expired);
    assert_eq!(after.status(&places[1]), Status::Active);
    within(Duration::from_secs(2), "the free place is given", || after.status(&places[2]) == Status::Active)
        .await;
}

/// Writes the rows of a payment.
async fn pay(pool: &PgPool, user: Uuid, concert: Uuid) {
    let reservation = ids::new();
    let sql = "insert into reservations (id, user_id, concert_id, performance_id, status, seats, created_at, updated_at)
               select $1, $2, $3, id, 'confirmed', '{1}', clock_timestamp(), clock_timestamp()
               from performances where concert_id = $3";
    sqlx::query(sql).bind(reservation).bind(user).bind(concert).execute(pool).await.unwrap();
    let sql = "insert into payments_without_entry (id, reservation_id, user_id, amount, status, paid_at, updated_at)
               values ($1, $2, $3, 0, 'succeeded', clock_timestamp(), clock_timestamp())";
    sqlx::query(sql).bind(ids::new()).bind(reservation).bind(user).execute(pool).await.unwrap();
}

fn token_of(instance: &Instance, claims: &Claims) -> String {
    instance.room.look(claims).token
}

#[tokio::test]
async fn line_works_without_postgres_and_journal_catches_up() {
    let env = env().await;
    let concert = concert(&env.pool, 5, 6_000_000).await;
    let instance = Instance::start(&env.nats_url, &env.pool, LONG, true).await;
    instance.join_many(concert, 5).await;
    until_journalled(&env.pool, 0, 5, 0).await;
    let mut lock = env.pool.begin().await.unwrap();
    sqlx::query("lock table queue_journal in access exclusive mode").execute(&mut *lock).await.unwrap();
    let more = instance.join_many(concert, 3).await;
    let_in(&instance, concert, 7).await;
    within(Duration::from_secs(2), "the line moves", || instance.status(&more[1]) == Status::Active).await;
    lock.rollback().await.unwrap();
    until_journalled(&env.pool, 1, 7, 0).await;
}

#[tokio::test]
async fn server_without_its_last_writes_is_restored() {
    let env = env().await;
    let concert = concert(&env.pool, 2, 6_000_000).await;
    let instance = Instance::start(&env.nats_url, &env.pool, LONG, true).await;
    let early = instance.join_many(concert, 5).await;
    instance.until_active(&early[1]).await;
    kill_nats(&env);
    let [store, copy] = ["nats/store", "copy"].map(|name| env.dir.join(name));
    copy_all(&store, &copy);
    let env = env.restart_nats().await;
    until("the connection is back", || instance.room.is_connected()).await;
    let user = ids::new();
    let mut late = vec![instance.claims(&join_soon(&instance, concert, user).await.token)];
    late.extend(instance.join_many(concert, 5).await);
    instance.room.end(&early[0]).await;
    instance.until_active(&early[2]).await;
    until_journalled(&env.pool, 8, 2, 1).await;

    kill_nats(&env);
    std::fs::remove_dir_all(&store).unwrap();
    copy_all(&copy, &store);
    let env = env.restart_nats().await;
    until("the connection is back", || instance.room.is_connected()).await;
    let fresh = Instance::start(&env.nats_url, &env.pool, LONG, false).await;
    for one in [&instance, &fresh] {
        let restored = || lines(one) == (8, 2) && one.status(&early[0]) == Status::Expired;
        until("the line is as it was", restored).await;
        one.until_active(&early[2]).await;
        let ranks = || (one.position(&early[3]), one.position(&late[5]));
        until("the ranks are known", || ranks() == (Some(1), Some(8))).await;
    }
    let_in(&fresh, concert, 4).await;
    fresh.until_active(&early[4]).await;
    until("the next is first", || fresh.position(&late[0]) == Some(1)).await;
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
