//! A worker that keeps its fence in memory, and may have a fault. Its effects are lines in files, one file for each saga.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use async_nats::jetstream::{AckKind, Message};
use boxoffice::bus::fences::Completion;
use boxoffice::bus::{Bus, messages, presence, publish, subjects, topology};
use boxoffice::saga::{Command, Direction, Outcome};
use chrono::Utc;
use futures::StreamExt;
use saga_protocol::fences::{self, Completed};
use saga_worker::Record;
use serde_json::{Map, json};
use tokio::task::JoinSet;
use uuid::Uuid;

/// What a worker does wrong. Most are one missing rule of the fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    DoesDuplicatesAgain,
    SilentAboutDuplicates,
    DoesLateDo,
    RejectsUndoWithoutDo,
    DoesLateVisit,
    KeepsUnknown,
    KeepsFailed,
    IgnoresDeadline,
    AnswersForgottenDeadline,
    AcknowledgesFirst,
    AcknowledgesPoison,
    LosesHeaders,
    RejectionIsNotKept,
    ForgetsCompletion,
    ForgetsAllInCrash,
    HidesItself,
}

/// The worker, running until it is dropped.
pub struct FaultyWorker {
    bus: Bus,
    service: String,
    dir: PathBuf,
    fault: Fault,
    known: HashMap<Uuid, Record>,
    tried: HashSet<Uuid>,
    printed: u32,
}

impl FaultyWorker {
    pub fn new(bus: &Bus, service: &str, dir: PathBuf, fault: Fault) -> Self {
        Self {
            bus: bus.clone(),
            service: service.to_owned(),
            dir,
            fault,
            known: HashMap::new(),
            tried: HashSet::new(),
            printed: 0,
        }
    }

    /// Serves for ever.
    pub async fn run(mut self) {
        let commands = ["print", "shred"].map(|verb| format!("{}.{verb}", self.service));
        let [print, shred] = &commands;
        let _announced = if self.fault == Fault::HidesItself {
            None
        } else {
            Some(presence::announce(&self.bus, &self.service, "a test", &[print, shred]).await.unwrap())
        };
        let mut completions = self.bus.client.subscribe(subjects::complete(&self.service)).await.unwrap();
        let mut config = topology::work_consumer(&self.service, &subjects::service(&self.service));
        config.ack_wait = Duration::from_secs(1);
        let consumer = topology::ensure_consumer(&self.bus, subjects::STEPS, config).await.unwrap();
        let mut incoming = consumer.messages().await.unwrap();
        loop {
            tokio::select! {
                Some(message) = incoming.next() => self.take(message.unwrap()).await,
                Some(request) = completions.next() => self.complete(&request).await,
            }
        }
    }

