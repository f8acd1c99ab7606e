//! Servers and instances are killed or stopped during a storm of joins: no user loses a place, and order and cap hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use boxoffice::ids;
use boxoffice::store::queue::SettingsChange;
use boxoffice::waiting_room::{Joined, Sessions, Status, WaitingRoom};
use futures::{StreamExt, stream};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use uuid::Uuid;

use super::surroundings::{
    Instance, LONG, Testimony, Witness, add_waiting_user, concert, env, kill_nats, until, within,
};
use crate::common::Env;
use crate::process::Process;

/// Concurrent joins.
const WIDTH: usize = 40;

/// Users who join at the same time, and retry at the next instance until one answers.
struct Storm {
    rooms: Vec<(Arc<WaitingRoom>, Handle)>,
    joined: AtomicUsize,
}

impl Storm {
    fn at(instances: &[&Instance]) -> Arc<Self> {
        let rooms = instances.iter().map(|one| (Arc::clone(&one.room), one.handle())).collect();
        Arc::new(Self { rooms, joined: AtomicUsize::new(0) })
    }

    /// Returns all answers.
    async fn rage(self: Arc<Self>, concert: Uuid, users: usize) -> Vec<Joined> {
        let joins = (0..users).map(|number| {
            let storm = Arc::clone(&self);
            async move { storm.join(ids::new(), concert, number).await }
        });
        stream::iter(joins).buffer_unordered(WIDTH).collect().await
    }

    async fn join(&self, user: Uuid, concert: Uuid, first: usize) -> Joined {
        for at in first..first + 2_000 {
            let (room, runtime) = &self.rooms[at % self.rooms.len()];
            let room = Arc::clone(room);
            // A killed instance does not answer.
            if let Ok(Ok(joined)) = runtime.spawn(async move { room.join(user, concert).await }).await {
                self.joined.fetch_add(1, Ordering::Relaxed);
                return joined;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("a user cannot join");
    }

    async fn until_joined(&self, count: usize) {
        until("some have joined", || self.joined.load(Ordering::Relaxed) >= count).await;
    }
}

/// Checks that the places are in order and that each user has an own one.
fn places(instance: &Instance, joined: &[Joined]) -> Vec<u64> {
    let mut places: Vec<_> = joined.iter().map(|one| instance.claims(&one.token).place).collect();
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), joined.len(), "a place for each");
    places
}

async fn let_in(instance: &Instance, concert: Uuid, most: i32) {
    instance.change(concert, SettingsChange { max_active: Some(most), ..SettingsChange::default() }).await;
}

#[tokio::test]
async fn nats_kill_during_joins_loses_no_user() {
    let env = env().await;
    let concert = concert(&env.pool, 10, 6_000_000).await;
    let leader = Instance::start(&env.nats_url, &env.pool, LONG, true).await;
    let other = Instance::start(&env.nats_url, &env.pool, LONG, false).await;
    let storm = Storm::at(&[&leader, &other]);
    let raging = tokio::spawn(Arc::clone(&storm).rage(concert, 600));
    storm.until_joined(150).await;
    kill_nats(&env);
    let before = storm.joined.load(Ordering::Relaxed);
    let env = env.restart_nats().await;
    let joined = raging.await.unwrap();
    assert!(before < 600, "it was killed too late to matter");

    let fresh = Instance::start(&env.nats_url, &env.pool, LONG, false).await;
    let places = places(&fresh, &joined);
    for instance in [&fresh, &leader, &other] {
        let line = || instance.room.overview().into_iter().next().map(|line| (line.length, line.active));
        until("all are in line", || line() == Some((590, 10))).await;
    }
    let witness = Witness::start(&env.bus).await;
    let_in(&leader, concert, 40).await;
    until("more are admitted", || witness.ask(|seen| seen.admitted.len()) == 40).await;
    assert_eq!(witness.ask(|seen| seen.admitted.clone()), places[..40], "in order of arrival, each once");
    assert_eq!(witness.ask(|seen| seen.most), 40);
}

