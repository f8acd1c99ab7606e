//! What a browser needs of the API: CORS for pages of other origins, and event streams that an `EventSource` can open.

use std::time::Duration;

use boxoffice::app::App;
use boxoffice::store::api_keys::Role;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::common::app::until;
use crate::common::http::{Caller, Entrance};
use crate::common::program::Program;

const SHOP: &str = "https://shop.example";
const EVENTS: &str = "/v1/queue-tokens/current/events";
const KEYS: &str = "/v1/queue-tokens/current/stream-keys";

#[tokio::test]
async fn allowed_page_may_call_and_see_headers() {
    let entrance = Entrance::with(&["--cors-origins", "https://shop.example,http://127.0.0.1:5173"]).await;
    let preflight = async |origin: &str, path: &str| {
        let request = entrance.request(Method::OPTIONS, path, &Caller::anonymous()).header("origin", origin);
        let request = request.header("access-control-request-method", "POST");
        let wanted = "authorization,content-type,idempotency-key,queue-token";
        request.header("access-control-request-headers", wanted).send().await.unwrap()
    };
    let answer = preflight(SHOP, "/v1/reservations").await;
    assert_eq!(answer.status(), StatusCode::OK);
    let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_lowercase());
    assert_eq!(header("access-control-allow-origin").as_deref(), Some(SHOP));
    assert_eq!(header("access-control-allow-credentials").as_deref(), Some("true"));
    assert!(header("access-control-allow-methods").unwrap().contains("post"));
    for name in ["authorization", "content-type", "idempotency-key", "queue-token", "last-event-id"] {
        assert!(header("access-control-allow-headers").unwrap().contains(name), "{name}");
    }
    assert!(header("vary").unwrap().contains("origin"));
    assert!(answer.headers().contains_key("x-request-id"));
    let stranger = preflight("https://other.example", "/v1/reservations").await;
    assert!(!stranger.headers().contains_key("access-control-allow-origin"));

    // A refusal is to be read by the page too.
    for (method, path, status) in [
        (Method::GET, "/v1/concerts", 200),
        (Method::POST, "/v1/reservations", 401),
        (Method::GET, "/v1/nowhere", 404),
        (Method::PUT, "/v1/reservations", 405),
    ] {
        let request = entrance.request(method, path, &Caller::anonymous()).header("origin", SHOP);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{path}");
        assert_eq!(answer.headers()["access-control-allow-origin"], SHOP, "{path}");
        let exposed = answer.headers()["access-control-expose-headers"].to_str().unwrap().to_lowercase();
        for name in ["retry-after", "etag", "location", "x-request-id", "idempotent-replayed"] {
            assert!(exposed.contains(name), "{path}: {exposed}");
        }
    }
}

#[tokio::test]
async fn no_origin_may_call_by_default() {
    let entrance = Entrance::start().await;
    let request = entrance.request(Method::GET, "/v1/concerts", &Caller::anonymous()).header("origin", SHOP);
    assert!(!request.send().await.unwrap().headers().contains_key("access-control-allow-origin"));
    let request = entrance.request(Method::OPTIONS, "/v1/concerts", &Caller::anonymous());
    assert_eq!(request.header("origin", SHOP).send().await.unwrap().status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn wrong_origins_are_refused_at_the_start() {
    for (origins, words) in [("*", "credentials"), ("https://shop.example/", "https://shop.example")] {
        let ran = Program::alone().run(&format!("serve --role api --cors-origins {origins}")).await;
        assert_eq!(ran.code, 2, "{}", ran.err);
        assert!(ran.err.contains(words) && ran.err.contains("--cors-origins"), "{}", ran.err);
    }
}

/// The first event of a stream that an `EventSource` opens: no header but the id of its last event.
async fn open(app: &App, key: &str, last: Option<&str>) -> (StatusCode, String, reqwest::Response) {
    let request = reqwest::Client::new().get(format!("http://{}{EVENTS}?key={key}", app.address.unwrap()));
    let request = last.map_or(request.try_clone().unwrap(), |last| request.header("last-event-id", last));
    let mut answer = request.send().await.unwrap();
    let status = answer.status();
    let mut text = String::new();
    while status == StatusCode::OK && !text.contains("\n\n") {
        let chunk =
            tokio::time::timeout(Duration::from_secs(20), answer.chunk()).await.expect("an event comes");
        text.push_str(std::str::from_utf8(&chunk.unwrap().expect("the stream is open")).unwrap());
    }
    (status, text, answer)
}

fn field<'a>(event: &'a str, name: &str) -> &'a str {
    event
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap_or_else(|| panic!("no {name} in {event}"))
        .trim()
}

