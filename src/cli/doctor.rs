//! `doctor`: whether the servers, the clock and the streams are as they must be, and what to do if not.

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::GetStreamErrorKind;
use serde::Serialize;
use serde_json::json;
use sqlx::PgPool;

use super::output::table;
use super::{Context, Ending, queues};
use crate::bus::connect::ConnectError;
use crate::bus::health::Problem;
use crate::bus::probe;
use crate::bus::{Bus, presence, subjects, topology};
use crate::clock::Clock;
use crate::saga::WorkflowRegistry;
use crate::store;

/// The oldest Postgres that is tried in tests.
const OLDEST_POSTGRES: u32 = 140_000;
/// Clocks further apart than this make logs hard to read; the service works all the same.
const CLOCKS_APART_MS: i64 = 1_000;

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    check: &'static str,
    state: State,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Ok,
    /// Good enough, but worth knowing.
    Note,
    Wrong,
}

pub(super) async fn run(context: &Context) -> anyhow::Result<Ending> {
    let mut checks = Vec::new();
    match context.database().await {
        Ok(pool) => checks.extend([
            version(&pool).await,
            schema(&pool).await,
            writable(&pool).await,
            clock(context, &pool).await,
        ]),
        Err(error) => {
            checks.push(wrong("postgres", &error, "start Postgres, or let `boxoffice up` start one"));
        }
    }
    match context.bus().await {
        Ok(bus) => {
            checks.push(nats(&bus));
            checks.push(jetstream(&bus).await);
            checks.push(durability());
            let streams = streams(&bus).await;
            let is_whole = streams.iter().all(|check| check.state == State::Ok);
            checks.extend(streams);
            if is_whole && let Ok(pool) = context.database().await {
                checks.push(admission(context, &pool).await);
            }
            checks.push(workers(context, &bus).await);
        }
        Err(error) => {
            let advice = match error.downcast_ref() {
                Some(ConnectError::NoJetStream { .. }) => probe::OFF,
                Some(ConnectError::NoJetStreamForAccount { .. }) => probe::OFF_FOR_ACCOUNT,
                Some(ConnectError::SilentJetStream { .. }) => probe::FROZEN,
                _ => "start nats-server 2.14 or newer with JetStream (-js); restart one that does not answer",
            };
            checks.push(wrong("nats", &error, advice));
        }
    }
    let sick = checks.iter().any(|check| check.state == State::Wrong);
    let verdict = if sick { "broken" } else { "good" };
    context.output.answer(&json!({ "verdict": verdict, "checks": checks }), |_| text(&checks))?;
    Ok(if sick { Ending::Wrong } else { Ending::Good })
}

async fn version(pool: &PgPool) -> Check {
    let number = match pool.acquire().await {
        Ok(conn) => conn.server_version_num().unwrap_or(0),
        Err(error) => return wrong("postgres", &error.into(), "look at Postgres' log"),
    };
    let found = format!("answers, version {}.{}", number / 10_000, number % 10_000);
    if number >= OLDEST_POSTGRES {
        return ok("postgres", found);
    }
    Check {
        state: State::Wrong,
        advice: Some("use Postgres 14 or newer".to_owned()),
        ..ok("postgres", found)
    }
}

async fn schema(pool: &PgPool) -> Check {
    let fit = match store::fit(pool).await {
        Ok(fit) => fit,
        Err(error) => return wrong("schema", &error.into(), "run `boxoffice migrate`"),
    };
    if let Some(refusal) = fit.refusal {
        let advice = "use a release that works with this schema; never migrate backwards";
        return Check { state: State::Wrong, advice: Some(advice.to_owned()), ..ok("schema", refusal) };
    }
    if !fit.missing.is_empty() {
        return Check {
            state: State::Wrong,
            advice: Some("run `boxoffice migrate`".to_owned()),
            ..ok("schema", format!("these migrations are missing: {}", fit.missing.join(", ")))
        };
    }
    if fit.newer.is_empty() {
        return ok("schema", "up to date".to_owned());
    }
    let newer: Vec<String> = fit.newer.iter().map(|version| format!("{version:04}")).collect();
    Check {
        state: State::Note,
        advice: Some("nothing to do: finish the upgrade when it is time".to_owned()),
        ..ok("schema", format!("newer than this release, which works with it: {}", newer.join(", ")))
    }
}

/// Whether Postgres takes writes: it may be read-only, in recovery, full, or frozen.
async fn writable(pool: &PgPool) -> Check {
    match store::can_write(pool).await {
        Ok(()) => ok("writes", "Postgres can be written".to_owned()),
        Err(error) => wrong(
            "writes",
            &error.into(),
            "see that DATABASE_URL names the primary, that it is not read-only, and that its disk has room",
        ),
    }
}

