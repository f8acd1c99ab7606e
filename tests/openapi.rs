//! `openapi.json`, held to what the service answers.

use std::collections::{BTreeMap, BTreeSet};

use boxoffice::ids;
use boxoffice::store::api_keys::Role;
use reqwest::Method;
use serde_json::{Value, json};

use crate::common::http::{Caller, Entrance, Reply};
use crate::tidy::{files_below, root};

fn api() -> Value {
    serde_json::to_value(boxoffice::http::description()).unwrap()
}

/// Two types of one name replace each other in the description without a word.
#[test]
fn every_schema_has_a_name_of_its_own() {
    let mut types: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in files_below("src") {
        let text = std::fs::read_to_string(root().join(&file)).unwrap();
        for part in text.split("#[derive(").skip(1) {
            let (derived, rest) = part.split_once(")]").unwrap();
            if !derived.contains("ToSchema") {
                continue;
            }
            let attributes_end = rest.find("struct ").into_iter().chain(rest.find("enum ")).min().unwrap();
            let (attributes, item) = rest.split_at(attributes_end);
            let named = item.split_whitespace().nth(1).unwrap();
            let own = named.split(|letter: char| !letter.is_alphanumeric()).next().unwrap();
            let given = attributes.split("schema(as = ").nth(1).and_then(|rest| rest.split(')').next());
            types.entry(given.unwrap_or(own).to_owned()).or_default().push(format!("{file}: {own}"));
        }
    }
    assert!(types.len() > 50, "the types are found: {types:?}");
    types.retain(|_, places| places.len() > 1);
    assert_eq!(types, BTreeMap::new());
}

#[test]
fn every_operation_has_an_id_of_its_own() {
    let api = api();
    let items = api["paths"].as_object().unwrap().values();
    let operations = items.flat_map(|item| item.as_object().unwrap().values());
    let ids: Vec<&str> = operations.map(|operation| operation["operationId"].as_str().unwrap()).collect();
    let unique: BTreeSet<&str> = ids.iter().copied().collect();
    assert_eq!(ids.len(), unique.len(), "{ids:?}");
    assert!(unique.contains("post_concerts_concert_queue_tokens"), "{ids:?}");
}

#[test]
fn bodies_are_closed_and_answers_are_open() {
    let api = api();
    let (mut asked, mut answered) = (Vec::new(), Vec::new());
    for item in api["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap().values())
    {
        asked.push(item["requestBody"].clone());
        answered.push(item["responses"].clone());
    }
    let closed = |name: &String| {
        let schema = &api["components"]["schemas"][name];
        schema["properties"].is_object().then(|| schema["additionalProperties"] == false)
    };
    let (asked, answered) = (reachable(&api, &asked), reachable(&api, &answered));
    assert!(
        asked.contains("NewReservation") && asked.contains("SeatsWanted") && asked.contains("SagaFilter")
    );
    for name in &asked {
        assert_ne!(closed(name), Some(false), "{name} is a body with fields that are refused");
    }
    for name in &answered {
        assert_ne!(closed(name), Some(true), "{name} is an answer, which may get new fields");
    }
}

/// Whether the description takes this for a value of a schema.
fn fits(api: &Value, schema: &Value, value: &Value) -> bool {
    let whole = json!({ "components": api["components"], "allOf": [schema] });
    let draft = jsonschema::Draft::Draft202012;
    jsonschema::options().with_draft(draft).build(&whole).unwrap().is_valid(value)
}

#[test]
fn description_refuses_what_the_code_refuses() {
    let api = api();
    let body = |name: &str, value: Value| {
        fits(&api, &json!({ "$ref": format!("#/components/schemas/{name}") }), &value)
    };
    let user = |name: &str| body("NewUser", json!({ "name": name }));
    assert!(user("Ada") && user("Zoë\u{200f}") && user(&"é".repeat(100)));
    let bad = ["", " ", "a\nb", "\u{1b}[2J", "a\u{202e}b", "\u{2800}", "\u{e0041}", &"é".repeat(101)];
    bad.iter().for_each(|bad| assert!(!user(bad), "{bad:?}"));
    let seats = |seats: Value| {
        body("NewReservation", json!({ "performance_id": ids::new(), "seats": seats, "pay": false }))
    };
    assert!(seats(json!([1, 2])));
    for bad in [json!([]), json!([0]), json!([-1]), json!([1, 1]), json!(["1"])] {
        assert!(!seats(bad.clone()), "{bad}");
    }
    let concert = |text: &str| body("ConcertWanted", json!({ "name": "Lieder", "description": text }));
    assert!(concert("") && concert("one\n\ttwo") && !concert("\u{9b}"));
    assert!(
        body("SettingsWanted", json!({ "reason": "" })) && !body("SettingsWanted", json!({ "reason": "\0" }))
    );
}

/// The schema of a parameter of an operation, if it has it.
fn parameter<'a>(operation: &'a Value, name: &str) -> Option<&'a Value> {
    operation["parameters"].as_array()?.iter().find(|parameter| parameter["name"] == name)
}

