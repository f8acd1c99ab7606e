//! The post between the engine and the workers: every command comes through it, and each saga says what becomes of
//! its own. So a test can hold a command back, deliver it twice or late, or answer in the worker's stead.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::pull;
use boxoffice::bus::publish::publish;
use boxoffice::bus::{Bus, headers, messages, subjects};
use boxoffice::saga::{Command, Direction, Outcome};
use boxoffice::workers::Service;
use bytes::Bytes;
use futures::StreamExt;
use uuid::Uuid;

use super::parcels::Parcels;
use super::stage::workflows;

/// The service that the commands of all rewritten workflows name.
const POST: &str = "post";

/// What becomes of a command.
#[derive(Clone, Debug, Default)]
pub enum Rule {
    /// It goes to whoever serves it.
    #[default]
    Forward,
    /// It stays here until it is released.
    Hold,
    /// Nobody hears of it; this is the answer.
    Answer(Outcome),
    /// A worker elsewhere does it, and dies before it answers. For the services here doing it is the answer.
    Mute,
}

/// What becomes of the commands of one saga.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    rules: HashMap<(String, Direction), Rule>,
    /// Each command and each reply goes out twice, and with each command all earlier ones of the saga again.
    repeated: bool,
}

/// A command as it came.
#[derive(Clone)]
pub struct Letter {
    pub command: Command,
    headers: HeaderMap,
    payload: Bytes,
}

/// A worker's answer as it went by.
#[derive(Clone, PartialEq)]
struct Reply {
    subject: String,
    headers: HeaderMap,
    payload: Bytes,
}

#[derive(Default)]
struct Shelf {
    /// None until the saga has said what is to become of its commands; until then they stay.
    rules: Option<Rules>,
    letters: Vec<Letter>,
    held: Vec<Letter>,
    replies: Vec<Reply>,
}

/// The post of one stage.
#[derive(Clone)]
pub struct Post {
    bus: Bus,
    shelves: Arc<Mutex<HashMap<Uuid, Shelf>>>,
    pub parcels: Arc<Parcels>,
}

/// The command by which a workflow's command reaches the post. A service elsewhere keeps its name in it: it may only answer for
/// its own commands.
pub fn detour(command: &str) -> String {
    match command.split_once('.') {
        Some((service, verb)) if !is_here(command) => format!("{service}.{POST}__{verb}"),
        _ => format!("{POST}.{}", command.replace('.', "__")),
    }
}

/// Whether a command, by its own name or by its detour, is served by the program itself.
pub fn is_here(command: &str) -> bool {
    let command = real(command);
    Service::ALL.iter().any(|service| service.name() == subjects::service_of(&command))
}

