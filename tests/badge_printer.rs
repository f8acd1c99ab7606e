//! The example worker in Python serves a step of real bookings, with nothing but NATS between it and the engine.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use boxoffice::app::Role;
use boxoffice::booking::Answer;
use boxoffice::bus::fences::{self, Completed, Completion};
use boxoffice::bus::{consumers, messages, presence, publish};
use boxoffice::saga::{Command, Direction, Outcome, Status};
use boxoffice::store::reservations::{Reservation, ReservationStatus};
use boxoffice::{ids, store};
use chrono::{TimeDelta, Utc};
use serde_json::{Map, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

use crate::common::app::TestApp;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/badge_printer")
}

/// Where nats-py lies, fetched if it does not; none where there is no Python at all.
pub async fn nats_py() -> Option<String> {
    let script = "command -v python3 >/dev/null || exit 0
        scripts/deps.sh tests || exit 1
        source scripts/deps.sh; echo \"$nats_py\"";
    let mut shell = tokio::process::Command::new("bash");
    let ran = shell.args(["-c", script]).current_dir(env!("CARGO_MANIFEST_DIR")).output().await.unwrap();
    let complaints = String::from_utf8_lossy(&ran.stderr);
    assert!(
        ran.status.success(),
        "nats-py is not there and could not be fetched; is there a network?\n{complaints}"
    );
    Some(String::from_utf8(ran.stdout).unwrap().trim().to_owned()).filter(|place| !place.is_empty())
}

/// A running worker and what it says.
struct Worker {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    async fn start(test: &TestApp, nats_py: &str) -> Self {
        let mut python = tokio::process::Command::new("python3");
        let arguments =
            [folder().join("worker.py"), test.env.nats_url.clone().into(), test.env.dir.join("printer.db")];
        python.args(arguments).env("PYTHONPATH", nats_py).env("PYTHONDONTWRITEBYTECODE", "1");
        let mut child = python.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut worker = Self { child, lines };
        assert_eq!(worker.says().await, "serving badges.print badges.shred");
        worker
    }

    /// Its next line.
    async fn says(&mut self) -> String {
        let line = tokio::time::timeout(std::time::Duration::from_secs(20), self.lines.next_line());
        line.await.expect("it says something").unwrap().expect("it runs")
    }
}

async fn with_printer() -> TestApp {
    let place = folder();
    let flags =
        ["--workflows", place.to_str().unwrap(), "--hold-seconds", "3", "--payment-grace-seconds", "5"];
    TestApp::roles(&flags, &Role::ALL).await
}

/// Pays, and answers the reservation as it is when the caller is answered.
async fn begin_to_pay(test: &TestApp, reservation: &Reservation) -> Reservation {
    match test.app.booking.pay(reservation.id).await.unwrap().0 {
        Answer::Settled(reservation) | Answer::Pending(reservation) => *reservation,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn python_worker_does_and_undoes_its_step() {
    let Some(nats_py) = nats_py().await else { return eprintln!("there is no python3 here") };
    let test = with_printer().await;
    let bus = &test.app.bus;
    let serving = async || presence::served_by(&presence::present(bus).await.unwrap(), "badges.print").len();
    assert_eq!(serving().await, 0);

    // No printer runs yet: the step waits, and is done once one runs.
    let (ada, bob) = (test.user(1_000).await, test.user(1_000).await);
    let held = test.reserve(ada, &[1, 2]).await;
    assert_eq!(begin_to_pay(&test, &held).await.status, ReservationStatus::Held);
    let mut worker = Worker::start(&test, &nats_py).await;
    assert_eq!(worker.says().await, format!("printed {}-1-2", &held.id.to_string()[28..]));
    test.until(10, "the reservation", || async {
        test.find(held.id).await.status == ReservationStatus::Confirmed
    })
    .await;
    test.until(5, "the worker to be known", || async { serving().await == 1 }).await;

    // The step after it is held back past the deadline: the badge is shredded, the points come back.
    let other = test.reserve(bob, &[3]).await;
    consumers::pause(bus, "tickets-issue", Utc::now() + TimeDelta::hours(1)).await.unwrap();
    begin_to_pay(&test, &other).await;
    let badge = format!("{}-3", &other.id.to_string()[28..]);
    assert_eq!(worker.says().await, format!("printed {badge}"));
    assert_eq!(worker.says().await, format!("shredded {badge}"));
    let read = async || store::sagas::get(&test.app.pool, other.id).await.unwrap().unwrap();
    test.until(10, "the undo", || async { read().await.status == Status::Compensated }).await;
    assert_eq!((test.balance(bob).await, test.balance(ada).await), (1_000, 800));
    consumers::resume(bus, "tickets-issue").await.unwrap();

    test.check_books().await;
    completes_by_hand(&test, held.id).await;
    worker.child.kill().await.unwrap();
    test.until(5, "the worker to be gone", || async { serving().await == 0 }).await;
}

/// The service's fence is written by hand, and then keeps a late command from printing.
async fn completes_by_hand(test: &TestApp, ran: uuid::Uuid) {
    let bus = &test.app.bus;
    let output = Map::from_iter([("badge".to_owned(), json!("by hand"))]);
    let wanted = |saga| Completion { saga, step: "print".to_owned(), visit: 1, output: output.clone() };
    let known = fences::complete(bus, "badges", &wanted(ran)).await.unwrap();
    assert!(matches!(known, Completed::Ran(Outcome::Done { output }) if output["badge"] != "by hand"));
    let saga = ids::new();
    assert_eq!(fences::complete(bus, "badges", &wanted(saga)).await.unwrap(), Completed::Recorded);
    let late = Command {
        saga_id: saga,
        workflow: "booking".to_owned(),
        subject: "badges.print".to_owned(),
        step: "print".to_owned(),
        direction: Direction::Do,
        visit: 1,
        send: 0,
        deadline: None,
        reason: None,
        context: json!({ "seats": [9], "reservation_id": saga }).into(),
        trace: saga,
    };
    publish::publish(bus, &[late], messages::command).await.unwrap();
    // Its answer is to a saga that does not exist: it is parked, and shows what was said.
    test.until(10, "the answer", || async {
        store::operations::count_parked(&test.app.pool).await.unwrap() == 1
    })
    .await;
    let said: Vec<u8> =
        sqlx::query_scalar("select payload from parked_messages").fetch_one(&test.app.pool).await.unwrap();
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&said).unwrap(),
        json!({ "version": 1, "outcome": "done", "output": { "badge": "by hand" } })
    );
}

#[test]
fn worker_page_shows_the_example() {
    let page = include_str!("../docs/workers.md");
    let worker = include_str!("../examples/badge_printer/worker.py");
    assert!(page.contains(&format!("```python\n{worker}```")), "docs/workers.md shows another worker.py");
    let step = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let longer = include_str!("../examples/badge_printer/booking.toml");
    assert!(longer.contains(step), "{step}");
    // But for the step, the version and its words, it is the booking of the program.
    let rules = |text: &str| {
        let lines =
            text.lines().skip_while(|line| line.starts_with('#')).filter(|line| !line.starts_with("version"));
        lines.map(|line| format!("{line}\n")).collect::<String>()
    };
    let built_in = include_str!("../workflows/booking.toml");
    assert_eq!(rules(&longer.replace(&format!("{step}\n"), "")), rules(built_in));
}
