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
    for group in definition.groups() {
        // Writing to a string cannot fail.
        let _written =
            writeln!(drawing, "    state {group} <<fork>>\n    state {} <<join>>", all_done(group));
    }
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
    line(OUTSIDE, entry(definition, 0), "");
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
    let mut label = match step.work() {
        Work::Command { command, .. } => format!("{command} done"),
        Work::Wait { signal } => format!("signal {signal}"),
    };
    let mut from = step.name.clone();
    if let (Some(group), Some(members)) = (&step.group, definition.group(index)) {
        line(group, &step.name, "");
        line(&step.name, &all_done(group), &label);
        if index + 1 < members.end {
            return;
        }
        (from, label) = (all_done(group), "all done".to_owned());
    }
    line(&from, entry(definition, index + 1), &label);
    if let Some(after) = definition.steps.get(index + 1)
        && let Some(field) = &after.skip_if
    {
        line(&from, entry(definition, index + 2), &format!("{label}, {field}"));
    }
    for (code, wait) in &step.back_to {
        line(&step.name, wait, &format!("rejected, {code}"));
    }
}

/// The state that the saga is in when it reaches this step: the step, or the fork of its group.
fn entry(definition: &Definition, index: usize) -> &str {
    let step = definition.steps.get(index);
    step.map_or(COMPLETED, |step| step.group.as_ref().unwrap_or(&step.name))
}

/// The state that the members of a group lead to.
pub(super) fn all_done(group: &str) -> String {
    format!("all_of_{group}")
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
    let last = definition.group(index).map_or(index, |members| members.end - 1);
    let before = undo_below(definition, last + 1, Some(index));
    let here = undo_below(definition, last + 1, None);
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
        line(&name, &undo_below(definition, index, None), &format!("{undo} done"));
        line(&name, STUCK, "undo rejected, attempts used up");
        line(STUCK, &name, "operator, retry");
    }
}

fn may_turn_back(definition: &Definition) -> bool {
    definition.can_compensate(0)
}

/// The undo of the last step below this position, without a step that was rejected.
fn undo_below(definition: &Definition, end: usize, rejected: Option<usize>) -> String {
    let steps = definition.steps[..end].iter().enumerate();
    let mut undone = steps.rev().filter(|(index, step)| step.undo.is_some() && Some(*index) != rejected);
    undone.next().map_or(COMPENSATED.to_owned(), |(_, step)| undo_state(step))
}

/// The state in which a step is undone.
pub(super) fn undo_state(step: &Step) -> String {
    format!("undo_{}", step.name)
}

#[cfg(test)]
pub(super) mod tests {
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

    pub(crate) const WITH_A_GROUP: &str = "
name = 't'
version = 1
[[steps]]
name = 'quote'
command = 'x.quote'
undo = 'x.forget'
[[steps]]
name = 'bookings'
parallel = [
    { name = 'hotel', command = 'hotel.book', undo = 'hotel.cancel' },
    { name = 'flight', command = 'flight.book', undo = 'flight.cancel' },
]
[[steps]]
name = 'pay'
command = 'x.pay'
undo = 'x.refund'
";

    #[test]
    fn members_of_a_group_fork_and_join() {
        let drawing = mermaid(&Definition::parse("t", WITH_A_GROUP).unwrap());
        for line in [
            "state bookings <<fork>>",
            "state all_of_bookings <<join>>",
            "quote --> bookings: x.quote done",
            "bookings --> hotel",
            "bookings --> flight",
            "hotel --> all_of_bookings: hotel.book done",
            "all_of_bookings --> pay: all done",
            "hotel --> undo_flight: rejected",
            "flight --> undo_hotel: rejected",
            "hotel --> undo_flight: attempts used up",
            "pay --> undo_flight: rejected",
            "undo_flight --> undo_hotel: flight.cancel done",
            "undo_hotel --> undo_quote: hotel.cancel done",
        ] {
            assert!(drawing.contains(&format!("    {line}\n")), "{line} is missing in\n{drawing}");
        }
        assert!(!drawing.contains("hotel --> pay"), "{drawing}");
    }

    #[test]
    fn a_cancellation_never_turns_back() {
        let drawing = drawn("cancellation");
        assert!(drawing.contains("refund --> stuck"), "{drawing}");
        assert!(!drawing.contains("compensated") && !drawing.contains("undo_"), "{drawing}");
    }
}
