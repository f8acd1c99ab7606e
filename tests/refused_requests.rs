//! What a refused request costs, on every route that is described: a small answer, whatever was sent.

use std::collections::HashSet;

use boxoffice::ids;
use boxoffice::store::api_keys::Role;
use reqwest::Method;
use serde_json::{Value, json};

use crate::common::hostile::{REFUSAL_BYTES_MAX, Route, bodies, routes, send};
use crate::common::http::{Caller, Entrance, reply};

/// `tests/slow` sends bodies of a mebibyte and looks at the time; here the sizes and the sense of the answers count.
const BODY_BYTES: usize = 24 << 10;

#[tokio::test]
async fn refusals_are_small_on_every_route() {
    let entrance = Entrance::start().await;
    for route in routes(&entrance).await {
        if route.takes_body {
            for (what, body) in bodies(&route, BODY_BYTES) {
                let (status, text, _) = send(&entrance, &route, &route.path, Some(body)).await;
                check(&route, &what, status, &text);
            }
        }
        let names: Vec<String> = (0..2_000).map(|number| format!("f{number}=%01")).collect();
        for query in [names.join("&"), format!("{}=1", "%01".repeat(5_000)), "x=1&".repeat(5_000)] {
            // A body that is refused as well, so that no command goes through.
            let body = route.takes_body.then(|| "[]".to_owned());
            let (status, text, _) = send(&entrance, &route, &format!("{}?{query}", route.path), body).await;
            assert!(status < 500, "{} {}: {text}", route.method, route.path);
            assert!(status < 400 || text.len() <= REFUSAL_BYTES_MAX, "{} {}", route.method, route.path);
        }
    }
}

fn check(route: &Route, what: &str, status: u16, text: &str) {
    let about = format!("{what} to {} {}", route.method, route.path);
    assert!((400..500).contains(&status), "{about}: {status} {text:.300}");
    assert!(text.len() <= REFUSAL_BYTES_MAX, "{about}: {} bytes", text.len());
    let problem: Value = serde_json::from_str(text).unwrap();
    let faults = problem["errors"].as_array().cloned().unwrap_or_default();
    let once: HashSet<String> = faults.iter().map(ToString::to_string).collect();
    assert!(faults.len() <= 20 && once.len() == faults.len(), "{about}: {text:.300}");
}

#[tokio::test]
async fn arrays_do_not_pass_as_objects() {
    let entrance = Entrance::start().await;
    let user = entrance.user(0).await.with("idempotency-key", "k");
    assert_eq!(entrance.post("/v1/points/charges", &user, json!([5])).await.pointers(), [""]);
    for route in routes(&entrance).await.iter().filter(|route| route.takes_body) {
        for body in ["[]", "[5]", "[\"a\",\"b\",\"c\"]", " [1]", "5", "\"x\"", "true"] {
            let (status, text, _) = send(&entrance, route, &route.path, Some(body.to_owned())).await;
            let problem: Value = serde_json::from_str(&text).unwrap();
            let fault = &problem["errors"][0];
            let found = (status, fault["pointer"].as_str(), fault["reason"].as_str());
            assert_eq!(found, (422, Some(""), Some("must be a JSON object")), "{body} to {}", route.path);
        }
    }
    let admin = entrance.key(Role::Admin).await;
    let queue = json!({ "name": "A", "description": "", "queue": [1, 2] });
    assert_eq!(entrance.post("/v1/admin/concerts", &admin, queue).await.pointers(), ["/queue"]);
    let dates = format!("/v1/admin/concerts/{}/performances", entrance.test.concert);
    let date = json!({
        "venue": "Hall", "starts_at": "2090-01-01T19:00:00Z", "duration_minutes": 1,
        "sale_opens_at": "2080-01-01T00:00:00Z", "sale_closes_at": "2089-01-01T00:00:00Z", "seats": [[1, 2, "A", 5]],
    });
    assert_eq!(entrance.post(&dates, &admin, date).await.pointers(), ["/seats/0"]);
    let batch = json!({ "act": "retry", "filter": [], "reason": "x" });
    assert_eq!(entrance.post("/v1/ops/sagas/batch", &admin, batch).await.pointers(), ["/filter"]);
}

