//! What a run did and found.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::books::Books;
use crate::faults::Fault;

pub struct Report {
    seed: u64,
    buyers_per_second: u32,
    faults: BTreeMap<Fault, Vec<Duration>>,
    /// Instances that ended by themselves and were started again.
    pub restarts: u32,
    checks: Vec<Value>,
    problems: Vec<String>,
    outcomes: BTreeMap<String, u64>,
    verified: usize,
    slow_answers: u64,
    last_audit: Value,
}

impl Report {
    pub fn new(seed: u64, buyers_per_second: u32) -> Self {
        Self {
            seed,
            buyers_per_second,
            faults: BTreeMap::new(),
            restarts: 0,
            checks: Vec::new(),
            problems: Vec::new(),
            outcomes: BTreeMap::new(),
            verified: 0,
            slow_answers: 0,
            last_audit: Value::Null,
        }
    }

    pub fn note(&mut self, fault: Fault, took: Duration) {
        self.faults.entry(fault).or_default().push(took);
    }

    /// Takes a verdict after some faults: how long until all was ready, the audit, and what is wrong by the crowd's books.
    pub fn check(&mut self, after: u32, ready: Option<Duration>, audit: Value, violations: &[String]) {
        if ready.is_none() {
            self.problems.push(format!("after fault {after} the service was not ready in time"));
        }
        if audit["verdict"] != "good" {
            self.problems.push(format!("after fault {after} the audit found {}", audit["broken"]));
        }
        if audit["counted"]["sagas_stuck"] != 0 {
            self.problems.push(format!("after fault {after} sagas are stuck: {}", audit["stuck"]));
        }
        let counted = &audit["counted"];
        let check = json!({
            "after": after,
            "ready_ms": ready.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
            "audit": audit["verdict"],
            "sagas_open": counted["sagas_open"],
            "sagas_stuck": counted["sagas_stuck"],
            "sagas_ended": counted["sagas_ended"],
            "violations": violations.len(),
        });
        eprintln!("check: {check}");
        self.checks.push(check);
        self.last_audit = audit;
    }

    /// Takes what the crowd's books say at the end.
    pub fn finish(&mut self, books: &Books, violations: Vec<String>) {
        self.problems.extend(violations);
        self.outcomes = books.outcomes().into_iter().collect();
        self.verified = books.verified();
        self.slow_answers = books.slow_answers();
        if self.last_audit["counted"]["sagas_open"] != 0 {
            self.problems.push(format!("{} sagas have not ended", self.last_audit["counted"]["sagas_open"]));
        }
    }

    pub fn is_good(&self) -> bool {
        self.problems.is_empty()
    }

    pub fn json(&self) -> String {
        let faults: BTreeMap<String, Value> = self
            .faults
            .iter()
            .map(|(fault, times)| {
                let longest = times.iter().max().map_or(0, Duration::as_millis);
                (fault.to_string(), json!({ "count": times.len(), "longest_ms": longest as u64 }))
            })
            .collect();
        let report = json!({
            "seed": self.seed,
            "buyers_per_second": self.buyers_per_second,
            "faults": faults,
            "faults_in_all": self.faults.values().map(Vec::len).sum::<usize>(),
            "instances_restarted_after_ending_by_themselves": self.restarts,
            "outcomes": self.outcomes,
            "buyers_verified": self.verified,
            "answers_slower_than_5_5_s": self.slow_answers,
            "checks": self.checks,
            "counted": self.last_audit["counted"],
            "problems": self.problems,
            "verdict": if self.is_good() { "good" } else { "broken" },
        });
        serde_json::to_string_pretty(&report).unwrap_or_default() + "\n"
    }

    pub fn print(&self) {
        print!("{}", self.json());
    }
}
