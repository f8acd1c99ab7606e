//! The process is killed between commit, publish and acknowledgement of each step: real processes, which halt at a
//! point in their code and are killed there with -9. Another process then brings every saga to its end.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use boxoffice::saga::{Direction, Saga, Status};
use futures::future::join_all;
use serde_json::json;
use tokio::time::Instant;

use super::play::{Play, leads, turning_back};
use super::post::{Rule, Rules};
use super::process::Process;
use super::stage::{Pace, Stage, workflows};
use super::table;
use crate::common::app::until;
use crate::common::http::access_token;

/// Silence is noticed after the redelivery of what a killed process had, so that either is seen to heal.
const PACE: Pace = Pace { timeout_ms: 2_000, deadline_seconds: None, flags: &[] };
/// Every hold and every wait ends soon.
const HASTY: Pace = Pace {
    timeout_ms: 2_000,
    deadline_seconds: Some(6),
    flags: &["--hold-seconds", "6", "--payment-grace-seconds", "1"],
};
/// Processes that are killed at most until every step was caught at the point.
const ROUNDS: usize = 4;
/// How long a process gets to take what it finds; what a killed one had is delivered again after five seconds.
const ROUND: Duration = Duration::from_secs(12);

fn program(stage: &Stage, roles: &str, halt_at: &[String]) -> Process {
    Process::start(&stage.env, &stage.flags(), roles, halt_at)
}

/// A saga whose next message is on its way when the process comes, and what must become of it.
struct Prepared {
    play: Play,
    name: String,
    before: i64,
    end: Status,
}

/// A saga of each workflow for each step and each undo, with just that command at the post.
async fn at_each_command(stage: &Arc<Stage>) -> Vec<Prepared> {
    let mut all = Vec::new();
    for (_, definition) in workflows() {
        for (index, step) in definition.steps.iter().enumerate().filter(|(_, step)| step.command.is_some()) {
            all.push((definition.clone(), step.name.clone(), Direction::Do));
            if step.undo.is_some() && definition.can_turn_back(index) {
                all.push((definition.clone(), step.name.clone(), Direction::Undo));
            }
        }
    }
    let prepared = all.into_iter().map(|(definition, step, direction)| async move {
        let rules = Rules::default().with(&step, direction, Rule::Hold);
        let (rules, end) = match direction {
            Direction::Do => (rules, Status::Completed),
            Direction::Undo => (turning_back(&definition, rules), Status::Compensated),
        };
        let play = Play::begin(stage, &definition.name, rules, None).await;
        play.go_to_hold(&step, direction).await;
        let before = play.saga().await.seq;
        Prepared { play, name: format!("{}, {direction} {step}", definition.name), before, end }
    });
    join_all(prepared).await
}

impl Prepared {
    async fn is_caught(&self) -> bool {
        self.play.saga().await.seq > self.before
    }

