//! The line over HTTP: joining, looking, listening, leaving, and the gate that every booking route has.

use std::time::Duration;

use boxoffice::store::api_keys::Role;
use chrono::{TimeDelta, Utc};
use reqwest::Method;
use serde_json::{Value, json};

use super::common::app::{add_concert, add_performance, add_performance_at, until};
use super::common::http::{Caller, Entrance};

fn line(concert: impl std::fmt::Display) -> String {
    format!("/v1/concerts/{concert}/queue-tokens")
}

#[tokio::test]
async fn joining_twice_gives_the_same_place() {
    let entrance = Entrance::start().await;
    let user = entrance.user(0).await;
    let path = line(entrance.test.concert);
    let first = entrance.post(&path, &user, json!({})).await.good(201).clone();
    assert_eq!((&first["user_id"], &first["concert_id"]), (&json!(user.id), &json!(entrance.test.concert)));
    for field in ["token", "status", "phase", "inventory", "poll_after_ms", "issued_at", "eta_known"] {
        assert!(!first[field].is_null(), "{field}: {first}");
    }
    let again = entrance.post(&path, &user, json!({})).await.good(200).clone();
    assert_eq!(again["issued_at"], first["issued_at"]);
    entrance.post(&line(boxoffice::ids::new()), &user, json!({})).await.is(404, "not_found");
}

#[tokio::test]
async fn sold_out_and_closed_concerts_refuse_joins() {
    let entrance = Entrance::start().await;
    let user = entrance.user(0).await;
    let nothing = add_concert(&entrance.test.app).await;
    entrance.post(&line(nothing), &user, json!({})).await.is(409, "queue_closed");

    let small = add_concert(&entrance.test.app).await;
    let performance = add_performance(&entrance.test.app, small, 1, 0).await;
    let buyer = entrance.admitted_to(small, 0).await;
    let order = json!({ "performance_id": performance, "seats": [1] });
    let held = entrance.post("/v1/reservations", &buyer, order).await.good(201).clone();
    entrance.pay(&buyer, &held).await.good(201);
    until(10, "the concert to be sold out", || async {
        let late = entrance.user(0).await;
        entrance.post(&line(small), &late, json!({})).await.body["code"] == "sold_out"
    })
    .await;
    entrance.post(&line(small), &user, json!({})).await.is(409, "sold_out");
}

#[tokio::test]
async fn the_gate_has_a_code_for_each_reason() {
    let entrance = Entrance::start().await;
    let concert = entrance.test.concert;
    let routes = [
        format!("/v1/concerts/{concert}/performances"),
        format!("/v1/performances/{}/seats", entrance.test.performance),
    ];
    let buyer = entrance.admitted(0).await;
    let other = entrance.admitted(0).await;
    let elsewhere = add_concert(&entrance.test.app).await;
    add_performance(&entrance.test.app, elsewhere, 5, 0).await;
    let stranger = entrance.admitted_to(elsewhere, 0).await;
    let token = buyer.header("queue-token");
    let forged = format!("{}{}", &token[..token.len() - 2], if token.ends_with("AA") { "BB" } else { "AA" });
    let wrong = [
        (buyer.without("queue-token"), "queue_token_required"),
        (buyer.with("queue-token", "rubbish"), "queue_token_invalid"),
        (buyer.with("queue-token", &forged), "queue_token_invalid"),
        (buyer.with("queue-token", other.header("queue-token")), "queue_token_wrong_user"),
        (stranger, "queue_token_wrong_concert"),
    ];
    for (caller, code) in wrong {
        for path in &routes {
            entrance.get(path, &caller).await.is(403, code);
        }
        entrance.reserve(&caller, &[1]).await.is(403, code);
    }
    for path in &routes {
        entrance.get(path, &buyer).await.good(200);
    }
    assert_eq!(entrance.send(Method::DELETE, "/v1/queue-tokens/current", &buyer, None).await.status, 204);
    entrance.reserve(&buyer, &[1]).await.is(403, "queue_token_expired");
    assert_eq!(entrance.get("/v1/queue-tokens/current", &buyer).await.good(200)["status"], "expired");
}