#[tokio::test]
async fn too_many_seats_are_refused_first() {
    let entrance = Entrance::start().await;
    let buyer = entrance.admitted(0).await;
    for count in [7, 524_000] {
        let refused = entrance.reserve(&buyer, &vec![0; count]).await;
        assert_eq!(refused.is(422, "too_many_seats")["limit"], 6);
        assert!(refused.body.to_string().len() < 500);
    }
    assert_eq!(entrance.reserve(&buyer, &[0, 0, 3]).await.pointers(), ["/seats/0", "/seats/1", "/seats/1"]);
}

#[tokio::test]
async fn unstorable_json_is_named_by_its_path() {
    let entrance = Entrance::start().await;
    let operator = entrance.key(Role::Operator).await;
    let path = format!("/v1/ops/sagas/{}/complete", ids::new());
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(64), "]".repeat(64));
    let deeper = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let outputs = [
        (r#"{"x":"\u0000"}"#, "/output/x"),
        (r#"{"a":[{"b":{"x\u0000":1}}]}"#, "/output/a/0/b/x\0"),
        (r#"{"a":["\ud800"]}"#, "/output/a/0"),
        (r#"{"a":1e400}"#, "/output/a"),
        (r#"{"a":[18446744073709551617]}"#, "/output/a/0"),
        (deep.as_str(), "/output/a"),
        (deeper.as_str(), "/output/a"),
    ];
    for (output, pointer) in outputs {
        let body = format!("{{\"reason\":\"by hand\",\"output\":{output}}}");
        let request = entrance.request(Method::POST, &path, &operator);
        let refused = reply(request.header("content-type", "application/json").body(body)).await;
        let pointers = refused.pointers();
        assert!(pointers.len() == 1 && pointers[0].starts_with(pointer), "{output:.80}: {pointers:?}");
    }
    let good = json!({ "reason": "by hand", "output": { "a": [1.5, u64::MAX, "\u{1}", { "b": 1e300 }] } });
    entrance.post(&path, &operator, good).await.is(404, "not_found");
}

#[tokio::test]
async fn names_are_visible_single_lines() {
    let entrance = Entrance::start().await;
    let admin = entrance.key(Role::Admin).await;
    let concert = |name: &str, description: &str| json!({ "name": name, "description": description });
    let dates = format!("/v1/admin/concerts/{}/performances", entrance.test.concert);
    let date = |venue: &str, section: &str| {
        json!({
            "venue": venue, "starts_at": "2090-01-01T19:00:00Z", "duration_minutes": 1,
            "sale_opens_at": "2080-01-01T00:00:00Z", "sale_closes_at": "2089-01-01T00:00:00Z",
            "seats": [{ "from": 1, "to": 2, "section": section, "price": 5 }],
        })
    };
    for bad in [
        "",
        "  ",
        "\u{200b}",
        "\u{2060}\u{feff} ",
        "\u{3164}",
        "a\nb",
        "a\u{1b}[31m",
        "a\u{202e}b",
        "a\u{9b}b",
    ] {
        let refused = async |path: &str, body: Value, pointer: &str| {
            let refused = entrance.post(path, &admin, body).await;
            assert_eq!(refused.pointers(), [pointer], "{bad:?}");
        };
        refused("/v1/admin/concerts", concert(bad, ""), "/name").await;
        refused("/v1/users", json!({ "name": bad }), "/name").await;
        refused(&dates, date(bad, "A"), "/venue").await;
        refused(&dates, date("Hall", bad), "/seats/0/section").await;
        let act = format!("/v1/ops/sagas/{}/retry", ids::new());
        refused(&act, json!({ "reason": bad }), "/reason").await;
        if !bad.trim().is_empty() && bad.contains(['\n', '\u{1b}', '\u{202e}', '\u{9b}']) {
            let pause = format!("/v1/ops/queues/{}/pause", entrance.test.concert);
            refused(&pause, json!({ "reason": bad }), "/reason").await;
        }
    }
    entrance.post("/v1/admin/concerts", &admin, concert("Ünïcode ليلى 👩‍👩‍👧", "two\nlines\n")).await.good(201);
    let refused = entrance.post("/v1/admin/concerts", &admin, concert("A", "\u{1b}[2J")).await;
    assert_eq!(refused.pointers(), ["/description"]);
    entrance.post("/v1/users", &Caller::anonymous(), json!({ "name": "Zoë" })).await.good(201);
}
