//! A proxy between the engine and the workers. Every command passes it, and each saga has rules for its commands: hold
//! one, deliver it twice or late, or reply in place of the worker.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::pull;
use boxoffice::bus::publish::publish;
use boxoffice::bus::{Bus, headers, messages, subjects};
use boxoffice::saga::{Command, Direction, Outcome};
use boxoffice::steps;
use bytes::Bytes;
use futures::StreamExt;
use uuid::Uuid;

use super::harness::workflows;
use super::sample_workflow::SampleWorkflow;

/// The service name in the commands of all rewritten workflows.
const PROXY: &str = "proxy";

/// What the proxy does with a command.
#[derive(Clone, Debug, Default)]
pub enum Rule {
    /// Send it to its service.
    #[default]
    Forward,
    /// Keep it until it is released.
    Hold,
    /// Give this reply. No worker sees the command.
    Answer(Outcome),
    /// Execute it as an external worker that dies before its reply. Services of the program have no separate reply.
    DropReply,
}

/// The rules for the commands of one saga.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    rules: HashMap<(String, Direction), Rule>,
    /// Send each command and each reply twice, and each earlier command of the saga with every new one.
    repeated: bool,
}

#[derive(Clone)]
pub struct CommandMessage {
    pub command: Command,
    headers: HeaderMap,
    payload: Bytes,
}

#[derive(Clone, PartialEq)]
struct Reply {
    subject: String,
    headers: HeaderMap,
    payload: Bytes,
}

#[derive(Default)]
struct SagaCommands {
    /// `None`: the rules are not known yet, and the proxy keeps the commands.
    rules: Option<Rules>,
    commands: Vec<CommandMessage>,
    held: Vec<CommandMessage>,
    replies: Vec<Reply>,
}

#[derive(Clone)]
pub struct CommandProxy {
    bus: Bus,
    sagas: Arc<Mutex<HashMap<Uuid, SagaCommands>>>,
    pub sample: Arc<SampleWorkflow>,
}

/// The name under which a workflow's command reaches the proxy. It keeps the name of an external service, because a
/// service may reply only to its own commands.
pub fn proxied(command: &str) -> String {
    match command.split_once('.') {
        Some((service, verb)) if !is_here(command) => format!("{service}.{PROXY}__{verb}"),
        _ => format!("{PROXY}.{}", command.replace('.', "__")),
    }
}

/// Whether the program itself serves a command. The name may be the original one or the proxied one.
pub fn is_here(command: &str) -> bool {
    let command = original(command);
    steps::SERVICES.iter().any(|(service, _)| *service == subjects::service_of(&command))
}

fn original(proxied: &str) -> String {
    match proxied.strip_prefix(&format!("{PROXY}.")) {
        Some(command) => command.replace("__", "."),
        None => proxied.replace(&format!(".{PROXY}__"), "."),
    }
}

impl Rules {
    pub fn with(mut self, step: &str, direction: Direction, rule: Rule) -> Self {
        self.rules.insert((step.to_owned(), direction), rule);
        self
    }

    pub fn repeated() -> Self {
        Self { repeated: true, ..Self::default() }
    }
}

impl CommandProxy {
    /// Starts the proxy. It runs until the test ends.
    pub async fn open(bus: &Bus, sample: SampleWorkflow) -> Self {
        let proxy = Self { bus: bus.clone(), sagas: Arc::default(), sample: Arc::new(sample) };
        let stream = bus.jetstream.get_stream(subjects::STEPS).await.unwrap();
        let all = workflows().into_iter().flat_map(|(_, definition)| definition.steps);
        let commands: BTreeSet<String> = all.flat_map(|step| [step.command, step.undo]).flatten().collect();
        let elsewhere = commands.iter().filter(|command| !is_here(command));
        let subjects_here = elsewhere.map(|command| subjects::step(&proxied(command)));
        let config = pull::Config {
            durable_name: Some(PROXY.to_owned()),
            filter_subjects: subjects_here.chain([subjects::service(PROXY)]).collect(),
            ..pull::Config::default()
        };
        let mut incoming = stream.create_consumer(config).await.unwrap().messages().await.unwrap();
        let (this, other) = (proxy.clone(), proxy.clone());
        let mut replies = bus.client.subscribe(subjects::SERVICE_REPLIES).await.unwrap();
        tokio::spawn(async move {
            while let Some(reply) = replies.next().await {
                other.note(reply);
            }
        });
        tokio::spawn(async move {
            while let Some(message) = incoming.next().await {
                // A missed heartbeat on a busy machine; the stream continues.
                let Ok(message) = message else { continue };
                this.take(&message).await;
                message.ack().await.unwrap();
            }
        });
        proxy
    }

    /// Sets the rules of a saga and applies them to its waiting commands.
    pub async fn instruct(&self, saga: Uuid, rules: Rules) {
        let waiting = {
            let mut sagas = self.sagas.lock().unwrap();
            let entry = sagas.entry(saga).or_default();
            entry.rules = Some(rules);
            std::mem::take(&mut entry.held)
        };
        for message in waiting {
            self.handle(message, true).await;
        }
    }

    /// Sends everything of this saga, held commands included.
    pub async fn release(&self, saga: Uuid) {
        self.instruct(saga, Rules::default()).await;
    }

