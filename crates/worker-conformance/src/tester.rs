//! Sends commands as the engine does, and judges what is said to them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::Stream;
use async_nats::{Client, jetstream};
use saga_core::{Command, Direction, Outcome};
use saga_protocol::{messages, subjects};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::options::Options;
use crate::report::CaseReport;
use crate::setup::{self, SuiteError, failed};
use crate::shell;
use crate::traffic::Traffic;

/// How long a reply may come after its acknowledgement to be seen as one that came too late, rather than as none.
const LATE_REPLY: Duration = Duration::from_secs(2);

/// Why a case did not go on to its end.
pub(crate) enum Ended {
    /// An option that it needs was not given.
    Skipped(String),
    /// The fault is noted, and what comes after it would make no sense.
    Failed,
    /// The suite itself cannot go on.
    Broken(SuiteError),
}

impl From<SuiteError> for Ended {
    fn from(error: SuiteError) -> Self {
        Self::Broken(error)
    }
}

/// How a case ends.
pub(crate) type Ending = Result<(), Ended>;

/// The engine's part, played for one case after another.
pub(crate) struct Tester {
    pub(crate) options: Options,
    pub(crate) client: Client,
    jetstream: jetstream::Context,
    pub(crate) steps: Stream,
    pub(crate) traffic: Traffic,
    /// The undo of the command, if one is known.
    pub(crate) undo: Option<String>,
    /// The acknowledgement wait of the command's consumer.
    pub(crate) ack_wait: Duration,
    /// Every command that was sent, by its sequence in the stream.
    sent: Vec<u64>,
    /// The highest visit of each saga that may have an effect.
    begun: BTreeMap<Uuid, i32>,
    /// Commands of which every reply must have come before the acknowledgement: how many there were, and the sequence in the stream.
    settled: BTreeMap<String, (usize, u64)>,
    case: CaseReport,
}

impl Tester {
    pub(crate) fn new(
        options: Options,
        client: Client,
        jetstream: jetstream::Context,
        steps: Stream,
        traffic: Traffic,
    ) -> Self {
        Self {
            undo: options.undo.clone(),
            options,
            client,
            jetstream,
            steps,
            traffic,
            ack_wait: Duration::ZERO,
            sent: Vec::new(),
            begun: BTreeMap::new(),
            settled: BTreeMap::new(),
            case: CaseReport::new("setup"),
        }
    }

    // ---- the report of the running case

    pub(crate) fn begin(&mut self, name: &'static str) {
        self.case = CaseReport::new(name);
    }

    /// The report of the case that has ended.
    pub(crate) fn end(&mut self, skipped: Option<String>) -> CaseReport {
        let mut case = std::mem::replace(&mut self.case, CaseReport::new("setup"));
        case.wrong.extend(self.traffic.lock().take_problems());
        case.skipped = skipped;
        case.ended()
    }

    pub(crate) fn did(&mut self, what: impl Into<String>) {
        self.case.did.push(what.into());
    }

    pub(crate) fn wrong(&mut self, what: impl Into<String>) {
        self.case.wrong.push(what.into());
    }

    // ---- commands

    /// The id of a new saga.
    pub(crate) fn saga(&self) -> Uuid {
        let saga = (self.options.new_id)();
        self.traffic.lock().expect(saga);
        saga
    }

    /// A `do` that the worker shall do.
    pub(crate) fn command(&self, saga: Uuid, visit: i32) -> Command {
        self.command_with(saga, visit, &self.options.contexts.input)
    }

    pub(crate) fn command_with(&self, saga: Uuid, visit: i32, context: &Map<String, Value>) -> Command {
        Command {
            saga_id: saga,
            workflow: "worker_test".to_owned(),
            subject: self.options.command.clone(),
            step: self.options.step.clone(),
            direction: Direction::Do,
            visit,
            send: 0,
            deadline: None,
            reason: None,
            context: Arc::new(Value::Object(context.clone())),
            trace: saga,
        }
    }

