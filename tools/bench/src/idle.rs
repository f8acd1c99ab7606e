//! What the service does while it gets no requests: statements in Postgres, messages in NATS.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::Plan;
use super::progress::Progress;
use super::report::{Measure, Report};
use super::stage::{ALL_ROLES, Meter, Stage, Wanted};
use super::timing::Timings;
use crate::store::rehearsal;
use boxoffice::bus::subjects;
use boxoffice::sample_concerts;

/// The goal: fewer statements per second.
const STATEMENTS_GOAL: f64 = 1.0;
/// How long a started service may take until it is idle.
const CALM: Duration = Duration::from_secs(10);
/// Replaces the parts of subjects that differ each time.
const INBOX: &str = "_INBOX";

pub(super) async fn run(plan: &Plan, progress: &Progress) -> anyhow::Result<Report> {
    let seconds = plan.seconds.unwrap_or(60);
    let stage = Stage::open(plan, Wanted { count_statements: true, ..Wanted::default() }).await?;
    let service = stage.serve(ALL_ROLES).await?;
    // Like `up`: some concerts, and no users.
    sample_concerts::load(&stage.pool, stage.clock.now(), 1_000, 6_000).await?;
    progress.begin("coming to rest", 0);
    sleep(CALM).await;
    rehearsal::reset_statements(&stage.superuser).await?;
    let heard: Arc<Mutex<BTreeMap<String, u64>>> = Arc::default();
    let mut messages = stage.bus.client.subscribe(">").await?;
    let kept = Arc::clone(&heard);
    let listening = tokio::spawn(async move {
        while let Some(message) = messages.next().await {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            *kept.entry(kind(&message.subject)).or_default() += 1;
        }
    });
    progress.begin("the service gets no requests", 0);
    let meter = Meter::start();
    sleep(Duration::from_secs(seconds.into())).await;
    let cpu = meter.read();
    let statements = rehearsal::statements(&stage.superuser).await?;
    listening.abort();
    let heard = heard.lock().unwrap_or_else(PoisonError::into_inner).clone();

    let calls: i64 = statements.iter().map(|statement| statement.calls).sum();
    let per_second = calls as f64 / f64::from(seconds);
    let beyond: u64 = heard.iter().filter(|(kind, _)| !is_a_pull(kind)).map(|(_, count)| count).sum();
    let mut report = Report::new(
        "idle",
        vec![
            Measure {
                met: Some(per_second < STATEMENTS_GOAL),
                ..Measure::without_goal("fewer than 1 statement per second", &Timings::default())
            },
            Measure {
                met: Some(beyond == 0),
                ..Measure::without_goal("no JetStream request but pulls and the probe", &Timings::default())
            },
        ],
    );
    report.per_second = (per_second * 1_000.0).round() / 1_000.0;
    report.server_cpu_s_per_1000 = cpu.map(|cpu| cpu * 1_000.0 / f64::from(seconds));
    let report = report
        .with("seconds", seconds)
        .with("counted", "SQL statements; server_cpu_s_per_1000 is per thousand seconds")
        .with("statements", json!(statements))
        .with(
            "messages",
            Value::Object(heard.into_iter().map(|(kind, count)| (kind, json!(count))).collect()),
        )
        .with("jetstream_beyond_pulls", beyond);
    stage.close(vec![service], report).await
}

/// The kind of a message by its subject: replies are all alike.
fn kind(subject: &str) -> String {
    if subject.starts_with(INBOX) { INBOX.to_owned() } else { subject.to_owned() }
}

/// Pulls of consumers, the read of the probe, and what is not JetStream's at all: answers, and messages of core NATS.
fn is_a_pull(kind: &str) -> bool {
    let jetstream = kind.starts_with("$JS.") || kind.starts_with(&subjects::queue_key(""));
    let probe = kind.strip_prefix("$JS.API.STREAM.MSG.GET.") == Some(subjects::HEALTH);
    !jetstream || probe || kind.starts_with("$JS.API.CONSUMER.MSG.NEXT.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pulls_and_answers_are_not_requests() {
        assert!(is_a_pull(&kind("_INBOX.abc.1")));
        assert!(is_a_pull(&kind("$JS.API.CONSUMER.MSG.NEXT.STEPS.seats-hold")));
        assert!(is_a_pull(&kind("$JS.API.STREAM.MSG.GET.HEALTH")));
        assert!(!is_a_pull(&kind("$JS.API.STREAM.UPDATE.STEPS")));
        assert!(!is_a_pull(&kind("$KV.queue_tokens.lease.admission")));
    }
}
