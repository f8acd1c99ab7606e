//! The throttle of a line: slow holds reduce the rate of admissions, and it recovers.

use std::time::Duration;

use boxoffice::store::api_keys::Role;
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::select;
use tokio::time::{Instant, sleep, timeout};

use crate::common::app::until;
use crate::common::http::{Caller, Entrance};

async fn line(entrance: &Entrance, staff: &Caller) -> Value {
    let path = format!("/v1/ops/queues/{}", entrance.test.concert);
    entrance.get(&path, staff).await.good(200).clone()
}

/// Every statement that changes seats takes half a second longer.
async fn slow_down(entrance: &Entrance) {
    let slow = "create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(0.5); return null; end $$;
        create trigger slow after update on seats for each statement execute function slow()";
    sqlx::raw_sql(slow).execute(&entrance.pool).await.unwrap();
}

#[tokio::test]
async fn slow_holds_throttle_the_line_and_it_recovers() {
    // Five times as quick as usual.
    let entrance = Entrance::with(&["--queue-brake-every-ms", "400", "--max-expired-holds", "0"]).await;
    let (admin, viewer) = (entrance.key(Role::Admin).await, entrance.key(Role::Viewer).await);
    let settings = format!("/v1/admin/concerts/{}/queue", entrance.test.concert);
    let buyers = join_all((0..8).map(|_| entrance.admitted(0))).await;
    let before = line(&entrance, &viewer).await;
    let set = &before["settings"]["admit_per_minute"];
    assert_eq!((&before["admission_rate"], &before["brake"]), (set, &Value::Null), "off");
    let on = json!({ "min_rate": 60, "max_rate": 1_200, "admit_per_minute": 600 });
    entrance.send(Method::PATCH, &settings, &admin, Some(on)).await.good(200);
    until(20, "the fastest", || async { line(&entrance, &viewer).await["admission_rate"] == 1_200 }).await;
    let brake = line(&entrance, &viewer).await["brake"].clone();
    assert_eq!(brake["state"], "released", "{brake}");

    slow_down(&entrance).await;
    let start = Instant::now();
    let load = join_all(buyers.iter().zip(1..).map(async |(buyer, first)| {
        // A seat that was just cancelled is not held again at once.
        for seat in (first..=50).step_by(buyers.len()).cycle() {
            let held = entrance.reserve(buyer, &[seat]).await;
            if [201, 202].contains(&held.status) {
                // A reservation that is still pending cannot be cancelled yet.
                while entrance.cancel(buyer, &held.body).await.status == 409 {
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }));
    let at_floor = async {
        loop {
            let now = line(&entrance, &viewer).await;
            if now["brake"]["state"] == "at_floor" {
                return now;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    let slow = select! {
        slow = timeout(Duration::from_secs(25), at_floor) => slow.expect("slow holds bring the rate to its lowest"),
        _ = load => unreachable!("the buyers go on"),
    };
    assert_eq!(slow["admission_rate"], 60, "{slow}");
    let reason = slow["brake"]["reason"].as_str().unwrap();
    assert!(reason.contains("(p99), the limit is 400 ms"), "{reason}");
    assert!(slow["brake"]["hold_p99_ms"].as_u64() > Some(500), "{slow}");
    assert!(start.elapsed() < Duration::from_secs(30));

    sqlx::raw_sql("drop trigger slow on seats").execute(&entrance.pool).await.unwrap();
    until(30, "it to recover", || async { line(&entrance, &viewer).await["admission_rate"] == 1_200 }).await;
    let off = json!({ "max_rate": null });
    entrance.send(Method::PATCH, &settings, &admin, Some(off)).await.good(200);
    let after = line(&entrance, &viewer).await;
    assert_eq!((&after["admission_rate"], &after["brake"]), (&600.into(), &Value::Null));
}