    /// Drops the held commands of a saga. Later commands are sent.
    pub fn lose(&self, saga: Uuid) {
        let mut sagas = self.sagas.lock().unwrap();
        let entry = sagas.get_mut(&saga).expect("the saga is known here");
        entry.held.clear();
        entry.rules = Some(Rules::default());
    }

    pub fn held(&self, saga: Uuid, step: &str, direction: Direction) -> Vec<CommandMessage> {
        let sagas = self.sagas.lock().unwrap();
        let held = sagas.get(&saga).into_iter().flat_map(|entry| &entry.held);
        held.filter(|message| message.is_of(step, direction)).cloned().collect()
    }

    /// Every command of a saga so far.
    pub fn commands(&self, saga: Uuid) -> Vec<CommandMessage> {
        self.sagas.lock().unwrap().get(&saga).map(|entry| entry.commands.clone()).unwrap_or_default()
    }

    /// Sends every command and every reply of a saga again.
    pub async fn repeat_all(&self, saga: Uuid) {
        self.repeat(saga, |_| true).await;
    }

    async fn repeat(&self, saga: Uuid, is_wanted: impl Fn(&CommandMessage) -> bool) {
        let wanted: Vec<CommandMessage> = self.commands(saga).into_iter().filter(is_wanted).collect();
        for message in wanted {
            self.forward(&message).await;
        }
        let replies = self.sagas.lock().unwrap().get(&saga).map(|entry| entry.replies.clone());
        for Reply { subject, headers, payload } in replies.unwrap_or_default() {
            self.send(subject, headers, payload).await;
        }
    }

    async fn send(&self, subject: String, headers: HeaderMap, payload: Bytes) {
        let sent = self.bus.jetstream.publish_with_headers(subject, headers, payload);
        sent.await.unwrap().await.unwrap();
    }

    /// Stores a reply for `repeat_all`.
    fn note(&self, message: async_nats::Message) {
        let headers = message.headers.expect("a reply has a fence");
        let saga = headers.get(headers::SAGA).unwrap().as_str().parse().unwrap();
        let reply = Reply { subject: message.subject.to_string(), headers, payload: message.payload };
        let mut sagas = self.sagas.lock().unwrap();
        let replies = &mut sagas.entry(saga).or_default().replies;
        if !replies.contains(&reply) {
            replies.push(reply);
        }
    }

    async fn take(&self, message: &Message) {
        let command = messages::read_command(message).unwrap();
        let mut headers = HeaderMap::new();
        // With the same message id the broker would drop the command as a duplicate.
        let kept = message.headers.iter().flat_map(HeaderMap::iter);
        for (name, values) in kept.filter(|(name, _)| *name != &NATS_MESSAGE_ID) {
            values.iter().for_each(|value| headers.append(name.clone(), value.clone()));
        }
        let message = CommandMessage { command, headers, payload: message.payload.clone() };
        let new = {
            let mut sagas = self.sagas.lock().unwrap();
            let commands = &mut sagas.entry(message.command.saga_id).or_default().commands;
            commands.push(message.clone());
            let id = message.command.message_id();
            commands.iter().filter(|earlier| earlier.command.message_id() == id).count() == 1
        };
        self.handle(message, new).await;
    }

    async fn handle(&self, message: CommandMessage, new: bool) {
        let (rule, repeated) = {
            let mut sagas = self.sagas.lock().unwrap();
            let entry = sagas.entry(message.command.saga_id).or_default();
            let rules = entry.rules.as_ref();
            let key = (message.command.step.clone(), message.command.direction);
            let rule = rules.map_or(Rule::Hold, |rules| rules.rules.get(&key).cloned().unwrap_or_default());
            if matches!(rule, Rule::Hold) {
                entry.held.push(message.clone());
            }
            // A duplicate makes the engine send its current command again, which must not be repeated too.
            (rule, new && entry.rules.as_ref().is_some_and(|rules| rules.repeated))
        };
        let copies = if repeated { 2 } else { 1 };
        match rule {
            Rule::Hold => {}
            Rule::DropReply => self.sample.run_without_reply(&message.command).await,
            Rule::Forward => {
                for _ in 0..copies {
                    self.forward(&message).await;
                }
                if repeated {
                    // While a group runs, its service must not do what the proxy answers.
                    let forward = message.command.direction == Direction::Do;
                    let saga = message.command.saga_id;
                    self.repeat(saga, |earlier| !(forward && self.is_answered(earlier))).await;
                }
            }
            Rule::Answer(outcome) => {
                let copies = vec![outcome; copies];
                publish(&self.bus, &copies, |outcome| messages::reply(&message.command, outcome))
                    .await
                    .unwrap();
            }
        }
    }

    /// Whether the proxy answers a command in place of its service.
    fn is_answered(&self, message: &CommandMessage) -> bool {
        let sagas = self.sagas.lock().unwrap();
        let rules = sagas.get(&message.command.saga_id).and_then(|entry| entry.rules.as_ref());
        let key = (message.command.step.clone(), message.command.direction);
        rules.is_some_and(|rules| matches!(rules.rules.get(&key), Some(Rule::Answer(_))))
    }

    /// Sends a command to its service.
    pub async fn forward(&self, message: &CommandMessage) {
        let subject = subjects::step(&original(&message.command.subject));
        self.send(subject, message.headers.clone(), message.payload.clone()).await;
    }
}

impl CommandMessage {
    pub fn is_of(&self, step: &str, direction: Direction) -> bool {
        self.command.step == step && self.command.direction == direction
    }
}
