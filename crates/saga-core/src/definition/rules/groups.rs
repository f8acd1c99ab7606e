//! The rules of groups of parallel steps, and how their members become steps of the definition.

use toml::de::{DeTable, DeValue};

use super::{Check, Definition, Place, Step, StepPlace, name_problem};
use crate::members::MAX_MEMBERS;

/// Fewest members of a group: one alone is a step.
const MIN_MEMBERS: usize = 2;

/// Checks the groups as they stand in the text.
pub(super) fn check_groups(definition: &Definition, text: &str) -> Check {
    for (index, step) in definition.steps.iter().enumerate() {
        let Some(members) = &step.parallel else { continue };
        let group = StepPlace { step: index, member: None };
        let wrong = |place, field: &'static str, problem: String| {
            Err((Place::Step(place, field), format!("group {}: {problem}", step.name)))
        };
        if let Some(problem) = name_problem(&step.name) {
            return wrong(group, "name", format!("its name {problem}"));
        }
        if definition.steps[..index].iter().any(|other| other.name == step.name) {
            return wrong(group, "name", "another step or group has the same name".to_owned());
        }
        if let Some(key) = other_key(text, index) {
            return wrong(
                group,
                key,
                format!("it has a name and its members only; {key} belongs to a member"),
            );
        }
        if members.len() < MIN_MEMBERS {
            return wrong(group, "parallel", format!("it needs {MIN_MEMBERS} members or more"));
        }
        if members.len() > MAX_MEMBERS {
            let place = StepPlace { member: Some(MAX_MEMBERS), ..group };
            return wrong(
                place,
                "name",
                format!("it has {} members; {MAX_MEMBERS} is the most", members.len()),
            );
        }
        for (member, of_group) in members.iter().enumerate() {
            if let Some((field, why)) = refused_field(of_group) {
                let place = StepPlace { member: Some(member), ..group };
                return wrong(place, field, format!("its member {} {why}", of_group.name));
            }
        }
    }
    Ok(())
}

/// What a member may not have, and why.
fn refused_field(member: &Step) -> Option<(&'static str, &'static str)> {
    let refused = [
        (member.parallel.is_some(), "parallel", "is a group: a group cannot be inside a group"),
        (member.wait.is_some(), "wait", "is a wait: a member has a command"),
        (
            member.skip_if.is_some(),
            "skip_if",
            "has skip_if: only a wait outside of a group can be passed over",
        ),
        (member.payload.is_some(), "payload", "has a payload: only a wait outside of a group takes one"),
        (
            !member.back_to.is_empty(),
            "back_to",
            "has back_to: a saga cannot go back to a wait while other members run",
        ),
    ];
    refused.into_iter().find_map(|(is_there, field, why)| is_there.then_some((field, why)))
}

/// A key of the group at this position that is neither its name nor its members.
fn other_key(text: &str, index: usize) -> Option<&'static str> {
    const KEYS: [&str; 13] = [
        "command",
        "undo",
        "wait",
        "skip_if",
        "payload",
        "deadline",
        "timeout_ms",
        "retry",
        "undo_retry",
        "back_to",
        "emits",
        "announces",
        "undo_announces",
    ];
    let document = DeTable::parse(text).ok()?;
    let DeValue::Array(steps) = document.get_ref().get("steps")?.get_ref() else { return None };
    let fields = steps.get(index)?.get_ref().as_table()?;
    KEYS.into_iter().find(|key| fields.contains_key(*key))
}

