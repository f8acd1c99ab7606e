//! One act on many sagas, as a job.

use boxoffice::store::api_keys::Role;
use serde_json::{Value, json};

use super::stuck;
use crate::common::app::{TestApp, until};
use crate::common::http::{Caller, Entrance};

const JOBS: &str = "/v1/ops/batches";

fn order(rate: u32) -> Value {
    json!({ "act": "retry", "filter": { "status": "stuck" }, "reason": "mended", "rate_per_second": rate })
}

async fn retries(test: &TestApp) -> i64 {
    let count = "select count(*) from operator_acts where act = 'retry'";
    sqlx::query_scalar(count).fetch_one(&test.app.pool).await.unwrap()
}

async fn until_ended(entrance: &Entrance, caller: &Caller, id: &str) -> Value {
    let path = format!("{JOBS}/{id}");
    until(60, "the job to end", || async {
        entrance.get(&path, caller).await.good(200)["status"] != "running"
    })
    .await;
    entrance.get(&path, caller).await.body
}

fn id(job: &Value) -> String {
    job["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn job_acts_on_every_saga_with_progress() {
    let entrance = Entrance::start().await;
    let (operator, viewer) = (entrance.key(Role::Operator).await, entrance.key(Role::Viewer).await);
    for seat in 1..=5 {
        stuck(&entrance.test, seat).await;
    }
    let mut dry = order(1_000);
    dry["dry_run"] = json!(true);
    let job = entrance.post(JOBS, &operator, dry).await.good(202).clone();
    let looked = until_ended(&entrance, &viewer, &id(&job)).await;
    assert_eq!((&looked["total"], &looked["done"], &looked["failed"]), (&5.into(), &5.into(), &0.into()));
    assert_eq!(retries(&entrance.test).await, 0, "a dry run changes nothing");

    let key = operator.with("idempotency-key", "mend-them");
    let started = entrance.post(JOBS, &key, order(1_000)).await;
    let job = started.good(202).clone();
    assert_eq!(started.headers["location"], format!("{JOBS}/{}", id(&job)));
    let ended = until_ended(&entrance, &viewer, &id(&job)).await;
    assert_eq!((&ended["status"], &ended["more"]), (&"completed".into(), &false.into()), "{ended}");
    assert_eq!((&ended["done"], &ended["looked_at"]), (&5.into(), &5.into()), "{ended}");
    let again = entrance.post(JOBS, &key, order(1_000)).await.good(202).clone();
    assert_eq!(
        (&again["id"], retries(&entrance.test).await),
        (&job["id"], 5),
        "the same request is the same job"
    );
    let listed = entrance.get(JOBS, &viewer).await.good(200).clone();
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);
    assert_eq!(listed["items"][0]["id"], job["id"]);
    entrance.test.check_books().await;
}

#[tokio::test]
async fn stopped_job_leaves_the_rest() {
    let entrance = Entrance::start().await;
    let operator = entrance.key(Role::Operator).await;
    for seat in 1..=6 {
        stuck(&entrance.test, seat).await;
    }
    let job = id(entrance.post(JOBS, &operator, order(1)).await.good(202));
    until(20, "the first act", || async { retries(&entrance.test).await > 0 }).await;
    let stop = format!("{JOBS}/{job}/stop");
    let asked = entrance.post(&stop, &operator, json!({ "reason": "enough" })).await.good(200).clone();
    assert_eq!(asked["stopped_by"], "operator");
    let ended = until_ended(&entrance, &operator, &job).await;
    assert_eq!((&ended["status"], &ended["more"]), (&"stopped".into(), &true.into()));
    let done = ended["done"].as_i64().unwrap();
    assert!(done < 6, "{ended}");
    assert_eq!(retries(&entrance.test).await, done);
    let acts = entrance.get("/v1/ops/acts", &operator).await.body;
    let stop = acts["items"].as_array().unwrap().iter().find(|act| act["act"] == "batch.stop").unwrap();
    assert_eq!((&stop["reason"], &stop["target"]), (&"enough".into(), &format!("batch {job}").into()));
}

#[tokio::test]
async fn job_goes_on_after_a_restart() {
    let entrance = Entrance::start().await;
    let operator = entrance.key(Role::Operator).await;
    for seat in 1..=6 {
        stuck(&entrance.test, seat).await;
    }
    let job = id(entrance.post(JOBS, &operator, order(1)).await.good(202));
    until(20, "the first act", || async { retries(&entrance.test).await > 0 }).await;
    let entrance = entrance.restarted(&[]).await;
    let ended = until_ended(&entrance, &operator, &job).await;
    assert_eq!((&ended["status"], &ended["done"]), (&"completed".into(), &6.into()), "{ended}");
    assert_eq!(retries(&entrance.test).await, 6, "no saga was retried twice");
    entrance.test.check_books().await;
}

#[tokio::test]
async fn jobs_are_bounded_and_need_an_operator() {
    let entrance = Entrance::start().await;
    let (operator, viewer) = (entrance.key(Role::Operator).await, entrance.key(Role::Viewer).await);
    for seat in 1..=3 {
        stuck(&entrance.test, seat).await;
    }
    entrance.post(JOBS, &viewer, order(1)).await.is(403, "forbidden");
    entrance.post(JOBS, &Caller::anonymous(), order(1)).await.is(401, "unauthenticated");
    let mut wide = order(0);
    wide["filter"] = json!({});
    wide["limit"] = json!(100_001);
    wide["act"] = json!("complete");
    assert_eq!(
        entrance.post(JOBS, &operator, wide).await.pointers(),
        ["/act", "/filter", "/rate_per_second", "/limit"]
    );
    // Sagas that are held back stay as they are, so that these jobs last.
    let mut slow = order(1);
    slow["act"] = json!("abandon");
    slow["filter"] = json!({ "open": true });
    let mut jobs = Vec::new();
    for _ in 0..5 {
        jobs.push(id(entrance.post(JOBS, &operator, slow.clone()).await.good(202)));
    }
    let sixth = entrance.post(JOBS, &operator, slow).await;
    let detail = sixth.is(429, "rate_limited")["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("5 batches"), "{detail}");
    let stop = format!("{JOBS}/{}/stop", jobs[0]);
    entrance.post(&stop, &viewer, json!({ "reason": "x" })).await.is(403, "forbidden");
    let unknown = format!("{JOBS}/{}", boxoffice::ids::new());
    entrance.get(&unknown, &viewer).await.is(404, "not_found");
}

#[tokio::test]
async fn jobs_that_ended_long_ago_are_purged() {
    let entrance = Entrance::start().await;
    let operator = entrance.key(Role::Operator).await;
    stuck(&entrance.test, 1).await;
    let mut ended = Vec::new();
    for _ in 0..2 {
        let mut dry = order(1_000);
        dry["dry_run"] = json!(true);
        let job = entrance.post(JOBS, &operator, dry).await.good(202).clone();
        until_ended(&entrance, &operator, &id(&job)).await;
        ended.push(id(&job));
    }
    let age = "update batch_jobs set finished_at = now() - interval '31 days' where id = $1::text::uuid";
    sqlx::query(age).bind(&ended[0]).execute(&entrance.pool).await.unwrap();
    boxoffice::operations::batch_jobs::purge(&entrance.pool, chrono::TimeDelta::days(30)).await.unwrap();
    entrance.get(&format!("{JOBS}/{}", ended[0]), &operator).await.is(404, "not_found");
    entrance.get(&format!("{JOBS}/{}", ended[1]), &operator).await.good(200);
}
