//! How the on-sale went: what a table shows, what JSON says, and whether it was good.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use super::Plan;
use super::tally::{Call, Happening, Latency, Tally};
use boxoffice::audit::{self, Verdict};

/// The verdicts of the audits during and after the sale.
#[derive(Default)]
pub(super) struct Audits {
    kept: Mutex<(u64, Option<audit::Report>)>,
}

impl Audits {
    /// Keeps the first report that is broken, else the latest.
    pub(super) fn add(&self, report: audit::Report) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.0 += 1;
        if kept.1.as_ref().is_none_or(|known| known.verdict == Verdict::Good) {
            kept.1 = Some(report);
        }
    }
}

/// How it went.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// Every answer was foreseen, and every invariant held at every look.
    pub verdict: Verdict,
    pub buyers: usize,
    pub seed: u64,
    pub seconds: f64,
    pub counts: BTreeMap<Happening, u64>,
    pub calls: BTreeMap<Call, Latency>,
    /// Answers that the contract does not foresee where they came.
    pub surprises: u64,
    /// The first of them, in words.
    pub surprising: Vec<String>,
    /// How often the database was judged.
    pub audits: u64,
    /// The first broken report, else the last; none without access to the database.
    pub audit: Option<audit::Report>,
}

impl Outcome {
    pub(super) fn new(plan: Plan, took: Duration, tally: &Tally, audits: Audits) -> Self {
        let (surprises, surprising) = tally.surprises();
        let (looks, audit) = audits.kept.into_inner().unwrap_or_else(PoisonError::into_inner);
        let broken = audit.as_ref().is_some_and(|report| report.verdict == Verdict::Broken);
        Self {
            verdict: if broken || surprises > 0 { Verdict::Broken } else { Verdict::Good },
            buyers: plan.buyers,
            seed: plan.seed,
            seconds: (took.as_secs_f64() * 10.0).round() / 10.0,
            counts: Happening::ALL.into_iter().map(|one| (one, tally.counted(one))).collect(),
            calls: tally.latencies().into_iter().collect(),
            surprises,
            surprising,
            audits: looks,
            audit,
        }
    }

    /// What happened, and how long the answers took.
    pub fn tables(&self) -> String {
        let mut counts = bordered(["What happened", "times"]);
        for (happening, count) in &self.counts {
            counts.add_row([happening.name().to_owned(), count.to_string()]);
        }
        let mut calls = bordered(["Call", "answers", "p50 ms", "p95 ms", "p99 ms", "max ms"]);
        for (call, latency) in &self.calls {
            let ms = |value: f64| format!("{value:.1}");
            calls.add_row([
                call.name().to_owned(),
                latency.calls.to_string(),
                ms(latency.p50_ms),
                ms(latency.p95_ms),
                ms(latency.p99_ms),
                ms(latency.max_ms),
            ]);
        }
        format!("{counts}\n{calls}")
    }

    /// The answers that no buyer should have had, a line each; nothing if there were none.
    pub fn complaints(&self) -> Vec<String> {
        let more = self.surprises - self.surprising.len() as u64;
        let rest = (more > 0).then(|| format!("and {more} more"));
        self.surprising.iter().cloned().chain(rest).collect()
    }
}

fn bordered<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(tally: &Tally) -> Outcome {
        let second = Duration::from_secs(1);
        let plan = Plan { buyers: 1, seed: 7, arrivals: second, patience: second };
        Outcome::new(plan, second, tally, Audits::default())
    }

    #[test]
    fn one_surprise_spoils_it() {
        let tally = Tally::default();
        assert_eq!(outcome(&tally).verdict, Verdict::Good);
        tally.surprise("a 500");
        let spoilt = outcome(&tally);
        assert_eq!(spoilt.verdict, Verdict::Broken);
        assert_eq!(spoilt.complaints(), ["a 500"]);
    }

    #[test]
    fn the_tables_name_counts_and_percentiles() {
        let tally = Tally::default();
        tally.count(Happening::Paid);
        tally.time(Call::Pay, Duration::from_millis(12));
        let tables = outcome(&tally).tables();
        assert!(tables.contains("paid") && tables.contains("p99 ms") && tables.contains("12.0"), "{tables}");
    }

    #[test]
    fn json_counts_every_outcome() {
        let json = serde_json::to_value(outcome(&Tally::default())).unwrap();
        assert_eq!(json["counts"].as_object().unwrap().len(), Happening::ALL.len());
        assert_eq!(json["counts"]["paid"], 0);
        assert_eq!(json["verdict"], "good");
    }
}
