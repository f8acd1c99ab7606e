//! `saga show`: one saga drawn as a tree: what is done, what is now, what is to come, and the way back.

use std::borrow::Cow;

use serde_json::Value;
use termtree::Tree;
use uuid::Uuid;

use super::super::{Context, Ending};
use super::about;
use crate::operations::timeline::{Happening, StepView};
use crate::operations::{SagaDetail, sagas};
use crate::saga::{Direction, Standing, WorkflowRegistry};
use crate::text::escape_line;

/// Longer JSON is cut off in the drawing, in characters; `--json` has all of it.
const JSON_CHARS: usize = 100;

pub(super) async fn run(context: &Context, id: Uuid) -> anyhow::Result<Ending> {
    let registry = WorkflowRegistry::default();
    let found = sagas::show(&context.database().await?, &registry, id).await.map_err(about(id))?;
    context.output.answer(&found, draw)?;
    Ok(Ending::Good)
}

fn draw(found: &SagaDetail) -> String {
    let mut root = leaf(head(found));
    root.push(leaf(format!("input {}", short(&found.saga.input))));
    if let Some(attributes) = found.saga.attributes.as_ref().filter(|attributes| !attributes.is_empty()) {
        let pairs: Vec<String> = attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
        root.push(leaf(format!("attributes {}", pairs.join(" "))));
    }
    if found.steps.is_empty() {
        let rows = found.history.iter().map(|row| leaf(happening(row, true)));
        root.push(
            leaf("there is no definition of this version any more; what happened:".to_owned())
                .with_leaves(rows),
        );
        return root.to_string();
    }
    for members in found.steps.chunk_by(|one, other| one.group.is_some() && one.group == other.group) {
        let steps = members.iter().map(|step| {
            let own = found.history.iter().filter(|row| row.step == step.step);
            leaf(line(step)).with_leaves(own.map(|row| leaf(happening(row, false))))
        });
        match &members[0].group {
            Some(group) => root.leaves.push(leaf(format!("{group}, in parallel")).with_leaves(steps)),
            None => root.leaves.extend(steps),
        }
    }
    if !found.undo_path.is_empty() {
        let undos = found.undo_path.iter().map(|name| {
            let undo = found.steps.iter().find(|step| step.step == *name).and_then(|step| step.undo.clone());
            leaf(format!("↩ {name}  {}", undo.unwrap_or_default()))
        });
        let back = found.saga.direction == Direction::Undo;
        let title = if back { "still to be undone" } else { "the way back, if it turned back now" };
        root.push(leaf(title.to_owned()).with_leaves(undos));
    }
    let allowed = if found.allowed.is_empty() { "nothing".to_owned() } else { found.allowed.join(", ") };
    root.push(leaf(format!("an operator can: {allowed}")));
    root.to_string()
}

/// A node of the tree: one line, whatever is in it.
fn leaf(text: String) -> Tree<String> {
    if let Cow::Owned(escaped) = escape_line(&text) {
        return Tree::new(escaped);
    }
    Tree::new(text)
}

fn head(found: &SagaDetail) -> String {
    let saga = &found.saga;
    let mut head = format!("{} {} {} is {}", saga.workflow, saga.version, saga.id, saga.status);
    if saga.paused {
        head.push_str(" and paused");
    }
    if let Some(reason) = &saga.reason {
        head.push_str(&format!(": {reason}"));
    }
    if let Some(due) = saga.due_at.filter(|_| saga.finished_at.is_none()) {
        head.push_str(&format!(" (looked at next {})", due.format("%T")));
    }
    head
}

fn line(step: &StepView) -> String {
    let (mark, word) = match step.standing {
        Standing::Done => ('✓', ""),
        Standing::Now => ('▶', "now"),
        Standing::ToCome => ('○', "to come"),
        Standing::NotReached => ('·', "not reached"),
        Standing::UndoToCome => ('✓', "undo to come"),
        Standing::Undone => ('↩', "undone"),
    };
    let work = match (&step.command, &step.signal) {
        (Some(command), _) => command.clone(),
        (None, signal) => format!("waits for the signal {}", signal.as_deref().unwrap_or_default()),
    };
    let parts = [format!("{mark} {}", step.step), work, word.to_owned()];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("  ")
}

/// A line of the history; `whole` names the step too.
fn happening(row: &Happening, whole: bool) -> String {
    let mut line = format!("#{} {}  {}", row.seq, row.at.format("%F %T%.3f"), row.event);
    if whole {
        line.push_str(&format!(" {} {}", row.direction, row.step));
    } else if row.direction == Direction::Undo {
        line.push_str(" (undo)");
    }
    if row.visit > 1 {
        line.push_str(&format!(", visit {}", row.visit));
    }
    if row.attempt > 0 {
        line.push_str(&format!(", after {} failed", row.attempt));
    }
    if row.duration_ms > 0 {
        line.push_str(&format!(", {}", took(row.duration_ms)));
    }
    if let Some(worker) = &row.worker {
        line.push_str(&format!(", by {worker}"));
    }
    if let Some(detail) = row.detail.as_ref().filter(|detail| !detail.is_null()) {
        line.push_str(&format!("  {}", short(detail)));
    }
    line
}

fn took(ms: i64) -> String {
    match ms {
        ..10_000 => format!("{ms} ms"),
        10_000..600_000 => format!("{} s", ms / 1_000),
        _ => format!("{} min", ms / 60_000),
    }
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= JSON_CHARS {
        return text;
    }
    text.chars().take(JSON_CHARS - 1).chain(['…']).collect()
}