async fn new_key(entrance: &Entrance, buyer: &Caller) -> String {
    let issued = entrance.post(KEYS, buyer, json!({})).await.good(201).clone();
    assert_eq!(issued["expires_in_seconds"], 30);
    issued["key"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn key_opens_one_stream_on_any_instance() {
    let entrance = Entrance::start().await;
    let buyer = entrance.admitted(0).await;
    let key = new_key(&entrance, &buyer).await;
    // Another instance than the one that issued it.
    let other = entrance.test.another(&[]).await;
    let room = other.room.clone().unwrap();
    until(20, "the other instance to know the line", || async { room.ready() }).await;
    let here = &entrance.test.app;
    let (status, event, stream) = open(&other, &key, None).await;
    assert_eq!(status, StatusCode::OK);
    let place: Value = serde_json::from_str(field(&event, "data:")).unwrap();
    assert_eq!(
        (place["status"].as_str(), place["user_id"].as_str()),
        (Some("active"), Some(&*buyer.id.to_string()))
    );
    for instance in [here, &other] {
        let (status, ..) = open(instance, &key, None).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "the key is spent on every instance");
    }

    // A browser opens the stream again by itself, with the spent key and the id of the last event.
    let id = field(&event, "id:").to_owned();
    drop(stream);
    let (status, again, stream) = open(here, &key, Some(&id)).await;
    assert_eq!((status, field(&again, "id:").is_empty()), (StatusCode::OK, false));
    drop(stream);
    let foreign = new_key(&entrance, &entrance.admitted(0).await).await;
    let (_, event, _stream) = open(here, &foreign, None).await;
    for (key, last) in
        [(&key, Some(field(&event, "id:"))), (&key, Some("forged")), (&foreign, Some(id.as_str()))]
    {
        assert_eq!(
            open(here, key, last).await.0,
            StatusCode::UNAUTHORIZED,
            "an id proves its own stream alone"
        );
    }

    entrance.send(Method::DELETE, "/v1/queue-tokens/current", &buyer, None).await;
    until(20, "the stream to be over, so that an EventSource gives up", || async {
        open(here, &key, Some(&id)).await.0 == StatusCode::NO_CONTENT
    })
    .await;
    let again = entrance.get(EVENTS, &buyer.with("last-event-id", &id)).await;
    assert_eq!(again.status, 204, "also where headers say who calls");
    other.stop().await;
}

#[tokio::test]
async fn key_needs_its_owner_and_is_no_token() {
    let entrance = Entrance::start().await;
    let buyer = entrance.admitted(0).await;
    entrance.post(KEYS, &Caller::anonymous(), json!({})).await.is(401, "unauthenticated");
    entrance.post(KEYS, &buyer.without("queue-token"), json!({})).await.is(403, "queue_token_required");
    let thief = entrance.user(0).await.with("queue-token", buyer.header("queue-token"));
    entrance.post(KEYS, &thief, json!({})).await.is(403, "queue_token_wrong_user");
    entrance.post(KEYS, &entrance.key(Role::Admin).await, json!({})).await.is(401, "unauthenticated");
    let key = new_key(&entrance, &buyer).await;
    let as_token = buyer.with("queue-token", &key);
    entrance.get("/v1/queue-tokens/current", &as_token).await.is(403, "queue_token_invalid");
    let as_key = format!("{EVENTS}?key={}", buyer.header("queue-token"));
    entrance.get(&as_key, &Caller::anonymous()).await.is(401, "unauthenticated");
    entrance.get(&format!("{EVENTS}?key="), &buyer).await.is(401, "unauthenticated");
    let (status, ..) = open(&entrance.test.app, &key, None).await;
    assert_eq!(status, StatusCode::OK, "what was refused did not spend it");
}
