//! One case: a saga, the fault that it meets at one step, and how the saga must end by its definition.

use std::time::Duration;

use boxoffice::saga::{self, Definition, Direction, OperatorAction, Outcome, Saga, Status, Work};
use boxoffice::store::history::HistoryRow;
use boxoffice::{bus, store};
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::command_proxy::{Rule, Rules};
use super::harness::Harness;
use super::table::{self, Refusal, StartedSaga};

/// The code of every failure and rejection that the proxy gives as reply.
pub const CODE: &str = "by_law";
const TIMEOUT: Duration = Duration::from_secs(25);
const POLL_INTERVAL: Duration = Duration::from_millis(30);

/// How a fault at a step ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The saga returns to this wait, and continues once the fault is gone.
    BackTo(String),
    /// The saga compensates with this reason, and undoes these steps in this order.
    Compensated { reason: String, undone: Vec<String> },
    /// The saga is stuck until the fault is gone and an operator retries.
    Stuck,
}

/// The steps before `below` that have an undo, without a step that was rejected, in the order in which they are undone.
fn undone(definition: &Definition, below: usize, rejected: Option<usize>) -> Vec<String> {
    let steps = definition.steps[..below].iter().enumerate().rev();
    let steps = steps.filter(|(index, step)| step.undo.is_some() && Some(*index) != rejected);
    steps.map(|(_, step)| step.name.clone()).collect()
}

/// How the saga must end if the step at `index` fails. A step that may have run is undone too, and so are the other members of its group.
pub fn expected_ending(definition: &Definition, index: usize, reason: &str, may_have_run: bool) -> Ending {
    let back = definition.steps[index].back_to.get(reason).filter(|_| !may_have_run);
    match back {
        Some(wait) => Ending::BackTo(wait.clone()),
        None if definition.can_compensate(index) => {
            let below = definition.group(index).map_or(index + 1, |group| group.end);
            let rejected = Some(index).filter(|_| !may_have_run);
            Ending::Compensated { reason: reason.to_owned(), undone: undone(definition, below, rejected) }
        }
        None => Ending::Stuck,
    }
}

/// The last step with a command after which the saga can still compensate.
pub fn last_compensable(definition: &Definition) -> Option<usize> {
    (0..definition.steps.len())
        .rev()
        .find(|index| definition.can_compensate(*index) && definition.steps[*index].command.is_some())
}

/// Rules that make the saga compensate as late as possible, so that every undo runs.
pub fn compensating(definition: &Definition, rules: Rules) -> Rules {
    let last = &definition.steps[last_compensable(definition).expect("it has a way back")];
    let failed = Rule::Answer(Outcome::Failed { code: CODE.to_owned() });
    rules.with(&last.name, Direction::Do, failed)
}

pub struct Case {
    pub harness: Arc<Harness>,
    pub workflow: String,
    pub started: StartedSaga,
    /// The case sends no signal to this wait.
    pub wait_without_signal: Option<String>,
}

impl Case {
    pub async fn begin(harness: &Arc<Harness>, workflow: &str, rules: Rules, no: Option<Refusal>) -> Self {
        let started = table::begin(harness, workflow, rules, no).await;
        Self {
            harness: Arc::clone(harness),
            workflow: workflow.to_owned(),
            started,
            wait_without_signal: None,
        }
    }

    pub async fn saga(&self) -> Saga {
        self.harness.saga(self.started.saga).await
    }

