//! Two processes, one of them started before a new version is deployed: both serve its sagas, and either may be killed.

use std::time::Duration;

use boxoffice::http::auth::NewKey;
use boxoffice::store::api_keys::{self, Role};
use boxoffice::{ids, store};
use serde_json::{Value, json};

use super::{TRIP, bookings, travel_agency};
use crate::common::Env;
use crate::common::app::until;
use crate::common::program::Program;
use crate::process::Process;

/// Sagas that are started before each kill.
const SAGAS: usize = 20;

struct Api {
    client: reqwest::Client,
    key: String,
}

impl Api {
    async fn post(&self, process: &Process, path: &str, body: Value) -> Value {
        let request = self.client.post(format!("{}{path}", process.url)).bearer_auth(&self.key).json(&body);
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let body: Value = answer.json().await.unwrap();
        assert!(status.is_success(), "{path}: {body}");
        body
    }

    async fn start(&self, process: &Process, version: i32) {
        for number in 0..SAGAS {
            let refuse = if number % 3 == 0 { "flight" } else { "nothing" };
            let input = json!({ "city": "Oslo", "approved": true, "refuse": refuse });
            let begun = self.post(process, "/v1/workflows/trip/sagas", json!({ "input": input })).await;
            assert_eq!(begun["version"], version);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn old_process_serves_a_new_version() {
    let env = Env::start().await;
    let data_dir = crate::common::fresh_dir("versions");
    let data_dir = data_dir.to_str().unwrap();
    let all = [
        "serve",
        "--role",
        "api,orchestrator,worker,scheduler",
        "--local",
        "--data-dir",
        data_dir,
        "--database-url",
        &env.database_url,
        "--nats-url",
        &env.nats_url,
    ];
    let before = Process::start(&all).await;
    let NewKey { secret, hash } = NewKey::generate();
    api_keys::insert(&env.pool, ids::new(), "test", Role::Admin, &hash).await.unwrap();
    let client = reqwest::Client::builder().timeout(Duration::from_secs(60)).build().unwrap();
    let api = Api { client, key: secret };
    let _agency = travel_agency(&env.bus, &env.pool).await;
    let after = Process::start(&all).await;
    let program = Program::of(&env);
    let deploy = async |text: &str| {
        let file = std::path::Path::new(data_dir).join("trip.toml");
        std::fs::write(&file, text).unwrap();
        program.json(0, &format!("workflow deploy {}", file.display())).await;
    };
    deploy(TRIP).await;
    api.start(&before, 1).await;
    deploy(&TRIP.replace("version = 1", "version = 2").replace("600", "700")).await;

    // Both processes begin sagas of the new version at once. The younger one is killed amid them.
    api.start(&before, 2).await;
    api.start(&after, 2).await;
    after.kill().await;
    let open = async || store::sagas::count_open(&env.pool).await.unwrap();
    until(60, "sagas to end in the process from before the deployment", || async { open().await.is_empty() })
        .await;

    let third = Process::start(&all).await;
    api.start(&before, 2).await;
    before.kill().await;
    until(60, "sagas to end in a process from after the deployment", || async { open().await.is_empty() })
        .await;
    third.kill().await;
    let ended =
        "select status, count(*) from saga_view where workflow = 'trip' group by status order by status";
    let ended: Vec<(String, i64)> = sqlx::query_as(ended).fetch_all(&env.pool).await.unwrap();
    let (refused, all) = (4 * SAGAS.div_ceil(3) as i64, 4 * SAGAS as i64);
    assert_eq!(ended, [("compensated".to_owned(), refused), ("completed".to_owned(), all - refused)]);
    assert_eq!(bookings(&env.pool).await, 2 * (all - refused), "the worker's own table agrees");
}

/// A definition that is only in the database is read when a message for its saga comes, also after it was missing.
#[tokio::test(flavor = "multi_thread")]
async fn saga_waits_while_its_definition_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("trip.toml"), TRIP).unwrap();
    let test = crate::common::app::TestApp::with(&["--workflows", folder.path().to_str().unwrap()]).await;
    let (engine, pool) = (&test.app.engine, &test.app.pool);
    let id = ids::new();
    let new = boxoffice::orchestrator::NewClientSaga {
        id,
        workflow: "trip".to_owned(),
        subject_id: None,
        input: super::map(&json!({ "city": "Oslo" })),
        attributes: serde_json::Map::new(),
        trace: None,
    };
    assert!(engine.start_saga(new.clone()).await.unwrap());
    assert!(!engine.start_saga(new).await.unwrap(), "the same id starts nothing");
    sqlx::query("update workflow_definitions set source = null where workflow = 'trip'")
        .execute(pool)
        .await
        .unwrap();
    let env = test.env;
    test.app.stop().await;
    // A process that does not have the definition takes the worker's answers and the signals.
    let other = crate::common::app::start(&env, &[], &boxoffice::app::Role::ALL).await;
    let _agency = travel_agency(&env.bus, &env.pool).await;
    let saga = async || store::sagas::get(&env.pool, id).await.unwrap().unwrap();
    until(20, "the hotel to be booked", || async { bookings(&env.pool).await == 1 }).await;
    until(30, "the sweeper to put the saga off", || async { saga().await.due_at.is_some() }).await;
    assert!(other.engine.registry.get("trip", 1).is_none());
    assert_eq!(saga().await.status.name(), "running");
    sqlx::query("update workflow_definitions set source = $1 where workflow = 'trip'")
        .bind(TRIP)
        .execute(&env.pool)
        .await
        .unwrap();
    until(60, "the saga to go on", || async { saga().await.status.name() == "waiting" }).await;
    assert_eq!(bookings(&env.pool).await, 1);
    other.stop().await;
}
