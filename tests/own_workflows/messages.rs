//! Starts and signals by NATS: at least once, and one saga for each id.

use boxoffice::bus::{messages, publish};
use boxoffice::{ids, store};
use serde_json::json;

use super::{TRIP, map, travel_agency};
use crate::common::app::TestApp;

#[tokio::test(flavor = "multi_thread")]
async fn sagas_are_started_and_signalled_by_messages() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("trip.toml"), TRIP).unwrap();
    let test = TestApp::with(&["--workflows", folder.path().to_str().unwrap()]).await;
    let (bus, pool) = (&test.app.bus, &test.app.pool);
    let _agency = travel_agency(bus, pool).await;
    let id = ids::new();
    let body = messages::StartBody {
        version: 1,
        workflow: "trip".to_owned(),
        subject_id: None,
        input: map(&json!({ "city": "Oslo" })),
        attributes: map(&json!({ "customer": "ada" })),
    };
    let unknown = messages::StartBody { workflow: "cruise".to_owned(), ..body.clone() };
    let bad = messages::StartBody { input: map(&json!({ "city": 7 })), ..body.clone() };
    let out = [
        messages::start(id, &body),
        messages::start(id, &body),
        messages::start(ids::new(), &unknown),
        messages::start(ids::new(), &bad),
    ];
    publish::publish(bus, &out, Clone::clone).await.unwrap();
    let status = async || store::sagas::get(pool, id).await.unwrap().map(|saga| saga.status.name());
    test.until(20, "the trip to wait", || async { status().await == Some("waiting") }).await;
    assert_eq!(store::attributes::of_saga(pool, id).await.unwrap(), map(&json!({ "customer": "ada" })));
    test.until(20, "two starts to be parked", || async {
        store::operations::count_parked(pool).await.unwrap() == 2
    })
    .await;
    let approve = messages::signal(id, "approve", &map(&json!({ "card": "4711" })));
    publish::publish(bus, &[approve], Clone::clone).await.unwrap();
    test.until(20, "the trip to end", || async { status().await == Some("completed") }).await;
    let saga = store::sagas::get(pool, id).await.unwrap().unwrap();
    assert_eq!((&saga.context["card"], &saga.context["flight"]), (&json!("4711"), &json!("flight in Oslo")));
    let trips = sqlx::query_scalar::<_, i64>("select count(*) from saga_view where workflow = 'trip'");
    assert_eq!(trips.fetch_one(pool).await.unwrap(), 1);
}
