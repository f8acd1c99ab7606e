//! What the entrance says while Postgres or NATS is away: 503 or what it knows, and never a defect.

use boxoffice::store::api_keys::Role;
use serde_json::json;

use super::common::app::until;
use super::common::http::{Caller, Entrance};

#[tokio::test]
async fn outage_of_the_database_gives_503_never_500() {
    let entrance = Entrance::start().await;
    let buyer = entrance.admitted(1_000).await;
    let key = entrance.key(Role::Admin).await;
    let anonymous = Caller::anonymous();
    entrance.pool.close().await;
    entrance.get("/v1/points", &buyer).await.is(503, "unavailable");
    entrance.get("/v1/concerts?limit=7", &anonymous).await.is(503, "unavailable");
    entrance.reserve(&buyer, &[1]).await.is(503, "unavailable");
    entrance.get("/v1/ops/sagas", &key).await.is(503, "unavailable");
    entrance.get("/readyz", &anonymous).await.is(503, "unavailable");
    entrance.get("/livez", &anonymous).await.good(200);
    entrance.get("/v1/queue-tokens/current", &buyer).await.good(200);
}

#[tokio::test]
async fn nats_outage_allows_reads_and_no_partial_work() {
    let entrance = Entrance::start().await;
    let buyer = entrance.admitted(1_000).await;
    let held = entrance.reserve(&buyer, &[1]).await.good(201).clone();
    let (late, anonymous) = (entrance.user(0).await, Caller::anonymous());
    entrance.kill_nats();
    // The status comes from memory, reads from Postgres.
    assert_eq!(entrance.get("/v1/queue-tokens/current", &buyer).await.good(200)["status"], "active");
    entrance.get("/v1/points", &buyer).await.good(200);
    let map = format!("/v1/performances/{}/seats", entrance.test.performance);
    entrance.get(&map, &buyer).await.good(200);
    let join = format!("/v1/concerts/{}/queue-tokens", entrance.test.concert);
    entrance.post(&join, &late, json!({})).await.is(503, "unavailable");
    // Steps in the engine's own database need no broker. What is not done in time is answered so.
    let reserved = entrance.reserve(&buyer, &[2]).await;
    let paid = entrance.pay(&buyer, &held).await;
    for (reply, wanted) in [(&reserved, "held"), (&paid, "confirmed")] {
        if ![200, 201].contains(&reply.status) {
            assert!([202, 503].contains(&reply.status), "{reply:#?}");
            assert!(reply.headers.contains_key("retry-after"));
            continue;
        }
        let id = if wanted == "held" { &reply.body["id"] } else { &held["id"] };
        let path = format!("/v1/reservations/{}", id.as_str().unwrap());
        assert_eq!(entrance.get(&path, &buyer).await.good(200)["status"], wanted, "{reply:#?}");
    }
    until(15, "the instance to ask for no more requests", || async {
        entrance.get("/readyz", &anonymous).await.status == 503
    })
    .await;
    entrance.get("/readyz", &anonymous).await.is(503, "unavailable");
    entrance.get("/livez", &anonymous).await.good(200);
}
