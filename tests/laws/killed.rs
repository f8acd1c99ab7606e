//! Kills the service between commit, publish and acknowledgement of each step. Real processes halt at a failpoint and are
//! killed there with SIGKILL. Then another process brings every saga to its end.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use boxoffice::saga::{Direction, Saga, Status};
use futures::StreamExt;
use futures::future::join_all;
use serde_json::json;
use tokio::time::Instant;

use super::case::{Case, compensating, expected_ending};
use super::command_proxy::{Rule, Rules};
use super::harness::{Harness, Timing, workflows};
use super::process::Process;
use super::table;
use crate::common::app::until;
use crate::common::http::access_token;

/// The reply timeout is longer than the redelivery of a killed process's messages, so that both ways of recovery run.
const TIMING: Timing = Timing { timeout_ms: 2_000, deadline_seconds: None, flags: &[] };
/// Every hold and every wait has a short deadline.
const SHORT_DEADLINES: Timing = Timing {
    timeout_ms: 2_000,
    deadline_seconds: Some(6),
    flags: &["--hold-seconds", "6", "--payment-grace-seconds", "1"],
};
/// Limit of the processes to kill until each step was processed before a kill.
const MAX_KILLS: usize = 4;
/// Sagas that are brought to their command at a time.
const AT_ONCE: usize = 8;
/// How long a process may run. The messages of a killed process are delivered again after five seconds.
const KILL_TIMEOUT: Duration = Duration::from_secs(12);

fn program(harness: &Harness, roles: &str, halt_at: &[String]) -> Process {
    Process::start(&harness.env, &harness.flags(), roles, halt_at)
}

/// A saga whose next message is delivered when the process starts, and the status in which it must end.
struct Prepared {
    case: Case,
    name: String,
    before: i64,
    end: Status,
}

/// One saga for each command of each workflow, undos included. The proxy holds that command.
async fn at_each_command(harness: &Arc<Harness>) -> Vec<Prepared> {
    let mut all = Vec::new();
    for (_, definition) in workflows() {
        let steps = definition.steps.iter().enumerate().filter(|(_, step)| step.command.is_some());
        for (index, step) in steps.filter(|(index, _)| table::is_tried(&definition, *index)) {
            all.push((definition.clone(), step.name.clone(), Direction::Do));
            if step.undo.is_some() && definition.can_compensate(index) {
                all.push((definition.clone(), step.name.clone(), Direction::Undo));
            }
        }
    }
    let prepared = all.into_iter().map(|(definition, step, direction)| async move {
        let rules = Rules::default().with(&step, direction, Rule::Hold);
        let (rules, end) = match direction {
            Direction::Do => (rules, Status::Completed),
            Direction::Undo => (compensating(&definition, rules), Status::Compensated),
        };
        let case = Case::begin(harness, &definition.name, rules, None).await;
        case.run_to_held(&step, direction).await;
        let before = case.saga().await.seq;
        Prepared { case, name: format!("{}, {direction} {step}", definition.name), before, end }
    });
    // All at once they would want more connections than the harness has.
    futures::stream::iter(prepared).buffered(AT_ONCE).collect().await
}

impl Prepared {
    async fn is_caught(&self) -> bool {
        self.case.saga().await.seq > self.before
    }

    /// Waits for the end that the definition gives.
    async fn ends(&self) {
        let saga = self.case.run_to_end().await;
        assert_eq!(saga.status, self.end, "{}: {saga:#?}", self.name);
        self.case.check(&saga).await;
    }
}

async fn not_caught(prepared: &[Prepared]) -> Vec<&str> {
    let mut left = Vec::new();
    for one in prepared {
        if !one.is_caught().await {
            left.push(one.name.as_str());
        }
    }
    left
}

