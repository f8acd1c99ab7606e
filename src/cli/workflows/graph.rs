//! A workflow as a graph: the way forward, the ways back, and where it may end; and as Mermaid text.

use std::fmt::Write;

use crate::saga::{Definition, Step, Work};

/// From one state to another, and what leads there.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Edge {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) label: String,
}

/// The beginning and the end of the drawing.
pub(super) const OUTSIDE: &str = "[*]";
pub(super) const COMPLETED: &str = "completed";
pub(super) const COMPENSATED: &str = "compensated";
pub(super) const STUCK: &str = "stuck";

/// Draws a definition as a Mermaid state diagram.
pub(super) fn mermaid(definition: &Definition) -> String {
    let mut drawing = String::from("stateDiagram-v2\n");
    for Edge { from, to, label } in edges(definition) {
        let colon = if label.is_empty() { "" } else { ": " };
        // Writing to a string cannot fail.
        let _written = writeln!(drawing, "    {from} --> {to}{colon}{label}");
    }
    drawing
}

/// Every way between two states. States are the steps, their `undo_` states, and the ends.
pub(super) fn edges(definition: &Definition) -> Vec<Edge> {
    let mut all = Vec::new();
    let mut line = |from: &str, to: &str, label: &str| {
        all.push(Edge { from: from.to_owned(), to: to.to_owned(), label: label.to_owned() });
    };
    line(OUTSIDE, &definition.steps[0].name, "");
    for (index, step) in definition.steps.iter().enumerate() {
        forward(definition, index, step, &mut line);
        backward(definition, index, step, &mut line);
    }
    undoing(definition, &mut line);
    line(COMPLETED, OUTSIDE, "");
    if may_turn_back(definition) {
        line(COMPENSATED, OUTSIDE, "");
    }
    all
}

fn forward(definition: &Definition, index: usize, step: &Step, line: &mut impl FnMut(&str, &str, &str)) {
    let next = definition.steps.get(index + 1).map_or(COMPLETED, |next| next.name.as_str());
    let label = match step.work() {
        Work::Command { command, .. } => format!("{command} done"),
        Work::Wait { signal } => format!("signal {signal}"),
    };
    line(&step.name, next, &label);
    if let Some(after) = definition.steps.get(index + 1)
        && let Some(field) = &after.skip_if
    {
        let beyond = definition.steps.get(index + 2).map_or(COMPLETED, |beyond| beyond.name.as_str());
        line(&step.name, beyond, &format!("{label}, {field}"));
    }
    for (code, wait) in &step.back_to {
        line(&step.name, wait, &format!("rejected, {code}"));
    }
}

/// Where a step leads when it does not succeed. What was rejected did not happen; what failed or ran out of time
/// may have, so that the step itself is undone too.
fn backward(definition: &Definition, index: usize, step: &Step, line: &mut impl FnMut(&str, &str, &str)) {
    let is_command = matches!(step.work(), Work::Command { .. });
    if !definition.can_compensate(index) {
        if is_command {
            line(&step.name, STUCK, "rejected, attempts used up");
            line(STUCK, &step.name, "operator, retry");
        }
        return;
    }
    let before = undo_at_or_below(definition, index.checked_sub(1));
    let here = undo_at_or_below(definition, Some(index));
    if is_command {
        line(&step.name, &before, "rejected");
        line(&step.name, &here, "attempts used up");
    } else {
        for (signal, reason) in &definition.signals {
            line(&step.name, &here, &format!("signal {signal}, {reason}"));
        }
    }
    if let Some(deadline) = &step.deadline {
        line(&step.name, &here, &format!("deadline, {}", deadline.reason));
    }
}

fn undoing(definition: &Definition, line: &mut impl FnMut(&str, &str, &str)) {
    if !may_turn_back(definition) {
        return;
    }
    for (index, step) in definition.steps.iter().enumerate().rev() {
        let Some(undo) = &step.undo else { continue };
        let name = undo_state(step);
        line(&name, &undo_at_or_below(definition, index.checked_sub(1)), &format!("{undo} done"));
        line(&name, STUCK, "undo rejected, attempts used up");
        line(STUCK, &name, "operator, retry");
    }
}

fn may_turn_back(definition: &Definition) -> bool {
    definition.can_compensate(0)
}

fn undo_at_or_below(definition: &Definition, from: Option<usize>) -> String {
    let below = from.map_or(0, |from| from + 1);
    let step = definition.steps[..below].iter().rfind(|step| step.undo.is_some());
    step.map_or(COMPENSATED.to_owned(), undo_state)
}

/// The state in which a step is undone.
pub(super) fn undo_state(step: &Step) -> String {
    format!("undo_{}", step.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(name: &str) -> String {
        mermaid(&crate::workflows::built_in().unwrap().latest(name).unwrap())
    }

    #[test]
    fn booking_graph_has_all_directions() {
        let drawing = drawn("booking");
        for line in [
            "[*] --> reserve",
            "reserve --> pay: seats.hold done, pay_now",
            "await_payment --> pay: signal pay",
            "pay --> await_payment: rejected, insufficient_points",
            "await_payment --> undo_reserve: deadline, hold_expired",
            "pay --> undo_reserve: rejected",
            "pay --> undo_pay: deadline, hold_expired",
            "undo_pay --> undo_reserve: points.refund done",
            "undo_reserve --> compensated: seats.release done",
            "confirm --> completed: tickets.issue done",
        ] {
            assert!(drawing.contains(&format!("    {line}\n")), "{line} is missing in\n{drawing}");
        }
    }

    #[test]
    fn a_cancellation_never_turns_back() {
        let drawing = drawn("cancellation");
        assert!(drawing.contains("refund --> stuck"), "{drawing}");
        assert!(!drawing.contains("compensated") && !drawing.contains("undo_"), "{drawing}");
    }
}