/// Makes the members of each group steps of the definition, in the place of the group. Returns where each step stands in the text.
pub(super) fn flatten(definition: &mut Definition) -> Vec<StepPlace> {
    let mut places = Vec::new();
    let mut steps = Vec::new();
    for (step, mut read) in std::mem::take(&mut definition.steps).into_iter().enumerate() {
        let Some(members) = read.parallel.take() else {
            places.push(StepPlace { step, member: None });
            steps.push(read);
            continue;
        };
        for (member, of_group) in members.into_iter().enumerate() {
            places.push(StepPlace { step, member: Some(member) });
            steps.push(Step { group: Some(read.name.clone()), ..of_group });
        }
    }
    definition.steps = steps;
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A definition with a group of these members, each a line of TOML.
    fn group(members: &[&str]) -> String {
        let lines: Vec<String> = members.iter().map(|member| format!("    {{ {member} }},\n")).collect();
        let head = "name = 't'\nversion = 1\n[[steps]]\nname = 'first'\ncommand = 'x.y'\nundo = 'x.z'\n";
        format!("{head}[[steps]]\nname = 'both'\nparallel = [\n{}]\n", lines.concat())
    }

    fn member(name: &str) -> String {
        format!("name = '{name}', command = 'x.{name}', undo = 'x.un{name}'")
    }

    fn refused(text: &str) -> (String, Option<usize>) {
        let error = Definition::parse("test", text).unwrap_err();
        (error.problem, error.line)
    }

    #[test]
    fn members_become_steps_of_their_group() {
        let (a, b) = (member("a"), member("b"));
        let tables = "name = 't'\nversion = 1\n[[steps]]\nname = 'first'\ncommand = 'x.y'\nundo = 'x.z'\n\
            [[steps]]\nname = 'both'\n[[steps.parallel]]\nname = 'a'\ncommand = 'x.a'\nundo = 'x.una'\n\
            [[steps.parallel]]\nname = 'b'\ncommand = 'x.b'\nundo = 'x.unb'\n";
        for text in [group(&[&a, &b]), tables.to_owned()] {
            let definition = Definition::parse("test", &text).unwrap();
            let names: Vec<&str> = definition.steps.iter().map(|step| step.name.as_str()).collect();
            assert_eq!(names, ["first", "a", "b"]);
            assert_eq!([0, 1, 2].map(|index| definition.group(index)), [None, Some(1..3), Some(1..3)]);
            assert_eq!(definition.groups(), ["both"]);
        }
    }

    #[test]
    fn bad_group_is_refused_with_its_line() {
        let (a, b) = (member("a"), member("b"));
        let cases = [
            (group(&[&a]), 9, "group both: it needs 2 members or more"),
            (group(&[&a, "name = 'w', wait = 'go'"]), 11, "its member w is a wait"),
            (group(&[&a, &format!("{b}, back_to = {{ no = 'w' }}")]), 11, "its member b has back_to"),
            (group(&[&a, &format!("{b}, skip_if = 'x'")]), 11, "its member b has skip_if"),
            (group(&[&a, &format!("{b}, payload = ['x']")]), 11, "its member b has a payload"),
            (
                group(&[&a, &format!("name = 'g', parallel = [{{ {b} }}]")]),
                11,
                "a group cannot be inside a group",
            ),
            (group(&[&a, &a]), 11, "step a: another step or group has the same name"),
            (group(&[&a, &member("both")]), 11, "step both: another step or group has the same name"),
            (group(&[&a, "name = 'b', command = 'x'"]), 11, "step b: x is not of the form service.verb"),
            (group(&[&a, "name = 'b', colour = 1"]), 11, "colour"),
            (group(&[&a, &b]).replace("'both'", "'first'"), 8, "another step or group has the same name"),
            (group(&[&a, &b]).replace("'both'", "'Both'"), 8, "group Both: its name must begin"),
            (group(&[&a, &b]) + "timeout_ms = 7\n", 13, "timeout_ms belongs to a member"),
            (format!("pivot = 'a'\n{}", group(&[&a, &b])), 1, "its pivot a is a member of the group both"),
            (format!("pivot = 'both'\n{}", group(&[&a, &b])), 1, "its pivot both is not one of its steps"),
        ];
        for (text, line, reason) in cases {
            let (problem, at) = refused(&text);
            assert!(problem.contains(reason) && at == Some(line), "{problem} (line {at:?}) for\n{text}");
        }
    }

    #[test]
    fn limits_of_groups_are_named() {
        let names: Vec<String> = (0..=MAX_MEMBERS).map(|n| member(&format!("m{n}"))).collect();
        let all: Vec<&str> = names.iter().map(String::as_str).collect();
        assert!(Definition::parse("test", &group(&all[..MAX_MEMBERS])).is_ok());
        let (problem, line) = refused(&group(&all));
        assert_eq!(problem, "group both: it has 9 members; 8 is the most");
        assert_eq!(line, Some(10 + MAX_MEMBERS));
        // The members count as steps.
        let part = |group: usize| {
            let members: Vec<String> =
                (0..8).map(|n| format!("{{ {} }}", member(&format!("g{group}m{n}")))).collect();
            format!("[[steps]]\nname = 'g{group}'\nparallel = [{}]\n", members.join(", "))
        };
        let parts: String = (0..8).map(part).collect();
        assert!(Definition::parse("test", &format!("name = 't'\nversion = 1\n{parts}")).is_ok());
        let one_more = "[[steps]]\nname = 'last'\ncommand = 'x.y'\n";
        let (problem, line) = refused(&format!("name = 't'\nversion = 1\n{parts}{one_more}"));
        assert_eq!((problem.as_str(), line), ("it has 65 steps; 64 is the most", Some(28)));
    }
}
