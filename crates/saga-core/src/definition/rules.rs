//! Reads a definition and checks it. Each error names the line and the reason.

mod groups;

use serde::Deserialize;
use toml::de::{DeTable, DeValue};

use super::{Definition, Step};
use crate::delay::{MAX_MS, MAX_SECONDS};
use groups::{check_groups, flatten};

/// The longest text of a definition.
pub const MAX_BYTES: usize = 64 << 10;
/// Most steps of a workflow.
pub const MAX_STEPS: usize = 64;
/// Most kinds of domain events, and of signals, of a workflow: a history entry names an event by a byte.
const MAX_NAMES: usize = 200;
/// Most characters of the name of a workflow, a step, a signal, or a part of an event's name.
const MAX_NAME_CHARS: usize = 63;
/// Most characters of the name of an event or a command, which are parts of subjects.
const MAX_SUBJECT_CHARS: usize = 127;
/// Most fields that one wait lists as its payload.
const MAX_PAYLOAD_FIELDS: usize = 64;

/// What is wrong with a definition, in words for its author.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{source_name}{}: {problem}", .line.map(|line| format!(", line {line}")).unwrap_or_default())]
pub struct DefinitionError {
    source_name: String,
    /// Counted from 1; none if the whole text is meant.
    pub line: Option<usize>,
    pub problem: String,
}

impl DefinitionError {
    /// A problem that a reader beyond this crate has found. Its line is that of the first thing in the text that the problem names
    /// with its first word.
    pub fn new(source: &str, text: &str, problem: String) -> Self {
        let named = problem.split_whitespace().next().unwrap_or_default();
        let line = text.find(named).filter(|_| !named.is_empty()).map(|at| line_at(text, at));
        Self { source_name: format!("workflow {source}"), line, problem }
    }
}

