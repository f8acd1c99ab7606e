//! What a commit counts in the metrics: sagas that started, ended or got stuck, outcomes of steps, and how long they took.
//!
//! Observations are collected while a batch is decided and recorded after its commit, so that a batch that is tried again counts
//! once.

use chrono::{DateTime, TimeDelta, Utc};

use crate::saga::{Direction, Event, Outcome, Saga, Status};

/// Collected, not recorded yet.
#[derive(Debug, Default)]
pub(super) struct Observations(Vec<Observation>);

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
        self.0.push(Observation::Started { workflow: saga.workflow.clone() });
    }

    /// A saga has moved by an event.
    pub(super) fn note(&mut self, before: &Saga, event: &Event, after: &Saga, now: DateTime<Utc>) {
        let workflow = || after.workflow.clone();
        match event {
            Event::Reply(reply) => self.0.push(Observation::Step {
                workflow: workflow(),
                step: reply.step.clone(),
                direction: reply.direction,
                outcome: outcome_name(&reply.outcome),
                took: now - before.since,
            }),
            Event::TimerFired => {
                self.0.extend(before.due_at.map(|due| Observation::TimerRang { late: now - due }));
            }
            _ => {}
        }
        if after.status.is_end() && !before.status.is_end() {
            let took = now - after.created_at;
            self.0.push(Observation::Ended { workflow: workflow(), outcome: after.status.name(), took });
        }
        if after.status == Status::Stuck && before.status != Status::Stuck {
            self.0.push(Observation::GotStuck { workflow: workflow() });
        }
    }

    /// Those of both.
    pub(super) fn extend(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    /// Counts all of them.
    pub(super) fn record(self) {
        self.0.into_iter().for_each(Observation::record);
    }
}

impl Observation {
    fn record(self) {
        match self {
            Self::Started { workflow } => {
                metrics::counter!("boxoffice_sagas_started_total", "workflow" => workflow).increment(1);
            }
            Self::Ended { workflow, outcome, took } => {
                metrics::counter!("boxoffice_sagas_ended_total", "workflow" => workflow.clone(), "outcome" => outcome)
                    .increment(1);
                metrics::histogram!("boxoffice_saga_duration_seconds", "workflow" => workflow, "outcome" => outcome)
                    .record(seconds(took));
            }
            Self::GotStuck { workflow } => {
                metrics::counter!("boxoffice_sagas_got_stuck_total", "workflow" => workflow).increment(1);
            }
            Self::Step { workflow, step, direction, outcome, took } => {
                let direction = direction.name();
                metrics::histogram!("boxoffice_step_duration_seconds",
                    "workflow" => workflow.clone(), "step" => step.clone(), "direction" => direction)
                .record(seconds(took));
                metrics::counter!("boxoffice_step_outcomes_total",
                    "workflow" => workflow, "step" => step, "direction" => direction, "outcome" => outcome)
                .increment(1);
            }
            Self::TimerRang { late } => {
                metrics::histogram!("boxoffice_timer_delay_seconds").record(seconds(late));
            }
        }
    }
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