    /// Sends the signal of every wait until `there` is true.
    pub async fn run_until(&self, what: &str, there: impl Fn(&Saga) -> bool) -> Saga {
        let end = Instant::now() + TIMEOUT;
        let mut signalled = 0;
        loop {
            let saga = self.saga().await;
            if there(&saga) {
                return saga;
            }
            assert!(Instant::now() < end, "waited in vain for {what}: {saga:#?}");
            let waits =
                saga.status == Status::Waiting && self.wait_without_signal.as_ref() != Some(&saga.step);
            if waits && signalled < saga.visit {
                signalled = saga.visit;
                self.signal(&saga).await;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    async fn signal(&self, saga: &Saga) {
        let definition = self.harness.definition(&self.workflow);
        let step = &definition.steps[definition.index(&saga.step).unwrap()];
        let Work::Wait { signal } = step.work() else { panic!("it waits at a command") };
        self.send_signal(signal).await;
    }

    pub async fn send_signal(&self, signal: &str) {
        let message = bus::messages::signal(self.started.saga, signal, &serde_json::Map::new());
        bus::publish::publish(&self.harness.env.bus, &[message], Clone::clone).await.unwrap();
    }

    /// Runs until the saga has ended or is stuck.
    pub async fn run_to_end(&self) -> Saga {
        let resting = |saga: &Saga| saga.status.is_end() || saga.status == Status::Stuck;
        self.run_until("the saga to come to rest", resting).await
    }

    /// Whether the saga is at this step, and in a group of parallel steps at no other member.
    pub fn is_only_at(&self, saga: &Saga, step: &str) -> bool {
        let definition = self.harness.definition(&self.workflow);
        saga::open_steps(&definition, saga) == [definition.index(step).unwrap()]
    }

    /// Runs until the proxy holds the command of a step, and the other members of its group are done.
    pub async fn run_to_held(&self, step: &str, direction: Direction) {
        let is_held = || !self.harness.proxy.held(self.started.saga, step, direction).is_empty();
        let held = |saga: &Saga| is_held() && self.is_only_at(saga, step);
        self.run_until(&format!("{direction} {step} to be held"), held).await;
    }

    /// Checks the expected ending. Then removes the fault and runs to the end.
    pub async fn check_ending(&self, ending: &Ending, no: Option<Refusal>) -> Saga {
        match ending {
            Ending::Compensated { reason, undone } => {
                let saga = self.run_to_end().await;
                assert_eq!((saga.status, saga.reason.as_ref()), (Status::Compensated, Some(reason)));
                assert_eq!(&self.undone().await, undone, "the steps that were undone");
            }
            Ending::BackTo(wait) => {
                let back = |saga: &Saga| saga.visit > 1 && saga.status == Status::Waiting;
                let saga = self.run_until("the saga to go back to its wait", back).await;
                assert_eq!((&saga.step, saga.rejection.is_some()), (wait, true));
                self.lift(no).await;
                assert_eq!(self.run_to_end().await.status, Status::Completed);
            }
            Ending::Stuck => {
                let saga = self.run_to_end().await;
                assert_eq!((saga.status, saga.reason.is_some()), (Status::Stuck, true));
                self.lift(no).await;
                self.retry().await;
                self.run_to_end().await;
            }
        }
        let saga = self.saga().await;
        self.check(&saga).await;
        saga
    }

    async fn lift(&self, no: Option<Refusal>) {
        table::remove_cause(&self.harness, &self.started, no).await;
        self.harness.proxy.release(self.started.saga).await;
    }

    /// Retries the stuck saga as an operator.
    pub async fn retry(&self) {
        let engine = &self.harness.engine;
        engine.act(self.started.saga, OperatorAction::Retry, "a test", "the trouble is over").await.unwrap();
    }

    pub async fn history(&self) -> Vec<HistoryRow> {
        store::history::of_sagas(self.harness.pool(), &[self.started.saga]).await.unwrap()
    }

    pub async fn undone(&self) -> Vec<String> {
        let rows = self.history().await.into_iter();
        rows.filter(|row| row.event == "undone").map(|row| row.step).collect()
    }

    /// Checks the ended saga, its history, and the effects of its steps.
    pub async fn check(&self, saga: &Saga) {
        assert!(matches!(saga.status, Status::Completed | Status::Compensated), "{saga:#?}");
        let history = self.history().await;
        assert_eq!(history[0].event, "started");
        for pair in history.windows(2) {
            assert_eq!(pair[0].seq + 1, pair[1].seq, "the numbers of the history");
            assert!(pair[0].at <= pair[1].at && pair[0].visit <= pair[1].visit, "the order of the history");
        }
        assert_eq!(history.last().unwrap().seq, saga.seq, "the last number of the history");
        table::check_effects(
            &self.harness,
            &self.workflow,
            &self.started,
            saga.status,
            saga.reason.as_deref(),
        )
        .await;
    }
}

/// Cases that run concurrently. Failures are reported together, each with the name of its case.
#[derive(Default)]
pub struct Cases {
    running: JoinSet<Result<(), String>>,
}

impl Cases {
    pub fn add(&mut self, name: String, case: impl Future<Output = ()> + Send + 'static) {
        self.running.spawn(async move {
            let ended = tokio::spawn(case).await;
            ended.map_err(|error| {
                let why = error.into_panic();
                let text = why.downcast_ref::<String>().cloned();
                let text = text.or_else(|| why.downcast_ref::<&str>().map(ToString::to_string));
                format!("{name}: {}", text.unwrap_or_default())
            })
        });
    }

    /// Fails if a case failed or none ran.
    pub async fn finish(self, harness: Arc<Harness>) {
        let results = self.running.join_all().await;
        assert!(!results.is_empty(), "nothing was tried");
        let failed: Vec<String> = results.into_iter().filter_map(Result::err).collect();
        assert!(failed.is_empty(), "{} cases failed:\n{}", failed.len(), failed.join("\n"));
        harness.close().await;
    }
}
