//! One saga in full: what happened, when, how long it took, and what is still to come.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::view::SagaView;
use crate::saga::{self, Definition, Direction, Progress, Saga, Standing, StepRecord};
use crate::store::history::HistoryRow;

/// A saga with all that happened to it, oldest first, each of its steps as it stands, and the way back.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = SagaWithHistory)]
pub struct SagaDetail {
    #[serde(flatten)]
    pub saga: SagaView,
    /// What an operator may do to it now.
    pub allowed: Vec<&'static str>,
    pub history: Vec<Happening>,
    /// Every step in the order of the workflow; empty if there is no definition any more.
    pub steps: Vec<StepView>,
    /// The steps whose undo would run, in this order, if the saga turned back now; once it has, those that still come.
    pub undo_path: Vec<String>,
}

/// One transition.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Happening {
    pub seq: i64,
    pub at: DateTime<Utc>,
    pub event: String,
    /// Where the saga was when it happened.
    pub step: String,
    #[schema(value_type = crate::schemas::StepDirection)]
    pub direction: Direction,
    pub visit: i32,
    pub attempt: i32,
    pub detail: Option<Value>,
    /// Who gave the answer: the instance, or what a worker elsewhere calls itself.
    pub worker: Option<String>,
    /// Milliseconds since the saga came to this step in this visit.
    pub duration_ms: i64,
    /// What the step gave, if this is its answer.
    pub output: Option<Value>,
    /// What went wrong, if something did.
    pub error: Option<Value>,
    /// The domain events that it announced, by name.
    pub emits: Vec<String>,
}

/// A step of the workflow, and what became of it in this saga.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct StepView {
    pub step: String,
    /// The group of parallel steps that it is a member of; null if it is in none.
    pub group: Option<String>,
    #[schema(inline)]
    #[schema(value_type = crate::schemas::StepStanding)]
    pub standing: Standing,
    /// The command that does it; null for a wait.
    pub command: Option<String>,
    pub undo: Option<String>,
    /// The signal that it waits for; null for a command.
    pub signal: Option<String>,
    /// What its command carries: the saga's input and what is kept of the outputs before it; null if it was not reached.
    pub input: Option<Value>,
    pub output: Option<Value>,
    /// The last thing that went wrong, forward or back.
    pub error: Option<Value>,
    /// Who gave the last answer.
    pub worker: Option<String>,
    /// Answers so far, forward and back.
    pub answers: i32,
    /// Milliseconds from entering it, the last time, to its last answer.
    pub duration_ms: Option<i64>,
}

/// Puts together what row, history and definition say.
pub fn detail(definition: Option<&Definition>, saga: Saga, history: Vec<HistoryRow>) -> SagaDetail {
    let happenings = happenings(definition, history);
    let progress = definition.map(|definition| {
        let told = happenings.iter().filter_map(|row| {
            // A wait has no answer: it is behind the saga once a signal or its deadline has ended it.
            let passed = row.event.starts_with("signal:") || row.event == "deadline";
            let told = (row.output.is_some() || passed).then_some(row.direction)?;
            Some(StepRecord { step: &row.step, direction: told })
        });
        saga::progress(definition, &saga, told)
    });
    let progress = progress.unwrap_or_default();
    let allowed = saga::allowed_actions(definition, &saga);
    let inputs = definition.map(|definition| inputs(definition, &saga, &happenings)).unwrap_or_default();
    let steps = steps(&progress, &inputs, &happenings);
    SagaDetail { saga: saga.into(), allowed, history: happenings, steps, undo_path: progress.undo_path }
}

/// History rows, each with the time since its step was entered. The members of a group were entered together.
fn happenings(definition: Option<&Definition>, history: Vec<HistoryRow>) -> Vec<Happening> {
    let mut here: Option<(String, Direction, i32)> = None;
    let mut entered = DateTime::UNIX_EPOCH;
    let mut last = history.first().map_or(DateTime::UNIX_EPOCH, |row| row.at);
    let mut all = Vec::with_capacity(history.len());
    for row in history {
        let group = group_of(definition, &row.step).filter(|_| row.direction == Direction::Do);
        let place = (group.unwrap_or(&row.step).to_owned(), row.direction, row.visit);
        if here.as_ref() != Some(&place) {
            (here, entered) = (Some(place), last);
        }
        last = row.at;
        let (output, error) = told(&row);
        all.push(Happening {
            seq: row.seq,
            at: row.at,
            duration_ms: (row.at - entered).num_milliseconds(),
            event: row.event,
            step: row.step,
            direction: row.direction,
            visit: row.visit,
            attempt: row.attempt,
            detail: row.detail,
            worker: row.worker,
            output,
            error,
            emits: row.emits,
        });
    }
    all
}

