//! Flights: the batch that looks after sagas while they run, and what becomes of those whose process has died.

use std::collections::BTreeMap;

use boxoffice::app::{App, Role};
use boxoffice::bus::subjects;
use boxoffice::orchestrator::{self, Batch};
use boxoffice::saga::{Event, NewSaga, OperatorAction};
use boxoffice::store::flights::{self, Overdue};
use boxoffice::store::reservations::ReservationStatus;
use boxoffice::store::write_batch::{WriteBatch, is_stale_read};
use boxoffice::{ids, store};
use sqlx::PgPool;
use uuid::Uuid;

use crate::common::app::{TestApp, assert_good, begin_saga, start, until};
use crate::events::published;

async fn in_flight(pool: &PgPool) -> Vec<Uuid> {
    let sql = "select unnest(sagas) from flights order by 1";
    sqlx::query_scalar(sql).fetch_all(pool).await.unwrap()
}

async fn all_land(pool: &PgPool) {
    until(10, "all flights to land", || async { in_flight(pool).await.is_empty() }).await;
}

/// The flight in the row of a saga, and whether it has no alarm.
async fn row(pool: &PgPool, saga: Uuid) -> (Option<i64>, bool) {
    let sql = "select flight, due_at is null from sagas where id = $1";
    sqlx::query_as(sql).bind(saga).fetch_one(pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn ended_sagas_leave_their_flight() {
    let test = TestApp::start().await;
    let user = test.user(1_000).await;
    let mut order = test.order(user, &[1]);
    order.pay_now = true;
    let id = order.id;
    drop(test.app.booking.reserve(order).await.unwrap());
    test.until(5, "the tickets", || async { test.find(id).await.status == ReservationStatus::Confirmed })
        .await;
    all_land(&test.app.pool).await;
    let (flight, has_no_alarm) = row(&test.app.pool, id).await;
    assert!(flight.is_some() && has_no_alarm, "the row was written again after its end");
}

#[tokio::test(flavor = "multi_thread")]
async fn held_saga_has_a_timer_and_a_flight() {
    let test = TestApp::roles(&["--settle-ms", "1"], &[Role::Api]).await;
    let worker: App = start(&test.env, &[], &[Role::Worker]).await;
    let user = test.user(1_000).await;
    let order = test.order(user, &[1]);
    let id = order.id;
    drop(test.app.booking.reserve(order).await.unwrap());
    test.until(5, "the hold", || async { test.find(id).await.status == ReservationStatus::Held }).await;
    assert_eq!(row(&test.app.pool, id).await, (None, false), "it waits by its own alarm");
    all_land(&test.app.pool).await;
    worker.stop().await;
    drop(test.app.booking.pay(id).await.unwrap());
    assert!(row(&test.app.pool, id).await.0.is_some(), "it runs in the flight of its signal");
    assert_eq!(in_flight(&test.app.pool).await, [id]);
}

/// The process that began the saga has died, and so has its command.
#[tokio::test(flavor = "multi_thread")]
async fn flight_of_a_dead_process_is_swept() {
    let test = TestApp::roles(&["--settle-ms", "1"], &[Role::Api]).await;
    let user = test.user(1_000).await;
    let mut ids = Vec::new();
    for seat in 1..=3 {
        let order = test.order(user, &[seat]);
        ids.push(order.id);
        drop(test.app.booking.reserve(order).await.unwrap());
    }
    let mut steps = test.app.bus.jetstream.get_stream(subjects::STEPS).await.unwrap();
    test.until(5, "the commands to be out", || async {
        steps.clone().info().await.unwrap().state.messages == 3
    })
    .await;
    steps.purge().await.unwrap();
    assert_eq!(steps.info().await.unwrap().state.messages, 0);
    assert_eq!(in_flight(&test.app.pool).await.len(), 3);
    let next: App = start(&test.env, &[], &[Role::Worker, Role::Scheduler]).await;
    for id in ids {
        test.until(12, "the seat to be held", || async {
            test.find(id).await.status == ReservationStatus::Held
        })
        .await;
    }
    all_land(&test.app.pool).await;
    next.stop().await;
    assert_good(&test.app).await;
}

/// It has committed the end, and died before its events were published.
#[tokio::test(flavor = "multi_thread")]
async fn flight_events_are_published_after_a_crash() {
    let test = TestApp::start().await;
    let user = test.user(1_000).await;
    let held = test.reserve(user, &[1]).await.id;
    test.pay(held).await;
    all_land(&test.app.pool).await;
    let answered = async || -> BTreeMap<String, serde_json::Value> {
        let own = published(&test).await.into_iter().filter(|event| event.subject_id == held);
        own.map(|event| (event.id.clone(), serde_json::to_value(event).unwrap())).collect()
    };
    let before = answered().await;
    assert_eq!(before.len(), 4);
    test.app.bus.jetstream.get_stream(subjects::EVENTS).await.unwrap().purge().await.unwrap();
    let (flight, _) = row(&test.app.pool, held).await;
    let sql = "insert into flights (id, at, sagas) values ($1, clock_timestamp() - interval '4 seconds', $2)";
    sqlx::query(sql).bind(flight.unwrap()).bind([held]).execute(&test.app.pool).await.unwrap();
    until(10, "the events to come again", || async { answered().await == before }).await;
    all_land(&test.app.pool).await;
}

/// A process that remembers a saga as it was in its flight cannot write it back into that flight.
#[tokio::test(flavor = "multi_thread")]
async fn saga_that_was_let_go_is_read_anew() {
    let test = TestApp::roles(&[], &[Role::Api]).await;
    let (engine, pool) = (&test.app.engine, &test.app.pool);
    let id = ids::new();
    begin_saga(engine, "cancellation", id).await;
    let remembered = store::sagas::get(pool, id).await.unwrap().unwrap();
    let flight = Overdue { id: remembered.flight.unwrap(), sagas: vec![id] };
    flights::let_go(pool, &flight).await.unwrap();
    assert_eq!(row(pool, id).await, (None, false));

    let mut batch = Batch::of(vec![remembered], store::now(pool).await.unwrap());
    batch.apply(&engine.registry, id, &Event::Operator(OperatorAction::Abandon));
    let mut conn = pool.acquire().await.unwrap();
    assert!(is_stale_read(&batch.write(&mut conn, engine).await.unwrap_err()));
    assert!(flights::kept(pool, &flight).await.unwrap().is_empty());
}

/// Two instances put sagas of one flight to rest at the same moment, and one of them twice.
#[tokio::test(flavor = "multi_thread")]
async fn flights_are_left_whichever_process_writes_them() {
    let test = TestApp::roles(&[], &[Role::Api]).await;
    let pool = &test.app.pool;
    let sagas: Vec<Uuid> = (0..200).map(|_| ids::new()).collect();
    let sql = "insert into flights (id, at, sagas) values (7, clock_timestamp(), $1)";
    sqlx::query(sql).bind(&sagas).execute(pool).await.unwrap();
    let leave = async |some: &[Uuid]| flights::leave(pool, &[(7, some.to_vec())].into()).await.unwrap();
    tokio::join!(leave(&sagas[..80]), leave(&sagas[60..120]), leave(&sagas[110..199]));
    assert_eq!(in_flight(pool).await, [sagas[199]]);
    leave(&sagas).await;
    leave(&sagas).await;
    assert_eq!(
        sqlx::query_scalar::<_, i64>("select count(*) from flights").fetch_one(pool).await.unwrap(),
        0
    );
}

/// What commands carry stands in the history alone: a process that did not write it has the same.
#[tokio::test(flavor = "multi_thread")]
async fn waiting_saga_goes_on_in_a_new_process() {
    let test = TestApp::start().await;
    let user = test.user(1_000).await;
    let held = test.reserve(user, &[1, 2]).await;
    let saga = store::sagas::get(&test.app.pool, held.id).await.unwrap().unwrap();
    assert_eq!(saga.context["amount"], held.amount);
    assert_eq!(saga.input["seats"], serde_json::json!([1, 2]));
    assert!(saga.input.get("amount").is_none());
    let next = test.another(&[]).await;
    let (answer, began) = next.booking.pay(held.id).await.unwrap();
    assert!(began);
    let paid = crate::common::app::settled(answer);
    assert_eq!(paid.status, ReservationStatus::Confirmed);
    let again =
        store::reservations::get(&mut next.pool.acquire().await.unwrap(), held.id).await.unwrap().unwrap();
    assert_eq!((paid.tickets.0, paid.payment), (again.tickets.0, again.payment), "as it was written");
    next.stop().await;
}

/// The same answer, whether it comes from what this process wrote or from the database.
#[tokio::test(flavor = "multi_thread")]
async fn answers_from_memory_are_those_of_the_database() {
    let test = TestApp::start().await;
    let user = test.user(1_000).await;
    let held = test.reserve(user, &[1, 2]).await;
    let read = test.find(held.id).await;
    assert_eq!(format!("{held:?}"), format!("{read:?}"));
    let paid = test.pay(held.id).await;
    assert_eq!(format!("{paid:?}"), format!("{:?}", test.find(held.id).await));
    let mut order = test.order(user, &[3]);
    order.pay_now = true;
    let bought = crate::common::app::settled(test.app.booking.reserve(order).await.unwrap());
    assert_eq!(format!("{bought:?}"), format!("{:?}", test.find(bought.id).await));
}

/// A workflow that this process did not register has no numbers: nothing of it is written.
#[tokio::test(flavor = "multi_thread")]
async fn saga_of_an_unregistered_workflow_is_not_begun() {
    let test = TestApp::roles(&[], &[Role::Api]).await;
    let (engine, pool) = (&test.app.engine, &test.app.pool);
    let mut unknown = engine.clone();
    let registry = boxoffice::saga::WorkflowRegistry::default();
    let text = "name='odd'\nversion=1\n[[steps]]\nname='ask'\nwait='go'";
    registry.add(boxoffice::saga::Definition::parse("odd", text).unwrap());
    unknown.registry = registry.into();
    let id = ids::new();
    let new = NewSaga { id, subject_id: id, input: serde_json::Map::new(), trace: None, seq: 0 };
    let mut changes = WriteBatch::default();
    let now = store::now(pool).await.unwrap();
    let _begun = orchestrator::start(&mut changes, &unknown, "odd", vec![new], now).unwrap();
    let mut conn = pool.acquire().await.unwrap();
    let refused = changes.write(&mut conn).await.unwrap_err().to_string();
    assert!(refused.contains("odd 1 has no number"), "{refused}");
    assert_eq!(store::sagas::get(pool, id).await.unwrap(), None);
}
