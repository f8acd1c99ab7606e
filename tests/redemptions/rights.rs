//! Which role may do what at the gate.

use boxoffice::ids;
use boxoffice::store::api_keys::Role;
use reqwest::Method;
use serde_json::json;

use super::{REDEMPTIONS, Venue};
use crate::common::http::Caller;

#[tokio::test]
async fn gate_routes_take_their_roles_only() {
    let venue = Venue::open().await;
    let scan = json!({ "code": "T1", "gate": "North" });
    let upload =
        json!({ "gate": "North", "scans": [{ "code": "T1", "scanned_at": "2026-01-01T00:00:00Z" }] });
    let undo = format!("{REDEMPTIONS}/{}/undo", ids::new());
    let batch = format!("{REDEMPTIONS}/batch");
    let counts = format!("/v1/performances/{}/redemptions", ids::new());
    let events = format!("{counts}/events");
    let readers = [Role::Gate, Role::Support, Role::Viewer, Role::Operator, Role::Admin];
    let routes = [
        (Method::POST, REDEMPTIONS, Some(scan), &[Role::Gate][..]),
        (Method::POST, &batch, Some(upload), &[Role::Gate]),
        (Method::POST, &undo, Some(json!({ "reason": "a test" })), &[Role::Support]),
        (Method::GET, &counts, None, &readers),
        (Method::GET, &events, None, &readers),
    ];
    let all = [Role::Gate, Role::Support, Role::Viewer, Role::Operator, Role::Admin, Role::Cashier];
    let user = venue.entrance.user(0).await;
    let client = venue.entrance.client_key(&["booking"]).await;
    for (method, path, body, allowed) in routes {
        for role in all {
            let key = venue.entrance.key(role).await;
            let reply = venue.entrance.send(method.clone(), path, &key, body.clone()).await;
            // Nothing is found behind any of these routes, so 404 and 200 are answers to those who may ask.
            let may = allowed.contains(&role);
            assert_eq!(reply.status != 403, may, "{method} {path} as {role:?}: {reply:#?}");
            assert!(!may || [200, 404].contains(&reply.status), "{reply:#?}");
        }
        venue.entrance.send(method.clone(), path, &client, body.clone()).await.is(403, "forbidden");
        venue.entrance.send(method.clone(), path, &user, body.clone()).await.is(401, "unauthenticated");
        venue.entrance.send(method, path, &Caller::anonymous(), body).await.is(401, "unauthenticated");
    }
}
