//! A worker with a database of its own: the fence around its functions.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::pull;
use boxoffice::bus::fences::{self, Completed, Completion, FenceError};
use boxoffice::bus::{self, Bus, consumers, messages, presence, publish, subjects, topology};
use boxoffice::saga::{Command, Direction, Outcome, Reply};
use boxoffice::{ids, store};
use chrono::{TimeDelta, Utc};
use futures::StreamExt;
use saga_worker::{FenceDatabase, Nats, RunError, StartError, StepRequest, Worker};
use serde_json::{Map, Value, json};
use sqlx::{PgConnection, PgPool, Postgres};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use crate::common::app::until;
use crate::common::{Env, fresh_database};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The connection of a worker by the crate `saga-worker`.
pub fn nats(bus: &Bus) -> Nats {
    Nats { client: bus.client.clone(), jetstream: bus.jetstream.clone() }
}

/// A printer of badges, in as many instances as a test wants, and what it printed.
struct Printer {
    env: Env,
    url: String,
    pool: PgPool,
    calls: Arc<AtomicUsize>,
    replies: pull::Stream,
    stops: Vec<DropGuard>,
}

/// Prints by what the command says: `how` may be `refuse`, or, the first time only, `fail`, `doubt`, `break`, `panic` or `hang`.
async fn print(conn: &mut PgConnection, request: StepRequest<'_>, calls: usize) -> anyhow::Result<Outcome> {
    let (saga, how) = (request.command.saga_id, request.command.context["how"].as_str().unwrap_or_default());
    sqlx::query("insert into badges (saga) values ($1)").bind(saga).execute(&mut *conn).await?;
    match how {
        "refuse" => return Ok(Outcome::rejected("no_paper")),
        "fail" if calls == 1 => return Ok(Outcome::Failed { code: "offline".to_owned() }),
        "doubt" if calls == 1 => return Ok(Outcome::Unknown { reason: "it hums".to_owned() }),
        "break" if calls == 1 => {
            sqlx::query("insert into badges (saga) values (null)").execute(&mut *conn).await?;
        }
        "panic" if calls == 1 => panic!("the printer is on fire"),
        "hang" if calls == 1 => std::future::pending().await,
        "hang in the database" if calls == 1 => {
            sqlx::query("select pg_sleep(60)").execute(&mut *conn).await?;
        }
        _ => {}
    }
    Ok(Outcome::Done { output: badge(calls) })
}

async fn shred(conn: &mut PgConnection, request: StepRequest<'_>) -> anyhow::Result<Outcome> {
    let gone =
        sqlx::query("delete from badges where saga = $1").bind(request.command.saga_id).execute(conn).await?;
    assert_eq!(gone.rows_affected() == 1, request.done.is_some(), "the request says what there is to undo");
    Ok(Outcome::done())
}

fn badge(number: usize) -> Map<String, Value> {
    Map::from_iter([("badge".to_owned(), json!(number))])
}

fn done(number: usize) -> Outcome {
    Outcome::Done { output: badge(number) }
}

impl Printer {
    async fn start() -> Self {
        let env = Env::start().await;
        topology::ensure_with_bucket(&env.bus).await.unwrap();
        let url = fresh_database().await;
        let pool = store::open(&url, 24).unwrap();
        sqlx::query("create table badges (saga uuid not null)").execute(&pool).await.unwrap();
        let replies = topology::work_consumer("replies", &subjects::reply("printer"));
        let replies = topology::ensure_consumer(&env.bus, subjects::SAGAS, replies).await.unwrap();
        let replies = replies.stream().messages().await.unwrap();
        let mut printer = Self { env, url, pool, calls: Arc::default(), replies, stops: Vec::new() };
        printer.another().await.unwrap();
        printer
    }

    fn worker(&self) -> Worker<Postgres> {
        let (calls, others) = (Arc::clone(&self.calls), Arc::clone(&self.calls));
        Worker::new("printer", self.pool.clone())
            .command("printer.print", move |conn, request| {
                Box::pin(print(conn, request, 1 + calls.fetch_add(1, Ordering::SeqCst)))
            })
            .command("printer.shred", move |conn, request| {
                others.fetch_add(1, Ordering::SeqCst);
                Box::pin(shred(conn, request))
            })
    }

