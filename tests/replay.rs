//! `saga replay-events` publishes earlier events again, with the same ids, numbers and content, and no others.

use std::collections::{BTreeMap, BTreeSet};

use boxoffice::bus::events::EventMessage;
use boxoffice::bus::subjects;
use boxoffice::store;
use boxoffice::store::reservations::ReservationStatus;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::Value;
use uuid::Uuid;

use crate::common::app::{TestApp, until};
use crate::common::program::Program;
use crate::events::published;

/// A sale with every kind of event, and all events that it published.
struct Sale {
    test: TestApp,
    program: Program,
    sold: Uuid,
    refunded: Uuid,
    told: Vec<EventMessage>,
}

impl Sale {
    async fn start() -> Self {
        let test = TestApp::start().await;
        let user = test.user(1_000).await;
        let mut ids = Vec::new();
        for seat in 1..=4 {
            ids.push(test.reserve(user, &[seat]).await.id);
        }
        let [sold, refunded, returned, _held] = ids[..] else { panic!("four were reserved") };
        for id in [sold, refunded] {
            assert_eq!(test.pay(id).await.status, ReservationStatus::Confirmed);
        }
        for id in [refunded, returned] {
            assert_eq!(test.cancel(id).await.status, ReservationStatus::Cancelled);
        }
        // Two of four, one of two, one of two, one of one; a charge.
        until(10, "all events", || async { published(&test).await.len() == 4 + 6 + 2 + 1 + 1 }).await;
        let told = published(&test).await;
        let program = Program::of(&test.env);
        Self { test, program, sold, refunded, told }
    }

    async fn forget_what_was_told(&self) {
        let stream = self.test.app.bus.jetstream.get_stream(subjects::EVENTS).await.unwrap();
        stream.purge().await.unwrap();
    }

    /// Replays with these filters and returns the answer and what was published.
    async fn replay(&self, filters: &str) -> (Value, Vec<EventMessage>) {
        self.forget_what_was_told().await;
        let answer = self.program.json(0, format!("saga replay-events {filters}").trim_end()).await;
        (answer, published(&self.test).await)
    }
}

/// What events say, by their ids.
fn content<'a>(events: impl IntoIterator<Item = &'a EventMessage>) -> BTreeMap<&'a str, Value> {
    let pairs = events.into_iter().map(|event| (event.id.as_str(), serde_json::to_value(event).unwrap()));
    pairs.collect()
}

fn rfc3339(moment: DateTime<Utc>) -> String {
    moment.to_rfc3339_opts(SecondsFormat::Micros, true)
}

