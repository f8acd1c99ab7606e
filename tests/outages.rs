//! JetStream stalls: the rest of the service does not wait for it, and reports what is wrong.

use std::time::{Duration, Instant};

use boxoffice::app::Role;
use boxoffice::background::Tasks;
use boxoffice::bus::messages;
use boxoffice::bus::publish::publish;
use boxoffice::http::health::Health;
use boxoffice::saga::Status;
use boxoffice::store;
use boxoffice::store::reservations::ReservationStatus;
use chrono::{TimeDelta, Utc};
use serde_json::Value;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::common::Env;
use super::common::app::{TestApp, until};
use super::common::cluster::Cluster;
use super::common::http::{Caller, Entrance};
use super::common::program::Program;

/// Charges that wait to be announced: one after the other, each would hold up the sweeper for five seconds.
const CHARGES: i64 = 40;

async fn status(test: &TestApp, saga: Uuid) -> Status {
    store::sagas::get(&test.app.pool, saga).await.unwrap().expect("the saga is there").status
}

#[tokio::test]
async fn hold_expires_while_jetstream_is_frozen() {
    let test = TestApp::with(&["--hold-seconds", "6"]).await;
    let user = test.user(0).await;
    let held = test.reserve(user, &[1]).await;
    assert_eq!(held.status, ReservationStatus::Held);
    test.env.freeze_nats();
    for _ in 0..CHARGES {
        test.charge(user, 1).await;
    }
    until(30, "the sweeper to ring the hold's alarm", || async {
        status(&test, held.id).await != Status::Waiting
    })
    .await;
    until(30, "the hold's end", || async { test.find(held.id).await.status == ReservationStatus::Expired })
        .await;
    assert!(test.app.bus.health.is_failing(), "JetStream is frozen");
    test.env.thaw_nats();
    until(60, "the charges to be announced", || async {
        !store::pulse::pulse(&test.app.pool).await.unwrap().charges
    })
    .await;
    test.check_books().await;
}

#[tokio::test]
async fn publish_ends_while_jetstream_is_frozen() {
    let test = TestApp::start().await;
    test.env.freeze_nats();
    let (begin, sagas) = (Instant::now(), vec![Uuid::from_u128(1); 1_000]);
    let later = Utc::now() + TimeDelta::hours(1);
    let alarm = |saga: &Uuid| messages::alarm(&[*saga], later);
    let error = publish(&test.env.bus, &sagas, alarm).await.unwrap_err().to_string();
    assert!(error.contains("has not stored"), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(20), "it took {:?}", begin.elapsed());
    test.env.thaw_nats();
    publish(&test.env.bus, &sagas, alarm).await.unwrap();
}