#[test]
fn description_has_the_form_of_keys_and_cursors() {
    let api = api();
    let (mut keys, mut cursors) = (0, 0);
    for item in api["paths"].as_object().unwrap().values() {
        if let Some(key) = parameter(&item["post"], "Idempotency-Key") {
            keys += 1;
            let takes = |text: &str| fits(&api, &key["schema"], &json!(text));
            assert!(takes("a-b_c!~") && takes(&"k".repeat(255)), "{key}");
            for bad in ["", "a b", "é", "a\u{7f}", &"k".repeat(256)] {
                assert!(!takes(bad), "{bad:?}");
            }
        }
        if let Some(cursor) = parameter(&item["get"], "cursor") {
            cursors += 1;
            let takes = |text: &str| fits(&api, &cursor["schema"], &json!(text));
            assert!(takes("WyIiLCIwIl0"), "{cursor}");
            for bad in ["", "a=", "a+b", "a/b", &"a".repeat(2_001)] {
                assert!(!takes(bad), "{bad:?}");
            }
        }
    }
    assert!(keys > 20 && cursors > 5, "{keys} {cursors}");
    let charge = &api["paths"]["/v1/points/charges"]["post"];
    assert_eq!(parameter(charge, "Idempotency-Key").unwrap()["required"], true);
}

/// The names of all schemas that parts of the description refer to, and those that these refer to.
fn reachable(api: &Value, parts: &[Value]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut left: Vec<String> = parts.iter().map(Value::to_string).collect();
    while let Some(text) = left.pop() {
        for rest in text.split("#/components/schemas/").skip(1) {
            let name = rest.split('"').next().unwrap();
            if found.insert(name.to_owned()) {
                left.push(api["components"]["schemas"][name].to_string());
            }
        }
    }
    found
}

/// An entrance whose every answer is held against the description.
struct Described {
    entrance: Entrance,
    api: Value,
}

impl Described {
    async fn send(&self, method: Method, path: &str, caller: &Caller, body: Option<Value>) -> Reply {
        let reply = self.entrance.send(method.clone(), path, caller, body).await;
        self.check(&method, path, &reply);
        reply
    }

    async fn get(&self, path: &str, caller: &Caller) -> Reply {
        self.send(Method::GET, path, caller, None).await
    }

    async fn post(&self, path: &str, caller: &Caller, body: Value) -> Reply {
        self.send(Method::POST, path, caller, Some(body)).await
    }

    #[track_caller]
    fn check(&self, method: &Method, path: &str, reply: &Reply) {
        let (template, operation) = self.operation(method, path);
        let response = &operation["responses"][reply.status.to_string()];
        assert!(response.is_object(), "{method} {template} does not describe {}: {reply:#?}", reply.status);
        if reply.status == 204 {
            return;
        }
        let content_type = reply.headers["content-type"].to_str().unwrap().split(';').next().unwrap();
        let schema = &response["content"][content_type]["schema"];
        assert!(schema.is_object(), "{method} {template} does not describe {content_type}: {reply:#?}");
        let whole = json!({ "components": self.api["components"], "allOf": [schema] });
        let draft = jsonschema::Draft::Draft202012;
        let validator =
            jsonschema::options().with_draft(draft).should_validate_formats(true).build(&whole).unwrap();
        let faults: Vec<String> = validator
            .iter_errors(&reply.body)
            .map(|error| format!("{error} at {}", error.instance_path()))
            .collect();
        assert!(faults.is_empty(), "{method} {template} {}: {faults:#?}\n{:#}", reply.status, reply.body);
    }

    /// The operation that a path is of; one without a parameter goes first.
    fn operation(&self, method: &Method, path: &str) -> (String, &Value) {
        let path: Vec<&str> = path.split('?').next().unwrap().split('/').collect();
        let fits = |template: &str| {
            let parts: Vec<&str> = template.split('/').collect();
            let same = |(part, own): (&&str, &&str)| part.starts_with('{') || part == own;
            parts.len() == path.len() && parts.iter().zip(&path).all(same)
        };
        let mut found: Vec<(&String, &Value)> =
            self.api["paths"].as_object().unwrap().iter().filter(|(template, _)| fits(template)).collect();
        found.sort_by_key(|(template, _)| template.matches('{').count());
        let (template, item) = found.first().expect("the path is described");
        ((*template).clone(), &item[method.as_str().to_lowercase()])
    }
}