/// The group of parallel steps that a step is a member of.
fn group_of<'a>(definition: Option<&'a Definition>, step: &str) -> Option<&'a str> {
    let definition = definition?;
    definition.steps[definition.index(step)?].group.as_deref()
}

/// What a history row holds: an output, or an error.
fn told(row: &HistoryRow) -> (Option<Value>, Option<Value>) {
    let detail = || Some(row.detail.clone().unwrap_or_default());
    match row.event.as_str() {
        "done" | "undone" | "operator:complete" => (detail(), None),
        "rejected" | "undo_rejected" | "failed" | "unknown" | "poisoned" => (None, detail()),
        _ => (None, None),
    }
}

/// The steps of the progress, with what the history knows about each.
fn steps(progress: &Progress, inputs: &BTreeMap<&str, Value>, history: &[Happening]) -> Vec<StepView> {
    let view = |step: &saga::StepProgress| {
        let own = history.iter().filter(|row| row.step == step.step);
        let answers: Vec<&Happening> =
            own.clone().filter(|row| row.output.is_some() || row.error.is_some()).collect();
        let forward = answers.iter().rev().find(|row| row.direction == Direction::Do && row.output.is_some());
        // A wait has no answer: what ended it did.
        let ended = answers.last().copied().or_else(|| own.clone().next_back());
        StepView {
            step: step.step.clone(),
            group: step.group.clone(),
            standing: step.standing,
            command: step.command.clone(),
            undo: step.undo.clone(),
            signal: step.signal.clone(),
            input: inputs.get(step.step.as_str()).cloned(),
            output: forward.and_then(|row| row.output.clone()),
            error: answers.iter().rev().find_map(|row| row.error.clone()),
            worker: answers.last().and_then(|row| row.worker.clone()),
            answers: i32::try_from(answers.len()).unwrap_or(i32::MAX),
            duration_ms: ended.map(|row| row.duration_ms),
        }
    };
    progress.steps.iter().map(view).collect()
}

