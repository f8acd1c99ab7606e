//! Who may do what, and in which order a request is looked at.

use boxoffice::ids;
use boxoffice::store::api_keys::{self, Role};
use chrono::Utc;
use reqwest::Method;
use serde_json::{Value, json};

use super::common::http::{Caller, Entrance, access_token, reply};

#[tokio::test]
async fn users_need_an_access_token_that_is_valid() {
    let entrance = Entrance::start().await;
    let now = Utc::now().timestamp();
    let user = ids::new();
    let with = |claims: Value| Caller::new(user, &access_token(&claims));
    entrance.get("/v1/points", &with(json!({ "sub": user, "exp": now + 60 }))).await.good(200);
    entrance
        .get("/v1/points", &with(json!({ "sub": user, "exp": now - 1 })))
        .await
        .is(401, "unauthenticated");
    entrance.get("/v1/points", &with(json!({ "sub": "me" }))).await.is(401, "unauthenticated");
    let anonymous = entrance.get("/v1/points", &Caller::anonymous()).await;
    anonymous.is(401, "unauthenticated");
    assert_eq!(anonymous.headers["www-authenticate"], "Bearer");
    let token = access_token(&json!({ "sub": user }));
    let forged = format!("{}x", &token[..token.len() - 1]);
    entrance.get("/v1/points", &Caller::new(user, &forged)).await.is(401, "unauthenticated");
    let key = entrance.key(Role::Admin).await;
    entrance.get("/v1/points", &key).await.is(401, "unauthenticated");
}

#[tokio::test]
async fn each_role_opens_its_routes_and_those_below() {
    let entrance = Entrance::start().await;
    let concert = entrance.test.concert;
    let saga = ids::new();
    let routes = [
        (Method::GET, "/v1/ops/sagas".to_owned(), Role::Viewer),
        (Method::GET, format!("/v1/ops/sagas/{saga}"), Role::Viewer),
        (Method::GET, "/v1/ops/queues".to_owned(), Role::Viewer),
        (Method::POST, format!("/v1/ops/sagas/{saga}/retry"), Role::Operator),
        (Method::POST, format!("/v1/ops/queues/{concert}/pause"), Role::Operator),
        (Method::POST, "/v1/admin/concerts".to_owned(), Role::Admin),
        (Method::GET, format!("/v1/admin/concerts/{concert}/queue"), Role::Admin),
    ];
    let user = entrance.user(0).await;
    for (method, path, needed) in routes {
        entrance.send(method.clone(), &path, &user, None).await.is(401, "unauthenticated");
        for role in [Role::Viewer, Role::Operator, Role::Admin, Role::Cashier] {
            let caller = entrance.key(role).await;
            let reply = entrance.send(method.clone(), &path, &caller, None).await;
            if role.includes(needed) {
                assert!(![401, 403].contains(&reply.status), "{method} {path} {role:?}: {reply:?}");
            } else {
                reply.is(403, "forbidden");
            }
        }
    }
}

#[tokio::test]
async fn a_revoked_key_stops_working() {
    let entrance = Entrance::start().await;
    let key = entrance.key(Role::Viewer).await;
    entrance.get("/v1/ops/queues", &key).await.good(200);
    assert!(api_keys::revoke(&entrance.pool, key.id).await.unwrap());
    entrance
        .test
        .until(5, "the key to be refused", || async {
            entrance.get("/v1/ops/queues", &key).await.status == 401
        })
        .await;
}

#[tokio::test]
async fn production_takes_charges_from_cashiers_only() {
    let entrance = Entrance::production().await;
    entrance.post("/v1/users", &Caller::anonymous(), json!({ "name": "A" })).await.is(404, "not_found");
    let user = entrance.user(0).await.with("idempotency-key", "k");
    entrance.post("/v1/points/charges", &user, json!({ "amount": 5 })).await.is(401, "unauthenticated");
    let admin = entrance.key(Role::Admin).await.with("idempotency-key", "k");
    entrance.post("/v1/points/charges", &admin, json!({ "amount": 5 })).await.is(403, "forbidden");
    let cashier = entrance.key(Role::Cashier).await.with("idempotency-key", "k");
    let charge = json!({ "user_id": user.id, "amount": 5 });
    assert_eq!(entrance.post("/v1/points/charges", &cashier, charge).await.good(201)["balance"], 5);
    assert_eq!(entrance.get("/v1/points", &user).await.good(200)["balance"], 5);
}

