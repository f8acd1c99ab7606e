//! Each role in a process of its own, as its own user, and a service in another account.

use std::path::Path;

use boxoffice::app::{App, Role};
use boxoffice::saga::Outcome;
use boxoffice::store;
use saga_worker::Worker;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Nats, access};
use crate::common::app::{
    QUEUE_SECRET, TICKET_SECRET, add_concert, add_performance, assert_good, settings, until,
};
use crate::common::fresh_database;
use crate::common::http::SECRET;
use crate::common::program::Program;
use crate::worker_sdk;

const EXAMPLE: &str = "examples/badge_printer";

async fn process(nats: &Nats, database_url: &str, role: Role) -> App {
    let user = format!("{role:?}").to_lowercase();
    let workflows = Path::new(env!("CARGO_MANIFEST_DIR")).join(EXAMPLE);
    let mut settings = settings(&["--hold-seconds", "4", "--payment-grace-seconds", "8"]);
    settings.engine.workflows = Some(workflows);
    settings.servers.database_url = Some(database_url.to_owned());
    settings.servers.nats_url = Some(nats.url(&user));
    settings.servers.nats_access = access(&user);
    settings.http.access_secret = Some(SECRET.to_owned());
    settings.http.queue_secret = Some(QUEUE_SECRET.to_owned());
    settings.http.ticket_secret = Some(TICKET_SECRET.to_owned());
    App::start(&settings, &[role]).await.unwrap()
}

/// A service that prints badges, in an account that has rights to nothing else.
async fn printer(nats: &Nats) -> CancellationToken {
    let pool = store::open(&fresh_database().await, 8).unwrap();
    let stop = CancellationToken::new();
    let printed = Map::from_iter([("badge".to_owned(), json!("B-1"))]);
    let running = Worker::new("badges", pool)
        .command("badges.print", move |_conn, _request| {
            let output = printed.clone();
            Box::pin(async move { Ok(Outcome::Done { output }) })
        })
        .command("badges.shred", |_conn, _request| Box::pin(async { Ok(Outcome::done()) }))
        .start(&worker_sdk::nats(&nats.bus("badges").await), &stop)
        .await
        .unwrap();
    tokio::spawn(running.wait());
    stop
}

/// A buyer over HTTP.
struct Buyer {
    client: reqwest::Client,
    url: String,
    token: String,
    place: String,
}

impl Buyer {
    async fn admitted(url: &str, concert: Uuid) -> Self {
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let mut buyer = Self {
            client: reqwest::Client::new(),
            url: url.to_owned(),
            token: String::new(),
            place: String::new(),
        };
        let user = buyer.post("/v1/users", json!({ "name": "Ada" })).await;
        buyer.token = user["access_token"].as_str().unwrap().to_owned();
        buyer.post("/v1/points/charges", json!({ "amount": 1_000 })).await;
        let joined = buyer.post(&format!("/v1/concerts/{concert}/queue-tokens"), json!({})).await;
        buyer.place = joined["token"].as_str().unwrap().to_owned();
        let seen = || async { buyer.get("/v1/queue-tokens/current").await };
        until(30, "the buyer to be admitted", || async { seen().await["status"] == "active" }).await;
        buyer.place = seen().await["token"].as_str().unwrap().to_owned();
        buyer
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.send(self.client.post(format!("{}{path}", self.url)).json(&body)).await
    }

    async fn get(&self, path: &str) -> Value {
        self.send(self.client.get(format!("{}{path}", self.url))).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Value {
        let request = request.header("idempotency-key", Uuid::new_v4().to_string());
        let request = if self.token.is_empty() { request } else { request.bearer_auth(&self.token) };
        let request =
            if self.place.is_empty() { request } else { request.header("queue-token", &self.place) };
        let answer = request.send().await.unwrap();
        let (status, body) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{status}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    async fn hold(&self, performance: Uuid, seat: i32) -> String {
        let order = json!({ "performance_id": performance, "seats": [seat] });
        self.post("/v1/reservations", order).await["id"].as_str().unwrap().to_owned()
    }

    async fn becomes(&self, reservation: &str, status: &str) {
        let path = format!("/v1/reservations/{reservation}");
        until(40, &format!("the reservation to be {status}"), || async {
            self.get(&path).await["status"] == status
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_works_as_its_own_user() {
    let (nats, database_url) = (Nats::with_users(), fresh_database().await);
    let mut apps = Vec::new();
    drop(nats.bus("operator").await);
    for role in Role::ALL {
        apps.push(process(&nats, &database_url, role).await);
    }
    let printing = printer(&nats).await;
    let api = apps.iter().find(|app| app.address.is_some()).expect("the api answers HTTP");
    let url = format!("http://{}", api.address.unwrap());
    let concert = add_concert(api).await;
    let performance = add_performance(api, concert, 20, 100).await;
    let room = api.room.clone().unwrap();
    until(30, "the line to be known", || async { room.ready() }).await;

    let buyer = Buyer::admitted(&url, concert).await;
    let bought = buyer.hold(performance, 1).await;
    buyer.becomes(&bought, "held").await;
    buyer.post(&format!("/v1/reservations/{bought}/payment"), json!({})).await;
    buyer.becomes(&bought, "confirmed").await;
    buyer.post(&format!("/v1/reservations/{bought}/cancellation"), json!({})).await;
    buyer.becomes(&bought, "cancelled").await;
    assert_eq!(buyer.get("/v1/points").await["balance"], 1_000, "what was paid came back");

    let buyer = Buyer::admitted(&url, concert).await;
    let given_up = buyer.hold(performance, 2).await;
    buyer.becomes(&given_up, "held").await;
    buyer.post(&format!("/v1/reservations/{given_up}/cancellation"), json!({})).await;
    buyer.becomes(&given_up, "cancelled").await;
    let run_out = buyer.hold(performance, 3).await;
    buyer.becomes(&run_out, "expired").await;

    let operator = Program::alone()
        .with("DATABASE_URL", &database_url)
        .with("NATS_URL", &nats.url("operator"))
        .with("BOXOFFICE_NATS_INBOX", "_INBOX_operator")
        .with("BOXOFFICE_WORKFLOWS", EXAMPLE);
    let doctor = operator.run("doctor").await;
    assert_eq!(doctor.code, 0, "{}{}", doctor.out, doctor.err);
    for words in [
        format!("queue admit {concert} --count 1 --reason rehearsal"),
        format!("queue pause {concert} --reason rehearsal"),
        format!("queue resume {concert} --reason rehearsal"),
        format!("saga why {bought}"),
        "saga pause --step points.deduct --reason rehearsal".to_owned(),
        "saga resume --step points.deduct --reason rehearsal".to_owned(),
        "saga replay-events".to_owned(),
    ] {
        let ran = operator.run(&words).await;
        assert_eq!(ran.code, 0, "{words}: {}{}", ran.out, ran.err);
    }
    assert_eq!(nats.refusals(), [""; 0], "each has the rights that it uses");
    assert_good(api).await;
    printing.cancel();
    for app in apps {
        app.stop().await;
    }
}
