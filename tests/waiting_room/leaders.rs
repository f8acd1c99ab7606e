//! Leaders that are killed, stopped and continued: cap and order hold.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::PublishMessage;
use boxoffice::bus::{Bus, subjects};
use boxoffice::ids;
use boxoffice::store::queue::SettingsChange;
use boxoffice::waiting_room::{Sessions, Status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, watch};

use super::surroundings::{
    Instance, LONG, Testimony, Witness, add_waiting_user, concert, env, join_at_once, until, within,
};

#[tokio::test]
async fn cap_and_order_hold_while_leaders_are_killed() {
    let env = env().await;
    let concert = concert(&env.pool, 20, 6_000_000).await;
    // No user books, so that places are given again and again.
    let sessions = Sessions { claim: Duration::from_secs(1), ..LONG };
    let first = Instance::start(&env.nats_url, &env.pool, sessions, true).await;
    let witness = Witness::start(&env.bus).await;
    add_waiting_user(&first, &env.pool).await;
    until("the first leads", || witness.ask(|seen| seen.leaders.len()) == 1).await;
    let second = Instance::start(&env.nats_url, &env.pool, sessions, true).await;
    let users: Vec<_> = (0..100).map(|_| ids::new()).collect();
    let joined = join_at_once(&[&first, &second], &users, concert).await;
    let mut places: Vec<_> = joined.iter().map(|joined| second.claims(&joined.token).place).collect();
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), 100);

    until("some have been admitted", || witness.ask(|seen| seen.admitted.len()) >= 20).await;
    drop(first);
    let took =
        within(Duration::from_secs(5), "the second leads", || witness.ask(|seen| seen.leaders.len()) == 2);
    took.await;
    until("all users are admitted", || witness.ask(|seen| seen.admitted.len()) >= 100).await;
    assert_eq!(witness.ask(|seen| seen.admitted.clone()), places, "in order of arrival, each once");
    let most = witness.ask(|seen| seen.most);
    assert!(most <= 20, "{most} were active at once, the cap is 20");
    assert!(most >= 15, "{most}: the cap was hardly used");
}

#[tokio::test]
async fn a_leader_that_stops_hands_over_at_once() {
    let env = env().await;
    let concert = concert(&env.pool, 1, 6_000).await;
    let first = Instance::start(&env.nats_url, &env.pool, LONG, true).await;
    let second = Instance::start(&env.nats_url, &env.pool, LONG, true).await;
    let places = second.join_many(concert, 2).await;
    second.until_active(&places[0]).await;
    first.stop().await;
    // Shorter than the lease TTL.
    second.room.end(&places[0]).await;
    within(Duration::from_secs(3), "the next is admitted", || second.status(&places[1]) == Status::Active)
        .await;
}

#[tokio::test]
async fn the_server_refuses_what_names_an_old_lease() {
    let env = env().await;
    let leader = Instance::start(&env.nats_url, &env.pool, LONG, true).await;
    add_waiting_user(&leader, &env.pool).await;
    refuses_old_leases(&env.bus).await;
}

/// Also used by the test with three servers.
pub async fn refuses_old_leases(bus: &Bus) {
    let store = bus.jetstream.get_key_value(subjects::QUEUE_TOKENS).await.unwrap();
    let mut leases = store.watch_with_history(subjects::QUEUE_LEASE).await.unwrap();
    let mut next = async || futures::StreamExt::next(&mut leases).await.unwrap().unwrap().revision;
    let old = next().await;
    let mut new = next().await;
    while new <= old {
        new = next().await;
    }
    let write = async |lease: u64| {
        let message = PublishMessage::build()
            .expected_last_subject_sequence(lease)
            .header(
                "Nats-Expected-Last-Subject-Sequence-Subject",
                subjects::queue_key(subjects::QUEUE_LEASE).as_str(),
            )
            .payload("{}".into());
        let key = subjects::queue_key(&subjects::queue_place(ids::new(), ids::new()));
        bus.jetstream.send_publish(key, message).await.unwrap().await
    };
    let refused = write(old).await.expect_err("an old lease");
    assert_eq!(refused.kind(), PublishErrorKind::WrongLastSequence);
    // The lease may be renewed during the write.
    let mut accepted = write(new).await;
    for _ in 0..20 {
        if accepted.is_ok() {
            break;
        }
        accepted = write(store.entry(subjects::QUEUE_LEASE).await.unwrap().unwrap().revision).await;
    }
    accepted.expect("the lease of now");
}

