//! The same on three servers, where a write counts once most of them have it, and only one per fence may be on its way.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use boxoffice::bus::{self, Bus, subjects, topology};
use boxoffice::ids;
use boxoffice::local::programs;
use boxoffice::waiting_room::Sessions;

use super::journal::{
    join_soon, let_in, lines, lose_the_bucket, until_journalled, until_restored, witness_of_the_new_bucket,
};
use super::leaders::refuses_old_leases;
use super::surroundings::{Instance, LONG, Witness, concert, join_at_once, somebody_waits, until};
use crate::common::{fresh_database, fresh_dir};

/// Waits for the end of its input, which only this process holds open, and then ends the server.
const KEEPER: &str = r#""$@" & read -r _; kill -9 $!"#;

struct Cluster {
    urls: Vec<String>,
    _servers: Vec<Child>,
}

impl Cluster {
    async fn start() -> Self {
        let free = || TcpListener::bind("127.0.0.1:0").unwrap();
        let listeners: Vec<_> = (0..6).map(|_| free()).collect();
        let ports: Vec<u16> = listeners.iter().map(|one| one.local_addr().unwrap().port()).collect();
        drop(listeners);
        let (clients, routes) = ports.split_at(3);
        let peers: Vec<_> = routes.iter().map(|port| format!("nats-route://127.0.0.1:{port}")).collect();
        let dir = fresh_dir("cluster");
        std::fs::create_dir_all(&dir).unwrap();
        let servers = (0..3).map(|n| launch(&dir, n, clients[n], routes[n], &peers.join(","))).collect();
        let urls = clients.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
        Self { urls, _servers: servers }
    }

    async fn connect(&self) -> Bus {
        for _ in 0..300 {
            if let Ok(bus) = bus::connect(&self.urls.join(","), "test", 3).await
                && topology::ensure(&bus).await.is_ok()
            {
                return bus;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the cluster does not come up");
    }
}

fn launch(dir: &Path, n: usize, client: u16, route: u16, peers: &str) -> Child {
    let conf = dir.join(format!("{n}.conf"));
    let store = dir.join(format!("store-{n}"));
    let text = format!(
        "server_name: n{n}\nlisten: 127.0.0.1:{client}\njetstream {{ store_dir: {store:?} }}\n\
         cluster {{ name: test, listen: 127.0.0.1:{route}, routes: [{peers}] }}\n"
    );
    std::fs::write(&conf, text).unwrap();
    Command::new("/bin/sh")
        .args(["-c", KEEPER, "keeper"])
        .arg(programs::nats_server().unwrap())
        .arg("-c")
        .arg(&conf)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn on_three_servers_old_leases_are_refused_and_the_cap_and_the_order_hold() {
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
    somebody_waits(&first, &pool).await;
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
    until("everybody has been admitted", || witness.ask(|seen| seen.admitted.len()) >= 40).await;
    assert_eq!(witness.ask(|seen| seen.admitted.clone()), places);
    let most = witness.ask(|seen| seen.most);
    assert!(most <= 10, "{most} were active at once, the cap is 10");
}

#[tokio::test]
async fn on_three_servers_a_lost_bucket_is_restored_in_its_order() {
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
            assert_eq!(instance.position(claims), Some(index as u64 + 1));
        }
    }
    let_in(&other, concert, 15).await;
    until("five more are in", || witness.ask(|seen| seen.admitted.len()) >= 15).await;
    let admitted = witness.ask(|seen| seen.admitted.clone());
    assert_eq!(admitted, places[..15].iter().map(|claims| claims.place).collect::<Vec<_>>());
    assert_eq!(witness.ask(|seen| seen.most), 15, "the cap was never exceeded");
}
