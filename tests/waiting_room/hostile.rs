//! Records in the bucket that no correct instance writes: they are refused and removed, and all other users are
//! served.

use std::time::Duration;

use boxoffice::bus::subjects;
use boxoffice::ids;
use boxoffice::waiting_room::{Sessions, Status};
use chrono::{TimeDelta, Utc};
use futures::StreamExt;
use serde_json::{Value, json};
use uuid::Uuid;

use super::surroundings::{Instance, LONG, concert, env, until};
use crate::common::Env;

/// Short sessions, so that refused records are removed within seconds.
const SHORT: Sessions = Sessions { session: Duration::from_secs(2), ..LONG };

fn hostile(user: Uuid, concert: Uuid) -> Vec<Value> {
    let now = Utc::now();
    let record = |changes: Value| {
        let mut record = json!({
            "user": user, "concert": concert, "status": "waiting", "issued_at": now,
            "activated_at": null, "expires_at": null, "place": null, "used": false,
        });
        record.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        record
    };
    let active = |expires_at: &str| {
        record(json!({"status": "active", "activated_at": now, "expires_at": expires_at, "used": true}))
    };
    vec![
        record(json!({"issued_at": "+262142-01-01T00:00:00Z"})),
        record(json!({"issued_at": "-262142-01-01T00:00:00Z"})),
        record(json!({"grace_until": "+262142-12-31T23:59:59Z"})),
        record(json!({"place": u64::MAX})),
        record(json!({"place": 0})),
        active("+262142-12-31T23:59:59Z"),
        active("-262142-01-01T00:00:00Z"),
        active("2199-01-01T00:00:00Z"),
        json!({"status": "waiting"}),
        json!(["no", "record"]),
    ]
}

async fn write(env: &Env, concert: Uuid, records: &[Value]) {
    for record in records {
        let key = subjects::queue_key(&subjects::queue_place(concert, ids::new()));
        env.bus.jetstream.publish(key, record.to_string().into()).await.unwrap().await.unwrap();
    }
}

async fn keys_of(env: &Env, concert: Uuid) -> usize {
    let stream = env.bus.jetstream.get_stream(subjects::QUEUE_TOKENS_STREAM).await.unwrap();
    let filter = subjects::queue_key(&format!("{concert}.*"));
    stream.info_with_subjects(filter).await.unwrap().count().await
}

#[tokio::test]
async fn hostile_records_stop_no_line_and_are_removed() {
    let env = env().await;
    let (attacked, other) = (concert(&env.pool, 50, 6_000).await, concert(&env.pool, 50, 6_000).await);
    let instance = Instance::start(&env.nats_url, &env.pool, SHORT, true).await;
    let first = instance.join_many(other, 1).await.remove(0);
    let records: Vec<Value> = hostile(ids::new(), attacked);
    write(&env, attacked, &records).await;
    // Another spelling of a user's id, and a place of another user.
    let odd = subjects::queue_key(&format!("{attacked}.{}", ids::new().simple()));
    env.bus.jetstream.publish(odd, records[9].to_string().into()).await.unwrap().await.unwrap();
    let mut stolen = records[3].clone();
    stolen["place"] = json!(first.place);
    let thief = subjects::queue_key(&subjects::queue_place(other, ids::new()));
    env.bus.jetstream.publish(thief, stolen.to_string().into()).await.unwrap().await.unwrap();

    let honest = [instance.join_many(attacked, 3).await, instance.join_many(other, 3).await].concat();
    for claims in honest.iter().chain([&first]) {
        instance.until_active(claims).await;
    }
    for claims in honest.iter().chain([&first]) {
        instance.room.end(claims).await;
    }
    let give_up = Utc::now() + TimeDelta::seconds(60);
    // A key with another spelling is not a place. It stays and does no harm.
    while keys_of(&env, attacked).await > 1 {
        assert!(Utc::now() < give_up, "{} keys lie in the bucket", keys_of(&env, attacked).await);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    // A process that starts with such records in the bucket.
    write(&env, attacked, &records).await;
    drop(instance);
    let again = Instance::start(&env.nats_url, &env.pool, SHORT, true).await;
    for claims in again.join_many(attacked, 2).await {
        again.until_active(&claims).await;
        again.room.end(&claims).await;
        assert_eq!(again.status(&claims), Status::Expired);
    }
    // In the other line the record counts as a place by now, because the place that it copied has ended.
    let is_empty = |concert: Uuid| {
        let lines = again.room.overview();
        lines.iter().filter(|line| line.concert_id == concert).all(|line| line.length + line.active == 0)
    };
    until("the attacked line is empty", || is_empty(attacked)).await;
}
