//! A group of parallel steps, served by a worker elsewhere: its commands are out at the same time, and a rejection of one member
//! undoes the others.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use boxoffice::bus::Bus;
use boxoffice::saga::{Definition, Outcome};
use boxoffice::store::api_keys::Role;
use saga_worker::{StepRequest, Worker};
use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use super::{bookings, map, start};
use crate::common::http::{Caller, Entrance};
use crate::common::program::Program;
use crate::worker_sdk::nats;

const TOUR: &str = include_str!("tour.toml");
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The commands that a worker has begun and not finished, and the sagas whose held commands may finish.
static BEGUN: Mutex<BTreeSet<(Uuid, &'static str)>> = Mutex::new(BTreeSet::new());
static RELEASED: Mutex<BTreeSet<Uuid>> = Mutex::new(BTreeSet::new());

fn note<T: Ord>(set: &Mutex<BTreeSet<T>>, entry: T) {
    set.lock().unwrap_or_else(PoisonError::into_inner).insert(entry);
}

fn has<T: Ord>(set: &Mutex<BTreeSet<T>>, entry: &T) -> bool {
    set.lock().unwrap_or_else(PoisonError::into_inner).contains(entry)
}

fn names(context: &Value, field: &str, what: &str) -> bool {
    context[field].as_array().is_some_and(|names| names.iter().any(|name| name == what))
}

/// The input names what is held until the test releases it, what is refused, and of what the worker does not know whether it ran.
async fn book(
    what: &'static str,
    conn: &mut PgConnection,
    request: StepRequest<'_>,
) -> anyhow::Result<Outcome> {
    let (saga, context) = (request.command.saga_id, &request.command.context);
    note(&BEGUN, (saga, what));
    while names(context, "hold", what) && !has(&RELEASED, &saga) {
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    if names(context, "refuse", what) {
        return Ok(Outcome::rejected("sold_out"));
    }
    if names(context, "unknown", what) {
        return Ok(Outcome::Unknown { reason: "the agency does not answer".to_owned() });
    }
    sqlx::query("insert into trips (saga, what) values ($1, $2)").bind(saga).bind(what).execute(conn).await?;
    Ok(Outcome::Done { output: map(&json!({ what: "booked" })) })
}

async fn cancel(what: &str, conn: &mut PgConnection, request: StepRequest<'_>) -> anyhow::Result<Outcome> {
    let delete = sqlx::query("delete from trips where saga = $1 and what = $2");
    delete.bind(request.command.saga_id).bind(what).execute(conn).await?;
    Ok(Outcome::done())
}

async fn tour_agency(bus: &Bus, pool: &PgPool) -> DropGuard {
    let table = "create table trips (saga uuid not null, what text not null, unique (saga, what))";
    sqlx::query(table).execute(pool).await.unwrap();
    let stop = CancellationToken::new();
    let worker = Worker::new("tour", pool.clone())
        .command("tour.book_hotel", |conn, request| Box::pin(book("hotel", conn, request)))
        .command("tour.cancel_hotel", |conn, request| Box::pin(cancel("hotel", conn, request)))
        .command("tour.book_flight", |conn, request| Box::pin(book("flight", conn, request)))
        .command("tour.cancel_flight", |conn, request| Box::pin(cancel("flight", conn, request)))
        .command("tour.book_car", |conn, request| Box::pin(book("car", conn, request)))
        .command("tour.cancel_car", |conn, request| Box::pin(cancel("car", conn, request)))
        .command("tour.pay", |conn, request| Box::pin(book("payment", conn, request)))
        .command("tour.refund", |conn, request| Box::pin(cancel("payment", conn, request)));
    let running = worker.start(&nats(bus), &stop).await.unwrap();
    tokio::spawn(running.wait());
    stop.drop_guard()
}

/// Deploys the workflow and starts a saga of it.
async fn begun(entrance: &Entrance, input: Value) -> Uuid {
    // The check of the definition would take a build for development longer than the test.
    entrance.test.app.engine.deploy("tour", TOUR).await.unwrap();
    let client = entrance.client_key(&["tour"]).await;
    let begun = entrance.post("/v1/workflows/tour/sagas", &client, start(&input)).await.good(202).clone();
    begun["id"].as_str().unwrap().parse().unwrap()
}

async fn shown(entrance: &Entrance, viewer: &Caller, saga: Uuid) -> Value {
    entrance.get(&format!("/v1/ops/sagas/{saga}"), viewer).await.good(200).clone()
}

fn standings(saga: &Value) -> Vec<&str> {
    saga["steps"].as_array().unwrap().iter().map(|step| step["standing"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn group_commands_are_out_at_once() {
    let entrance = Entrance::start().await;
    let _agency = tour_agency(&entrance.test.app.bus, &entrance.pool).await;
    let input = json!({ "hold": ["hotel", "flight"], "unknown": ["car"] });
    let saga = begun(&entrance, input).await;
    let viewer = entrance.key(Role::Viewer).await;
    // Neither command ends before the other has begun.
    entrance
        .test
        .until(20, "both commands to be out", || async {
            has(&BEGUN, &(saga, "hotel")) && has(&BEGUN, &(saga, "flight")) && has(&BEGUN, &(saga, "car"))
        })
        .await;
    let at_once = shown(&entrance, &viewer, saga).await;
    assert_eq!(standings(&at_once), ["now", "now", "now", "to_come"], "{at_once}");
    assert_eq!(at_once["steps"][1]["group"], "bookings");
    assert_eq!(at_once["undo_path"], json!(["car", "flight", "hotel"]));

    // An operator completes the member whose worker does not know.
    let operator = entrance.key(Role::Operator).await;
    let path = format!("/v1/ops/sagas/{saga}/complete");
    let by_hand = json!({ "reason": "the agency has confirmed it", "output": { "car": "by hand" } });
    let refused = entrance.post(&path, &operator, by_hand.clone()).await;
    assert_eq!(refused.is(422, "invalid_request")["errors"][0]["pointer"], "/step");
    let of = |step: &str| {
        let mut body = by_hand.clone();
        body["step"] = json!(step);
        body
    };
    assert_eq!(
        entrance.post(&path, &operator, of("pay")).await.is(422, "invalid_request")["errors"][0]["pointer"],
        "/step"
    );
    entrance.post(&path, &operator, of("car")).await.good(200);
    assert_eq!(standings(&shown(&entrance, &viewer, saga).await), ["now", "now", "done", "to_come"]);
    let drawn = Program::of(&entrance.test.env).run(&format!("saga show {saga}")).await;
    assert!(drawn.out.contains("bookings, in parallel") && drawn.out.contains("▶ flight"), "{}", drawn.out);

    note(&RELEASED, saga);
    let ended = || async { shown(&entrance, &viewer, saga).await["status"] == "completed" };
    entrance.test.until(20, "the saga to complete", ended).await;
    let ended = shown(&entrance, &viewer, saga).await;
    assert_eq!(standings(&ended), ["done"; 4]);
    let context = json!({ "hotel": "booked", "flight": "booked", "car": "by hand" });
    let paid = &ended["steps"][3]["input"];
    assert!(context.as_object().unwrap().iter().all(|(field, value)| paid[field] == *value), "{paid}");
    assert_eq!(bookings(&entrance.pool).await, 3, "the car was booked by hand");
}

#[tokio::test(flavor = "multi_thread")]
async fn rejection_of_one_member_undoes_the_others() {
    let entrance = Entrance::start().await;
    let _agency = tour_agency(&entrance.test.app.bus, &entrance.pool).await;
    // The hotel is done, and the car is not answered yet when the flight is rejected.
    let saga = begun(&entrance, json!({ "hold": ["flight", "car"], "refuse": ["flight"] })).await;
    let viewer = entrance.key(Role::Viewer).await;
    entrance
        .test
        .until(20, "the hotel to be booked", || async {
            let saga = shown(&entrance, &viewer, saga).await;
            standings(&saga) == ["done", "now", "now", "to_come"]
        })
        .await;
    note(&RELEASED, saga);
    let ended = || async { shown(&entrance, &viewer, saga).await["status"] == "compensated" };
    entrance.test.until(30, "the saga to be undone", ended).await;
    let ended = shown(&entrance, &viewer, saga).await;
    assert_eq!(ended["reason"], "sold_out");
    let history = ended["history"].as_array().unwrap().iter();
    let undone: Vec<&Value> =
        history.filter(|row| row["event"] == "undone").map(|row| &row["step"]).collect();
    assert_eq!(undone, ["car", "hotel"], "the flight was rejected, so there was nothing to undo");
    assert_eq!(standings(&ended)[0], "undone");
    assert_eq!(bookings(&entrance.pool).await, 0);
}

#[test]
fn group_on_the_page_is_a_definition() {
    let page = include_str!("../../docs/your-own-workflow.md");
    let blocks = page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let group = blocks.filter(|block| block.contains("[[steps.parallel]]")).collect::<Vec<_>>();
    let definition = Definition::parse("page", group[0]).unwrap();
    assert_eq!((group.len(), definition.groups(), definition.group(1)), (1, vec!["bookings"], Some(0..2)));
}
