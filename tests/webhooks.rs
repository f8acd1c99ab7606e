//! Webhooks: signed deliveries that arrive at least once and in order, whatever endpoints do.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use boxoffice::ids;
use boxoffice::store::api_keys::Role;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::common::http::{Caller, Entrance};
use crate::common::program::with_database;

const WAIT_SECONDS: u64 = 60;

/// What an endpoint of a shop has received, and how it answers.
#[derive(Clone)]
struct Shop {
    received: Arc<Mutex<Vec<(HeaderMap, String)>>>,
    status: Arc<AtomicU16>,
    hangs: Arc<AtomicBool>,
    address: SocketAddr,
}

impl Shop {
    async fn open() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shop = Self {
            received: Arc::default(),
            status: Arc::new(AtomicU16::new(204)),
            hangs: Arc::default(),
            address,
        };
        let router = Router::new().route("/hook", post(receive)).with_state(shop.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        shop
    }

    fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    fn answer(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }

    fn bodies(&self) -> Vec<Value> {
        let received = self.received.lock().unwrap();
        received.iter().map(|(_, body)| serde_json::from_str(body).unwrap()).collect()
    }

    fn names(&self) -> Vec<String> {
        self.bodies().iter().map(|body| body["type"].as_str().unwrap().to_owned()).collect()
    }
}

async fn receive(State(shop): State<Shop>, headers: HeaderMap, body: Bytes) -> Response {
    shop.received.lock().unwrap().push((headers, String::from_utf8(body.to_vec()).unwrap()));
    if shop.hangs.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
    let status = StatusCode::from_u16(shop.status.load(Ordering::Relaxed)).unwrap();
    let elsewhere = [(header::LOCATION, shop.url())];
    (status, elsewhere).into_response()
}

async fn start() -> (Entrance, Caller) {
    let entrance = Entrance::with(&["--webhooks-private"]).await;
    let admin = entrance.key(Role::Admin).await;
    (entrance, admin)
}

async fn add(entrance: &Entrance, admin: &Caller, shop: &Shop, events: &[&str]) -> Value {
    let wanted = json!({ "url": shop.url(), "events": events, "description": "the shop" });
    entrance.post("/v1/admin/webhooks", admin, wanted).await.good(201).clone()
}

fn path(endpoint: &Value) -> String {
    format!("/v1/admin/webhooks/{}", endpoint["id"].as_str().unwrap())
}

async fn log(entrance: &Entrance, admin: &Caller, endpoint: &Value) -> Vec<Value> {
    let log = entrance.get(&format!("{}/deliveries", path(endpoint)), admin).await.good(200).clone();
    log["items"].as_array().unwrap().clone()
}

/// Buys a seat, and answers with the reservation's id.
async fn buy(entrance: &Entrance, seat: i64) -> String {
    let buyer = entrance.admitted(1_000).await;
    let held = entrance.reserve(&buyer, &[seat]).await.good(201).clone();
    entrance.pay(&buyer, &held).await.good(201);
    held["id"].as_str().unwrap().to_owned()
}

/// Makes all that waits due now.
async fn make_due(entrance: &Entrance) {
    sqlx::query(
        "update webhook_deliveries set next_attempt_at = now() where status = 'pending' and attempts > 0",
    )
    .execute(&entrance.pool)
    .await
    .unwrap();
}

