//! The result of a cell: figures for programs, and a line of a table for people.

use serde_json::{Value, json};

use super::cell::Cell;
use super::cost::Spent;
use crate::timing::Timings;

/// The figures of one cell.
#[derive(Clone, Debug)]
pub struct Measured {
    pub cell: Cell,
    /// Over how long answers were counted.
    pub seconds: f64,
    /// Requests that were answered in that time, yes or no.
    pub answers: u64,
    /// Those of them that were granted.
    pub granted: u64,
    pub(super) timings: Timings,
    /// Errors found in the tables: sold twice, lost, below zero; and one if no request was granted.
    pub wrong: u64,
    /// Requests without an answer.
    pub failed: u64,
    /// What follows is over everything, the time before anything counts included.
    pub(super) all: u64,
    pub(super) all_granted: u64,
    pub(super) spent: Spent,
    /// Processor seconds of Postgres and NATS; none where the system does not report them.
    pub(super) cpu: Option<f64>,
}

impl Measured {
    /// All errors.
    pub fn errors(&self) -> u64 {
        self.wrong + self.failed
    }

    /// For programs.
    pub(super) fn figures(&self) -> Value {
        let spread = self.timings.spread();
        json!({
            "case": self.cell.case(),
            "way": self.cell.way.name(),
            "contention": self.cell.contention.name(),
            "callers": self.cell.callers,
            "granted_per_second": round(self.per_second(self.granted)),
            "answers_per_second": round(self.per_second(self.answers)),
            "p50_ms": spread.map(|spread| spread.p50_ms),
            "p99_ms": spread.map(|spread| spread.p99_ms),
            "max_ms": spread.map(|spread| spread.max_ms),
            "tries_per_answer": round(ratio(self.spent.tries, self.all)),
            "tries_per_granted": round(ratio(self.spent.tries, self.all_granted)),
            "statements_per_answer": round(ratio(self.spent.statements, self.all)),
            "statements_per_granted": round(ratio(self.spent.statements, self.all_granted)),
            "transactions_per_answer": round(ratio(self.spent.transactions, self.all)),
            "transactions_per_granted": round(ratio(self.spent.transactions, self.all_granted)),
            "nats_messages_per_answer": round(ratio(self.spent.messages, self.all)),
            "server_cpu_s_per_1000_answers": self.cpu.map(|cpu| round(cpu * 1_000.0 / self.all.max(1) as f64)),
            "wrong": self.wrong,
            "failed": self.failed,
            "errors": self.errors(),
        })
    }

    /// What the columns of [`Measured::row`] are.
    pub(super) fn header() -> Vec<String> {
        let names = [
            "case",
            "contention",
            "callers",
            "way",
            "granted/s",
            "answers/s",
            "p50 ms",
            "p99 ms",
            "tries",
            "statements",
            "cpu s/1000",
            "errors",
        ];
        names.map(str::to_owned).into()
    }

    /// For people: tries, statements and processor time by answer.
    pub(super) fn row(&self) -> Vec<String> {
        let spread = self.timings.spread();
        let ms = |figure: Option<f64>| figure.map_or("-".to_owned(), |ms| format!("{ms:.1}"));
        let cpu = self.cpu.map(|cpu| cpu * 1_000.0 / self.all.max(1) as f64);
        vec![
            self.cell.case().to_owned(),
            self.cell.contention.name().to_owned(),
            self.cell.callers.to_string(),
            self.cell.way.name().to_owned(),
            format!("{:.0}", self.per_second(self.granted)),
            format!("{:.0}", self.per_second(self.answers)),
            ms(spread.map(|spread| spread.p50_ms)),
            ms(spread.map(|spread| spread.p99_ms)),
            format!("{:.2}", ratio(self.spent.tries, self.all)),
            format!("{:.2}", ratio(self.spent.statements, self.all)),
            cpu.map_or("-".to_owned(), |cpu| format!("{cpu:.3}")),
            self.errors().to_string(),
        ]
    }

    fn per_second(&self, count: u64) -> f64 {
        if self.seconds > 0.0 { count as f64 / self.seconds } else { 0.0 }
    }
}

/// A mean; 0 if nothing was counted.
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn round(figure: f64) -> f64 {
    (figure * 1_000.0).round() / 1_000.0
}