#[tokio::test]
async fn who_waits_does_not_pass() {
    let entrance = Entrance::start().await;
    let admin = entrance.key(Role::Admin).await;
    let settings = format!("/v1/admin/concerts/{}/queue", entrance.test.concert);
    entrance.send(Method::PATCH, &settings, &admin, Some(json!({ "paused": true }))).await.good(200);
    let user = entrance.user(0).await;
    // The pause is in force within a second.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let place = entrance.post(&line(entrance.test.concert), &user, json!({})).await.good(201).clone();
    assert_eq!(
        (&place["status"], &place["position"], &place["ahead"]),
        (&"waiting".into(), &1.into(), &0.into())
    );
    let user = user.with("queue-token", place["token"].as_str().unwrap());
    entrance.reserve(&user, &[1]).await.is(403, "queue_token_waiting");

    let operator = entrance.key(Role::Operator).await;
    let ops = format!("/v1/ops/queues/{}", entrance.test.concert);
    let seen = entrance.get(&ops, &operator).await.good(200).clone();
    assert_eq!((&seen["length"], &seen["settings"]["paused"]), (&1.into(), &true.into()));
    let admitted =
        entrance.post(&format!("{ops}/admit"), &operator, json!({ "count": 1 })).await.good(200).clone();
    assert_eq!(admitted["admitted"], 1);
    until(5, "the place to be admitted", || async {
        entrance.get("/v1/queue-tokens/current", &user).await.body["status"] == "active"
    })
    .await;
    let resumed = entrance.post(&format!("{ops}/resume"), &operator, json!({})).await.good(200).clone();
    assert_eq!(resumed["settings"]["paused"], false);
    let paused = entrance.post(&format!("{ops}/pause"), &operator, json!({ "reason": "a check" })).await;
    assert_eq!(paused.good(200)["settings"]["paused"], true);
    let list = entrance.get("/v1/ops/queues", &operator).await.good(200).clone();
    assert_eq!(list["items"][0]["concert_id"], json!(entrance.test.concert));
}

#[tokio::test]
async fn token_is_refused_after_a_payment() {
    let entrance = Entrance::start().await;
    let buyer = entrance.admitted(1_000).await;
    let first = entrance.reserve(&buyer, &[1]).await.good(201).clone();
    let second = entrance.reserve(&buyer, &[2]).await.good(201).clone();
    entrance.pay(&buyer.without("queue-token"), &first).await.is(403, "queue_token_required");
    entrance.pay(&buyer, &first).await.good(201);
    entrance.reserve(&buyer, &[3]).await.is(403, "queue_token_expired");
    entrance.pay(&buyer, &second).await.good(201);
    entrance.pay(&buyer.without("queue-token"), &second).await.good(200);
}

