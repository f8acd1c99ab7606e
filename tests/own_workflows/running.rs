//! Sagas of a deployed workflow by REST and on the command line: started, signalled, read, cancelled and found.

use boxoffice::ids;
use boxoffice::store::api_keys::Role;
use serde_json::{Value, json};

use super::{TRIP, bookings, start, travel_agency};
use crate::common::http::{Caller, Entrance};
use crate::common::program::Program;

async fn deployed() -> (Entrance, Caller) {
    let entrance = Entrance::start().await;
    let admin = entrance.key(Role::Admin).await;
    entrance.post("/v1/workflows", &admin, json!({ "definition": TRIP })).await.good(201);
    let client = entrance.client_key(&["trip"]).await;
    (entrance, client)
}

const SAGAS: &str = "/v1/workflows/trip/sagas";

#[tokio::test(flavor = "multi_thread")]
async fn trip_completes_is_refused_and_is_withdrawn() {
    let (entrance, client) = deployed().await;
    let _agency = travel_agency(&entrance.test.app.bus, &entrance.pool).await;
    let path = format!("{SAGAS}?wait=30");
    let begin = async |body: Value| entrance.post(&path, &client, body).await;

    let mut trip = start(&json!({ "city": "Oslo", "approved": true }));
    trip["attributes"] = json!({ "customer": "ada", "nights": 3 });
    let done = begin(trip).await.good(201).clone();
    assert_eq!(
        (&done["status"], &done["context"]["flight"]),
        (&json!("completed"), &json!("flight in Oslo"))
    );
    assert_eq!(done["attributes"], json!({ "customer": "ada", "nights": 3 }));
    assert_eq!(bookings(&entrance.pool).await, 2);

    let refused = begin(start(&json!({ "city": "Oslo", "approved": true, "refuse": "flight" })))
        .await
        .good(201)
        .clone();
    assert_eq!((&refused["status"], &refused["reason"]), (&json!("compensated"), &json!("sold_out")));
    assert_eq!(bookings(&entrance.pool).await, 2);

    let waits = begin(start(&json!({ "city": "Rome" }))).await.good(201).clone();
    assert_eq!((&waits["status"], &waits["step"]), (&json!("waiting"), &json!("approval")));
    let saga = format!("/v1/sagas/{}", waits["id"].as_str().unwrap());
    let signal = async |name: &str, body: Value| {
        entrance.post(&format!("{saga}/signals/{name}"), &client.with("idempotency-key", name), body).await
    };
    assert_eq!(signal("nonsense", json!({})).await.is(409, "not_waiting")["saga_status"], "waiting");
    let strange = entrance
        .post(&format!("{saga}/signals/approve"), &client, json!({ "payload": { "city": "Bern" } }))
        .await;
    strange.is(422, "invalid_request");
    signal("approve", json!({ "payload": { "card": "4711" } })).await.good(202);
    let again = signal("approve", json!({ "payload": { "card": "4711" } })).await;
    assert_eq!((again.status, again.headers["idempotent-replayed"].to_str().unwrap()), (202, "true"));
    entrance
        .test
        .until(20, "the trip to end", || async {
            entrance.get(&saga, &client).await.body["status"] == "completed"
        })
        .await;
    assert_eq!(entrance.get(&saga, &client).await.body["context"]["card"], "4711");
    entrance.post(&format!("{saga}/signals/approve"), &client, json!({})).await.is(409, "not_waiting");
    entrance
        .post(&format!("{saga}/cancel"), &client, json!({ "reason": "late" }))
        .await
        .is(409, "illegal_act");

    let other = begin(start(&json!({ "city": "Bern" }))).await.good(201)["id"].clone();
    let other = format!("/v1/sagas/{}", other.as_str().unwrap());
    entrance.post(&format!("{other}/cancel"), &client, json!({ "reason": "ill" })).await.good(200);
    entrance
        .test
        .until(20, "the trip to be undone", || async {
            entrance.get(&other, &client).await.body["status"] == "compensated"
        })
        .await;
    assert_eq!(bookings(&entrance.pool).await, 4);
    found_by_attributes(&entrance, &done["id"]).await;
}