    /// It ends as its definition says, once there is a process that lives.
    async fn ends(&self) {
        let saga = self.play.go_to_rest().await;
        assert_eq!(saga.status, self.end, "{}: {saga:#?}", self.name);
        self.play.check(&saga).await;
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

/// Kills processes that halt at these points, so many times at each, until each saga's message was taken by one.
async fn kill_at(stage: &Stage, roles: &str, points: &[(String, usize)], prepared: &[Prepared]) {
    let names: Vec<String> = points.iter().map(|(point, _)| point.clone()).collect();
    let mut halted = vec![0; points.len()];
    for _ in 0..ROUNDS {
        let process = program(stage, roles, &names);
        let end = Instant::now() + ROUND;
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
    panic!("halted {halted:?} times at {points:?}, and never with {:?}", not_caught(prepared).await);
}

async fn killed_at_each_step(moment: &str) {
    let stage = Arc::new(Stage::set(PACE).await);
    let prepared = at_each_command(&stage).await;
    stage.stop_service().await;
    for one in &prepared {
        stage.post.release(one.play.begun.saga).await;
    }
    let services = boxoffice::workers::Service::ALL;
    let loops = services.iter().map(|service| service.commands().len()).sum();
    let points = [(format!("worker::{moment}"), loops), (format!("replies::{moment}"), 1)];
    kill_at(&stage, "orchestrator,worker", &points, &prepared).await;
    let _alive = program(&stage, "orchestrator,worker,scheduler", &[]);
    join_all(prepared.iter().map(Prepared::ends)).await;
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_step_survives_a_kill_before_and_after_what_it_publishes() {
    tokio::join!(killed_at_each_step("committed"), killed_at_each_step("published"));
}

/// A saga of each workflow in each wait that has a deadline; when the process comes, the alarm is due.
async fn killed_at_alarms(moment: &str) {
    let stage = Arc::new(Stage::set(HASTY).await);
    let mut waits = Vec::new();
    for (_, definition) in workflows() {
        let timed = definition.steps.iter().enumerate();
        for (index, step) in timed.filter(|(_, step)| step.wait.is_some() && step.deadline.is_some()) {
            let mut play = Play::begin(&stage, &definition.name, Rules::default(), None).await;
            play.unsignalled = Some(step.name.clone());
            let saga = play.go_until("the saga to wait", |saga: &Saga| saga.status == Status::Waiting).await;
            let expected = leads(&definition, index, &step.deadline.as_ref().unwrap().reason, true);
            let name = format!("{}, {}", definition.name, step.name);
            waits.push((Prepared { play, name, before: saga.seq, end: Status::Compensated }, expected));
        }
    }
    stage.stop_service().await;
    let (prepared, expected): (Vec<_>, Vec<_>) = waits.into_iter().unzip();
    kill_at(&stage, "orchestrator", &[(format!("timers::{moment}"), 1)], &prepared).await;
    let _alive = program(&stage, "orchestrator,worker,scheduler", &[]);
    for (one, leads) in prepared.iter().zip(&expected) {
        one.play.lead(leads, None).await;
    }
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_alarm_survives_a_kill_before_and_after_what_it_publishes() {
    tokio::join!(killed_at_alarms("committed"), killed_at_alarms("published"));
}

/// What buyers ask for, and what the sweeper sends again: no message brings it a second time.
async fn killed_at_requests(point_of_start: &str, point_of_signal: &str) {
    let stage = Arc::new(Stage::set(PACE).await);
    let hold = Play::begin(&stage, "booking", Rules::default(), None).await;
    hold.go_until("the seat to be held", |saga: &Saga| saga.status == Status::Waiting).await;
    let sold = Play::begin(&stage, "booking", Rules::default(), None).await;
    sold.go_to_rest().await;
    stage.stop_service().await;
    let mut points = vec![point_of_start.to_owned(), point_of_signal.to_owned()];
    points.dedup();
    // Another test of this process may have chosen it before.
    let _chosen = rustls::crypto::ring::default_provider().install_default();
    let mut process = program(&stage, "api", &points);
    let url = process.url().await;
    let mut requests = Vec::new();
    for play in [&hold, &sold] {
        let (user, reservation) = (play.begun.user, play.begun.reservation.unwrap());
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
        assert!(request.await.unwrap().is_err(), "a killed process has answered");
    }
    let saga = hold.saga().await;
    assert_eq!((saga.status, saga.reason.as_deref()), (Status::Compensating, Some("cancelled")));
    let begun = table::find(&stage, sold.begun.saga).await.cancellation_id.expect("it was committed");
    stage.post.release(begun).await;

    let _alive = program(&stage, "orchestrator,worker,scheduler", &[]);
    let saga = hold.go_to_rest().await;
    hold.check(&saga).await;
    until(20, "the cancellation to end", || async { stage.saga(begun).await.status == Status::Completed })
        .await;
    let cancelled = Play {
        begun: table::Begun { saga: begun, ..sold.begun.clone() },
        workflow: "cancellation".to_owned(),
        ..sold
    };
    cancelled.check(&stage.saga(begun).await).await;
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_buyer_asks_for_survives_a_kill_before_and_after_it_is_published() {
    let committed = killed_at_requests("start::committed", "signals::committed");
    let published = killed_at_requests("follow::published", "follow::published");
    tokio::join!(committed, published);
}

/// The first command of each workflow is lost. The sweeper decides to send it again, and is killed before it does.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_sweeper_sends_again_survives_a_kill_before_it_is_published() {
    let stage = Arc::new(Stage::set(PACE).await);
    let mut plays = Vec::new();
    for (_, definition) in workflows() {
        let first = &definition.steps[0].name;
        let rules = Rules::default().with(first, Direction::Do, Rule::Hold);
        let play = Play::begin(&stage, &definition.name, rules, None).await;
        play.go_to_hold(first, Direction::Do).await;
        plays.push(play);
    }
    stage.stop_service().await;
    let mut sends = Vec::new();
    for play in &plays {
        stage.post.lose(play.begun.saga);
        sends.push(play.saga().await.send);
    }
    let process = program(&stage, "scheduler", &["sweep::committed".to_owned()]);
    process.until_halted("sweep::committed", 1).await;
    process.kill().await;
    let _alive = program(&stage, "orchestrator,worker,scheduler", &[]);
    let mut caught = 0;
    for (play, sent) in plays.iter().zip(sends) {
        let saga = play.go_to_rest().await;
        assert_eq!(saga.status, Status::Completed);
        play.check(&saga).await;
        let last = stage.post.letters(saga.id).iter().map(|letter| letter.command.send).max();
        caught += usize::from(last >= Some(sent + 1));
    }
    assert_eq!(caught, plays.len(), "the lost commands were sent again");
    stage.close().await;
}

#[test]
fn only_builds_for_tests_have_points_to_halt_at() {
    assert!(fail::has_failpoints(), "the tests have none");
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