/// What each step that was reached was given: the input, and what is kept of the outputs of the steps before it.
fn inputs<'a>(definition: &'a Definition, saga: &Saga, history: &'a [Happening]) -> BTreeMap<&'a str, Value> {
    let mut context = Value::clone(&saga.input);
    let mut inputs = BTreeMap::new();
    // What the members of a group were given when the saga entered it, by group and visit.
    let mut of_groups: BTreeMap<(&str, i32), Value> = BTreeMap::new();
    let mut given = |step: &str, visit: i32, context: &Value| match group_of(Some(definition), step) {
        Some(group) => of_groups.entry((group, visit)).or_insert_with(|| context.clone()).clone(),
        None => context.clone(),
    };
    for row in history.iter().filter(|row| row.direction == Direction::Do) {
        inputs.insert(row.step.as_str(), given(&row.step, row.visit, &context));
        let step = definition.index(&row.step).map(|at| &definition.steps[at]);
        if let (Value::Object(context), Some(Value::Object(output)), Some(step)) =
            (&mut context, &row.output, step)
        {
            context.extend(saga::carried_outputs(step, output));
        }
    }
    if saga.direction == Direction::Do && !saga.status.is_end() {
        for index in saga::open_steps(definition, saga) {
            let step = definition.steps[index].name.as_str();
            inputs.insert(step, given(step, saga.visit, &context));
        }
    }
    inputs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::NewSaga;
    use chrono::TimeDelta;
    use serde_json::{Map, json};
    use uuid::Uuid;

    fn row(
        seq: i64,
        after_ms: i64,
        event: &str,
        step: &str,
        direction: Direction,
        detail: Value,
    ) -> HistoryRow {
        HistoryRow {
            saga_id: Uuid::nil(),
            seq,
            at: DateTime::UNIX_EPOCH + TimeDelta::milliseconds(after_ms),
            event: event.to_owned(),
            step: step.to_owned(),
            direction,
            visit: 1,
            attempt: 0,
            detail: Some(detail).filter(|detail| !detail.is_null()),
            worker: None,
            emits: Vec::new(),
        }
    }

    #[test]
    fn step_input_has_carried_outputs() {
        let definition = crate::workflows::built_in().unwrap().latest("booking").unwrap();
        let input = Map::from_iter([("seats".to_owned(), json!([1]))]);
        let id = Uuid::nil();
        let new = NewSaga { id, subject_id: id, input, trace: None, seq: 0 };
        let mut saga = saga::start(&definition, new, DateTime::UNIX_EPOCH).saga;
        saga.step = "confirm".to_owned();
        let history = vec![
            row(1, 0, "started", "reserve", Direction::Do, Value::Null),
            row(2, 1, "done", "reserve", Direction::Do, json!({ "amount": 7 })),
            row(3, 2, "done", "pay", Direction::Do, json!({ "paid_at": "now", "entry": { "balance": 3 } })),
        ];
        let shown = detail(Some(&definition), saga, history);
        let input = |step: &str| shown.steps.iter().find(|view| view.step == step).unwrap().input.clone();
        assert_eq!(input("reserve"), Some(json!({ "seats": [1] })));
        assert_eq!(input("await_payment"), None, "it was passed over");
        assert_eq!(input("pay"), Some(json!({ "seats": [1], "amount": 7 })));
        let paid = json!({ "seats": [1], "amount": 7, "paid_at": "now" });
        assert_eq!(
            input("confirm"),
            Some(paid),
            "the entry is an event of its own, and no command carries it"
        );
    }

    #[test]
    fn group_members_share_their_input_and_entry() {
        let text = "name='t'\nversion=1\n[[steps]]\nname='both'\nparallel=[\n\
            {name='hotel', command='x.y'}, {name='flight', command='x.z'}]\n[[steps]]\nname='pay'\ncommand='x.p'";
        let definition = Definition::parse("t", text).unwrap();
        let id = Uuid::nil();
        let new = NewSaga { id, subject_id: id, input: Map::new(), trace: None, seq: 0 };
        let mut saga = saga::start(&definition, new, DateTime::UNIX_EPOCH).saga;
        saga.step = "pay".to_owned();
        let history = vec![
            row(1, 0, "started", "hotel", Direction::Do, Value::Null),
            row(2, 40, "done", "flight", Direction::Do, json!({ "seat": 7 })),
            row(3, 70, "done", "hotel", Direction::Do, json!({ "room": 3 })),
        ];
        let shown = detail(Some(&definition), saga, history);
        let durations: Vec<i64> = shown.history.iter().map(|row| row.duration_ms).collect();
        assert_eq!(durations, [0, 40, 70]);
        let inputs: Vec<Option<Value>> = shown.steps.iter().map(|step| step.input.clone()).collect();
        assert_eq!(inputs, [Some(json!({})), Some(json!({})), Some(json!({ "seat": 7, "room": 3 }))]);
        assert_eq!(shown.steps[1].group.as_deref(), Some("both"));
    }

    #[test]
    fn duration_starts_when_the_step_is_entered() {
        let told = happenings(
            None,
            vec![
                row(1, 1_000, "started", "reserve", Direction::Do, Value::Null),
                row(2, 1_030, "failed", "reserve", Direction::Do, json!({ "code": "busy" })),
                row(3, 1_250, "done", "reserve", Direction::Do, json!({ "amount": 7 })),
                row(4, 9_250, "signal:pay", "await_payment", Direction::Do, Value::Null),
                row(5, 9_262, "done", "pay", Direction::Do, Value::Null),
            ],
        );
        let durations: Vec<i64> = told.iter().map(|row| row.duration_ms).collect();
        assert_eq!(durations, [0, 30, 250, 8_000, 12]);
        assert_eq!(told[1].error, Some(json!({ "code": "busy" })));
        assert_eq!(told[2].output, Some(json!({ "amount": 7 })));
        assert_eq!(told[4].output, Some(Value::Null), "done without an output is done");
        assert_eq!((&told[3].output, &told[3].error), (&None, &None));
    }
}