/// Kills processes that halt at these points, until each point halted the given number of times and each saga changed.
async fn kill_at(harness: &Harness, roles: &str, points: &[(String, usize)], prepared: &[Prepared]) {
    let names: Vec<String> = points.iter().map(|(point, _)| point.clone()).collect();
    let mut halted = vec![0; points.len()];
    for _ in 0..MAX_KILLS {
        let process = program(harness, roles, &names);
        let end = Instant::now() + KILL_TIMEOUT;
        let halts = || points.iter().map(|(point, _)| process.halted(point));
        let missing =
            || points.iter().zip(halts()).zip(&halted).any(|(((_, times), now), was)| was + now < *times);
        while Instant::now() < end && (missing() || !not_caught(prepared).await.is_empty()) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let complete = !missing();
        halted = halts().zip(&halted).map(|(now, was)| was + now).collect();
        process.kill().await;
        if complete && not_caught(prepared).await.is_empty() {
            return;
        }
    }
    panic!(
        "halted {halted:?} times at {points:?}; these sagas did not change: {:?}",
        not_caught(prepared).await
    );
}

async fn killed_at_each_step(moment: &str) {
    let harness = Arc::new(Harness::start(TIMING).await);
    let prepared = at_each_command(&harness).await;
    harness.stop_service().await;
    for one in &prepared {
        harness.proxy.release(one.case.started.saga).await;
    }
    let loops = boxoffice::steps::SERVICES.iter().map(|(_, commands)| commands.len()).sum();
    let points = [(format!("worker::{moment}"), loops), (format!("replies::{moment}"), 1)];
    kill_at(&harness, "orchestrator,worker", &points, &prepared).await;
    let _alive = program(&harness, "orchestrator,worker,scheduler", &[]);
    join_all(prepared.iter().map(Prepared::ends)).await;
    harness.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_step_survives_a_kill_around_its_publish() {
    tokio::join!(killed_at_each_step("committed"), killed_at_each_step("published"));
}

/// One saga in each wait that has a deadline. The timer is due when the process starts.
async fn killed_at_alarms(moment: &str) {
    let harness = Arc::new(Harness::start(SHORT_DEADLINES).await);
    let mut waits = Vec::new();
    for (_, definition) in workflows() {
        let timed = definition.steps.iter().enumerate();
        for (index, step) in timed.filter(|(_, step)| step.wait.is_some() && step.deadline.is_some()) {
            let mut case = Case::begin(&harness, &definition.name, Rules::default(), None).await;
            case.wait_without_signal = Some(step.name.clone());
            let saga = case.run_until("the saga to wait", |saga: &Saga| saga.status == Status::Waiting).await;
            let expected = expected_ending(&definition, index, &step.deadline.as_ref().unwrap().reason, true);
            let name = format!("{}, {}", definition.name, step.name);
            waits.push((Prepared { case, name, before: saga.seq, end: Status::Compensated }, expected));
        }
    }
    harness.stop_service().await;
    let (prepared, expected): (Vec<_>, Vec<_>) = waits.into_iter().unzip();
    kill_at(&harness, "orchestrator", &[(format!("timers::{moment}"), 1)], &prepared).await;
    let _alive = program(&harness, "orchestrator,worker,scheduler", &[]);
    for (one, ending) in prepared.iter().zip(&expected) {
        one.case.check_ending(ending, None).await;
    }
    harness.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_timer_survives_a_kill_around_its_publish() {
    tokio::join!(killed_at_alarms("committed"), killed_at_alarms("published"));
}

/// Requests of buyers. No message would deliver them a second time.
async fn killed_at_requests(point_of_start: &str, point_of_signal: &str) {
    let harness = Arc::new(Harness::start(TIMING).await);
    let hold = Case::begin(&harness, "booking", Rules::default(), None).await;
    hold.run_until("the seat to be held", |saga: &Saga| saga.status == Status::Waiting).await;
    let sold = Case::begin(&harness, "booking", Rules::default(), None).await;
    sold.run_to_end().await;
    harness.stop_service().await;
    let mut points = vec![point_of_start.to_owned(), point_of_signal.to_owned()];
    points.dedup();
    // Another test of this process may have installed it.
    let _chosen = rustls::crypto::ring::default_provider().install_default();
    let mut process = program(&harness, "api", &points);
    let url = process.url().await;
    let mut requests = Vec::new();
    for case in [&hold, &sold] {
        let (user, reservation) = (case.started.user, case.started.reservation.unwrap());
        let path = format!("{url}/v1/reservations/{reservation}/cancellation");
        let token = access_token(&json!({ "sub": user }));
        let request = reqwest::Client::new().post(path).bearer_auth(token).header("idempotency-key", "k");
        requests.push(tokio::spawn(request.send()));
    }
    for point in &points {
        process.until_halted(point, 2 / points.len()).await;
    }
    process.kill().await;
    for request in requests {
        assert!(request.await.unwrap().is_err(), "a killed process replied");
    }
    let saga = hold.saga().await;
    assert_eq!((saga.status, saga.reason.as_deref()), (Status::Compensating, Some("cancelled")));
    let started = table::find(&harness, sold.started.saga).await.cancellation_id.expect("it was committed");
    harness.proxy.release(started).await;

    let _alive = program(&harness, "orchestrator,worker,scheduler", &[]);
    let saga = hold.run_to_end().await;
    hold.check(&saga).await;
    until(20, "the cancellation to end", || async {
        harness.saga(started).await.status == Status::Completed
    })
    .await;
    let cancelled = Case {
        started: table::StartedSaga { saga: started, ..sold.started.clone() },
        workflow: "cancellation".to_owned(),
        ..sold
    };
    cancelled.check(&harness.saga(started).await).await;
    harness.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_survive_a_kill_around_their_publish() {
    let committed = killed_at_requests("start::committed", "signals::committed");
    let published = killed_at_requests("follow::published", "follow::published");
    tokio::join!(committed, published);
}

/// The first command of each workflow is lost. The sweeper commits the resend and is killed before it publishes.
#[tokio::test(flavor = "multi_thread")]
async fn resends_survive_a_kill_before_their_publish() {
    let harness = Arc::new(Harness::start(TIMING).await);
    let mut cases = Vec::new();
    for (_, definition) in workflows() {
        let first = &definition.steps[0].name;
        let rules = Rules::default().with(first, Direction::Do, Rule::Hold);
        let case = Case::begin(&harness, &definition.name, rules, None).await;
        case.run_to_held(first, Direction::Do).await;
        cases.push(case);
    }
    harness.stop_service().await;
    let mut sends = Vec::new();
    for case in &cases {
        harness.proxy.lose(case.started.saga);
        sends.push(case.saga().await.send);
    }
    let process = program(&harness, "scheduler", &["sweep::committed".to_owned()]);
    process.until_halted("sweep::committed", 1).await;
    process.kill().await;
    let _alive = program(&harness, "orchestrator,worker,scheduler", &[]);
    let mut caught = 0;
    for (case, sent) in cases.iter().zip(sends) {
        let saga = case.run_to_end().await;
        assert_eq!(saga.status, Status::Completed);
        case.check(&saga).await;
        let last = harness.proxy.commands(saga.id).iter().map(|message| message.command.send).max();
        caught += usize::from(last >= Some(sent + 1));
    }
    assert_eq!(caught, cases.len(), "the lost commands were sent again");
    harness.close().await;
}

#[test]
fn only_test_builds_have_failpoints() {
    assert!(fail::has_failpoints(), "test builds need failpoints");
    let features = |edges: &str| {
        let tree = Command::new(env!("CARGO"))
            .args([
                "tree",
                "--offline",
                "--locked",
                "--prefix",
                "none",
                "--format",
                "{p} {f}",
                "--edges",
                edges,
            ])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        let text = String::from_utf8(tree.stdout).unwrap();
        text.lines().find(|line| line.starts_with("fail v")).unwrap_or_default().to_owned()
    };
    assert!(features("all").contains("failpoints"));
    let normal = features("normal,build");
    assert!(normal.starts_with("fail v") && !normal.contains("failpoints"), "{normal}");
}
