//! What the suite did, and what was wrong.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

/// All cases of one run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The command that was tested.
    pub command: String,
    /// Its undo, if one is known.
    pub undo: Option<String>,
    /// The cases, in the order in which they ran.
    pub cases: Vec<CaseReport>,
}

/// One case.
#[derive(Clone, Debug, Serialize)]
pub struct CaseReport {
    /// What the case is about.
    pub name: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// What was sent and seen.
    pub did: Vec<String>,
    /// The faults of the worker.
    pub wrong: Vec<String>,
    /// Why the case did not run, or not to its end.
    pub skipped: Option<String>,
}

/// How a case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing was wrong.
    Passed,
    /// The worker has a fault.
    Failed,
    /// An option that the case needs was not given.
    Skipped,
}

impl Report {
    /// Whether no fault was found.
    pub fn is_good(&self) -> bool {
        self.count(Verdict::Failed) == 0
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.cases.iter().filter(|case| case.verdict == verdict).count()
    }
}

impl CaseReport {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, verdict: Verdict::Passed, did: Vec::new(), wrong: Vec::new(), skipped: None }
    }

    pub(crate) fn skipped(name: &'static str, why: &str) -> Self {
        Self { verdict: Verdict::Skipped, skipped: Some(why.to_owned()), ..Self::new(name) }
    }

    /// The case as it ended.
    pub(crate) fn ended(mut self) -> Self {
        self.verdict = match (&self.wrong[..], &self.skipped) {
            ([_, ..], _) => Verdict::Failed,
            (_, Some(_)) => Verdict::Skipped,
            _ => Verdict::Passed,
        };
        self
    }
}

impl Display for CaseReport {
    fn fmt(&self, text: &mut Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Passed => "ok   ",
            Verdict::Failed => "WRONG",
            Verdict::Skipped => "skip ",
        };
        write!(text, "{verdict}  {}", self.name)?;
        if let Some(why) = &self.skipped {
            write!(text, ": {why}")?;
        }
        writeln!(text)?;
        self.did.iter().try_for_each(|line| writeln!(text, "         {line}"))?;
        self.wrong.iter().try_for_each(|line| writeln!(text, "       ! {line}"))
    }
}

impl Display for Report {
    fn fmt(&self, text: &mut Formatter<'_>) -> fmt::Result {
        self.cases.iter().try_for_each(|case| case.fmt(text))?;
        let [passed, wrong, skipped] =
            [Verdict::Passed, Verdict::Failed, Verdict::Skipped].map(|one| self.count(one));
        write!(text, "\n{}: {passed} passed, {wrong} wrong, {skipped} skipped", self.command)
    }
}
