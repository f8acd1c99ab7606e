//! Sagas over HTTP: what operators see, and what they may do.

use boxoffice::ids;
use boxoffice::store::api_keys::Role;
use serde_json::{Value, json};

use super::common::http::{Entrance, reply};

#[tokio::test]
async fn a_booking_can_be_followed_and_found() {
    let entrance = Entrance::start().await;
    let buyer = entrance.admitted(1_000).await;
    let held = entrance.reserve(&buyer, &[1]).await.good(201).clone();
    entrance.pay(&buyer, &held).await.good(201);

    let viewer = entrance.key(Role::Viewer).await;
    let id = held["id"].as_str().unwrap();
    let saga = entrance.get(&format!("/v1/ops/sagas/{id}"), &viewer).await.good(200).clone();
    assert_eq!(
        (&saga["id"], &saga["workflow"], &saga["status"]),
        (&held["id"], &"booking".into(), &"completed".into())
    );
    let fields = [
        "id",
        "workflow",
        "version",
        "status",
        "paused",
        "step",
        "direction",
        "visit",
        "attempt",
        "due_at",
        "reason",
        "input",
        "created_at",
        "updated_at",
        "finished_at",
    ];
    for field in fields {
        assert!(saga.get(field).is_some(), "{field}: {saga}");
    }
    let history = saga["history"].as_array().unwrap();
    assert!(history.len() >= 4, "{history:?}");
    for field in ["seq", "at", "event", "step", "direction", "attempt", "detail"] {
        assert!(history[0].get(field).is_some(), "{field}: {history:?}");
    }
    assert!(history.windows(2).all(|pair| pair[0]["seq"].as_i64() < pair[1]["seq"].as_i64()));

    entrance.get(&format!("/v1/ops/sagas/{}", ids::new()), &viewer).await.is(404, "not_found");
}

#[tokio::test]
async fn sagas_are_found_by_what_they_are_about() {
    let entrance = Entrance::start().await;
    let buyer = entrance.admitted(1_000).await;
    let held = entrance.reserve(&buyer, &[1]).await.good(201).clone();
    entrance.pay(&buyer, &held).await.good(201);
    let other = entrance.admitted(0).await;
    entrance.reserve(&other, &[2]).await.good(201);
    let viewer = entrance.key(Role::Viewer).await;
    let id = held["id"].as_str().unwrap();
    let found = async |query: &str| {
        let body = entrance.get(&format!("/v1/ops/sagas?{query}"), &viewer).await.good(200).clone();
        body["items"].as_array().unwrap().iter().map(|saga| saga["id"].clone()).collect::<Vec<Value>>()
    };
    assert_eq!(found("").await.len(), 2);
    assert_eq!(found("status=completed&workflow=booking").await, [held["id"].clone()]);
    assert_eq!(found(&format!("reservation_id={id}")).await, [held["id"].clone()]);
    assert_eq!(found(&format!("user_id={}&step=await_payment", other.id)).await.len(), 1);
    assert_eq!(found(&format!("user_id={}", ids::new())).await.len(), 0);
    for (query, pointer) in [
        ("status=odd", "/status"),
        ("user_id=x", "/user_id"),
        ("limit=0", "/limit"),
        ("x=1", "/x"),
        ("step=%00", "/step"),
    ] {
        let reply = entrance.get(&format!("/v1/ops/sagas?{query}"), &viewer).await;
        assert_eq!(reply.pointers(), [pointer], "{query}");
    }
}

