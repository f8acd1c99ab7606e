//! What a commit counts in the metrics: sagas that started, ended or got stuck, outcomes of steps, and how long they took; and its
//! spans.
//!
//! Observations are collected while a batch is decided and recorded after its commit, so that a batch that is tried again counts
//! once.

use chrono::{DateTime, TimeDelta, Utc};
use metrics::{Counter, Histogram};
use saga_protocol::spans::{self, Span};

use crate::saga::{Direction, Event, Outcome, Saga, Status};

/// Collected, not recorded yet.
#[derive(Debug, Default)]
pub(super) struct Observations {
    all: Vec<Observation>,
    spans: Vec<Span>,
}

#[derive(Debug)]
enum Observation {
    Started { workflow: String },
    Ended { workflow: String, outcome: &'static str, took: TimeDelta },
    GotStuck { workflow: String },
    Step { workflow: String, step: String, direction: Direction, outcome: &'static str, took: TimeDelta },
    TimerRang { late: TimeDelta },
}

impl Observations {
    /// A saga has started.
    pub(super) fn note_start(&mut self, saga: &Saga) {
        self.all.push(Observation::Started { workflow: saga.workflow.clone() });
    }

    /// A saga has moved by an event.
    pub(super) fn note(&mut self, before: &Saga, event: &Event, after: &Saga, now: DateTime<Utc>) {
        let workflow = || after.workflow.clone();
        match event {
            Event::Reply(reply) => self.all.push(Observation::Step {
                workflow: workflow(),
                step: reply.step.clone(),
                direction: reply.direction,
                outcome: outcome_name(&reply.outcome),
                took: now - before.since,
            }),
            Event::TimerFired => {
                self.all.extend(before.due_at.map(|due| Observation::TimerRang { late: now - due }));
            }
            _ => {}
        }
        if after.status.is_end() && !before.status.is_end() {
            let took = now - after.created_at;
            self.all.push(Observation::Ended { workflow: workflow(), outcome: after.status.name(), took });
        }
        if after.status == Status::Stuck && before.status != Status::Stuck {
            self.all.push(Observation::GotStuck { workflow: workflow() });
        }
    }

    /// A span of the batch; it ends when the batch is committed.
    pub(super) fn trace(&mut self, span: Option<Span>) {
        self.spans.extend(span);
    }

    /// Those of both.
    pub(super) fn extend(&mut self, more: Self) {
        self.all.extend(more.all);
        self.spans.extend(more.spans);
    }

    /// Counts all of them, and exports the spans.
    pub(super) fn record(self) {
        let mut recorder = Recorder::default();
        self.all.into_iter().for_each(|observation| recorder.record(observation));
        let Some(exporter) = spans::exporter().filter(|_| !self.spans.is_empty()) else { return };
        let ended = spans::now();
        self.spans.into_iter().for_each(|span| exporter.export(Span { ended, ..span }));
    }
}

/// The metrics of the latest observation of each kind. The sagas of a batch are mostly of one workflow and at one step, so that
/// they are looked up once.
#[derive(Default)]
struct Recorder {
    started: Latest<String, Counter>,
    ended: Latest<(String, &'static str), (Counter, Histogram)>,
    steps: Latest<(String, String, Direction, &'static str), (Counter, Histogram)>,
}

struct Latest<K, M>(Option<(K, M)>);

impl<K, M> Default for Latest<K, M> {
    fn default() -> Self {
        Self(None)
    }
}

impl<K: PartialEq, M> Latest<K, M> {
    fn get(&mut self, key: K, look_up: impl FnOnce(&K) -> M) -> &M {
        let latest = self.0.take().filter(|(latest, _)| *latest == key);
        let latest = latest.unwrap_or_else(|| {
            let metrics = look_up(&key);
            (key, metrics)
        });
        &self.0.insert(latest).1
    }
}

impl Recorder {
    fn record(&mut self, observation: Observation) {
        match observation {
            Observation::Started { workflow } => {
                let look_up = |workflow: &String| metrics::counter!("boxoffice_sagas_started_total", "workflow" => workflow.clone());
                self.started.get(workflow, look_up).increment(1);
            }
            Observation::Ended { workflow, outcome, took } => {
                let (count, duration) = self.ended.get((workflow, outcome), |(workflow, outcome)| {
                    let labels = [("workflow", workflow.clone()), ("outcome", (*outcome).to_owned())];
                    let count = metrics::counter!("boxoffice_sagas_ended_total", &labels);
                    (count, metrics::histogram!("boxoffice_saga_duration_seconds", &labels))
                });
                count.increment(1);
                duration.record(seconds(took));
            }
            Observation::GotStuck { workflow } => {
                metrics::counter!("boxoffice_sagas_got_stuck_total", "workflow" => workflow).increment(1);
            }
            Observation::Step { workflow, step, direction, outcome, took } => {
                let (count, duration) = self.steps.get((workflow, step, direction, outcome), look_up_step);
                count.increment(1);
                duration.record(seconds(took));
            }
            Observation::TimerRang { late } => {
                metrics::histogram!("boxoffice_timer_delay_seconds").record(seconds(late));
            }
        }
    }
}

fn look_up_step(
    (workflow, step, direction, outcome): &(String, String, Direction, &'static str),
) -> (Counter, Histogram) {
    let labels =
        [("workflow", workflow.clone()), ("step", step.clone()), ("direction", direction.name().to_owned())];
    let duration = metrics::histogram!("boxoffice_step_duration_seconds", &labels);
    let [workflow, step, direction] = labels;
    let labels = [workflow, step, direction, ("outcome", (*outcome).to_owned())];
    (metrics::counter!("boxoffice_step_outcomes_total", &labels), duration)
}

/// Shows the counters of a workflow from 0 on: an alert sees only what rises.
pub(super) fn begin_counters(workflow: &str) {
    let workflow = || workflow.to_owned();
    metrics::counter!("boxoffice_sagas_started_total", "workflow" => workflow()).increment(0);
    metrics::counter!("boxoffice_sagas_got_stuck_total", "workflow" => workflow()).increment(0);
    for outcome in [Status::Completed, Status::Compensated, Status::Abandoned] {
        metrics::counter!("boxoffice_sagas_ended_total", "workflow" => workflow(), "outcome" => outcome.name())
            .increment(0);
    }
}

fn outcome_name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Done { .. } => "done",
        Outcome::Rejected { .. } => "rejected",
        Outcome::Failed { .. } => "failed",
        Outcome::Unknown { .. } => "unknown",
    }
}

/// The clocks of two readings may differ a little; no time is below 0.
fn seconds(took: TimeDelta) -> f64 {
    took.as_seconds_f64().max(0.0)
}
