//! Workers with a fault fail the suite, and a line names the fault. One without a fault passes it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use boxoffice::bus::{messages, topology};
use boxoffice::ids;
use chrono::Utc;
use serde_json::{Map, json};
use worker_conformance::{Contexts, Options, Report, Verdict};

use super::faulty_worker::{Fault, run_with_crashes};
use crate::common::program::Program;
use crate::common::{Env, fresh_dir};

/// Each fault, the case that finds it, and a part of the line that names it.
const FAULTS: [(Fault, &str, &str); 16] = [
    (Fault::DoesDuplicatesAgain, "duplicates", "a duplicate was done again"),
    (Fault::SilentAboutDuplicates, "duplicates", "only 1 of 6 duplicates were answered"),
    (Fault::DoesLateDo, "late do after undo", "a late `do` after its undo"),
    (Fault::RejectsUndoWithoutDo, "undo first", "an undo is never refused"),
    (Fault::DoesLateVisit, "late visits", "of an earlier visit must be acknowledged without a reply"),
    (Fault::KeepsUnknown, "unknown outcome", "is no outcome to keep"),
    (Fault::KeepsFailed, "failure is tried again", "is no outcome to keep"),
    (Fault::IgnoresDeadline, "deadline passed", "after its deadline must be answered `rejected`"),
    (Fault::AnswersForgottenDeadline, "deadline passed", "what was done in time stays done"),
    (Fault::AcknowledgesFirst, "command is answered", "acknowledged before its reply was published"),
    (Fault::AcknowledgesPoison, "poison input", "acknowledged without a reply"),
    (Fault::LosesHeaders, "command is answered", "which was never sent"),
    (Fault::RejectionIsNotKept, "rejection is repeated", "a rejection is repeated"),
    (Fault::ForgetsCompletion, "completion by hand", "must not be done once more"),
    (Fault::ForgetsAllInCrash, "crash before acknowledgement", "there are 2 effects of saga"),
    (Fault::HidesItself, "announcement and consumer", "no worker announces the command"),
];

fn made_dir() -> PathBuf {
    let dir = fresh_dir("faults");
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// Runs the suite against a worker with this fault, as a service of its own.
async fn report(env: &Env, fault: Fault) -> Report {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let service = format!("printer{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let dir = made_dir();
    let worker = tokio::spawn(run_with_crashes(env.bus.clone(), service.clone(), dir.clone(), fault));
    let how = |how: &str| Some(Map::from_iter([("how".to_owned(), json!(how))]));
    let crash = format!("touch '{0}/crash'; while [ -e '{0}/crash' ]; do sleep 0.02; done", dir.display());
    let options = Options {
        command: format!("{service}.print"),
        undo: Some(format!("{service}.shred")),
        step: messages::WORKER_TEST_STEP.to_owned(),
        contexts: Contexts {
            input: Map::new(),
            rejected: how("refuse"),
            failed: how("fail"),
            unknown: how("doubt"),
            slow: how("slow"),
            poison: how("throw"),
        },
        count: Some(format!("cat '{}'/$SAGA 2>/dev/null | wc -l", dir.display())),
        // A fence in memory does not outlive a crash.
        restart: (fault == Fault::ForgetsAllInCrash).then_some(crash),
        timeout: Duration::from_secs(if fault == Fault::HidesItself { 3 } else { 30 }),
        new_id: ids::new,
        now: Utc::now,
    };
    let report =
        worker_conformance::run(&env.bus.client, &env.bus.jetstream, &options, |_| ()).await.unwrap();
    worker.abort();
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_is_found_and_named() {
    let env = Env::start().await;
    topology::ensure(&env.bus).await.unwrap();
    let runs = FAULTS.map(|(fault, case, line)| {
        let env = &env;
        async move {
            let report = report(env, fault).await;
            assert!(!report.is_good(), "{fault:?}:\n{report}");
            let found = report.cases.iter().find(|found| found.name == case).unwrap();
            let named = found.wrong.iter().any(|wrong| wrong.contains(line));
            assert!(named, "{fault:?} is not named by {case}: {line}\n{report}");
        }
    });
    futures::future::join_all(runs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_without_a_fault_passes() {
    let env = Env::start().await;
    let report = report(&env, Fault::None).await;
    assert!(report.is_good(), "{report}");
    let skipped: Vec<&str> =
        report.cases.iter().filter(|case| case.verdict == Verdict::Skipped).map(|case| case.name).collect();
    assert_eq!(skipped, ["crash before acknowledgement"]);
}

/// The program, as it is typed: exit code 1 and the fault in its text; what needs an option is listed as skipped.
#[tokio::test(flavor = "multi_thread")]
async fn program_names_the_fault_and_what_it_skipped() {
    let env = Env::start().await;
    let dir = made_dir();
    let worker =
        tokio::spawn(run_with_crashes(env.bus.clone(), "printer".to_owned(), dir, Fault::DoesLateDo));
    let ran = Program::of(&env).run("worker test --command printer.print").await;
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    for line in [
        "WRONG  late do after undo",
        "! a late `do` after its undo must be acknowledged without a reply",
        "skip   slow answer: it needs --slow",
        "skip   crash before acknowledgement: it needs --restart",
        "ok     duplicates",
        "took printer.shred as the undo",
    ] {
        assert!(ran.out.contains(line), "{line} is not in\n{}", ran.out);
    }
    worker.abort();
    for wrong in ["worker test", "worker test --command print", "worker test --command a.b --input []"] {
        assert_eq!(Program::of(&env).run(wrong).await.code, 2, "{wrong}");
    }
}