    /// The undo of a command, in the same visit.
    pub(crate) fn undo_of(&self, command: &Command) -> Result<Command, Ended> {
        let undo = self.undo.clone();
        let subject = undo.ok_or_else(|| Ended::Skipped("it needs --undo".to_owned()))?;
        let reason = Some("cancelled".to_owned());
        Ok(Command { subject, direction: Direction::Undo, reason, deadline: None, ..command.clone() })
    }

    /// Sends a command; gives its sequence in the stream.
    pub(crate) async fn send(&mut self, command: &Command) -> Result<u64, SuiteError> {
        let id = command.message_id();
        self.traffic.lock().sending(id);
        if command.direction == Direction::Do {
            let visit = self.begun.entry(command.saga_id).or_default();
            *visit = command.visit.max(*visit);
        }
        let out = messages::command(command);
        self.publish(out.subject, out.message).await
    }

    /// Publishes any message on a subject of commands.
    pub(crate) async fn publish(
        &mut self,
        subject: String,
        message: PublishMessage,
    ) -> Result<u64, SuiteError> {
        let what = "sending a command";
        let sent = self.jetstream.send_publish(subject, message).await.map_err(failed(what))?;
        let sequence = sent.await.map_err(failed(what))?.sequence;
        self.sent.push(sequence);
        Ok(sequence)
    }

    /// Sends a command; gives the replies to it once it is acknowledged, and its sequence in the stream.
    pub(crate) async fn ask(&mut self, command: &Command) -> Result<(Vec<Outcome>, u64), Ended> {
        let before = self.replies(command).len();
        let sequence = self.send(command).await?;
        self.acknowledged(command, sequence).await?;
        Ok((self.replies(command).split_off(before), sequence))
    }

    /// Waits until the command is acknowledged.
    pub(crate) async fn acknowledged(&mut self, command: &Command, sequence: u64) -> Ending {
        let limit = self.options.timeout;
        let over = self.traffic.wait(limit, |seen| seen.is_over(sequence).then_some(())).await;
        if over.is_some() {
            return Ok(());
        }
        let (replies, deliveries) = (self.replies(command).len(), self.traffic.lock().deliveries(sequence));
        self.wrong(format!(
            "the {} of saga {} was not acknowledged within {limit:?}; replies: {replies}, known deliveries: {deliveries}",
            named(command),
            command.saga_id
        ));
        Err(Ended::Failed)
    }

    /// All replies to this send of the command so far.
    pub(crate) fn replies(&self, command: &Command) -> Vec<Outcome> {
        self.traffic.lock().replies(&command.message_id()).to_vec()
    }

    // ---- judgements

    /// Sends a command that must be answered with one reply; gives it.
    pub(crate) async fn answer(&mut self, command: &Command) -> Result<Outcome, Ended> {
        let before = self.replies(command).len();
        let (mut replies, sequence) = self.ask(command).await?;
        if replies.is_empty() {
            let id = command.message_id();
            let came = |seen: &crate::traffic::Seen| (seen.replies(&id).len() > before).then_some(());
            let late = self.traffic.wait(LATE_REPLY, came).await.is_some();
            self.wrong(format!(
                "the {} was acknowledged {}: after a crash in between, the saga never gets the answer",
                named(command),
                if late { "before its reply was published" } else { "without a reply" }
            ));
            replies = self.replies(command).split_off(before);
        }
        self.settled.insert(command.message_id(), (before + replies.len(), sequence));
        // On a slow machine a command may have been delivered again.
        let deliveries = self.traffic.lock().deliveries(sequence).max(1);
        if replies.len() as u64 > deliveries {
            self.wrong(format!("the {} was answered {} times", named(command), replies.len()));
        }
        replies.into_iter().next().ok_or(Ended::Failed)
    }

    /// Sends a command that must be done; gives the outcome.
    pub(crate) async fn done(&mut self, command: &Command, why: &str) -> Result<Outcome, Ended> {
        let outcome = self.answer(command).await?;
        if !matches!(outcome, Outcome::Done { .. }) {
            self.wrong(format!("the {} was answered {}: {why}", named(command), shown(&outcome)));
            return Err(Ended::Failed);
        }
        Ok(outcome)
    }