#[tokio::test]
async fn buyers_get_what_is_described() {
    let described = Described { entrance: Entrance::start().await, api: api() };
    let Described { entrance, .. } = &described;
    let anonymous = Caller::anonymous();
    described.get("/livez", &anonymous).await.good(200);
    described.get("/readyz", &anonymous).await.good(200);
    described.get("/metrics", &anonymous).await.good(200);
    described.post("/v1/users", &anonymous, json!({ "name": "Ada" })).await.good(201);
    described.post("/v1/users", &anonymous, json!({ "name": "" })).await.is(422, "invalid_request");
    let concert = format!("/v1/concerts/{}", entrance.test.concert);
    described.get("/v1/concerts", &anonymous).await.good(200);
    described.get(&concert, &anonymous).await.good(200);
    described.get(&format!("/v1/concerts/{}", ids::new()), &anonymous).await.is(404, "not_found");
    described.get("/v1/points", &anonymous).await.is(401, "unauthenticated");

    let operator = entrance.key(Role::Operator).await;
    let line = format!("/v1/ops/queues/{}", entrance.test.concert);
    described.post(&format!("{line}/pause"), &operator, json!({})).await.good(200);
    let waiting = entrance.user(500).await;
    let place =
        described.post(&format!("{concert}/queue-tokens"), &waiting, json!({})).await.good(201).clone();
    described.post(&format!("{concert}/queue-tokens"), &waiting, json!({})).await.good(200);
    let waiting = waiting.with("queue-token", place["token"].as_str().unwrap());
    assert_eq!(described.get("/v1/queue-tokens/current", &waiting).await.good(200)["status"], "waiting");
    described.send(Method::DELETE, "/v1/queue-tokens/current", &waiting, None).await.good(204);
    assert_eq!(described.get("/v1/queue-tokens/current", &waiting).await.good(200)["status"], "expired");
    described.post(&format!("{line}/resume"), &operator, json!({ "reason": "go" })).await.good(200);

    let buyer = entrance.admitted(250).await;
    assert_eq!(described.get("/v1/queue-tokens/current", &buyer).await.good(200)["status"], "active");
    described.get(&format!("{concert}/performances"), &buyer).await.good(200);
    described.get(&format!("/v1/performances/{}/seats", entrance.test.performance), &buyer).await.good(200);
    let order = |seats: &[i64]| json!({ "performance_id": entrance.test.performance, "seats": seats });
    let held = described.post("/v1/reservations", &buyer, order(&[1, 2])).await.good(201).clone();
    described.post("/v1/reservations", &buyer, order(&[1, 2])).await.good(200);
    described.post("/v1/reservations", &buyer, order(&[0])).await.is(422, "invalid_request");
    described.post("/v1/reservations", &buyer, order(&[2_000_000])).await.is(422, "seat_unknown");
    let rival = entrance.admitted(0).await;
    described.post("/v1/reservations", &rival, order(&[1])).await.is(409, "seat_taken");
    let poor = described.post("/v1/reservations", &rival, order(&[4])).await.good(201)["id"].clone();
    let pay = |id: &Value| format!("/v1/reservations/{}/payment", id.as_str().unwrap());
    described.post(&pay(&poor), &rival, json!({})).await.is(402, "insufficient_points");
    described.post(&pay(&held["id"]), &buyer, json!({})).await.good(201);
    described.post(&pay(&held["id"]), &buyer, json!({})).await.good(200);
    described.get("/v1/reservations?limit=1", &rival).await.good(200);
    described.get(&format!("/v1/reservations/{}", held["id"].as_str().unwrap()), &buyer).await.good(200);
    let cancel = format!("/v1/reservations/{}/cancellation", held["id"].as_str().unwrap());
    described.post(&cancel, &buyer, json!({})).await.good(200);
    described.get("/v1/points", &buyer).await.good(200);
    described.get("/v1/points/entries", &buyer).await.good(200);
    let charger = buyer.with("idempotency-key", "charge");
    described.post("/v1/points/charges", &charger, json!({ "amount": 5 })).await.good(201);
    described
        .post("/v1/points/charges", &charger, json!({ "amount": 6 }))
        .await
        .is(422, "idempotency_key_reused");
}

