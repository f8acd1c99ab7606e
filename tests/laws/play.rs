//! One case: a saga, the trouble that it meets at one of its steps, and where its definition says that this leads.

use std::time::Duration;

use boxoffice::saga::{Act, Definition, Direction, Outcome, Saga, Status, Work};
use boxoffice::store::history::HistoryRow;
use boxoffice::{bus, store};
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::post::{Rule, Rules};
use super::stage::Stage;
use super::table::{self, Begun, No};

/// The code of every failure and refusal that the post answers with.
pub const CODE: &str = "by_law";
/// The longest that a saga may be on its way to where it is waited for.
const PATIENCE: Duration = Duration::from_secs(25);
const LOOK: Duration = Duration::from_millis(30);

/// Where a trouble leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leads {
    /// Back to a wait; once the trouble is over the saga goes on from there.
    BackTo(String),
    /// To compensation, with this reason; these steps are undone, in this order.
    Compensated { reason: String, undone: Vec<String> },
    /// Nowhere: an operator must look, and once the trouble is over a retry goes on.
    Stuck,
}

/// The steps from `below` downwards that have an undo, in the order in which they are undone.
fn undone(definition: &Definition, below: usize) -> Vec<String> {
    let steps = definition.steps[..below].iter().rev().filter(|step| step.undo.is_some());
    steps.map(|step| step.name.clone()).collect()
}

/// Where it leads that a step ends without having been done. A step that may have run is undone itself.
pub fn leads(definition: &Definition, index: usize, reason: &str, may_have_run: bool) -> Leads {
    let back = definition.steps[index].back_to.get(reason).filter(|_| !may_have_run);
    match back {
        Some(wait) => Leads::BackTo(wait.clone()),
        None if definition.can_turn_back(index) => {
            let below = index + usize::from(may_have_run);
            Leads::Compensated { reason: reason.to_owned(), undone: undone(definition, below) }
        }
        None => Leads::Stuck,
    }
}

/// The last step with a command from which there is still a way back; none if there is none.
pub fn last_turn(definition: &Definition) -> Option<usize> {
    (0..definition.steps.len())
        .rev()
        .find(|index| definition.can_turn_back(*index) && definition.steps[*index].command.is_some())
}

/// The rules under which a saga turns back as late as it can, so that every undo is asked for.
pub fn turning_back(definition: &Definition, rules: Rules) -> Rules {
    let last = &definition.steps[last_turn(definition).expect("it has a way back")];
    let failed = Rule::Answer(Outcome::Failed { code: CODE.to_owned() });
    rules.with(&last.name, Direction::Do, failed)
}

/// A saga under way on a stage.
pub struct Play {
    pub stage: Arc<Stage>,
    pub workflow: String,
    pub begun: Begun,
    /// The wait that gets no signal.
    pub unsignalled: Option<String>,
}

impl Play {
    pub async fn begin(stage: &Arc<Stage>, workflow: &str, rules: Rules, no: Option<No>) -> Self {
        let begun = table::begin(stage, workflow, rules, no).await;
        Self { stage: Arc::clone(stage), workflow: workflow.to_owned(), begun, unsignalled: None }
    }

    pub async fn saga(&self) -> Saga {
        self.stage.saga(self.begun.saga).await
    }