    /// One more instance.
    async fn another(&mut self) -> Result<(), StartError> {
        let stop = CancellationToken::new();
        let running = self.worker().start(&nats(&self.env.bus), &stop).await?;
        tokio::spawn(running.wait());
        self.stops.push(stop.drop_guard());
        Ok(())
    }

    async fn send(&self, command: &Command) {
        publish::publish(&self.env.bus, &[command], |command| messages::command(command)).await.unwrap();
    }

    /// Waits until every command is acknowledged, then gives the replies that were not read yet.
    async fn replies(&mut self) -> Vec<Reply> {
        let steps = self.env.bus.jetstream.get_stream(subjects::STEPS).await.unwrap();
        until(10, "all commands to be acknowledged", || async {
            steps.get_info().await.unwrap().state.messages == 0
        })
        .await;
        let mut found = Vec::new();
        while let Ok(Some(message)) =
            tokio::time::timeout(Duration::from_millis(100), self.replies.next()).await
        {
            let message = message.unwrap();
            found.push(messages::read_reply(&message).unwrap().1);
            message.ack().await.unwrap();
        }
        found
    }

    /// Sends a command and gives what is said to it.
    async fn ask(&mut self, command: &Command) -> Option<Outcome> {
        self.send(command).await;
        let replies = self.replies().await;
        assert!(replies.len() <= 1, "{replies:?}");
        replies.into_iter().next().map(|reply| reply.outcome)
    }