#[tokio::test]
async fn requests_are_checked_in_the_contracts_order() {
    let entrance = Entrance::start().await;
    let user = entrance.user(0).await;
    let viewer = entrance.key(Role::Viewer).await;
    let admin = entrance.key(Role::Admin).await;
    let big = " ".repeat((1 << 20) + 1);
    let raw = async |method: Method, path: &str, caller: &Caller, body: &str| {
        let request = entrance.request(method, path, caller).header("content-type", "text/plain");
        reply(request.body(body.to_owned())).await
    };
    // Each line is wrong in all that the next is, and in one thing more.
    let anonymous = Caller::anonymous();
    raw(Method::POST, "/v1/nowhere", &anonymous, &big).await.is(404, "not_found");
    let wrong_method = raw(Method::PUT, "/v1/admin/concerts", &anonymous, &big).await;
    wrong_method.is(405, "method_not_allowed");
    assert_eq!(wrong_method.headers["allow"], "POST");
    raw(Method::POST, "/v1/admin/concerts", &anonymous, &big).await.is(401, "unauthenticated");
    raw(Method::POST, "/v1/admin/concerts", &viewer, &big).await.is(403, "forbidden");
    raw(Method::POST, "/v1/admin/concerts", &admin, &big).await.is(413, "payload_too_large");
    raw(Method::POST, "/v1/admin/concerts", &admin, "{").await.is(400, "malformed_request");
    let concert = json!({ "name": "", "description": "", "colour": 1 });
    let reply = entrance.post("/v1/admin/concerts", &admin, concert).await;
    assert_eq!(reply.pointers(), ["/colour", "/name"]);

    let unknown = json!({ "performance_id": ids::new(), "seats": [0] });
    assert_eq!(entrance.post("/v1/reservations", &user, unknown).await.pointers(), ["/seats/0"]);
    let unknown = json!({ "performance_id": ids::new(), "seats": [1] });
    let keyed = user.with("idempotency-key", "order");
    entrance.post("/v1/reservations", &keyed, unknown).await.is(404, "not_found");
    entrance.reserve(&user, &[1]).await.is(403, "queue_token_required");
}

#[tokio::test]
async fn a_malformed_id_is_an_unknown_one() {
    let entrance = Entrance::start().await;
    let user = entrance.user(0).await;
    let viewer = entrance.key(Role::Viewer).await;
    let admin = entrance.key(Role::Admin).await;
    for id in ["1", "not-an-id", "%00", "00000000-0000-0000-0000-000000000000"] {
        for path in [format!("/v1/reservations/{id}"), format!("/v1/concerts/{id}/performances")] {
            entrance.get(&path, &user).await.is(404, "not_found");
        }
        entrance.get(&format!("/v1/performances/{id}/seats"), &user).await.is(404, "not_found");
        for act in ["payment", "cancellation"] {
            let path = format!("/v1/reservations/{id}/{act}");
            entrance.post(&path, &user, json!({})).await.is(404, "not_found");
        }
        entrance
            .post(&format!("/v1/concerts/{id}/queue-tokens"), &user, json!({}))
            .await
            .is(404, "not_found");
        entrance.get(&format!("/v1/ops/sagas/{id}"), &viewer).await.is(404, "not_found");
        entrance.get(&format!("/v1/ops/queues/{id}"), &viewer).await.is(404, "not_found");
        entrance.get(&format!("/v1/admin/concerts/{id}/queue"), &admin).await.is(404, "not_found");
    }
    entrance.get("/v1/reservations/1", &Caller::anonymous()).await.is(401, "unauthenticated");
}

#[tokio::test]
async fn only_the_user_over_the_rate_must_wait() {
    let entrance = Entrance::with(&["--user-requests-per-second", "5"]).await;
    let (hasty, calm) = (entrance.user(0).await, entrance.user(0).await);
    let replies = futures::future::join_all((0..40).map(|_| entrance.get("/v1/points", &hasty))).await;
    let refused: Vec<_> = replies.iter().filter(|reply| reply.status != 200).collect();
    assert!(!refused.is_empty() && refused.len() <= 35);
    for reply in refused {
        reply.is(429, "rate_limited");
        assert_eq!(reply.headers["retry-after"], "1");
    }
    entrance.get("/v1/points", &calm).await.good(200);
}

#[tokio::test]
async fn private_answers_are_not_cacheable() {
    let entrance = Entrance::start().await;
    let user = entrance.admitted(10).await;
    let kept = async |path: &str| entrance.get(path, &user).await.headers["cache-control"].clone();
    for path in ["/v1/queue-tokens/current", "/v1/points", "/v1/reservations", "/v1/nothing"] {
        assert_eq!(kept(path).await, "no-store", "{path}");
    }
    assert_eq!(kept("/v1/concerts").await, "private, no-cache");
    let made = entrance.post("/v1/users", &Caller::anonymous(), json!({ "name": "Ada" })).await;
    assert_eq!(made.headers["cache-control"], "no-store");
    let line = format!("/v1/concerts/{}/queue-tokens", entrance.test.concert);
    let place = entrance.post(&line, &user.with("idempotency-key", "k"), json!({})).await;
    assert_eq!(place.headers["cache-control"], "no-store");
    let replayed = entrance.post(&line, &user.with("idempotency-key", "k"), json!({})).await;
    assert_eq!(replayed.headers["cache-control"], "no-store");
    let events = entrance.request(Method::GET, "/v1/queue-tokens/current/events", &user);
    assert_eq!(events.send().await.unwrap().headers()["cache-control"], "no-store");
}

#[tokio::test]
async fn api_page_forbids_frames_and_foreign_content() {
    let entrance = Entrance::start().await;
    for path in ["/docs/", "/docs/index.html", "/docs/swagger-ui-bundle.js", "/openapi.json"] {
        let page = entrance.get(path, &Caller::anonymous()).await;
        page.good(200);
        let headers = &page.headers;
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(
            policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
            "{policy}"
        );
        assert!(!policy.contains("script-src 'self' 'unsafe-inline'"), "{policy}");
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(headers["x-frame-options"], "DENY", "{path}");
    }
    // The policy forbids scripts inside the page; it has none.
    let page = entrance.get("/docs/index.html", &Caller::anonymous()).await.body;
    let page = page.as_str().unwrap();
    assert_eq!(page.matches("<script").count(), page.matches("<script src=").count(), "{page}");
}