    /// Gives the saga every signal it waits for, until `there`.
    pub async fn go_until(&self, what: &str, there: impl Fn(&Saga) -> bool) -> Saga {
        let end = Instant::now() + PATIENCE;
        let mut signalled = 0;
        loop {
            let saga = self.saga().await;
            if there(&saga) {
                return saga;
            }
            assert!(Instant::now() < end, "waited in vain for {what}: {saga:#?}");
            let waits = saga.status == Status::Waiting && self.unsignalled.as_ref() != Some(&saga.step);
            if waits && signalled < saga.visit {
                signalled = saga.visit;
                self.signal(&saga).await;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn signal(&self, saga: &Saga) {
        let definition = self.stage.definition(&self.workflow);
        let step = &definition.steps[definition.index(&saga.step).unwrap()];
        let Work::Wait { signal } = step.work() else { panic!("it waits at a command") };
        self.send_signal(signal).await;
    }

    pub async fn send_signal(&self, signal: &str) {
        let message = bus::messages::signal(self.begun.saga, signal);
        bus::publish::publish(&self.stage.env.bus, &[message], Clone::clone).await.unwrap();
    }

    /// On to an end, or to where it is stuck.
    pub async fn go_to_rest(&self) -> Saga {
        let resting = |saga: &Saga| saga.status.is_end() || saga.status == Status::Stuck;
        self.go_until("the saga to come to rest", resting).await
    }

    /// On to where the post holds the command of a step.
    pub async fn go_to_hold(&self, step: &str, direction: Direction) {
        let held = |_: &Saga| !self.stage.post.held(self.begun.saga, step, direction).is_empty();
        self.go_until(&format!("{direction} {step} to be held"), held).await;
    }

    /// On to where the trouble leads; once it is over, on to the end.
    pub async fn lead(&self, leads: &Leads, no: Option<No>) -> Saga {
        match leads {
            Leads::Compensated { reason, undone } => {
                let saga = self.go_to_rest().await;
                assert_eq!((saga.status, saga.reason.as_ref()), (Status::Compensated, Some(reason)));
                assert_eq!(&self.undone().await, undone, "the steps that were undone");
            }
            Leads::BackTo(wait) => {
                let back = |saga: &Saga| saga.visit > 1 && saga.status == Status::Waiting;
                let saga = self.go_until("the saga to go back to its wait", back).await;
                assert_eq!((&saga.step, saga.rejection.is_some()), (wait, true));
                self.lift(no).await;
                assert_eq!(self.go_to_rest().await.status, Status::Completed);
            }
            Leads::Stuck => {
                let saga = self.go_to_rest().await;
                assert_eq!((saga.status, saga.reason.is_some()), (Status::Stuck, true));
                self.lift(no).await;
                self.retry().await;
                self.go_to_rest().await;
            }
        }
        let saga = self.saga().await;
        self.check(&saga).await;
        saga
    }

    async fn lift(&self, no: Option<No>) {
        table::make_good(&self.stage, &self.begun, no).await;
        self.stage.post.release(self.begun.saga).await;
    }

    /// An operator lets a stuck saga go on.
    pub async fn retry(&self) {
        let engine = &self.stage.engine;
        engine.act(self.begun.saga, Act::Retry, "a test", "the trouble is over").await.unwrap();
    }

    pub async fn history(&self) -> Vec<HistoryRow> {
        store::history::of_sagas(self.stage.pool(), &[self.begun.saga]).await.unwrap()
    }

    /// The steps that were undone, in their order.
    pub async fn undone(&self) -> Vec<String> {
        let rows = self.history().await.into_iter();
        rows.filter(|row| row.event == "undone").map(|row| row.step).collect()
    }

    /// The saga has ended, its history is whole, and the slate is clean.
    pub async fn check(&self, saga: &Saga) {
        assert!(matches!(saga.status, Status::Completed | Status::Compensated), "{saga:#?}");
        let history = self.history().await;
        assert_eq!(history[0].event, "started");
        for pair in history.windows(2) {
            assert_eq!(pair[0].seq + 1, pair[1].seq, "the numbers of the history");
            assert!(pair[0].at <= pair[1].at && pair[0].visit <= pair[1].visit, "the order of the history");
        }
        assert_eq!(history.last().unwrap().seq, saga.seq, "the last number of the history");
        table::check_slate(&self.stage, &self.workflow, &self.begun, saga.status, saga.reason.as_deref())
            .await;
    }
}

/// Cases by name, run side by side; the names of those that fail are told together.
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

    /// All have ended well, and there were some.
    pub async fn finish(self, stage: Arc<Stage>) {
        let results = self.running.join_all().await;
        assert!(!results.is_empty(), "nothing was tried");
        let failed: Vec<String> = results.into_iter().filter_map(Result::err).collect();
        assert!(failed.is_empty(), "{} cases failed:\n{}", failed.len(), failed.join("\n"));
        stage.close().await;
    }
}