/// A part of a definition that a problem is about.
#[derive(Clone, Copy)]
enum Place<'a> {
    Whole,
    Key(&'a str),
    /// A step, and one of its fields.
    Step(StepPlace, &'a str),
}

/// Where a step stands in the text: its position among the steps, and within its group.
#[derive(Clone, Copy)]
struct StepPlace {
    step: usize,
    member: Option<usize>,
}

type Check = Result<(), (Place<'static>, String)>;

/// Reads and checks a definition; `source` names it in errors.
pub(super) fn read(source: &str, text: &str) -> Result<Definition, DefinitionError> {
    let error =
        |line, problem: String| DefinitionError { source_name: format!("workflow {source}"), line, problem };
    if text.len() > MAX_BYTES {
        let problem = format!("it has {} bytes; {MAX_BYTES} (64 KiB) is the most", text.len());
        return Err(error(None, problem));
    }
    let parsed = toml::Deserializer::parse(text).and_then(Definition::deserialize);
    let mut definition = parsed.map_err(|wrong| {
        let line = wrong.span().map(|span| line_at(text, span.start));
        error(line, wrong.message().to_owned())
    })?;
    let in_text = |(place, problem)| error(line_of(text, place), problem);
    check_groups(&definition, text).map_err(in_text)?;
    let places = flatten(&mut definition);
    check(&definition, &places).map_err(in_text)?;
    Ok(definition)
}

fn line_at(text: &str, byte: usize) -> usize {
    text.bytes().take(byte).filter(|byte| *byte == b'\n').count() + 1
}

/// The line of a place in the text; of a field that is left out, the line of what it is missing in.
fn line_of(text: &str, place: Place<'_>) -> Option<usize> {
    let document = DeTable::parse(text).ok()?;
    let table = document.get_ref();
    let start = match place {
        Place::Whole => return None,
        Place::Key(key) => table.iter().find(|(name, _)| name.get_ref() == key)?.0.span().start,
        Place::Step(StepPlace { step, member }, field) => {
            let DeValue::Array(steps) = table.get("steps")?.get_ref() else { return None };
            let mut step = steps.get(step)?;
            if let Some(member) = member {
                let parallel = step.get_ref().as_table()?.get("parallel")?.get_ref();
                step = parallel.as_array()?.get(member)?;
            }
            let fields = step.get_ref().as_table();
            let found = fields.and_then(|fields| fields.iter().find(|(name, _)| name.get_ref() == field));
            found.map_or(step.span().start, |(name, _)| name.span().start)
        }
    };
    Some(line_at(text, start))
}

fn check(definition: &Definition, places: &[StepPlace]) -> Check {
    let wrong = |key: &'static str, problem: String| Err((Place::Key(key), problem));
    let steps = &definition.steps;
    if let Some(problem) = name_problem(&definition.name) {
        return wrong("name", format!("its name {problem}"));
    }
    if definition.version < 1 {
        return wrong("version", "its version must be 1 or more".to_owned());
    }
    if steps.is_empty() {
        return wrong("steps", "it has no steps".to_owned());
    }
    if steps.len() > MAX_STEPS {
        let problem = format!("it has {} steps; {MAX_STEPS} is the most", steps.len());
        return Err((Place::Step(places[MAX_STEPS], "name"), problem));
    }
    for (index, step) in steps.iter().enumerate() {
        check_step(definition, index, step).map_err(|(field, problem)| {
            (Place::Step(places[index], field), format!("step {}: {problem}", step.name))
        })?;
    }
    if definition.signals().len() > MAX_NAMES || definition.events().len() > MAX_NAMES {
        return Err((Place::Whole, format!("it has more than {MAX_NAMES} signals or kinds of events")));
    }
    if let Some((signal, problem)) = first(definition.signals.keys(), name_problem) {
        return wrong("signals", format!("signal {signal:?} {problem}"));
    }
    if let Some((event, problem)) = first(definition.ends.values(), event_problem) {
        return wrong("ends", format!("event {event:?} {problem}"));
    }
    let Some(pivot) = &definition.pivot else { return Ok(()) };
    match definition.index(pivot).map(|index| definition.steps[index].group.as_ref()) {
        None => wrong("pivot", format!("its pivot {pivot} is not one of its steps")),
        Some(Some(group)) => {
            let why = "other members could still be rejected when it is done";
            wrong("pivot", format!("its pivot {pivot} is a member of the group {group}: {why}"))
        }
        Some(None) => Ok(()),
    }
}

/// What is wrong with a step, and in which of its fields.
fn check_step(definition: &Definition, index: usize, step: &Step) -> Result<(), (&'static str, String)> {
    if let Some(problem) = name_problem(&step.name) {
        return Err(("name", format!("its name {problem}")));
    }
    if definition.index(&step.name) != Some(index) || definition.groups().contains(&step.name.as_str()) {
        return Err(("name", "another step or group has the same name".to_owned()));
    }
    check_work(step)?;
    let events = step.emits.iter().chain(step.announces.values()).chain(step.undo_announces.values());
    if let Some((event, problem)) = first(events, event_problem) {
        return Err(("emits", format!("event {event:?} {problem}")));
    }
    if step.timeout_ms == 0 || step.timeout_ms > MAX_MS {
        return Err(("timeout_ms", "its timeout_ms must be 1 or more, and ten years at most".to_owned()));
    }
    if let Some(deadline) = &step.deadline {
        let wrong = |problem: String| Err(("deadline", problem));
        if deadline.seconds.is_some_and(|seconds| seconds > MAX_SECONDS) {
            return wrong(format!("its deadline takes {MAX_SECONDS} seconds (ten years) at most"));
        }
        if deadline.seconds.is_some() == deadline.at.is_some() {
            return wrong("its deadline needs either seconds or at".to_owned());
        }
        if !definition.can_compensate(index) {
            return wrong("it has a deadline, but there is no way back from it".to_owned());
        }
    }
    for target in step.back_to.values() {
        let earlier = definition.index(target).filter(|found| *found < index);
        if earlier.is_none_or(|found| definition.steps[found].wait.is_none()) {
            return Err(("back_to", format!("it leads back to {target}, which is no earlier wait")));
        }
    }
    step.retry.check().map_err(|problem| ("retry", problem))?;
    step.undo_retry.check().map_err(|problem| ("undo_retry", problem))
}

/// What a step does: its command with the undo, or its wait.
fn check_work(step: &Step) -> Result<(), (&'static str, String)> {
    let wrong = |field: &'static str, problem: &str| Err((field, problem.to_owned()));
    match (&step.command, &step.wait) {
        (Some(_), Some(_)) => return wrong("wait", "it has both a command and a wait"),
        (None, None) => return wrong("name", "it needs a command or a wait"),
        (None, Some(_)) if step.undo.is_some() => return wrong("undo", "a wait has no undo"),
        (Some(_), None) if step.skip_if.is_some() => {
            return wrong("skip_if", "only a wait can be passed over");
        }
        (Some(_), None) if step.payload.is_some() => return wrong("payload", "only a wait takes a payload"),
        (None, Some(signal)) if let Some(problem) = name_problem(signal) => {
            return Err(("wait", format!("signal {signal:?} {problem}")));
        }
        _ => {}
    }
    if step.payload.as_ref().is_some_and(|fields| fields.len() > MAX_PAYLOAD_FIELDS) {
        return Err(("payload", format!("it lists more than {MAX_PAYLOAD_FIELDS} fields")));
    }
    for (field, subject) in [("command", &step.command), ("undo", &step.undo)] {
        let Some(subject) = subject else { continue };
        let plain =
            |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let parts = subject.split_once('.');
        let is_good = parts.is_some_and(|(service, verb)| plain(service) && plain(verb));
        if !is_good || subject.len() > MAX_SUBJECT_CHARS {
            return Err((
                field,
                format!(
                    "{subject} is not of the form service.verb, of {MAX_SUBJECT_CHARS} characters at most"
                ),
            ));
        }
    }
    if let (Some(command), Some(undo)) = (&step.command, &step.undo)
        && service(command) != service(undo)
    {
        let problem =
            format!("one service must serve both {command} and its undo {undo}: they share a fence");
        return Err(("undo", problem));
    }
    Ok(())
}

/// What is wrong with a name of the form `[a-z][a-z0-9_]{0,62}`.
fn name_problem(name: &str) -> Option<String> {
    (!is_name(name)).then(|| {
        format!("must begin with a letter a to z and have {MAX_NAME_CHARS} of the characters a to z, 0 to 9 and _ at most")
    })
}

fn is_name(name: &str) -> bool {
    let rest = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
    name.len() <= MAX_NAME_CHARS
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(rest)
}

/// What is wrong with the name of an event: it becomes a subject.
fn event_problem(event: &str) -> Option<String> {
    let is_good = event.len() <= MAX_SUBJECT_CHARS && event.split('.').all(is_name);
    (!is_good).then(|| {
        format!("must be names of the characters a to z, 0 to 9 and _ with dots between them, {MAX_SUBJECT_CHARS} characters at most")
    })
}

fn first<'a>(
    names: impl Iterator<Item = &'a String>,
    problem: impl Fn(&str) -> Option<String>,
) -> Option<(&'a str, String)> {
    names.map(String::as_str).find_map(|name| Some((name, problem(name)?)))
}

/// The service that a command belongs to.
fn service(command: &str) -> &str {
    command.split_once('.').map_or(command, |(service, _)| service)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        Definition::parse("test", text).unwrap_err().to_string()
    }

    fn step(body: &str) -> String {
        format!("name='t'\nversion=1\n[[steps]]\nname='a'\n{body}")
    }

    #[test]
    fn a_bad_definition_is_refused_with_its_reason() {
        assert!(problem("name='t'\nversion=1\nsteps=[]").contains("no steps"));
        assert!(problem(&step("")).contains("needs a command or a wait"));
        assert!(problem(&step("command='x.y'\nwait='z'")).contains("both"));
        assert!(problem(&step("command='x'")).contains("service.verb"));
        assert!(problem(&step("command='x.y'\nskip_if='z'")).contains("only a wait"));
        assert!(problem(&step("command='x.y'\npayload=['z']")).contains("only a wait"));
        assert!(problem(&step("command='x.y'\ndeadline={reason='r'}")).contains("either seconds or at"));
        assert!(problem(&step("command='x.y'\nback_to={no='b'}")).contains("no earlier wait"));
        assert!(problem(&step("command='x.y'\nundo='z.y'")).contains("both x.y and its undo z.y"));
        assert!(problem(&step("command='x.y'\ncolour=1")).contains("colour"));
        assert!(problem(&step("command='x.y'\nemits=['a b']")).contains("event \"a b\""));
        assert!(problem(&step("wait='Go'")).contains("signal \"Go\""));
        let retry = step("command='x.y'\nretry={first_ms=0,factor=2.0,cap_ms=1,attempts=1}");
        assert!(problem(&retry).contains("first_ms"));
        assert!(problem(&format!("pivot='q'\n{}", step("command='x.y'"))).contains("pivot q"));
    }

    #[test]
    fn errors_name_the_line() {
        let line = |text: &str| Definition::parse("test", text).unwrap_err().line;
        assert_eq!(line("name='t'\nversion=1\n\nsteps=[]"), Some(4));
        assert_eq!(line("name='T'\nversion=1\nsteps=[]"), Some(1));
        assert_eq!(line(&step("command='x.y'\nundo='z.y'")), Some(6));
        assert_eq!(line(&step("")), Some(4));
        assert_eq!(line(&step("command='x.y'\ncolour=1")), Some(6));
        assert_eq!(line("name='t'\nversion=x"), Some(2), "not TOML");
        let two = step("command='x.y'\n[[steps]]\nname='b'\ncommand='x.y'\ntimeout_ms=0");
        assert_eq!(line(&two), Some(9));
    }

    #[test]
    fn limits_are_named() {
        let steps: String =
            (0..=MAX_STEPS).map(|n| format!("[[steps]]\nname='s{n}'\ncommand='x.y'\n")).collect();
        let error = Definition::parse("test", &format!("name='t'\nversion=1\n{steps}")).unwrap_err();
        assert!(error.problem.contains("65 steps; 64 is the most"), "{error}");
        assert_eq!(error.line, Some(3 + 3 * MAX_STEPS + 1));
        let text = format!("{}\n#{}", step("command='x.y'"), " ".repeat(MAX_BYTES));
        assert!(problem(&text).contains("64 KiB"));
        let name = |length: usize| {
            format!("name='{}'\nversion=1\n[[steps]]\nname='a'\nwait='z'", "n".repeat(length))
        };
        assert!(Definition::parse("test", &name(63)).is_ok());
        assert!(problem(&name(64)).contains("63"));
    }
}