    async fn badges(&self) -> i64 {
        sqlx::query_scalar("select count(*) from badges").fetch_one(&self.pool).await.unwrap()
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

fn command(saga: Uuid, direction: Direction, visit: i32, how: &str) -> Command {
    Command {
        saga_id: saga,
        workflow: "party".to_owned(),
        subject: if direction == Direction::Do { "printer.print" } else { "printer.shred" }.to_owned(),
        step: "print".to_owned(),
        direction,
        visit,
        send: 0,
        deadline: None,
        reason: None,
        context: json!({ "how": how }).into(),
        trace: saga,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_command_is_done_once_and_answered_twice() {
    let mut printer = Printer::start().await;
    printer.another().await.unwrap();
    let print = command(ids::new(), Direction::Do, 1, "");
    for _ in 0..6 {
        printer.send(&print).await;
    }
    let replies = printer.replies().await;
    assert_eq!(replies.iter().filter(|reply| reply.outcome == done(1)).count(), 6, "{replies:?}");
    let anew = Command { visit: 2, ..print.clone() };
    assert_eq!(printer.ask(&anew).await, Some(done(1)), "done is done, at a later visit too");
    assert_eq!((printer.badges().await, printer.calls()), (1, 1));
    let refused = command(ids::new(), Direction::Do, 1, "refuse");
    for _ in 0..2 {
        assert_eq!(printer.ask(&refused).await, Some(Outcome::rejected("no_paper")));
    }
    assert_eq!((printer.badges().await, printer.calls()), (1, 2), "a no leaves nothing behind");
    assert!(matches!(
        printer.ask(&Command { visit: 2, ..refused.clone() }).await,
        Some(Outcome::Rejected { .. })
    ));
    assert_eq!(printer.calls(), 3, "a no is asked anew at a later visit");
    assert_eq!(printer.ask(&refused).await, None, "a later visit was seen");
}

#[tokio::test(flavor = "multi_thread")]
async fn undo_reverts_and_fences_a_late_do() {
    let mut printer = Printer::start().await;
    let saga = ids::new();
    assert_eq!(printer.ask(&command(saga, Direction::Do, 1, "")).await, Some(done(1)));
    for _ in 0..2 {
        assert_eq!(printer.ask(&command(saga, Direction::Undo, 1, "")).await, Some(Outcome::done()));
    }
    assert_eq!(printer.ask(&command(saga, Direction::Do, 1, "")).await, None, "it is too late for it");
    assert_eq!((printer.badges().await, printer.calls()), (0, 2));

    let early = ids::new();
    assert_eq!(printer.ask(&command(early, Direction::Undo, 2, "")).await, Some(Outcome::done()));
    assert_eq!(printer.ask(&command(early, Direction::Undo, 1, "")).await, None, "a later undo was done");
    for visit in [1, 2] {
        assert_eq!(printer.ask(&command(early, Direction::Do, visit, "")).await, None);
    }
    assert_eq!(printer.badges().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_do_and_undo_leave_no_effect() {
    let mut printer = Printer::start().await;
    printer.another().await.unwrap();
    for _ in 0..20 {
        let saga = ids::new();
        let (one, other) = (command(saga, Direction::Do, 1, ""), command(saga, Direction::Undo, 1, ""));
        tokio::join!(printer.send(&one), printer.send(&other));
    }
    let undone = printer.replies().await.into_iter().filter(|reply| reply.direction == Direction::Undo);
    assert_eq!(undone.count(), 20);
    assert_eq!(printer.badges().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_attempt_leaves_nothing_and_is_retried() {
    for (how, first) in [
        ("fail", Some(Outcome::Failed { code: "offline".to_owned() })),
        ("doubt", Some(Outcome::Unknown { reason: "it hums".to_owned() })),
        ("break", Some(Outcome::Failed { code: "handler_failed".to_owned() })),
        ("panic", None),
    ] {
        let mut printer = Printer::start().await;
        let print = command(ids::new(), Direction::Do, 1, how);
        let said = printer.ask(&print).await;
        match first {
            Some(first) => {
                assert_eq!((said, printer.badges().await), (Some(first), 0), "{how}");
                assert_eq!(printer.ask(&print).await, Some(done(2)), "{how}");
            }
            // It is not acknowledged, and so comes again by itself.
            None => assert_eq!(said, Some(done(2)), "{how}"),
        }
        assert_eq!(printer.badges().await, 1, "{how}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_hangs_is_answered_unknown() {
    for how in ["hang", "hang in the database"] {
        let mut printer = Printer::start().await;
        printer.stops.clear();
        let stop = CancellationToken::new();
        let worker = printer.worker().limit(Duration::from_millis(500));
        let running = worker.start(&nats(&printer.env.bus), &stop).await.unwrap();
        tokio::spawn(running.wait());
        printer.stops.push(stop.drop_guard());
        let print = command(ids::new(), Direction::Do, 1, how);
        let reason = "the function did not end within 500 ms".to_owned();
        assert_eq!(printer.ask(&print).await, Some(Outcome::Unknown { reason }), "{how}");
        assert_eq!(printer.badges().await, 0, "{how}: nothing of it stays");
        assert_eq!(printer.ask(&print).await, Some(done(2)), "{how}: it is asked again, with the same visit");
        assert_eq!(printer.badges().await, 1, "{how}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_may_take_until_the_deadline() {
    let mut printer = Printer::start().await;
    let deadline = Some(Utc::now() + TimeDelta::seconds(2));
    let print = Command { deadline, ..command(ids::new(), Direction::Do, 1, "hang") };
    assert!(matches!(printer.ask(&print).await, Some(Outcome::Unknown { .. })));
    assert_eq!(printer.badges().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_task_ends_the_service() {
    let printer = Printer::start().await;
    let bus = bus::connect(&printer.env.nats_url, "worker", 1).await.unwrap();
    let (worker, connection) = (printer.worker(), nats(&bus));
    let running = tokio::spawn(async move { worker.run(&connection, &CancellationToken::new()).await });
    until(10, "it to be there", || async {
        let present = presence::present(&printer.env.bus).await.unwrap();
        presence::served_by(&present, "printer.print").len() == 2
    })
    .await;
    // Its subscription ends, and with it the task that answers completions by hand.
    bus.client.drain().await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(20), running).await.expect("it ends").unwrap();
    assert!(matches!(&ended, Err(RunError::Dead { task: "manual completions", .. })), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn fetching_stops_while_the_database_is_away() {
    let mut printer = Printer::start().await;
    printer.pool.close().await;
    printer.send(&command(ids::new(), Direction::Do, 1, "")).await;
    let state = async || consumers::of_command(&printer.env.bus, "printer.print").await.unwrap().pop();
    // The service makes its consumer when it first asks.
    until(10, "it to ask no more", || async {
        let state = state().await;
        state.is_some_and(|state| state.waiting == 0 && state.redelivered + state.ack_pending > 0)
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(state().await.unwrap().waiting, 0);
    printer.pool = store::open(&printer.url, 24).unwrap();
    printer.another().await.unwrap();
    let replies = printer.replies().await;
    assert_eq!((replies.len(), &replies[0].outcome), (1, &done(1)), "an instance with a database does it");
}

#[tokio::test(flavor = "multi_thread")]
async fn late_do_is_refused_by_the_databases_clock() {
    let mut printer = Printer::start().await;
    let late = Command {
        deadline: Some(Utc::now() - TimeDelta::seconds(1)),
        ..command(ids::new(), Direction::Do, 1, "")
    };
    assert_eq!(printer.ask(&late).await, Some(Outcome::rejected("deadline_passed")));
    let soon = Command { deadline: Some(Utc::now() + TimeDelta::milliseconds(1_500)), ..late };
    assert_eq!(printer.ask(&soon).await, Some(done(1)));
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(printer.ask(&soon).await, Some(done(1)), "what was done in time stays done");
    assert_eq!(printer.badges().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn completed_step_is_not_run_by_its_worker() {
    let mut printer = Printer::start().await;
    let bus = printer.env.bus.clone();
    let wanted = |saga, visit| Completion { saga, step: "print".to_owned(), visit, output: badge(77) };
    let by_hand = ids::new();
    assert_eq!(fences::complete(&bus, "printer", &wanted(by_hand, 1)).await.unwrap(), Completed::Recorded);
    assert_eq!(printer.ask(&command(by_hand, Direction::Do, 1, "")).await, Some(done(77)));
    assert_eq!((printer.badges().await, printer.calls()), (0, 0), "the late command only repeats it");
    let (ran, undone) = (ids::new(), ids::new());
    printer.ask(&command(ran, Direction::Do, 1, "")).await;
    printer.ask(&command(undone, Direction::Undo, 1, "")).await;
    assert_eq!(fences::complete(&bus, "printer", &wanted(ran, 1)).await.unwrap(), Completed::Ran(done(1)));
    let too_late = Completed::Ran(Outcome::rejected(fences::UNDONE));
    assert_eq!(fences::complete(&bus, "printer", &wanted(undone, 1)).await.unwrap(), too_late);

    let nobody = fences::complete(&bus, "stamper", &wanted(ran, 1)).await.unwrap_err();
    assert!(matches!(&nobody, FenceError::NobodyServes { service } if service == "stamper"), "{nobody}");
    let bare =
        bus.client.request_with_headers("fences.printer.complete", HeaderMap::new(), "{}".into()).await;
    let headers = bare.unwrap().headers.unwrap();
    assert_eq!(headers.get("Nats-Service-Error-Code").unwrap().as_str(), "400");
    assert!(headers.get("Nats-Service-Error").unwrap().as_str().contains("Direction"));
    let present = presence::present(&bus).await.unwrap();
    assert_eq!(presence::served_by(&present, "printer.shred").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn outcomes_are_kept_longer_than_commands() {
    let printer = Printer::start().await;
    let bus = &printer.env.bus;
    let stop = CancellationToken::new();
    let start = async |worker: Worker<Postgres>| worker.start(&nats(bus), &stop).await.unwrap_err();
    let short = start(printer.worker().keep(8 * DAY, DAY)).await;
    assert!(matches!(short, StartError::KeptTooShort { .. }), "{short}");
    assert!(short.to_string().contains("691200s") && short.to_string().contains("STEPS"), "{short}");
    let foreign = start(printer.worker().command("seats.hold", |_, _| unreachable!())).await;
    assert!(matches!(foreign, StartError::NotItsCommand { .. }), "{foreign}");
    let mut endless = topology::streams(1).into_iter().find(|stream| stream.name == subjects::STEPS).unwrap();
    endless.max_age = Duration::ZERO;
    bus.jetstream.update_stream(endless).await.unwrap();
    let endless = start(printer.worker()).await;
    assert!(matches!(endless, StartError::EndlessStream { .. }), "{endless}");

    let mut conn = printer.pool.acquire().await.unwrap();
    let (old, young, later) = (ids::new(), ids::new(), Utc::now() + TimeDelta::days(3));
    Postgres::lock(&mut conn, old, "print", None, Duration::ZERO).await.unwrap();
    Postgres::lock(&mut conn, young, "print", None, DAY).await.unwrap();
    Postgres::lock(&mut conn, young, "print", Some(later), Duration::ZERO).await.unwrap();
    Postgres::lock(&mut conn, ids::new(), "print", Some(later), Duration::ZERO).await.unwrap();
    // The service's own pass may have come first.
    Postgres::purge(&printer.pool, 10).await.unwrap();
    let kept: Vec<Uuid> =
        sqlx::query_scalar("select saga from saga_outcomes").fetch_all(&printer.pool).await.unwrap();
    assert!(kept.len() == 2 && kept.contains(&young) && !kept.contains(&old), "{kept:?}");
}