    /// Sends a command that must be answered with this outcome again.
    pub(crate) async fn same(&mut self, command: &Command, expected: &Outcome, why: &str) -> Ending {
        let outcome = self.answer(command).await?;
        self.compare(command, &outcome, expected, why);
        Ok(())
    }

    pub(crate) fn compare(&mut self, command: &Command, outcome: &Outcome, expected: &Outcome, why: &str) {
        if outcome != expected {
            let (outcome, expected) = (shown(outcome), shown(expected));
            self.wrong(format!(
                "the {} was answered {outcome}, and before {expected}: {why}",
                named(command)
            ));
        }
    }

    /// Sends a command that belongs to the past: it must be acknowledged without a reply.
    pub(crate) async fn nothing(&mut self, command: &Command, why: &str) -> Ending {
        let before = self.replies(command).len();
        let (replies, sequence) = self.ask(command).await?;
        self.settled.insert(command.message_id(), (before + replies.len(), sequence));
        if let Some(outcome) = replies.first() {
            self.wrong(format!("{why}: the {} was answered {}", named(command), shown(outcome)));
        }
        Ok(())
    }

    /// Compares the number of a saga's effects, if they can be counted.
    pub(crate) async fn effects(&mut self, saga: Uuid, expected: u64, when: &str) {
        let Some(command) = self.options.count.clone() else { return };
        match shell::count(&command, saga).await {
            Ok(found) if found == expected => {}
            Ok(found) => {
                self.wrong(format!("{when}: there are {found} effects of saga {saga}, expected {expected}"));
            }
            Err(problem) => self.wrong(problem),
        }
    }

    // ---- the end

    /// Replies that came after the acknowledgement of their command was seen.
    pub(crate) fn late_replies(&mut self) {
        let late: Vec<String> = {
            let seen = self.traffic.lock();
            let is_late = |id: &str, count: usize, sequence: u64| {
                seen.replies(id).len() > count && seen.deliveries(sequence) <= 1
            };
            let late = self.settled.iter().filter(|(id, (count, sequence))| is_late(id, *count, *sequence));
            late.map(|(id, _)| format!("a reply to {id} came after the command was acknowledged")).collect()
        };
        late.into_iter().for_each(|problem| self.wrong(problem));
    }

    /// Undoes everything that was done, so that the worker's tables are as before; gives the number of sagas.
    pub(crate) async fn undo_all(&mut self) -> Result<usize, Ended> {
        let mut undos = Vec::new();
        for (saga, visit) in self.begun.clone() {
            let command = self.command(saga, visit);
            let undo = Command { send: 100, ..self.undo_of(&command)? };
            let sequence = self.send(&undo).await?;
            undos.push((undo, sequence));
        }
        for (undo, sequence) in &undos {
            self.acknowledged(undo, *sequence).await?;
        }
        Ok(undos.len())
    }

    /// Takes commands that were not acknowledged off the stream, and replies that no engine takes.
    pub(crate) async fn clean(&mut self) -> Result<(), SuiteError> {
        let left: Vec<u64> = {
            let seen = self.traffic.lock();
            self.sent.drain(..).filter(|sequence| !seen.is_over(*sequence)).collect()
        };
        for sequence in left {
            // It may have been acknowledged in the meantime.
            let _deleted = self.steps.delete_message(sequence).await;
        }
        let subject = subjects::reply(self.options.service());
        setup::purge_replies(&self.jetstream, &subject).await
    }
}

/// A command as the report calls it.
pub(crate) fn named(command: &Command) -> String {
    let again = if command.send > 0 { format!(", send {}", command.send) } else { String::new() };
    format!("{} (visit {}{again})", command.direction, command.visit)
}

/// An outcome as the report shows it.
pub(crate) fn shown(outcome: &Outcome) -> String {
    let text = serde_json::to_string(outcome).unwrap_or_default();
    if text.chars().count() <= 200 { text } else { text.chars().take(200).chain(['…']).collect() }
}