#[tokio::test]
async fn operator_cancels_waiting_sagas_not_ended_ones() {
    let entrance = Entrance::start().await;
    let buyer = entrance.admitted(1_000).await;
    let operator = entrance.key(Role::Operator).await;
    let held = entrance.reserve(&buyer, &[1]).await.good(201).clone();
    let act = async |name: &str, body: Value| {
        let path = format!("/v1/ops/sagas/{}/{name}", held["id"].as_str().unwrap());
        entrance.post(&path, &operator, body).await
    };
    assert_eq!(act("cancel", json!({})).await.pointers(), [""]);
    assert_eq!(act("cancel", json!({ "reason": "" })).await.pointers(), ["/reason"]);
    act("cancel", json!({ "reason": "the buyer called" })).await.good(200);
    let path = format!("/v1/reservations/{}", held["id"].as_str().unwrap());
    entrance
        .test
        .until(5, "the reservation to be cancelled", || async {
            entrance.get(&path, &buyer).await.body["status"] == "cancelled"
        })
        .await;
    let refused = act("retry", json!({ "reason": "once more" })).await;
    let body = refused.is(409, "illegal_act");
    assert_eq!((&body["saga_status"], &body["allowed"]), (&"compensated".into(), &json!([])));
    let unknown = format!("/v1/ops/sagas/{}/retry", ids::new());
    entrance.post(&unknown, &operator, json!({ "reason": "x" })).await.is(404, "not_found");
}

#[tokio::test]
async fn booking_continues_the_request_trace() {
    let entrance = Entrance::start().await;
    let buyer = entrance.admitted(0).await;
    let body = json!({ "performance_id": entrance.test.performance, "seats": [1] });
    let request = entrance.request(reqwest::Method::POST, "/v1/reservations", &buyer).json(&body);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let held = reply(request.header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"))).await;
    let id: uuid::Uuid = held.good(201)["id"].as_str().unwrap().parse().unwrap();
    let saga = boxoffice::store::sagas::get(&entrance.pool, id).await.unwrap().unwrap();
    assert_eq!(saga.trace, Some(trace.parse().unwrap()));
}

/// A saga whose definition no process can read waits, in sight of operators. It goes on once the definition is there, and it can be
/// given up before.
#[tokio::test]
async fn saga_without_a_definition_waits_for_it() {
    let entrance = Entrance::start().await;
    let buyer = entrance.admitted(1_000).await;
    let held = entrance.reserve(&buyer, &[1]).await.good(201).clone();
    let id: uuid::Uuid = held["id"].as_str().unwrap().parse().unwrap();
    let gone = "
        with lost as (
            insert into workflow_definitions (workflow, version, steps, signals, events, announced)
            select workflow, 99, steps, signals, events, announced from workflow_definitions
            where workflow = 'booking' and version = 1 returning code)
        update sagas set definition = lost.code, due_at = clock_timestamp() from lost where id = $1";
    sqlx::query(gone).bind(id).execute(&entrance.pool).await.unwrap();
    let viewer = entrance.key(Role::Viewer).await;
    let seen = async || entrance.get(&format!("/v1/ops/sagas/{id}"), &viewer).await.body;
    let first_due = seen().await["due_at"].clone();
    entrance
        .test
        .until(10, "the sweeper to put it off", || async { seen().await["due_at"] != first_due })
        .await;
    assert_eq!((&seen().await["status"], &seen().await["allowed"]), (&json!("waiting"), &json!(["abandon"])));
    let why = entrance.get(&format!("/v1/ops/sagas/{id}/why"), &viewer).await.body["sentence"].to_string();
    assert!(why.contains("the definition of booking version 99 cannot be read"), "{why}");
    let operator = entrance.key(Role::Operator).await;
    let act = async |name: &str| {
        entrance.post(&format!("/v1/ops/sagas/{id}/{name}"), &operator, json!({ "reason": "gone" })).await
    };
    let refused = act("retry").await;
    assert_eq!(refused.is(409, "illegal_act")["allowed"], json!(["abandon"]));
    let text = include_str!("../workflows/booking.toml").replace("version = 1", "version = 99");
    sqlx::query("update workflow_definitions set source = $1 where workflow = 'booking' and version = 99")
        .bind(text)
        .execute(&entrance.pool)
        .await
        .unwrap();
    act("cancel").await.good(200);
    entrance.test.until(10, "it to be undone", || async { seen().await["status"] == "compensated" }).await;
}