#[tokio::test(flavor = "multi_thread")]
async fn replayed_events_are_equal_and_in_order() {
    let sale = Sale::start().await;
    let (answer, again) = sale.replay("").await;
    assert_eq!(content(&again), content(&sale.told));
    assert_eq!(again.len(), sale.told.len(), "each of them once");
    assert_eq!((&answer["total"], &answer["sagas"]), (&sale.told.len().into(), &5.into()));
    assert_eq!(answer["events"]["reservation.reserved"], 4);
    assert_eq!(answer["events"]["points.entry"], 4, "{answer}");
    let mut last: BTreeMap<Uuid, i64> = BTreeMap::new();
    for event in &again {
        let before = last.insert(event.subject_id, event.sequence);
        assert!(before <= Some(event.sequence), "{again:?}");
    }
    // Dropped sagas publish nothing any more.
    sqlx::query("delete from sagas where id = $1")
        .bind(sale.sold)
        .execute(&sale.test.app.pool)
        .await
        .unwrap();
    let (_, fewer) = sale.replay("").await;
    assert!(fewer.iter().all(|event| event.subject_id != sale.sold) && !fewer.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_counts_and_publishes_nothing() {
    let sale = Sale::start().await;
    let nowhere = Program::alone().with("DATABASE_URL", &sale.test.env.database_url);
    let counted =
        nowhere.with("NATS_URL", "nats://127.0.0.1:9").json(0, "saga replay-events --dry-run").await;
    let (_, dry) = sale.replay("--dry-run").await;
    assert!(dry.is_empty(), "{dry:?}");
    let (replayed, _) = sale.replay("").await;
    assert_eq!((&counted["events"], &counted["dry_run"]), (&replayed["events"], &true.into()));
    let ran = sale.program.run("saga replay-events --dry-run").await;
    assert!(ran.out.contains("14 events would be published; 5 sagas were looked at."), "{}", ran.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_selected_events_are_replayed() {
    let sale = Sale::start().await;
    let whole = |wanted: &dyn Fn(&EventMessage) -> bool| -> BTreeSet<String> {
        sale.told.iter().filter(|event| wanted(event)).map(|event| event.id.clone()).collect()
    };
    let refunded = sale.refunded;
    let cancellation = sale.test.find(refunded).await.cancellation_id.unwrap().to_string();
    // In the middle of one saga: its earlier events are not published, and its later ones are.
    let middle = sale.told.iter().find(|event| event.name == "reservation.confirmed").unwrap().at;
    let (reservation, saga) = (format!("--reservation {refunded}"), format!("--saga {cancellation}"));
    let (since, before) = (format!("--since {}", rfc3339(middle)), format!("--until {}", rfc3339(middle)));
    let cases: [(&str, BTreeSet<String>); 7] = [
        ("--workflow cancellation", whole(&|event| event.id.starts_with(&cancellation))),
        (&reservation, whole(&|event| event.subject_id == refunded)),
        (&saga, whole(&|event| event.id.starts_with(&cancellation))),
        ("--event points.entry", whole(&|event| event.name == "points.entry")),
        (&since, whole(&|event| event.at >= middle)),
        (&before, whole(&|event| event.at < middle)),
        ("--since 2999-01-01T00:00:00Z", BTreeSet::new()),
    ];
    for (filters, expected) in cases {
        let (answer, again) = sale.replay(filters).await;
        let ids: BTreeSet<String> = again.into_iter().map(|event| event.id).collect();
        assert_eq!(ids, expected, "{filters}");
        assert_eq!(answer["total"], expected.len(), "{filters}");
    }
}

/// An event may come long after its saga began: it is found by when the saga ended, or that it has not.
#[tokio::test(flavor = "multi_thread")]
async fn late_events_of_old_sagas_are_found() {
    let sale = Sale::start().await;
    let since = store::now(&sale.test.app.pool).await.unwrap();
    assert_eq!(sale.test.cancel(sale.sold).await.status, ReservationStatus::Cancelled);
    let user = sale.told[0].data["user_id"].as_str().unwrap().parse().unwrap();
    let held = sale.test.reserve(user, &[9]).await;
    sqlx::query("update saga_history set at = at + interval '3 days' where saga_id = $1")
        .bind(held.id)
        .execute(&sale.test.app.pool)
        .await
        .unwrap();
    let (answer, _) = sale.replay(&format!("--since {} --dry-run", rfc3339(since))).await;
    assert_eq!(answer["events"]["reservation.cancelled"], 1);
    let later = rfc3339(since + TimeDelta::days(2));
    let (answer, _) = sale.replay(&format!("--since {later} --dry-run")).await;
    assert_eq!((&answer["events"]["reservation.reserved"], &answer["total"]), (&1.into(), &1.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn republishing_respects_its_rate() {
    let sale = Sale::start().await;
    let started = std::time::Instant::now();
    let (_, again) = sale.replay("--rate 10 --event reservation.reserved").await;
    assert_eq!(again.len(), 4);
    let took = started.elapsed().as_millis();
    assert!(took >= 300, "the fourth of ten per second came after {took} ms");
}

#[tokio::test(flavor = "multi_thread")]
async fn impossible_replays_have_clear_errors() {
    let sale = Sale::start().await;
    sale.forget_what_was_told().await;
    let unknown = "01a1fca7-a1a9-7405-a9b3-a0fab7972b9e";
    let cases = [
        (2, "--since yesterday", "invalid value 'yesterday' for '--since"),
        (2, "--rate 0", "0 is not in 1..=100000"),
        (2, "--since 2026-01-02T00:00:00Z --until 2026-01-01T00:00:00Z", "must be before"),
        (2, "--workflow nonsense", "there is no workflow nonsense; there are booking, cancellation"),
        (1, &format!("--saga {unknown}"), &format!("there is no saga {unknown}")),
        (1, &format!("--reservation {unknown}"), &format!("there is no saga about reservation {unknown}")),
        (
            1,
            "--event reservation.lost",
            "there is no event reservation.lost among these; there are points.entry",
        ),
    ];
    for (code, filters, words) in cases {
        let ran = sale.program.run(&format!("saga replay-events {filters}")).await;
        assert_eq!(ran.code, code, "{filters}: {}{}", ran.out, ran.err);
        assert!(ran.err.contains(words), "{filters}: {}", ran.err);
    }
    assert!(published(&sale.test).await.is_empty());
}