#[tokio::test]
async fn disconnected_leader_cannot_admit_after_reconnecting() {
    let env = env().await;
    let concert = concert(&env.pool, 5, 6_000_000).await;
    let line = Line::to(&env.nats_url).await;
    let cut_off = Instance::start(&line.url, &env.pool, LONG, true).await;
    let witness = Witness::start(&env.bus).await;
    add_waiting_user(&cut_off, &env.pool).await;
    until("the first leads", || witness.ask(|seen| seen.leaders.len()) == 1).await;
    let healthy = Instance::start(&env.nats_url, &env.pool, LONG, true).await;
    let places = healthy.join_many(concert, 20).await;
    healthy.until_active(&places[4]).await;

    // From now on it receives everything, and what it sends is held back.
    let cap = |max_active| SettingsChange { max_active: Some(max_active), ..SettingsChange::default() };
    witness.renewal().await;
    line.hold();
    healthy.change(concert, cap(10)).await;
    until("it has tried to admit", || line.has_held(br#""status":"active""#)).await;
    // The other instance leads by then, and admits fewer.
    healthy.change(concert, cap(7)).await;
    let leaders = || witness.ask(|seen| seen.leaders.len());
    within(Duration::from_secs(5), "the other leads", || leaders() == 2).await;
    healthy.until_active(&places[6]).await;
    line.release();
    // Sent after everything that was held back, on the same connection: the server has answered those by now.
    cut_off.join(ids::new(), concert).await;

    until("it follows", || cut_off.position(&places[7]) == Some(1)).await;
    assert_eq!(witness.ask(Testimony::active), 7, "the cap of now");
    let admitted = witness.ask(|seen| seen.admitted.clone());
    let order: Vec<_> = places[..7].iter().map(|claims| claims.place).collect();
    assert_eq!(admitted, order, "the old leader admitted no user");
    assert_eq!(leaders(), 2);
}

#[tokio::test]
async fn old_admission_cannot_overwrite_a_new_place() {
    let env = env().await;
    let concert = concert(&env.pool, 0, 6_000_000).await;
    let line = Line::to(&env.nats_url).await;
    let leader = Instance::start(&line.url, &env.pool, LONG, true).await;
    let witness = Witness::start(&env.bus).await;
    add_waiting_user(&leader, &env.pool).await;
    until("it leads", || witness.ask(|seen| seen.leaders.len()) == 1).await;
    let other = Instance::start(&env.nats_url, &env.pool, LONG, false).await;
    let old = other.join_many(concert, 1).await.remove(0);

    // The admission is under way while its user leaves and joins again.
    witness.renewal().await;
    line.hold();
    let change = SettingsChange { max_active: Some(1), ..SettingsChange::default() };
    other.change(concert, change).await;
    until("it has tried to admit", || line.has_held(br#""status":"active""#)).await;
    other.room.end(&old).await;
    let arrival = async {
        // Long enough for a join that need not wait.
        tokio::time::sleep(Duration::from_millis(300)).await;
        line.release();
    };
    let (joined, ()) = tokio::join!(other.join(old.user, concert), arrival);

    let new = other.claims(&joined.token);
    assert!(joined.created && new.place > old.place);
    other.until_active(&new).await;
    assert_eq!(other.status(&old), Status::Expired);
    // The old one arrived and was deleted again.
    let admitted = || witness.ask(|seen| seen.admitted.clone());
    until("the witness has seen both", || admitted() == [old.place, new.place]).await;
    assert_eq!(other.status(&new), Status::Active);
}

/// A connection between a client and the server. The bytes to the server can be held back.
pub struct Line {
    pub url: String,
    holding: watch::Sender<bool>,
    held: Arc<std::sync::Mutex<Vec<u8>>>,
}

impl Line {
    pub async fn to(server: &str) -> Self {
        let (credentials, server) = server.rsplit_once('@').unwrap();
        let server = server.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{credentials}@{}", listener.local_addr().unwrap());
        let (holding, held) = (watch::Sender::new(false), Arc::default());
        let (watching, keeping) = (holding.subscribe(), Arc::clone(&held));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.unwrap();
                connect(client, server, watching.clone(), Arc::clone(&keeping));
            }
        });
        Self { url, holding, held }
    }

    pub fn hold(&self) {
        self.holding.send_replace(true);
    }

    pub fn release(&self) {
        self.holding.send_replace(false);
    }

    fn has_held(&self, words: &[u8]) -> bool {
        self.held.lock().unwrap().windows(words.len()).any(|part| part == words)
    }
}

fn connect(
    client: TcpStream,
    server: TcpStream,
    mut holding: watch::Receiver<bool>,
    held: Arc<std::sync::Mutex<Vec<u8>>>,
) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, to_server) = server.into_split();
    let to_server = Arc::new(Mutex::new(to_server));
    tokio::spawn(async move {
        let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
    });
    tokio::spawn(async move {
        let (mut buffer, mut waiting) = (vec![0; 65_536], Vec::new());
        loop {
            let is_holding = *holding.borrow_and_update();
            if !is_holding && !waiting.is_empty() {
                to_server.lock().await.write_all(&waiting).await.unwrap();
                waiting.clear();
            }
            tokio::select! {
                _ = holding.changed() => (),
                read = from_client.read(&mut buffer) => match read {
                    Ok(0) | Err(_) => return,
                    Ok(read) if is_holding => {
                        held.lock().unwrap().extend_from_slice(&buffer[..read]);
                        waiting.extend_from_slice(&buffer[..read]);
                    }
                    Ok(read) => to_server.lock().await.write_all(&buffer[..read]).await.unwrap(),
                }
            }
        }
    });
}
