//! What operators look at first.

use boxoffice::store::api_keys::Role;
use chrono::{TimeDelta, Utc};
use serde_json::json;
use url::form_urlencoded::byte_serialize;

use super::stuck;
use crate::common::app::until;
use crate::common::http::Entrance;

#[tokio::test]
async fn overview_counts_open_work_and_starts() {
    let entrance = Entrance::start().await;
    let viewer = entrance.key(Role::Viewer).await;
    stuck(&entrance.test, 1).await;
    entrance.test.reserve(entrance.test.user(0).await, &[2]).await;
    until(10, "the overview to be up to date", || async {
        let seen = entrance.get("/v1/ops/overview", &viewer).await.good(200).clone();
        let open: i64 =
            seen["open"].as_array().unwrap().iter().map(|row| row["count"].as_i64().unwrap()).sum();
        let mut started = 0;
        for interval in seen["activity"]["intervals"].as_array().unwrap() {
            let by = interval["by_status"].as_object().unwrap();
            started += by.values().map(|count| count.as_i64().unwrap()).sum::<i64>();
        }
        (seen["stuck"].as_i64(), open, started) == (Some(1), 2, 2)
    })
    .await;
}

#[tokio::test]
async fn viewers_see_workers_workflows_and_their_key() {
    let entrance = Entrance::start().await;
    let viewer = entrance.key(Role::Viewer).await;
    let key = entrance.get("/v1/ops/key", &viewer).await.good(200).clone();
    assert_eq!(key, json!({ "name": "viewer", "role": "viewer" }));
    until(20, "the workers to be present", || async {
        let fleet = entrance.get("/v1/ops/workers", &viewer).await.good(200).clone();
        let commands = fleet["commands"].as_array().unwrap();
        let hold = commands.iter().find(|row| row["command"] == "seats.hold").unwrap();
        assert_eq!(hold["workflows"], json!(["booking"]));
        hold["workers"] == 1 && fleet["workers"].as_array().unwrap().len() == 3
    })
    .await;
    let all = entrance.get("/v1/ops/workflows", &viewer).await.good(200).clone();
    assert_eq!(all["items"][0]["name"], "booking");
    let booking = entrance.get("/v1/ops/workflows/booking", &viewer).await.good(200).clone();
    assert_eq!(
        (&booking["steps"][0]["undo"], &booking["pivot"]),
        (&"seats.release".into(), &"confirm".into())
    );
    entrance.get("/v1/ops/workflows/booking?version=9", &viewer).await.is(404, "not_found");
    entrance.get("/v1/ops/workflows/booking?version=0", &viewer).await.is(422, "invalid_request");
    let cashier = entrance.key(Role::Cashier).await;
    for path in ["overview", "key", "workers", "workflows", "workflows/booking", "batches"] {
        entrance.get(&format!("/v1/ops/{path}"), &cashier).await.is(403, "forbidden");
    }
}

#[tokio::test]
async fn sagas_are_found_by_when_they_were_started() {
    let entrance = Entrance::start().await;
    let viewer = entrance.key(Role::Viewer).await;
    let first = entrance.test.reserve(entrance.test.user(0).await, &[1]).await;
    let shown = entrance.get(&format!("/v1/ops/sagas/{}", first.id), &viewer).await.good(200).clone();
    assert_eq!(shown["trace_id"].as_str().unwrap().len(), 32);
    assert!(shown["history"][1]["emits"].as_array().unwrap().contains(&json!("reservation.reserved")));
    let count = async |query: String| {
        let listed = entrance.get(&format!("/v1/ops/sagas?{query}"), &viewer).await.good(200).clone();
        let counted = entrance.get(&format!("/v1/ops/sagas/counts?{query}"), &viewer).await.good(200).clone();
        assert_eq!(counted["total"], listed["items"].as_array().unwrap().len(), "{query}");
        counted["total"].as_i64().unwrap()
    };
    let at = |seconds: i64| {
        let time = (Utc::now() + TimeDelta::seconds(seconds)).to_rfc3339();
        byte_serialize(time.as_bytes()).collect::<String>()
    };
    assert_eq!(count(format!("started_after={}&started_before={}", at(-600), at(600))).await, 1);
    assert_eq!(count(format!("started_after={}", at(600))).await, 0);
    assert_eq!(count(format!("started_before={}", at(-600))).await, 0);
    let reversed = format!("/v1/ops/sagas?started_after={}&started_before={}", at(60), at(-60));
    assert_eq!(entrance.get(&reversed, &viewer).await.pointers(), ["/started_after"]);
}