fn real(detour: &str) -> String {
    match detour.strip_prefix(&format!("{POST}.")) {
        Some(command) => command.replace("__", "."),
        None => detour.replace(&format!(".{POST}__"), "."),
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

impl Post {
    /// Opens it; it closes with the test.
    pub async fn open(bus: &Bus, parcels: Parcels) -> Self {
        let post = Self { bus: bus.clone(), shelves: Arc::default(), parcels: Arc::new(parcels) };
        let stream = bus.jetstream.get_stream(subjects::STEPS).await.unwrap();
        let all = workflows().into_iter().flat_map(|(_, definition)| definition.steps);
        let commands: BTreeSet<String> = all.flat_map(|step| [step.command, step.undo]).flatten().collect();
        let elsewhere = commands.iter().filter(|command| !is_here(command));
        let detours = elsewhere.map(|command| subjects::step(&detour(command)));
        let config = pull::Config {
            durable_name: Some(POST.to_owned()),
            filter_subjects: detours.chain([subjects::service(POST)]).collect(),
            ..pull::Config::default()
        };
        let mut incoming = stream.create_consumer(config).await.unwrap().messages().await.unwrap();
        let (this, other) = (post.clone(), post.clone());
        let mut replies = bus.client.subscribe(subjects::SERVICE_REPLIES).await.unwrap();
        tokio::spawn(async move {
            while let Some(reply) = replies.next().await {
                other.note(reply);
            }
        });
        tokio::spawn(async move {
            while let Some(message) = incoming.next().await {
                // A heartbeat that was missed on a busy machine; the stream goes on.
                let Ok(message) = message else { continue };
                this.take(&message).await;
                message.ack().await.unwrap();
            }
        });
        post
    }

    /// From now on this becomes of a saga's commands; those that were waiting for it go out.
    pub async fn instruct(&self, saga: Uuid, rules: Rules) {
        let waiting = {
            let mut shelves = self.shelves.lock().unwrap();
            let shelf = shelves.entry(saga).or_default();
            shelf.rules = Some(rules);
            std::mem::take(&mut shelf.held)
        };
        for letter in waiting {
            self.handle(letter, true).await;
        }
    }

    /// Everything of this saga goes its way from now on, also what was held.
    pub async fn release(&self, saga: Uuid) {
        self.instruct(saga, Rules::default()).await;
    }

    /// What was held for a saga is lost; everything after it goes its way.
    pub fn lose(&self, saga: Uuid) {
        let mut shelves = self.shelves.lock().unwrap();
        let shelf = shelves.get_mut(&saga).expect("the saga is known here");
        shelf.held.clear();
        shelf.rules = Some(Rules::default());
    }

    /// What the post holds of a step.
    pub fn held(&self, saga: Uuid, step: &str, direction: Direction) -> Vec<Letter> {
        let shelves = self.shelves.lock().unwrap();
        let held = shelves.get(&saga).into_iter().flat_map(|shelf| &shelf.held);
        held.filter(|letter| letter.is_of(step, direction)).cloned().collect()
    }

    /// Every command that has come for a saga so far.
    pub fn letters(&self, saga: Uuid) -> Vec<Letter> {
        self.shelves.lock().unwrap().get(&saga).map(|shelf| shelf.letters.clone()).unwrap_or_default()
    }

    /// Sends every command of a saga and every reply to them once more.
    pub async fn repeat_all(&self, saga: Uuid) {
        for letter in self.letters(saga) {
            self.forward(&letter).await;
        }
        let replies = self.shelves.lock().unwrap().get(&saga).map(|shelf| shelf.replies.clone());
        for Reply { subject, headers, payload } in replies.unwrap_or_default() {
            self.send(subject, headers, payload).await;
        }
    }

    async fn send(&self, subject: String, headers: HeaderMap, payload: Bytes) {
        let sent = self.bus.jetstream.publish_with_headers(subject, headers, payload);
        sent.await.unwrap().await.unwrap();
    }

    /// Keeps a reply, to be repeated.
    fn note(&self, message: async_nats::Message) {
        let headers = message.headers.expect("a reply has a fence");
        let saga = headers.get(headers::SAGA).unwrap().as_str().parse().unwrap();
        let reply = Reply { subject: message.subject.to_string(), headers, payload: message.payload };
        let mut shelves = self.shelves.lock().unwrap();
        let replies = &mut shelves.entry(saga).or_default().replies;
        if !replies.contains(&reply) {
            replies.push(reply);
        }
    }

    async fn take(&self, message: &Message) {
        let command = messages::read_command(message).unwrap();
        let mut headers = HeaderMap::new();
        // The broker would take a command that it has seen under its detour for a repeat.
        let kept = message.headers.iter().flat_map(HeaderMap::iter);
        for (name, values) in kept.filter(|(name, _)| *name != &NATS_MESSAGE_ID) {
            values.iter().for_each(|value| headers.append(name.clone(), value.clone()));
        }
        let letter = Letter { command, headers, payload: message.payload.clone() };
        let new = {
            let mut shelves = self.shelves.lock().unwrap();
            let letters = &mut shelves.entry(letter.command.saga_id).or_default().letters;
            letters.push(letter.clone());
            let id = letter.command.message_id();
            letters.iter().filter(|earlier| earlier.command.message_id() == id).count() == 1
        };
        self.handle(letter, new).await;
    }

    async fn handle(&self, letter: Letter, new: bool) {
        let (rule, repeated) = {
            let mut shelves = self.shelves.lock().unwrap();
            let shelf = shelves.entry(letter.command.saga_id).or_default();
            let rules = shelf.rules.as_ref();
            let key = (letter.command.step.clone(), letter.command.direction);
            let rule = rules.map_or(Rule::Hold, |rules| rules.rules.get(&key).cloned().unwrap_or_default());
            if matches!(rule, Rule::Hold) {
                shelf.held.push(letter.clone());
            }
            // A repeat makes the engine ask again for what it wants now; that is not repeated in its turn.
            (rule, new && shelf.rules.as_ref().is_some_and(|rules| rules.repeated))
        };
        let copies = if repeated { 2 } else { 1 };
        match rule {
            Rule::Hold => {}
            Rule::Mute => self.parcels.do_without_a_word(&letter.command).await,
            Rule::Forward => {
                for _ in 0..copies {
                    self.forward(&letter).await;
                }
                if repeated {
                    self.repeat_all(letter.command.saga_id).await;
                }
            }
            Rule::Answer(outcome) => {
                let copies = vec![outcome; copies];
                publish(&self.bus, &copies, |outcome| messages::reply(&letter.command, outcome))
                    .await
                    .unwrap();
            }
        }
    }

    /// Hands a command to whoever serves it.
    pub async fn forward(&self, letter: &Letter) {
        let subject = subjects::step(&real(&letter.command.subject));
        self.send(subject, letter.headers.clone(), letter.payload.clone()).await;
    }
}

impl Letter {
    pub fn is_of(&self, step: &str, direction: Direction) -> bool {
        self.command.step == step && self.command.direction == direction
    }
}
