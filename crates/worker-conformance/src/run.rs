//! Runs the cases one after the other.

use async_nats::Client;
use async_nats::jetstream;

use crate::cases::{self, CASES};
use crate::options::Options;
use crate::report::{CaseReport, Report};
use crate::setup::{self, SuiteError};
use crate::tester::{Ended, Tester};
use crate::traffic::Traffic;

/// Holds the workers of a command against the protocol. `on_case` is called with each case that has ended.
///
/// # Errors
/// If NATS does not do what the suite asks for. A fault of the worker is no error: the report has it.
pub async fn run(
    client: &Client,
    jetstream: &jetstream::Context,
    options: &Options,
    mut on_case: impl FnMut(&CaseReport),
) -> Result<Report, SuiteError> {
    let (steps, made) = setup::streams(jetstream).await?;
    let traffic = Traffic::listen(client, options.service()).await?;
    let mut tester = Tester::new(options.clone(), client.clone(), jetstream.clone(), steps, traffic);
    let mut cases: Vec<CaseReport> = Vec::new();
    let mut answers = true;
    for case in CASES {
        if !answers {
            cases.push(CaseReport::skipped(case.name, "the worker did not answer before"));
            on_case(&cases[cases.len() - 1]);
            continue;
        }
        tester.begin(case.name);
        if case.is_first() && !made.is_empty() {
            tester.did(format!("made the streams that were missing: {}", made.join(", ")));
        }
        let skipped = match cases::play(case, &mut tester).await {
            Ok(()) => None,
            Err(Ended::Skipped(why)) => Some(why),
            Err(Ended::Failed) => {
                answers = !case.must_pass;
                None
            }
            Err(Ended::Broken(error)) => return Err(error),
        };
        cases.push(tester.end(skipped));
        on_case(&cases[cases.len() - 1]);
    }
    tester.clean().await?;
    Ok(Report { command: options.command.clone(), undo: tester.undo.clone(), cases })
}