    async fn take(&mut self, message: Message) {
        let Ok(command) = messages::read_command(&message) else {
            let poison = self.fault == Fault::AcknowledgesPoison;
            let kind = if poison { AckKind::Ack } else { AckKind::Nak(Some(Duration::from_secs(30))) };
            return message.ack_with(kind).await.unwrap();
        };
        if self.fault == Fault::AcknowledgesFirst {
            message.ack().await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let outcome = self.decide(&command).await;
        if let Some(outcome) = outcome {
            let mut reply = messages::reply(&command, &outcome);
            if self.fault == Fault::LosesHeaders {
                let command = Command { send: 7, ..command.clone() };
                reply = messages::reply(&command, &outcome);
            }
            // A crash may fall between the effect and the reply.
            tokio::time::sleep(Duration::from_millis(5)).await;
            publish::publish(&self.bus, &[reply], Clone::clone).await.unwrap();
        }
        message.ack().await.unwrap();
    }

    /// The rules of the fence, but for the fault.
    async fn decide(&mut self, command: &Command) -> Option<Outcome> {
        let known = self.known.entry(command.saga_id).or_default().clone();
        let (visit, mine) = (command.visit, self.fault);
        let is = |fault| mine == fault;
        if command.direction == Direction::Undo {
            return match visit {
                _ if visit < known.undone => None,
                _ if visit == known.undone => Some(Outcome::done()),
                _ if is(Fault::RejectsUndoWithoutDo) && known.outcome.is_none() => {
                    Some(Outcome::rejected("nothing_to_undo"))
                }
                _ => Some(self.undo(command)),
            };
        }
        let is_past = (visit <= known.undone && !is(Fault::DoesLateDo))
            || (visit < known.visit && !is(Fault::DoesLateVisit));
        if is_past {
            return None;
        }
        let is_late = command.deadline.is_some_and(|deadline| deadline <= Utc::now());
        let late = Outcome::rejected("deadline_passed");
        if is(Fault::AnswersForgottenDeadline) && is_late {
            return Some(late);
        }
        if let Some(outcome) = &known.outcome
            && (visit == known.visit || matches!(outcome, Outcome::Done { .. }))
            && !is(Fault::DoesDuplicatesAgain)
            && !(is(Fault::DoesLateDo) && known.undone > 0)
            && !(is(Fault::RejectionIsNotKept) && matches!(outcome, Outcome::Rejected { .. }))
        {
            return (!is(Fault::SilentAboutDuplicates)).then(|| outcome.clone());
        }
        if is_late && !is(Fault::IgnoresDeadline) {
            return Some(late);
        }
        let outcome = self.print(command).await;
        let keeps = match &outcome {
            Outcome::Done { .. } | Outcome::Rejected { .. } => true,
            Outcome::Unknown { .. } => is(Fault::KeepsUnknown),
            Outcome::Failed { .. } => is(Fault::KeepsFailed),
        };
        let kept = keeps.then(|| outcome.clone());
        self.known.insert(command.saga_id, Record { visit, outcome: kept, ..known });
        Some(outcome)
    }

    async fn print(&mut self, command: &Command) -> Outcome {
        let is_first = self.tried.insert(command.saga_id);
        match command.context["how"].as_str().unwrap_or_default() {
            "refuse" if is_first || self.fault != Fault::RejectionIsNotKept => {
                return Outcome::rejected("no_paper");
            }
            "fail" if is_first => return Outcome::Failed { code: "offline".to_owned() },
            "doubt" if is_first => return Outcome::Unknown { reason: "it hums".to_owned() },
            "throw" => return Outcome::Failed { code: "handler_failed".to_owned() },
            "slow" => tokio::time::sleep(Duration::from_millis(1_300)).await,
            _ => {}
        }
        self.printed += 1;
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.join(command.saga_id.to_string()))
            .unwrap();
        writeln!(file, "{}", self.printed).unwrap();
        // Half of a crash: the effect is there, and the reply is not.
        tokio::time::sleep(Duration::from_millis(20)).await;
        Outcome::Done { output: Map::from_iter([("badge".to_owned(), json!(self.printed))]) }
    }

    fn undo(&mut self, command: &Command) -> Outcome {
        // There may be none.
        let _removed = std::fs::remove_file(self.dir.join(command.saga_id.to_string()));
        let known = self.known.entry(command.saga_id).or_default();
        *known = Record { undone: command.visit, outcome: None, ..known.clone() };
        Outcome::done()
    }

    async fn complete(&mut self, request: &async_nats::Message) {
        let reply = request.reply.clone().unwrap();
        let Ok(Completion { saga, visit, output, .. }) = fences::read_request(request) else {
            let mut headers = async_nats::HeaderMap::new();
            headers.insert("Nats-Service-Error", "it cannot be read");
            headers.insert("Nats-Service-Error-Code", "400");
            return self.bus.client.publish_with_headers(reply, headers, "".into()).await.unwrap();
        };
        let known = self.known.entry(saga).or_default();
        let answer = match &known.outcome {
            _ if visit <= known.undone => Completed::Ran(Outcome::rejected(fences::UNDONE)),
            Some(outcome @ Outcome::Done { .. }) => Completed::Ran(outcome.clone()),
            _ => {
                if self.fault != Fault::ForgetsCompletion {
                    *known = Record { visit, outcome: Some(Outcome::Done { output }), ..known.clone() };
                }
                Completed::Recorded
            }
        };
        self.bus.client.publish(reply, fences::answer(answer)).await.unwrap();
    }
}

/// Starts the worker anew whenever the file `crash` appears: its memory is gone, its effects are not.
pub async fn run_with_crashes(bus: Bus, service: String, dir: PathBuf, fault: Fault) {
    let mut running = JoinSet::new();
    loop {
        running.spawn(FaultyWorker::new(&bus, &service, dir.clone(), fault).run());
        while !dir.join("crash").exists() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        running.shutdown().await;
        std::fs::remove_file(dir.join("crash")).unwrap();
    }
}