async fn clock(context: &Context, pool: &PgPool) -> Check {
    let clock = Clock::skewed(context.settings.engine.clock_skew_ms);
    let before = clock.uncorrected();
    let database = match store::now(pool).await {
        Ok(now) => now,
        Err(error) => return wrong("clock", &error.into(), "look at Postgres' log"),
    };
    let after = clock.uncorrected();
    let offset = (database - (before + (after - before) / 2)).num_milliseconds();
    let found =
        format!("{} ms {} the database's", offset.abs(), if offset > 0 { "behind" } else { "ahead of" });
    if offset.abs() <= CLOCKS_APART_MS {
        return ok("clock", found);
    }
    let advice = "the service follows the database's clock and sells rightly; logs will not line up: run NTP";
    Check { state: State::Note, advice: Some(advice.to_owned()), ..ok("clock", found) }
}

fn nats(bus: &Bus) -> Check {
    let info = bus.client.server_info();
    ok("nats", format!("answers, version {}, with JetStream", info.version))
}

/// Whether JetStream stores a message and gives it back.
async fn jetstream(bus: &Bus) -> Check {
    match probe::probe(bus).await {
        Ok(()) => ok("jetstream", "stores a message and gives it back".to_owned()),
        Err(Problem { found, advice }) => {
            Check { state: State::Wrong, advice: Some(advice.to_owned()), ..ok("jetstream", found) }
        }
    }
}

/// A client cannot read how often the server syncs; the operator has to know.
fn durability() -> Check {
    let advice = "nothing to do: what a power cut takes from NATS is derived again from Postgres";
    Check {
        state: State::Note,
        advice: Some(advice.to_owned()),
        ..ok("sync_interval", "cannot be read from here".to_owned())
    }
}

async fn streams(bus: &Bus) -> Vec<Check> {
    let mut missing = Vec::new();
    let mut wanted = 0;
    let buckets = [subjects::QUEUE_TOKENS_STREAM.to_owned()];
    let names = topology::streams(bus.replicas).into_iter().map(|stream| stream.name);
    for name in names.chain(buckets) {
        wanted += 1;
        match bus.jetstream.get_stream(&name).await.map_err(|error| (error.kind(), error)) {
            Ok(_) => {}
            Err((GetStreamErrorKind::JetStream(answer), _))
                if answer.error_code() == ErrorCode::STREAM_NOT_FOUND =>
            {
                missing.push(name);
            }
            // The others would be waited for as long.
            Err((_, error)) => return vec![wrong("streams", &error.into(), probe::FROZEN)],
        }
    }
    if missing.is_empty() {
        return vec![ok("streams", format!("all {wanted} are there"))];
    }
    vec![Check {
        state: State::Wrong,
        advice: Some("start the service: it makes them and loses nothing by it".to_owned()),
        ..ok("streams", format!("missing: {}", missing.join(", ")))
    }]
}

/// Whether an instance admits users to each line in which users wait and places are free.
async fn admission(context: &Context, pool: &PgPool) -> Check {
    let advice = "start a process with the role scheduler, or look at its log";
    let waiting = match queues::neglected(context, pool).await {
        Ok(waiting) => waiting,
        Err(error) => return wrong("admission", &error, advice),
    };
    if waiting.is_empty() {
        return ok("admission", "every line with free places admits".to_owned());
    }
    let found = format!("users wait and places are free, but no instance admits: {}", waiting.join(", "));
    Check { state: State::Wrong, advice: Some(advice.to_owned()), ..ok("admission", found) }
}

/// Whether each step of the workflows has a running worker.
async fn workers(context: &Context, bus: &Bus) -> Check {
    let advice = "look at the definitions: `boxoffice workflow list`";
    let registry = match deployed(context).await {
        Ok(registry) => registry,
        Err(error) => return wrong("workers", &error, advice),
    };
    let present = match presence::present(bus).await {
        Ok(present) => present,
        Err(error) => return wrong("workers", &error.into(), "look at the log of NATS"),
    };
    let commands = registry.commands();
    let unserved = presence::unserved(&present, commands.iter().map(String::as_str));
    if unserved.is_empty() {
        return ok("workers", format!("{} are there, and every step is served", present.len()));
    }
    Check {
        state: State::Note,
        advice: Some(
            "start a worker of them (`boxoffice serve --role worker`): their sagas wait for it".to_owned(),
        ),
        ..ok("workers", format!("no worker serves {}", unserved.join(", ")))
    }
}

async fn deployed(context: &Context) -> anyhow::Result<WorkflowRegistry> {
    let registry = WorkflowRegistry::default();
    store::definitions::reload(&context.database().await?, &registry).await?;
    Ok(registry)
}

fn ok(check: &'static str, found: String) -> Check {
    Check { check, state: State::Ok, found, advice: None }
}

fn wrong(check: &'static str, error: &anyhow::Error, advice: &str) -> Check {
    Check { state: State::Wrong, advice: Some(advice.to_owned()), ..ok(check, format!("{error:#}")) }
}

fn text(checks: &[Check]) -> String {
    let rows = checks.iter().map(|check| {
        let state = match check.state {
            State::Ok => "ok",
            State::Note => "note",
            State::Wrong => "WRONG",
        };
        let advice = check.advice.clone().unwrap_or_default();
        [check.check.to_owned(), state.to_owned(), check.found.clone(), advice]
    });
    table(["Check", "State", "Found", "What to do"], rows)
}
