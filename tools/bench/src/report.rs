//! The result of a scenario: figures and their goals, as a table for people and as one object for programs.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::timing::{Spread, Timings};
use boxoffice::audit;

/// The result of one scenario.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub scenario: &'static str,
    /// What the scenario counts, per second of its measured time.
    pub per_second: f64,
    /// The spread of the first measure; null where nothing is timed.
    pub p50_ms: Option<f64>,
    pub p95_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub max_ms: Option<f64>,
    /// Answers and ends that should not have been.
    pub errors: u64,
    /// Processor seconds of service, Postgres and NATS per thousand of what is counted.
    pub server_cpu_s_per_1000: Option<f64>,
    /// `good`, or the list of what is broken.
    pub audit: Value,
    /// No goal was missed, nothing failed, and the audit is good.
    pub good: bool,
    pub measures: Vec<Measure>,
    /// Figures that are no times, against their goals.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub goals: Vec<Goal>,
    /// How late the generator began what it wanted to begin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generator_late: Option<Spread>,
    /// What belongs to this scenario alone.
    #[serde(flatten)]
    pub more: Map<String, Value>,
    /// A list in `more` as people read it: the header, then its lines.
    #[serde(skip)]
    pub table: Vec<Vec<String>>,
    /// What it ran on.
    pub surroundings: Value,
}

/// One thing that was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Measure {
    pub name: &'static str,
    /// Which of the figures the goal is about.
    pub of: Quantile,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goal_ms: Option<f64>,
    /// Null without a goal.
    pub met: Option<bool>,
    /// Null if there was nothing to measure.
    pub spread: Option<Spread>,
}

/// A figure and what it should be.
#[derive(Clone, Debug, Serialize)]
pub struct Goal {
    pub name: String,
    /// Null if it could not be measured.
    pub figure: Option<f64>,
    pub goal: f64,
    pub met: bool,
}

/// A figure of a spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantile {
    P99,
    Max,
}

impl Measure {
    /// A measure with a goal, in milliseconds.
    pub(super) fn with_goal(name: &'static str, timings: &Timings, of: Quantile, goal_ms: f64) -> Self {
        let spread = timings.spread();
        let figure = |spread: Spread| if of == Quantile::P99 { spread.p99_ms } else { spread.max_ms };
        let met = Some(spread.is_some_and(|spread| figure(spread) < goal_ms));
        Self { name, of, goal_ms: Some(goal_ms), met, spread }
    }

    /// A measure that is reported and has no goal.
    pub(super) fn without_goal(name: &'static str, timings: &Timings) -> Self {
        Self { name, of: Quantile::P99, goal_ms: None, met: None, spread: timings.spread() }
    }
}

impl Goal {
    /// A figure that should not be smaller.
    pub(super) fn at_least(name: impl Into<String>, figure: f64, goal: f64) -> Self {
        Self { name: name.into(), figure: Some(figure), goal, met: figure >= goal }
    }

    /// A figure that should not be greater.
    pub(super) fn at_most(name: impl Into<String>, figure: Option<f64>, goal: f64) -> Self {
        Self { name: name.into(), figure, goal, met: figure.is_some_and(|figure| figure <= goal) }
    }
}

impl Report {
    /// A report of these measures; the rest is filled in by who knows it.
    pub(super) fn new(scenario: &'static str, measures: Vec<Measure>) -> Self {
        let first = measures.first().and_then(|measure| measure.spread);
        Self {
            scenario,
            per_second: 0.0,
            p50_ms: first.map(|spread| spread.p50_ms),
            p95_ms: first.map(|spread| spread.p95_ms),
            p99_ms: first.map(|spread| spread.p99_ms),
            max_ms: first.map(|spread| spread.max_ms),
            errors: 0,
            server_cpu_s_per_1000: None,
            audit: Value::Null,
            good: false,
            measures,
            goals: Vec::new(),
            generator_late: None,
            more: Map::new(),
            table: Vec::new(),
            surroundings: Value::Null,
        }
    }

    /// How many were done in how many seconds, and what that cost the servers.
    pub(super) fn work(mut self, count: u64, seconds: f64, cpu_seconds: Option<f64>) -> Self {
        let rounded = |figure: f64| (figure * 1_000.0).round() / 1_000.0;
        if count > 0 && seconds > 0.0 {
            self.per_second = rounded(count as f64 / seconds);
            self.server_cpu_s_per_1000 = cpu_seconds.map(|cpu| rounded(cpu * 1_000.0 / count as f64));
        }
        self
    }

    /// A figure or a remark of this scenario alone.
    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    /// The verdict of the audit, and with it the report's own.
    pub(super) fn judged(mut self, audit: &audit::Report) -> Self {
        let broken: Vec<Value> = audit
            .broken
            .iter()
            .map(|broken| json!({ "invariant": broken.invariant.name(), "count": broken.count }))
            .collect();
        let missed = self.measures.iter().any(|measure| measure.met == Some(false))
            || self.goals.iter().any(|goal| !goal.met);
        self.good = broken.is_empty() && self.errors == 0 && !missed;
        self.audit = if broken.is_empty() { json!("good") } else { Value::Array(broken) };
        self
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn goal_without_a_figure_is_missed() {
        let timings: Timings = (1..=100).map(TimeDelta::milliseconds).collect();
        let met = |of, goal| Measure::with_goal("m", &timings, of, goal).met;
        assert_eq!((met(Quantile::P99, 99.5), met(Quantile::Max, 99.5)), (Some(true), Some(false)));
        assert_eq!(Measure::with_goal("m", &Timings::default(), Quantile::P99, 1.0).met, Some(false));
        assert_eq!(Measure::without_goal("m", &timings).met, None);
    }
}