/// The place in each event, until the stream ended.
async fn listen(entrance: &Entrance, caller: &Caller) -> Vec<Value> {
    let request = entrance.request(Method::GET, "/v1/queue-tokens/current/events", caller);
    let mut answer = request.send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut text = String::new();
    while let Some(chunk) = answer.chunk().await.unwrap() {
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    let data = text.lines().filter_map(|line| line.strip_prefix("data:"));
    data.map(|json| serde_json::from_str(json.trim()).unwrap()).collect()
}

#[tokio::test]
async fn event_stream_shows_the_place_until_its_end() {
    let entrance = Entrance::start().await;
    let buyer = entrance.admitted(0).await;
    let cookie =
        buyer.without("queue-token").with("cookie", &format!("queue_token={}", buyer.header("queue-token")));
    let leave = async {
        // Long enough for the first event; the test does not depend on it.
        tokio::time::sleep(Duration::from_millis(300)).await;
        entrance.send(Method::DELETE, "/v1/queue-tokens/current", &buyer, None).await
    };
    let streams = async { tokio::join!(listen(&entrance, &buyer), listen(&entrance, &cookie)) };
    let both = tokio::time::timeout(Duration::from_secs(45), async { tokio::join!(streams, leave) }).await;
    let ((by_header, by_cookie), left) = both.expect("the streams end when the place does");
    assert_eq!(left.status, 204);
    for told in [by_header, by_cookie] {
        assert_eq!(told.last().unwrap()["status"], "expired", "{told:?}");
        assert_eq!(told[0]["status"], "active", "{told:?}");
    }
    entrance
        .get("/v1/queue-tokens/current/events", &buyer.without("queue-token"))
        .await
        .is(403, "queue_token_required");
}

#[tokio::test]
async fn line_settings_change_within_bounds() {
    let entrance = Entrance::start().await;
    let admin = entrance.key(Role::Admin).await;
    let path = format!("/v1/admin/concerts/{}/queue", entrance.test.concert);
    let before = entrance.get(&path, &admin).await.good(200).clone();
    let patch = async |body: Value| entrance.send(Method::PATCH, &path, &admin, Some(body)).await;
    let after = patch(json!({ "max_active": 7, "opens_at": "2030-01-01T00:00:00Z" })).await.good(200).clone();
    assert_eq!((&after["max_active"], &after["opens_at"]), (&7.into(), &"2030-01-01T00:00:00Z".into()));
    assert_eq!(after["admit_per_minute"], before["admit_per_minute"]);
    assert!(patch(json!({ "opens_at": null })).await.good(200)["opens_at"].is_null());
    assert_eq!(entrance.get(&path, &admin).await.good(200)["max_active"], 7);

    let wrong = json!({ "max_active": -1, "admit_per_minute": 6_000_001, "color": 1 });
    assert_eq!(patch(wrong).await.pointers(), ["/color", "/max_active", "/admit_per_minute"]);
    assert_eq!(patch(json!({ "min_rate": 10, "max_rate": 9 })).await.pointers(), ["/min_rate"]);
    assert_eq!(patch(json!({ "opens_at": "soon" })).await.pointers(), ["/opens_at"]);
    let unknown = format!("/v1/admin/concerts/{}/queue", boxoffice::ids::new());
    entrance.send(Method::PATCH, &unknown, &admin, Some(json!({}))).await.is(404, "not_found");
}

#[tokio::test]
async fn users_may_join_before_the_sale_opens() {
    let entrance = Entrance::start().await;
    let concert = add_concert(&entrance.test.app).await;
    let now = Utc::now();
    let (starts, opens) = (now + TimeDelta::days(30), now + TimeDelta::days(1));
    add_performance_at(&entrance.test.app, concert, 5, 10, starts, opens).await;
    let user = entrance.user(0).await;
    entrance.post(&line(concert), &user, json!({})).await.good(201);
}

#[tokio::test]
async fn place_in_line_is_served_from_memory() {
    let entrance = Entrance::start().await;
    let admin = entrance.key(Role::Admin).await;
    let settings = format!("/v1/admin/concerts/{}/queue", entrance.test.concert);
    entrance.send(Method::PATCH, &settings, &admin, Some(json!({ "max_active": 0 }))).await.good(200);
    let user = entrance.user(0).await;
    let joined = entrance.post(&line(entrance.test.concert), &user, json!({})).await;
    assert!(joined.headers.contains_key("retry-after"));
    let user = user.with("queue-token", joined.good(201)["token"].as_str().unwrap());

    entrance.kill_nats();
    entrance.pool.close().await;
    let place = entrance.get("/v1/queue-tokens/current", &user).await;
    assert_eq!((&place.good(200)["status"], &place.body["position"]), (&"waiting".into(), &1.into()));
    let pause = place.body["poll_after_ms"].as_u64().unwrap();
    assert!((300..=2_000).contains(&pause), "{pause}");
    let seconds: u64 = place.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert_eq!(seconds, pause.div_ceil(1_000));
}

#[tokio::test]
async fn streams_are_bounded_and_closed_ones_free_room() {
    let entrance = Entrance::with(&["--queue-streams", "1"]).await;
    let buyer = entrance.admitted(0).await;
    let path = "/v1/queue-tokens/current/events";
    let mut first = entrance.request(Method::GET, path, &buyer).send().await.unwrap();
    assert!(first.chunk().await.unwrap().is_some(), "the stream sends its place");
    let refused = entrance.get(path, &buyer).await;
    let detail = refused.is(503, "unavailable")["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("BOXOFFICE_QUEUE_STREAMS"), "{detail}");
    drop(first);
    // A connection that is gone is noticed when the next comment is written, every 15 s.
    until(20, "the seat to be free", || async {
        let answer = entrance.request(Method::GET, path, &buyer).send().await.unwrap();
        answer.status() == 200
    })
    .await;
}

#[tokio::test]
async fn every_act_on_a_line_is_written_down() {
    let entrance = Entrance::start().await;
    let concert = entrance.test.concert;
    let (operator, viewer) = (entrance.key(Role::Operator).await, entrance.key(Role::Viewer).await);
    let line = format!("/v1/ops/queues/{concert}");
    let act = async |name: &str, body: Value| entrance.post(&format!("{line}/{name}"), &operator, body).await;
    act("pause", json!({ "reason": "the hall is on fire" })).await.good(200);
    act("resume", json!({ "reason": "it is out" })).await.good(200);
    let set = json!({ "max_active": 7, "min_rate": 60, "max_rate": 600, "reason": "slowly" });
    assert_eq!(act("settings", set).await.good(200)["settings"]["max_active"], 7);
    act("admit", json!({ "count": 2, "reason": "friends" })).await.good(200);
    assert_eq!(act("settings", json!({ "min_rate": 601 })).await.pointers(), ["/min_rate"]);
    let opened = act("settings", json!({ "opens_at": "2020-01-01T00:00:00Z" })).await;
    assert_eq!(opened.pointers(), ["/opens_at"], "the draw has been made");
    entrance.post(&format!("{line}/settings"), &viewer, json!({})).await.is(403, "forbidden");

    let path = format!("/v1/ops/queues/acts?concert={concert}");
    let acts = entrance.get(&path, &viewer).await.good(200)["items"].clone();
    let told: Vec<_> = acts.as_array().unwrap().iter().map(|act| (&act["act"], &act["reason"])).collect();
    let expected = [
        ("queue.admit", "friends"),
        ("queue.set", "slowly"),
        ("queue.resume", "it is out"),
        ("queue.pause", "the hall is on fire"),
    ]
    .map(|(act, reason)| (json!(act), json!(reason)));
    assert_eq!(told, expected.iter().map(|(act, reason)| (act, reason)).collect::<Vec<_>>());
    assert_eq!(acts[0]["to"], "0 admitted");
    assert_eq!(acts[1]["detail"]["after"], json!({ "max_active": 7, "min_rate": 60, "max_rate": 600 }));
    assert_eq!((&acts[3]["from"], &acts[3]["to"]), (&"paused false".into(), &"paused true".into()));
    assert_eq!((&acts[3]["actor"], &acts[3]["target"]), (&"operator".into(), &json!(concert)));

    // The administrator's change is one of them.
    let admin = entrance.key(Role::Admin).await;
    let settings = format!("/v1/admin/concerts/{concert}/queue");
    let changed = json!({ "max_active": 8, "reason": "more" });
    let answer = entrance.send(Method::PATCH, &settings, &admin, Some(changed)).await.good(200).clone();
    assert_eq!((&answer["max_active"], &answer["seed"]), (&8.into(), &Value::Null), "the seed stays secret");
    let acts = entrance.get(&path, &viewer).await.good(200)["items"].clone();
    assert_eq!((&acts[0]["act"], &acts[0]["actor"]), (&"queue.set".into(), &"admin".into()));
    assert_eq!(acts[0]["reason"], "more");
    act("admit", json!({})).await.good(200);
    let acts = entrance.get(&path, &viewer).await.good(200)["items"].clone();
    assert_eq!((&acts[0]["act"], &acts[0]["reason"]), (&"queue.admit".into(), &"".into()), "none was given");
    let public =
        entrance.get(&format!("/v1/concerts/{concert}"), &Caller::anonymous()).await.good(200).clone();
    assert_eq!((&public["phase"], public["draw"]["seed_hash"].as_str().unwrap().len()), (&"open".into(), 64));
}
