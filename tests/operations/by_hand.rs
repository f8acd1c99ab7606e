//! Manual completion of a step of an external service: the service's fence decides.

use std::path::PathBuf;

use boxoffice::app::Role as Does;
use boxoffice::saga::Outcome;
use boxoffice::store::api_keys::Role;
use boxoffice::{ids, store};
use saga_worker::Worker;
use serde_json::{Map, Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use crate::common::app::{begin_saga, until};
use crate::common::http::Entrance;
use crate::common::program::Program;
use crate::common::{fresh_database, fresh_dir};
use crate::worker_sdk::nats;

const WORKFLOW: &str = "
    name = 'badge'
    version = 1
    [[steps]]
    name = 'print'
    command = 'printer.print'
    undo = 'printer.shred'";

/// A folder with the workflow of badges.
fn workflows() -> PathBuf {
    let folder = fresh_dir("workflows");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("badge.toml"), WORKFLOW).unwrap();
    folder
}

/// A printer of badges with a database of its own, until the answer is dropped.
async fn printer(entrance: &Entrance) -> DropGuard {
    let pool = store::open(&fresh_database().await, 4).unwrap();
    let stop = CancellationToken::new();
    let badge = || Outcome::Done { output: Map::from_iter([("badge".to_owned(), json!(7))]) };
    let worker = Worker::new("printer", pool)
        .command("printer.print", move |_, _| Box::pin(async move { Ok(badge()) }))
        .command("printer.shred", |_, _| Box::pin(async { Ok(Outcome::done()) }));
    let running = worker.start(&nats(&entrance.test.env.bus), &stop).await.unwrap();
    tokio::spawn(running.wait());
    stop.drop_guard()
}

/// A saga whose command is out.
async fn begun(entrance: &Entrance) -> Uuid {
    let id = ids::new();
    begin_saga(&entrance.test.app.engine, "badge", id).await;
    id
}

#[tokio::test]
async fn step_that_ran_cannot_be_completed_by_hand() {
    let folder = workflows();
    let flags = ["--workflows", folder.to_str().unwrap()];
    // No process takes replies here, so that the saga does not learn that its step has run.
    let entrance = Entrance::roles(&flags, &[Does::Api]).await;
    let (operator, program) = (entrance.key(Role::Operator).await, Program::of(&entrance.test.env));
    let program = program.with("BOXOFFICE_WORKFLOWS", flags[1]);
    let id = begun(&entrance).await;
    let path = format!("/v1/ops/sagas/{id}/complete");
    let wanted = json!({ "reason": "printed by hand", "output": { "badge": 8 } });

    let nobody = entrance.post(&path, &operator, wanted.clone()).await;
    let refused = nobody.is(503, "unavailable");
    assert!(refused["detail"].as_str().unwrap().contains("o worker serves printer"), "{refused}");

    let _printer = printer(&entrance).await;
    let steps = entrance.test.env.bus.jetstream.get_stream("STEPS").await.unwrap();
    until(10, "the badge to be printed", || async { steps.get_info().await.unwrap().state.messages == 0 })
        .await;
    let reply = entrance.post(&path, &operator, wanted).await;
    let refused = reply.is(409, "illegal_act");
    assert_eq!(refused["outcome"], json!({ "outcome": "done", "output": { "badge": 7 } }));
    let told = program.json(1, &format!("saga complete {id} --output {{\"badge\":8}} --reason x")).await;
    assert_eq!(told["outcome"], refused["outcome"]);
    let shown = program.json(0, &format!("saga show {id}")).await;
    assert_eq!((&shown["status"], &shown["steps"][0]["output"]), (&"running".into(), &Value::Null));
    let acts = program.run("saga acts --json").await.out;
    assert_eq!(acts, "", "nothing was done, and nothing is written down");
}

#[tokio::test]
async fn step_completes_at_its_service_before_the_saga() {
    let folder = workflows();
    let flags = ["--workflows", folder.to_str().unwrap()];
    let entrance = Entrance::roles(&flags, &[Does::Api, Does::Orchestrator]).await;
    let program = Program::of(&entrance.test.env).with("BOXOFFICE_WORKFLOWS", flags[1]);
    let _printer = printer(&entrance).await;
    program.json(0, "saga pause --step printer.print --reason no-paper").await;
    let id = begun(&entrance).await;
    let done =
        program.json(0, &format!("saga complete {id} --output {{\"badge\":8}} --reason by-hand")).await;
    assert_eq!(done["status"], "completed");
    let known = program.json(0, &format!("saga show {id}")).await;
    assert_eq!(known["steps"][0]["output"], json!({ "badge": 8 }));
    // The command comes after all; the fence answers it with what was said by hand.
    program.json(0, "saga resume --step printer.print --reason paper").await;
    let steps = entrance.test.env.bus.jetstream.get_stream("STEPS").await.unwrap();
    until(10, "the late command", || async { steps.get_info().await.unwrap().state.messages == 0 }).await;
    assert_eq!(
        program.json(0, &format!("saga show {id}")).await["steps"][0]["output"],
        json!({ "badge": 8 })
    );
}