async fn found_by_attributes(entrance: &Entrance, id: &Value) {
    let viewer = entrance.key(Role::Viewer).await;
    for (filter, count) in
        [("customer%3Dada", 1), ("nights%3D3", 1), ("nights%3D4", 0), ("customer%3Dbob", 0)]
    {
        let found =
            entrance.get(&format!("/v1/ops/sagas?attribute={filter}"), &viewer).await.good(200)["items"]
                .clone();
        let ids: Vec<&Value> = found.as_array().unwrap().iter().map(|item| &item["id"]).collect();
        assert_eq!(ids, vec![id; count], "{filter}");
    }
    let list = entrance.get("/v1/ops/sagas?attribute=nights=3", &viewer).await.good(200).clone();
    assert_eq!(list["items"][0]["attributes"], json!({ "customer": "ada", "nights": 3 }));
    let shown =
        entrance.get(&format!("/v1/ops/sagas/{}", id.as_str().unwrap()), &viewer).await.good(200).clone();
    assert_eq!((&shown["attributes"]["customer"], &shown["trace_url"]), (&json!("ada"), &Value::Null));
    entrance.get("/v1/ops/sagas?attribute=customer", &viewer).await.is(422, "invalid_request");
    let program = Program::of(&entrance.test.env);
    assert_eq!(&program.json(0, "saga list --attribute nights=3").await["items"][0]["id"], id);
    assert_eq!(program.json(0, "saga counts --attribute customer=ada").await["total"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn start_under_a_key_begins_one_saga() {
    let (entrance, client) = deployed().await;
    let keyed = client.with("idempotency-key", "one");
    let begun = entrance.post(SAGAS, &keyed, start(&json!({ "city": "Oslo" }))).await;
    assert_eq!(
        begun.headers["location"].to_str().unwrap(),
        format!("/v1/sagas/{}", begun.good(202)["id"].as_str().unwrap())
    );
    let again = entrance.post(SAGAS, &keyed, start(&json!({ "city": "Oslo" }))).await.good(202).clone();
    assert_eq!(again["id"], begun.body["id"]);
    entrance.post(SAGAS, &keyed, start(&json!({ "city": "Rome" }))).await.is(422, "idempotency_key_reused");
    let viewer = entrance.key(Role::Viewer).await;
    let all = entrance.get("/v1/ops/sagas?workflow=trip", &viewer).await.good(200)["items"].clone();
    assert_eq!(all.as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bad_start_has_its_own_answer() {
    let (entrance, client) = deployed().await;
    let good = || start(&json!({ "city": "Oslo" }));
    let post = async |path: &str, body: Value| entrance.post(path, &client, body).await;
    let pointer = async |body: Value| {
        let refused = post(SAGAS, body).await;
        refused.is(422, "invalid_request")["errors"][0]["pointer"].as_str().unwrap().to_owned()
    };
    assert_eq!(pointer(json!({})).await, "");
    assert_eq!(pointer(start(&json!([]))).await, "/input");
    assert_eq!(pointer(start(&json!({}))).await, "/input", "the schema wants a city");
    assert_eq!(pointer(start(&json!({ "city": 1 }))).await, "/input/city");
    assert_eq!(pointer(start(&json!({ "city": "\0" }))).await, "/input/city");
    assert_eq!(pointer(start(&json!({ "city": "x".repeat(300_000) }))).await, "/input");
    assert_eq!(pointer(json!({ "input": {}, "attributes": { "A": 1 } })).await, "/attributes/A");
    assert_eq!(pointer(json!({ "input": {}, "attributes": { "a": {} } })).await, "/attributes/a");
    assert_eq!(pointer(json!({ "input": {}, "subject_id": "x" })).await, "/subject_id");
    assert_eq!(pointer(json!({ "input": {}, "surprise": 1 })).await, "/surprise");
    for wait in ["31", "-1", "x"] {
        post(&format!("{SAGAS}?wait={wait}"), good()).await.is(422, "invalid_request");
    }
    post("/v1/workflows/cruise/sagas", good()).await.is(404, "not_found");
    post("/v1/workflows/booking/sagas", good()).await.is(404, "not_found");
    let operator = entrance.key(Role::Operator).await;
    entrance.post("/v1/workflows/booking/sagas", &operator, good()).await.is(403, "forbidden");
    entrance.post(SAGAS, &entrance.key(Role::Viewer).await, good()).await.is(403, "forbidden");
    entrance.post(SAGAS, &Caller::anonymous(), good()).await.is(401, "unauthenticated");
    let unknown = format!("/v1/sagas/{}", ids::new());
    for path in [unknown.as_str(), "/v1/sagas/nonsense"] {
        entrance.get(path, &client).await.is(404, "not_found");
        post(&format!("{path}/signals/approve"), json!({})).await.is(404, "not_found");
        post(&format!("{path}/cancel"), json!({ "reason": "x" })).await.is(404, "not_found");
    }
    let id = post(SAGAS, good()).await.good(202)["id"].clone();
    let stranger = entrance.client_key(&["booking"]).await;
    entrance.get(&format!("/v1/sagas/{}", id.as_str().unwrap()), &stranger).await.is(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn command_line_deploys_starts_signals_and_waits() {
    let entrance = Entrance::start().await;
    let _agency = travel_agency(&entrance.test.app.bus, &entrance.pool).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("trip.toml");
    std::fs::write(&file, TRIP).unwrap();
    let program = Program::of(&entrance.test.env);
    let deploy = format!("workflow deploy {}", file.display());
    assert_eq!(program.json(0, &deploy).await["verdict"], "good");
    let again = program.json(0, &deploy).await;
    assert_eq!((&again["code"], &again["same"]), (&json!("version_exists"), &json!(true)));
    assert_eq!(program.json(0, "workflow list trip").await["items"][0]["version"], 1);
    let shown = program.run("workflow show trip").await;
    assert!(
        shown.out.contains("verdict of the checker: good")
            && shown
                .out
                .contains("checked with at most 1 crashes, 1 lost and 1 repeated messages, 0 actions")
            && shown.out.contains("travel.book_hotel"),
        "{}",
        shown.out
    );
    let drawn = program.run("workflow graph trip").await;
    assert!(drawn.out.contains("approval"), "{}{}", drawn.out, drawn.err);

    let input = r#"{"city":"Oslo"}"#;
    let words = format!("saga start trip --input {input} --attribute customer=ada --wait 30");
    let begun = program.json(0, &words).await;
    assert_eq!((&begun["status"], &begun["step"]), (&json!("waiting"), &json!("approval")));
    let id = begun["id"].as_str().unwrap();
    let refused = program.json(1, &format!("saga signal {id} nonsense")).await;
    assert_eq!(refused["code"], "not_waiting");
    program.json(0, &format!(r#"saga signal {id} approve --payload {{"card":"4711"}}"#)).await;
    assert_eq!(program.json(0, &format!("saga wait {id} --seconds 30")).await["status"], "completed");
    let refuse = r#"{"city":"Oslo","approved":true,"refuse":"flight"}"#;
    let back = program.json(0, &format!("saga start trip --input {refuse}")).await;
    let wait = format!("saga wait {} --seconds 30", back["id"].as_str().unwrap());
    assert_eq!(program.json(1, &wait).await["status"], "compensated");
    assert_eq!(program.json(1, "saga start trip").await["code"], "invalid_request");
    assert_eq!(program.json(1, "saga start cruise").await["code"], "not_found");

    let made = program.json(0, "keys create --role client --name agency --workflow trip").await;
    let client = Caller::new(ids::new(), made["key"].as_str().unwrap());
    entrance.get(&format!("/v1/sagas/{id}"), &client).await.good(200);
    for wrong in [
        "--role client --name a",
        "--role viewer --name a --workflow trip",
        "--role client --name a --workflow cruise",
    ] {
        assert_eq!(program.run(&format!("keys create {wrong}")).await.code, 2, "{wrong}");
    }
    assert_eq!(program.json(0, "workflow retire trip --version 1").await["retired"], true);
    assert_eq!(
        program.json(1, &format!("saga start trip --input {input}")).await["code"],
        "workflow_retired"
    );
}