#[tokio::test]
async fn leader_kill_during_joins_loses_no_user() {
    let env = env().await;
    let concert = concert(&env.pool, 10, 6_000_000).await;
    let sessions = Sessions { claim: Duration::from_secs(1), ..LONG };
    let leader = Instance::start(&env.nats_url, &env.pool, sessions, true).await;
    let witness = Witness::start(&env.bus).await;
    add_waiting_user(&leader, &env.pool).await;
    until("it leads", || witness.ask(|seen| seen.leaders.len()) == 1).await;
    let other = Instance::start(&env.nats_url, &env.pool, sessions, true).await;
    let storm = Storm::at(&[&leader, &other]);
    let raging = tokio::spawn(Arc::clone(&storm).rage(concert, 600));
    storm.until_joined(150).await;
    drop(leader);
    let before = storm.joined.load(Ordering::Relaxed);
    let joined = raging.await.unwrap();
    assert!(before < 600, "it was killed too late to matter");
    within(Duration::from_secs(5), "the other leads", || witness.ask(|seen| seen.leaders.len()) == 2).await;

    let places = places(&other, &joined);
    let most = witness.ask(|seen| seen.most);
    assert!(most <= 10, "{most} were active at once, the cap is 10");
    let_in(&other, concert, 600).await;
    until("all are admitted", || witness.ask(|seen| seen.admitted.len()) >= 600).await;
    assert_eq!(witness.ask(|seen| seen.admitted.clone()), places, "in order of arrival, each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_continued_after_its_lease_admits_no_user() {
    let env = env().await;
    let concert = concert(&env.pool, 5, 6_000_000).await;
    let sleeper = process(&env, "api,scheduler").await;
    let pid = Pid::from_raw(sleeper.child.id().unwrap().cast_signed());
    let witness = Witness::start(&env.bus).await;
    let here = Instance::start(&env.nats_url, &env.pool, LONG, false).await;
    add_waiting_user(&here, &env.pool).await;
    let leader = || witness.ask(|seen| seen.leaders.last().cloned().filter(|holder| holder != "none"));
    until("the process leads", || leader().is_some()).await;
    let first_leader = leader();
    let second = Instance::start(&env.nats_url, &env.pool, LONG, true).await;
    let places = here.join_many(concert, 12).await;
    here.until_active(&places[4]).await;

    witness.renewal().await;
    kill(pid, Signal::SIGSTOP).unwrap();
    here.room.end(&places[0]).await;
    here.room.end(&places[1]).await;
    within(Duration::from_secs(5), "the second leads", || leader() != first_leader).await;
    here.until_active(&places[6]).await;
    let second_leader = leader();
    kill(pid, Signal::SIGCONT).unwrap();
    // It may give these away too.
    here.room.end(&places[2]).await;
    here.room.end(&places[3]).await;
    here.until_active(&places[8]).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;

    assert_eq!(leader(), second_leader, "it has noticed that it leads no more");
    assert_eq!(here.status(&places[9]), Status::Waiting);
    let order: Vec<_> = places[..9].iter().map(|claims| claims.place).collect();
    assert_eq!(witness.ask(|seen| seen.admitted.clone()), order, "each once, in order");
    assert_eq!((witness.ask(Testimony::active), witness.ask(|seen| seen.most)), (5, 5));
    // It still runs, and leads again when the other one stops.
    second.stop().await;
    within(Duration::from_secs(5), "it leads again", || leader() == first_leader).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn api_kill_during_joins_loses_no_user() {
    const USERS: usize = 150;
    let env = env().await;
    let concert = concert(&env.pool, 10, 6_000_000).await;
    let witness = Witness::start(&env.bus).await;
    let killed = process(&env, "api,scheduler").await;
    let other = process(&env, "api,scheduler").await;
    let client = reqwest::Client::builder().timeout(Duration::from_secs(2)).build().unwrap();
    let mut bearers = Vec::new();
    for _ in 0..USERS {
        let user = client.post(format!("{}/v1/users", other.url)).json(&json!({ "name": "Ada" }));
        let user: Value = user.send().await.unwrap().json().await.unwrap();
        bearers.push(format!("Bearer {}", user["access_token"].as_str().unwrap()));
    }
    let joined = Arc::new(AtomicUsize::new(0));
    let urls = [&killed.url, &other.url].map(|url| format!("{url}/v1/concerts/{concert}/queue-tokens"));
    let joins: Vec<_> = bearers
        .into_iter()
        .enumerate()
        .map(|(number, bearer)| {
            let (client, joined, urls) = (client.clone(), Arc::clone(&joined), urls.clone());
            async move {
                let token = join_over_http(&client, &urls, number, &bearer).await;
                joined.fetch_add(1, Ordering::Relaxed);
                (bearer, token)
            }
        })
        .collect();
    let raging = tokio::spawn(stream::iter(joins).buffer_unordered(20).collect::<Vec<_>>());
    until("some have joined", || joined.load(Ordering::Relaxed) >= 40).await;
    killed.kill().await;
    assert!(joined.load(Ordering::Relaxed) < USERS, "it was killed too late to matter");
    let told = raging.await.unwrap();

    let mut positions = Vec::new();
    until("all are admitted whom the cap lets in", || witness.ask(|seen| seen.admitted.len()) == 10).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    for (bearer, token) in told {
        let look = client.get(format!("{}/v1/queue-tokens/current", other.url));
        let look = look.header("authorization", bearer).header("queue-token", token);
        let place: Value = look.send().await.unwrap().json().await.unwrap();
        positions.extend(place["position"].as_u64());
    }
    positions.sort_unstable();
    assert_eq!(positions, (1..=140).collect::<Vec<u64>>(), "a place for each");
    assert!(witness.ask(|seen| seen.admitted.is_sorted() && seen.most == 10));
}

/// Asks one process after the other until one answers with a token.
async fn join_over_http(client: &reqwest::Client, urls: &[String; 2], first: usize, bearer: &str) -> String {
    for at in first..first + 1_000 {
        let join = client.post(&urls[at % 2]).header("authorization", bearer).send().await;
        if let Ok(answer) = join
            && answer.status().is_success()
            && let Ok(place) = answer.json::<Value>().await
        {
            return place["token"].as_str().unwrap().to_owned();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("a user cannot join");
}

/// A process of the real program with its own data directory.
pub async fn process(env: &Env, roles: &str) -> Process {
    let dir = env.dir.join("process").display().to_string();
    let servers = ["--database-url", &env.database_url, "--nats-url", &env.nats_url];
    let arguments = ["serve", "--role", roles, "--local", "--data-dir", &dir];
    Process::start(&[&arguments[..], &servers[..]].concat()).await
}