#[tokio::test]
async fn staff_gets_what_is_described() {
    let described = Described { entrance: Entrance::start().await, api: api() };
    let Described { entrance, .. } = &described;
    let admin = entrance.key(Role::Admin).await;
    let new = json!({ "name": "Lieder", "description": "Songs", "queue": { "max_active": 5 } });
    let concert = described.post("/v1/admin/concerts", &admin, new).await.good(201)["id"].clone();
    let concert = concert.as_str().unwrap();
    let date = json!({
        "venue": "Hall", "starts_at": "2090-01-01T19:00:00Z", "duration_minutes": 90,
        "sale_opens_at": "2020-01-01T00:00:00Z", "sale_closes_at": "2089-01-01T00:00:00Z",
        "seats": [{ "from": 1, "to": 5, "section": "A", "price": 10 }],
    });
    described.post(&format!("/v1/admin/concerts/{concert}/performances"), &admin, date).await.good(201);
    let queue = format!("/v1/admin/concerts/{concert}/queue");
    described.get(&queue, &admin).await.good(200);
    let change = json!({ "max_active": 7, "opens_at": null, "reason": "more" });
    described.send(Method::PATCH, &queue, &admin, Some(change)).await.good(200);
    described
        .send(Method::PATCH, &queue, &admin, Some(json!({ "max_active": -1 })))
        .await
        .is(422, "invalid_request");

    let line = format!("/v1/ops/queues/{concert}");
    described
        .entrance
        .test
        .until(5, "the line", || async { entrance.get(&line, &admin).await.status == 200 })
        .await;
    for path in [line.as_str(), "/v1/ops/queues", "/v1/ops/queues/acts", "/v1/ops/acts", "/v1/ops/pauses"] {
        described.get(path, &admin).await.good(200);
    }
    described.post(&format!("{line}/settings"), &admin, json!({ "paused": true })).await.good(200);
    described.post(&format!("{line}/admit"), &admin, json!({ "count": 1 })).await.good(200);

    let buyer = entrance.admitted(0).await;
    let held = entrance.reserve(&buyer, &[1]).await.good(201)["id"].clone();
    let saga = format!("/v1/ops/sagas/{}", held.as_str().unwrap());
    described.get("/v1/ops/sagas?status=waiting", &admin).await.good(200);
    described.get("/v1/ops/sagas/counts", &admin).await.good(200);
    described.get(&saga, &admin).await.good(200);
    described.get(&format!("{saga}/why"), &admin).await.good(200);
    let why = json!({ "reason": "a test" });
    described.post(&format!("{saga}/pause"), &admin, why.clone()).await.good(200);
    described.get("/v1/ops/pauses", &admin).await.good(200);
    described.get(&format!("{saga}/why"), &admin).await.good(200);
    described.post(&format!("{saga}/resume"), &admin, why.clone()).await.good(200);
    described.post(&format!("{saga}/skip-undo"), &admin, why.clone()).await.is(409, "illegal_act");
    described.post(&format!("{saga}/refund"), &admin, why.clone()).await.is(409, "illegal_act");
    described.post(&format!("{saga}/cancel"), &admin, why.clone()).await.good(200);
    described.post("/v1/ops/workflows/booking/pause", &admin, why.clone()).await.good(200);
    described.get("/v1/ops/pauses", &admin).await.good(200);
    described.post("/v1/ops/workflows/booking/resume", &admin, why.clone()).await.good(200);
    let batch = json!({ "act": "cancel", "filter": { "status": "waiting" }, "reason": "x", "dry_run": true });
    described.post("/v1/ops/sagas/batch", &admin, batch).await.good(200);

    let bus = &entrance.test.app.bus.jetstream;
    bus.publish(boxoffice::bus::subjects::REPLIES, "no reply".into()).await.unwrap().await.unwrap();
    let parked = async || entrance.get("/v1/ops/parked", &admin).await.body["items"][0]["id"].clone();
    entrance.test.until(10, "the message to be parked", || async { parked().await.is_i64() }).await;
    let message = format!("/v1/ops/parked/{}", parked().await);
    described.get("/v1/ops/parked", &admin).await.good(200);
    described.get(&message, &admin).await.good(200);
    described.post(&format!("{message}/drop"), &admin, why.clone()).await.good(200);
    described.post(&format!("{message}/drop"), &admin, why).await.is(404, "not_found");
    described.get("/v1/ops/acts", &admin).await.good(200);
}