#[tokio::test]
async fn instance_is_not_ready_while_jetstream_is_frozen() {
    let (entrance, anonymous) = (Entrance::start().await, Caller::anonymous());
    until(10, "the instance to be ready", || async {
        entrance.get("/readyz", &anonymous).await.status == 200
    })
    .await;
    entrance.test.env.freeze_nats();
    until(20, "the instance to ask for no more requests", || async {
        entrance.get("/readyz", &anonymous).await.status == 503
    })
    .await;
    let answer = entrance.get("/readyz", &anonymous).await;
    let detail = answer.is(503, "unavailable")["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("JetStream did not store a message") && detail.contains("restart"), "{detail}");
    entrance.test.env.thaw_nats();
    until(20, "the instance to be ready again", || async {
        entrance.get("/readyz", &anonymous).await.status == 200
    })
    .await;
    let checks = Program::of(&entrance.test.env).json(0, "doctor").await;
    let found =
        checks["checks"].as_array().unwrap().iter().find(|check| check["check"] == "jetstream").unwrap();
    assert_eq!(found["state"], "ok", "{found}");
}

/// Waits until the instance asks for no more requests, at most as long as it may take, and returns what it says is wrong.
async fn not_ready(entrance: &Entrance) -> String {
    let anonymous = Caller::anonymous();
    let ask = || entrance.get("/readyz", &anonymous);
    until(10, "the instance to ask for no more requests", || async { ask().await.status == 503 }).await;
    ask().await.is(503, "unavailable")["detail"].as_str().unwrap().to_owned()
}

async fn ready(entrance: &Entrance) {
    until(60, "the instance to be ready", || async {
        entrance.get("/readyz", &Caller::anonymous()).await.status == 200
    })
    .await;
}

/// What `doctor` finds wrong about NATS or its JetStream, and its advice.
async fn diagnosis(entrance: &Entrance) -> (String, String) {
    let checks = Program::of(&entrance.test.env).json(1, "doctor").await;
    let mut all = checks["checks"].as_array().unwrap().iter();
    let is_about_nats = |check: &Value| check["check"] == "nats" || check["check"] == "jetstream";
    let found = all.find(|check| is_about_nats(check) && check["state"] == "wrong");
    let found = found.unwrap_or_else(|| panic!("nothing is wrong with NATS: {checks}"));
    let text = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
    (text("found"), text("advice"))
}

/// A hold that falls due ends although JetStream does not work; once it works again the instance is ready, and the books are
/// right.
async fn expires_and_recovers(entrance: &Entrance, hold: Uuid, recover: impl FnOnce()) {
    let test = &entrance.test;
    until(40, "the hold's end", || async { test.find(hold).await.status == ReservationStatus::Expired })
        .await;
    assert!(test.app.bus.health.is_failing(), "JetStream does not work");
    recover();
    ready(entrance).await;
    test.check_books().await;
}

#[tokio::test]
async fn switched_off_jetstream_is_named_and_holds_expire() {
    let entrance = Entrance::with(&["--hold-seconds", "6"]).await;
    ready(&entrance).await;
    let env = &entrance.test.env;
    let hold = entrance.test.reserve(Uuid::from_u128(1), &[1]).await.id;
    env.switch_jetstream_off();
    let detail = not_ready(&entrance).await;
    assert!(
        detail.contains("JetStream") && detail.contains("log says that JetStream was disabled"),
        "{detail}"
    );
    let (found, advice) = diagnosis(&entrance).await;
    assert!(found.contains("JetStream") && advice.contains("restart"), "{found}: {advice}");
    expires_and_recovers(&entrance, hold, || env.permit_nats("")).await;
}

#[tokio::test]
async fn account_without_jetstream_is_named_and_holds_expire() {
    let entrance = Entrance::with(&["--hold-seconds", "6"]).await;
    ready(&entrance).await;
    let env = &entrance.test.env;
    let hold = entrance.test.reserve(Uuid::from_u128(1), &[1]).await.id;
    env.switch_jetstream_off_for_account();
    let detail = not_ready(&entrance).await;
    assert!(detail.contains("JetStream") && detail.contains("for the account of this user"), "{detail}");
    let (found, advice) = diagnosis(&entrance).await;
    assert!(found.contains("switched off for this user's account"), "{found}");
    assert!(advice.contains("jetstream: enabled"), "{advice}");
    expires_and_recovers(&entrance, hold, || env.permit_nats("")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_without_quorum_is_named_and_holds_expire() {
    let mut cluster = Cluster::start().await;
    cluster.connect().await;
    let mut env = Env::start().await;
    env.nats_url = cluster.url();
    let flags = ["--hold-seconds", "8", "--nats-replicas", "3"];
    let entrance = Entrance::of(TestApp::on(env, &flags, &Role::ALL).await).await;
    ready(&entrance).await;
    let hold = entrance.test.reserve(Uuid::from_u128(1), &[1]).await.id;
    cluster.kill(0);
    cluster.kill(1);
    let detail = not_ready(&entrance).await;
    assert!(detail.contains("JetStream") && detail.contains("most of its servers run"), "{detail}");
    let (found, advice) = diagnosis(&entrance).await;
    assert!(found.contains("JetStream"), "{found}");
    assert!(advice.contains("most of its servers run"), "{advice}");
    let recover = || {
        cluster.restart(0);
        cluster.restart(1);
    };
    expires_and_recovers(&entrance, hold, recover).await;
}

#[tokio::test]
async fn dead_task_makes_an_instance_not_ready() {
    let test = TestApp::start().await;
    let tasks = Tasks::new(&CancellationToken::new());
    let health = Health::new(test.app.bus.health.clone(), tasks.clone());
    assert_eq!(health.complaints(&test.app.pool, true).await, Vec::<String>::new());
    tasks.supervise("of this test", async {});
    tasks.died().await;
    let complaints = health.complaints(&test.app.pool, true).await;
    assert!(complaints.len() == 1 && complaints[0].contains("\"of this test\" is dead"), "{complaints:?}");
}

#[tokio::test]
async fn process_ends_when_a_task_dies() {
    let env = Env::start().await;
    let ended = Command::new(env!("CARGO_BIN_EXE_boxoffice"))
        .args(["serve", "--role", "worker", "--admin-listen", "127.0.0.1:0"])
        .env("DATABASE_URL", &env.database_url)
        .env("NATS_URL", &env.nats_url)
        .env("BOXOFFICE_PANIC_AT", "probe::begin")
        .kill_on_drop(true)
        .output();
    let ended =
        tokio::time::timeout(Duration::from_secs(60), ended).await.expect("it ends by itself").unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("the background task \"JetStream probe\" is dead"), "{said}");
}