fn signature(secret: &str, headers: &HeaderMap, body: &str) -> String {
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    let header = |name: &str| headers[name].to_str().unwrap();
    mac.update(format!("{}.{}.{body}", header("webhook-id"), header("webhook-timestamp")).as_bytes());
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[tokio::test]
async fn events_arrive_signed_filtered_and_in_order() {
    let (entrance, admin) = start().await;
    let (all, some) = (Shop::open().await, Shop::open().await);
    let whole = add(&entrance, &admin, &all, &[]).await;
    let part = add(&entrance, &admin, &some, &["reservation.con*", "points.entry"]).await;
    let reservation = buy(&entrance, 1).await;
    let has = |shop: &Shop, name: &str| shop.names().iter().any(|own| own == name);
    let arrived = || async { has(&all, "reservation.confirmed") && has(&some, "reservation.confirmed") };
    entrance.test.until(WAIT_SECONDS, "the confirmation to arrive", arrived).await;

    let own: Vec<Value> =
        all.bodies().into_iter().filter(|body| body["subject_id"] == reservation.as_str()).collect();
    let sequences: Vec<i64> = own.iter().map(|body| body["sequence"].as_i64().unwrap()).collect();
    assert!(sequences.is_sorted() && own.len() == 4, "{own:#?}");
    assert_eq!((&own[0]["type"], &own[0]["data"]["seats"]), (&json!("reservation.reserved"), &json!([1])));
    assert!(some.names().iter().all(|name| name == "points.entry" || name == "reservation.confirmed"));
    for (shop, endpoint) in [(&all, &whole), (&some, &part)] {
        for (headers, body) in shop.received.lock().unwrap().iter() {
            let expected = signature(endpoint["secret"].as_str().unwrap(), headers, body);
            assert_eq!(headers["webhook-signature"], expected);
            assert_eq!(headers["content-type"], "application/json");
        }
    }
    entrance
        .test
        .until(WAIT_SECONDS, "the log to show it", || async {
            log(&entrance, &admin, &whole).await.iter().all(|one| one["status"] == "delivered")
        })
        .await;
    let delivered = log(&entrance, &admin, &whole).await;
    assert!(
        delivered.iter().all(|one| one["response_status"] == 204 && one["attempts"] == 1),
        "{delivered:#?}"
    );

    // The same delivery again has the same id.
    let first = delivered.iter().find(|one| one["event"] == "reservation.reserved").unwrap();
    let again = format!("{}/deliveries/{}/replay", path(&whole), first["id"].as_str().unwrap());
    let before = all.received.lock().unwrap().len();
    assert_eq!(entrance.post(&again, &admin, json!({})).await.good(200)["status"], "pending");
    entrance
        .test
        .until(WAIT_SECONDS, "the replay", || async { all.received.lock().unwrap().len() > before })
        .await;
    let received = all.received.lock().unwrap();
    let sent = |wanted: &Value| {
        let of = |(headers, body): &(HeaderMap, String)| {
            (serde_json::from_str::<Value>(body).unwrap()["id"] == *wanted)
                .then(|| headers["webhook-id"].clone())
        };
        received.iter().filter_map(of).collect::<Vec<_>>()
    };
    let ids = sent(&first["event_id"]);
    assert!(ids.len() == 2 && ids[0] == ids[1], "{ids:?}");
}

#[tokio::test]
async fn failed_delivery_holds_back_its_reservation_only() {
    let (entrance, admin) = start().await;
    let shop = Shop::open().await;
    let endpoint = add(&entrance, &admin, &shop, &["reservation.*"]).await;
    shop.answer(500);
    let first = buy(&entrance, 1).await;
    entrance
        .test
        .until(WAIT_SECONDS, "the first attempt to fail", || async {
            log(&entrance, &admin, &endpoint).await.iter().any(|one| one["response_status"] == 500)
        })
        .await;
    assert_eq!(entrance.get(&path(&endpoint), &admin).await.good(200)["status"], "failing");
    // The events behind it are queued, and none of them was attempted.
    let waiting = || async {
        let log = log(&entrance, &admin, &endpoint).await;
        log.len() == 3 && log.iter().filter(|one| one["attempts"].as_i64().unwrap() > 0).count() == 1
    };
    entrance.test.until(WAIT_SECONDS, "the others to wait behind it", waiting).await;
    assert!(shop.names().iter().all(|name| name == "reservation.reserved"), "{:?}", shop.names());
    shop.answer(200);
    let second = buy(&entrance, 2).await;
    let of = |id: &str| shop.bodies().iter().filter(|body| body["subject_id"] == id).count();
    entrance.test.until(WAIT_SECONDS, "another reservation's events", || async { of(&second) == 3 }).await;
    make_due(&entrance).await;
    entrance
        .test
        .until(WAIT_SECONDS, "all to be delivered", || async {
            log(&entrance, &admin, &endpoint).await.iter().all(|one| one["status"] == "delivered")
        })
        .await;
    let own: Vec<i64> = shop
        .bodies()
        .iter()
        .filter(|body| body["subject_id"] == first.as_str())
        .map(|body| body["sequence"].as_i64().unwrap())
        .collect();
    assert!(own.is_sorted(), "{own:?}");
    assert_eq!(entrance.get(&path(&endpoint), &admin).await.good(200)["status"], "enabled");
}

#[tokio::test]
async fn slow_endpoint_delays_no_other_and_no_purchase() {
    let (entrance, admin) = start().await;
    let (slow, quick) = (Shop::open().await, Shop::open().await);
    slow.hangs.store(true, Ordering::Relaxed);
    add(&entrance, &admin, &slow, &[]).await;
    add(&entrance, &admin, &quick, &["reservation.confirmed"]).await;
    for seat in 1..=8 {
        buy(&entrance, seat).await;
    }
    entrance
        .test
        .until(WAIT_SECONDS, "the quick endpoint to have all", || async { quick.names().len() == 8 })
        .await;
    // No attempt to the slow endpoint has ended, and no more than its share are under way.
    let begun = slow.received.lock().unwrap().len();
    assert!((1..=4).contains(&begun), "{begun}");
}

#[tokio::test]
async fn endpoint_is_disabled_after_a_day_of_failures() {
    let (entrance, admin) = start().await;
    let shop = Shop::open().await;
    let endpoint = add(&entrance, &admin, &shop, &["reservation.confirmed"]).await;
    shop.answer(302);
    buy(&entrance, 1).await;
    entrance
        .test
        .until(WAIT_SECONDS, "the attempt to fail", || async {
            let log = log(&entrance, &admin, &endpoint).await;
            log.first()
                .is_some_and(|one| one["error"].as_str().is_some_and(|error| error.contains("redirects")))
        })
        .await;
    assert_eq!(shop.received.lock().unwrap().len(), 1, "a redirect is not followed");
    sqlx::query("update webhook_endpoints set failing_since = now() - interval '24 hours'")
        .execute(&entrance.pool)
        .await
        .unwrap();
    make_due(&entrance).await;
    let status = async || entrance.get(&path(&endpoint), &admin).await.good(200)["status"].clone();
    entrance
        .test
        .until(WAIT_SECONDS, "the endpoint to be disabled", || async { status().await == "disabled" })
        .await;
    let (disabled, waiting) = boxoffice::store::webhooks::counts(&entrance.pool).await.unwrap();
    assert_eq!((disabled, waiting), (1, 0), "what waits for a disabled endpoint is not late");
    shop.answer(200);
    let enabled =
        entrance.post(&format!("{}/enabling", path(&endpoint)), &admin, json!({})).await.good(200).clone();
    assert_eq!((&enabled["status"], &enabled["disabled_reason"]), (&json!("enabled"), &Value::Null));
    make_due(&entrance).await;
    entrance
        .test
        .until(WAIT_SECONDS, "the delivery that waited", || async {
            log(&entrance, &admin, &endpoint).await[0]["status"] == "delivered"
        })
        .await;
    // An endpoint that is gone says so itself.
    shop.answer(410);
    buy(&entrance, 2).await;
    entrance
        .test
        .until(WAIT_SECONDS, "the endpoint to be disabled", || async { status().await == "disabled" })
        .await;
}

#[tokio::test]
async fn both_secrets_sign_after_a_rotation() {
    let (entrance, admin) = start().await;
    let shop = Shop::open().await;
    let endpoint = add(&entrance, &admin, &shop, &["reservation.confirmed"]).await;
    let rotate = format!("{}/secrets", path(&endpoint));
    let key = admin.with("idempotency-key", "rotation");
    let rotated = entrance.post(&rotate, &key, json!({ "overlap_seconds": 600 })).await.good(201).clone();
    let repeated = entrance.post(&rotate, &key, json!({ "overlap_seconds": 600 })).await.good(201).clone();
    assert_eq!(repeated["secret"], rotated["secret"]);
    assert!(rotated["previous_secret_until"].is_string());
    buy(&entrance, 1).await;
    entrance.test.until(WAIT_SECONDS, "the delivery", || async { shop.names().len() == 1 }).await;
    let (headers, body) = shop.received.lock().unwrap()[0].clone();
    let expected =
        [&rotated, &endpoint].map(|one| signature(one["secret"].as_str().unwrap(), &headers, &body));
    assert_eq!(headers["webhook-signature"], expected.join(" "));
    // Without an overlap the new secret signs alone.
    let last = entrance.post(&rotate, &admin, json!({ "overlap_seconds": 0 })).await.good(201).clone();
    buy(&entrance, 2).await;
    entrance.test.until(WAIT_SECONDS, "the next delivery", || async { shop.names().len() == 2 }).await;
    let (headers, body) = shop.received.lock().unwrap()[1].clone();
    assert_eq!(headers["webhook-signature"], signature(last["secret"].as_str().unwrap(), &headers, &body));
    let refused = entrance.post(&rotate, &admin, json!({ "overlap_seconds": 604_801 })).await;
    assert_eq!(refused.pointers(), ["/overlap_seconds"]);
}

#[tokio::test]
async fn another_process_goes_on_with_deliveries() {
    let (entrance, admin) = start().await;
    let shop = Shop::open().await;
    let endpoint = add(&entrance, &admin, &shop, &["reservation.*"]).await;
    shop.answer(503);
    let reservation = buy(&entrance, 1).await;
    entrance.test.until(WAIT_SECONDS, "an attempt", || async { !shop.names().is_empty() }).await;
    let entrance = entrance.restarted(&["--webhooks-private"]).await;
    shop.answer(200);
    make_due(&entrance).await;
    // An attempt that was under way at the stop is made again when its claim is over.
    entrance
        .test
        .until(120, "all to be delivered", || async {
            let log = log(&entrance, &admin, &endpoint).await;
            log.len() == 3 && log.iter().all(|one| one["status"] == "delivered")
        })
        .await;
    assert!(shop.bodies().iter().all(|body| body["subject_id"] == reservation.as_str()));
    entrance.test.check_books().await;
}

#[tokio::test]
async fn private_addresses_are_refused_also_by_name() {
    let entrance = Entrance::start().await;
    let admin = entrance.key(Role::Admin).await;
    let refused = async |body: Value, pointer: &str| {
        let reply = entrance.post("/v1/admin/webhooks", &admin, body.clone()).await;
        assert_eq!(reply.pointers(), [pointer], "{body}");
    };
    for url in
        ["http://shop.example/", "https://127.0.0.1/", "https://[::1]/", "https://10.0.0.1/", "shop", ""]
    {
        refused(json!({ "url": url }), "/url").await;
    }
    refused(json!({ "url": "https://shop.example/", "events": ["a b"] }), "/events/0").await;
    refused(json!({ "url": "https://shop.example/", "events": ["*"] }), "/events/0").await;
    refused(json!({ "url": "https://shop.example/", "events": vec!["a"; 51] }), "/events").await;
    refused(json!({ "url": "https://shop.example/", "description": "a\nb" }), "/description").await;

    // The name leads to this machine; the connection is not made.
    let shop = Shop::open().await;
    let url = format!("https://localhost:{}/hook", shop.address.port());
    let endpoint = entrance.post("/v1/admin/webhooks", &admin, json!({ "url": url })).await.good(201).clone();
    buy(&entrance, 1).await;
    entrance
        .test
        .until(WAIT_SECONDS, "the attempt to be refused", || async {
            let log = log(&entrance, &admin, &endpoint).await;
            log.iter()
                .any(|one| one["error"].as_str().is_some_and(|error| error.contains("no public address")))
        })
        .await;
    // So is an address that was allowed when the endpoint was added.
    sqlx::query("update webhook_endpoints set url = $1")
        .bind(shop.url())
        .execute(&entrance.pool)
        .await
        .unwrap();
    make_due(&entrance).await;
    entrance
        .test
        .until(WAIT_SECONDS, "the attempt to be refused", || async {
            let log = log(&entrance, &admin, &endpoint).await;
            log.iter().any(|one| {
                one["error"].as_str().is_some_and(|error| error.contains("the address is private"))
            })
        })
        .await;
    assert!(shop.names().is_empty());
}

#[tokio::test]
async fn command_line_adds_and_repairs_endpoints() {
    let (program, pool) = with_database().await;
    let added = program
        .json(0, "webhook add https://shop.example/hooks --event reservation.* --event points.entry")
        .await;
    let id = added["id"].as_str().unwrap();
    assert!(added["secret"].as_str().unwrap().starts_with("whsec_"));
    assert_eq!(added["events"], json!(["reservation.*", "points.entry"]));
    sqlx::query("update webhook_endpoints set disabled_at = now(), disabled_reason = 'broken'")
        .execute(&pool)
        .await
        .unwrap();
    let listed = program.run("webhook list").await.out;
    assert!(
        listed.contains("disabled") && listed.contains("broken") && !listed.contains("whsec_"),
        "{listed}"
    );
    assert_eq!(program.json(0, &format!("webhook enable {id}")).await["status"], "enabled");
    let rotated = program.json(0, &format!("webhook rotate {id} --overlap-seconds 60")).await;
    assert_ne!(rotated["secret"], added["secret"]);
    assert_eq!(program.json(0, &format!("webhook log {id} --status failed")).await["items"], json!([]));
    assert_eq!(program.run(&format!("webhook replay {id} {}", ids::new())).await.code, 1);
    for wrong in [
        "webhook add http://shop.example/",
        "webhook add https://10.0.0.1/",
        "webhook add https://a.example/ --event *",
    ] {
        assert_eq!(program.run(wrong).await.code, 2, "{wrong}");
    }
    assert_eq!(program.json(0, &format!("webhook delete {id}")).await["deleted"], true);
    assert_eq!(program.run(&format!("webhook delete {id}")).await.code, 1);
}

#[tokio::test]
async fn endpoints_take_an_admin() {
    let (entrance, admin) = start().await;
    let shop = Shop::open().await;
    let endpoint = add(&entrance, &admin, &shop, &[]).await;
    let own = path(&endpoint);
    let delivery = format!("{own}/deliveries/{}/replay", ids::new());
    let routes = [
        (Method::GET, "/v1/admin/webhooks".to_owned()),
        (Method::POST, "/v1/admin/webhooks".to_owned()),
        (Method::GET, own.clone()),
        (Method::GET, format!("{own}/deliveries")),
        (Method::POST, format!("{own}/secrets")),
        (Method::POST, format!("{own}/enabling")),
        (Method::POST, delivery.clone()),
        (Method::DELETE, own.clone()),
    ];
    let user = entrance.user(0).await;
    let mut keys = Vec::new();
    for role in [Role::Viewer, Role::Operator, Role::Cashier, Role::Support, Role::Gate] {
        keys.push(entrance.key(role).await);
    }
    for (method, path) in routes {
        entrance.send(method.clone(), &path, &user, None).await.is(401, "unauthenticated");
        for key in &keys {
            entrance.send(method.clone(), &path, key, None).await.is(403, "forbidden");
        }
    }
    let listed = entrance.get("/v1/admin/webhooks", &admin).await.good(200).clone();
    assert_eq!(listed["items"][0]["id"], endpoint["id"]);
    assert!(!listed.to_string().contains("whsec_"), "the secret is shown once");
    assert_eq!(entrance.get(&format!("{own}/deliveries?status=odd"), &admin).await.pointers(), ["/status"]);
    entrance.post(&delivery, &admin, json!({})).await.is(404, "not_found");
    entrance.send(Method::DELETE, &own, &admin, None).await.good(204);
    for (method, path) in
        [(Method::GET, own.clone()), (Method::DELETE, own), (Method::GET, "/v1/admin/webhooks/x".to_owned())]
    {
        entrance.send(method, &path, &admin, None).await.is(404, "not_found");
    }
    let acts: Vec<String> =
        sqlx::query_scalar("select act from operator_acts where act like 'webhook.%' order by id")
            .fetch_all(&entrance.pool)
            .await
            .unwrap();
    assert_eq!(acts, ["webhook.add", "webhook.delete"]);
}
