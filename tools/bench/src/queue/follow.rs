//! All users in line poll their place at the interval that each answer asks for.
//!
//! In production they have 200,000 machines of their own. Here they share the machine with the service, so their generator
//! has a low-priority thread, a runtime and connections of its own, and the bookings beside it do not pay for its work.
//! Polls may start late because of this; the report says by how much.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::storm::Arrival;
use super::{Load, bookings, given_twice};
use crate::aside::aside;
use crate::client::{Client, Look};
use crate::crowd::Crowd;
use crate::load::at_once;
use crate::progress::Progress;
use crate::timing::Timings;
use boxoffice::clock::Clock;

/// Callers at once, where one instance is asked as often as it can answer.
const AT_ONCE: u32 = 64;
/// Most polls under way while users poll at the asked interval. Polls beyond this start late.
const UNDER_WAY: u64 = 512;
/// How long it takes at most to put a line of 200,000 together.
const READY: Duration = Duration::from_secs(1);
/// How long an answer may take beyond the end.
const LAST: Duration = Duration::from_secs(30);

/// Whom to ask, for how long, and what runs beside it.
pub(super) struct Asked<'a> {
    pub client: &'a Client,
    pub clock: &'a Clock,
    pub seconds: u32,
    /// The seed of the random delay before each user's first poll.
    pub seed: u64,
    /// Buyers of whom the second half books meanwhile, so many per second.
    pub beside: Option<(&'a Arc<Crowd>, u32)>,
}

/// The result.
#[derive(Debug, Default)]
pub(super) struct Followed {
    pub polls: Timings,
    pub late: Timings,
    pub per_second: f64,
    pub admitted: u64,
    pub errors: u64,
    /// The error of the first known estimate of each admitted user.
    pub estimates: Timings,
    pub duplicates: u64,
    /// All users who polled.
    pub line: Vec<Arrival>,
}

/// The answer to one user's poll.
struct Answered {
    number: usize,
    took: Duration,
    look: anyhow::Result<Look>,
}

/// Polls for all users at the asked interval, and runs the bookings at the same time.
pub(super) async fn run(
    asked: Asked<'_>,
    line: Vec<Arrival>,
    progress: &Progress,
) -> anyhow::Result<(Followed, Load)> {
    let Asked { client, clock, seconds, seed, beside } = asked;
    let booked = async {
        match beside {
            Some((crowd, rate)) => {
                let first = bookings::buyers(rate, seconds);
                bookings::run(client, crowd, first, rate, seconds, progress).await
            }
            None => Load::default(),
        }
    };
    let (client, clock) = (client.apart(), clock.clone());
    let followed = aside(move || follow(client, clock, line, bookings::LEAD + seconds, seed));
    let (followed, booked) = tokio::join!(followed, booked);
    Ok((followed?, booked))
}

async fn follow(client: Client, clock: Clock, line: Vec<Arrival>, seconds: u32, seed: u64) -> Followed {
    let mut followed = Followed { duplicates: given_twice(&line), ..Followed::default() };
    let mut members: Vec<Member> = line.into_iter().map(Member::of).collect();
    // Users who joined a while ago are at a random point between two polls.
    let mut chance = StdRng::seed_from_u64(seed);
    let within = |member: &Member| chance.random_range(0..=member.arrival.poll_after_ms);
    let first: Vec<u64> = members.iter().map(within).collect();
    // It begins in a moment: what is due while all of this is put together would come at once.
    let begun = Instant::now() + READY;
    let end = begun + Duration::from_secs(seconds.into());
    let mut turns: BinaryHeap<Turn> = first
        .into_iter()
        .enumerate()
        .map(|(number, within)| Reverse((begun + Duration::from_millis(within), number)))
        .collect();
    sleep_until(begun).await;
    let (answer, mut answers) = mpsc::unbounded_channel::<Answered>();
    let (mut asked, mut open) = (0u64, 0u64);
    loop {
        let next = turns.peek().map_or(end, |Reverse((due, _))| *due);
        if next >= end && Instant::now() >= end {
            break;
        }
        tokio::select! {
            Some(answered) = answers.recv() => {
                open -= 1;
                if let Some(pause) = followed.take(&clock, &mut members, answered) {
                    turns.push(pause);
                }
            }
            () = sleep_until(next.min(end)), if open < UNDER_WAY => {
                if next >= end {
                    break;
                }
                let Some(Reverse((due, number))) = turns.pop() else { break };
                followed.late.add(TimeDelta::from_std(due.elapsed()).unwrap_or_default());
                ask(&client, &members[number], number, answer.clone());
                (asked, open) = (asked + 1, open + 1);
            }
        }
    }
    followed.per_second = asked as f64 / begun.elapsed().as_secs_f64();
    while open > 0
        && let Ok(Some(answered)) = timeout_at(end + LAST, answers.recv()).await
    {
        open -= 1;
        followed.take(&clock, &mut members, answered);
    }
    followed.errors += open;
    followed.line = members.into_iter().map(|member| member.arrival).collect();
    followed
}

struct Member {
    arrival: Arrival,
    /// When the first known estimate expected the admission.
    expected: Option<DateTime<Utc>>,
}

impl Member {
    fn of(arrival: Arrival) -> Self {
        Self { arrival, expected: None }
    }
}

fn ask(client: &Client, member: &Member, number: usize, answer: mpsc::UnboundedSender<Answered>) {
    let (client, caller) = (client.clone(), member.arrival.caller.clone());
    // From now on, so that time is counted which a generator without a processor takes to come to it.
    let begun = Instant::now();
    tokio::spawn(async move {
        let look = client.look(&caller).await;
        // The receiver is gone when it is over.
        let _received = answer.send(Answered { number, took: begun.elapsed(), look });
    });
}

type Turn = Reverse<(Instant, usize)>;

impl Followed {
    /// Takes an answer; says when its member asks again.
    fn take(&mut self, clock: &Clock, members: &mut [Member], answered: Answered) -> Option<Turn> {
        let Answered { number, took, look } = answered;
        let member = &mut members[number];
        let look = match look {
            Ok(look) => look,
            Err(error) => {
                tracing::error!(%error, "a poll failed");
                self.errors += 1;
                return None;
            }
        };
        self.polls.add(TimeDelta::from_std(took).unwrap_or_default());
        if let Some(activated) = look.activated_at {
            self.admitted += 1;
            self.estimates
                .extend(member.expected.map(|expected| (activated - expected).abs()).into_iter().collect());
            return None;
        }
        if let Some(eta) = look.eta_seconds.filter(|_| look.eta_known)
            && member.expected.is_none()
        {
            member.expected = Some(clock.now() + TimeDelta::seconds(eta));
        }
        Some(Reverse((Instant::now() + Duration::from_millis(look.poll_after_ms), number)))
    }
}

/// Asks for the places of people in line, some at once, again and again; answers how long it took and how many it
/// were per second.
pub(super) async fn as_fast_as_it_goes(
    client: &Client,
    line: &[Arrival],
    seconds: u32,
    progress: &Progress,
) -> (Timings, f64) {
    let polls = std::sync::Mutex::new(Timings::default());
    progress.begin("as many ask as can be answered", 0);
    let begun = Instant::now();
    let end = begun + Duration::from_secs(seconds.into());
    at_once(AT_ONCE, AT_ONCE, progress, async |lane| {
        let mut mine = Timings::default();
        for arrival in line.iter().cycle().skip(lane as usize * line.len() / AT_ONCE as usize) {
            if Instant::now() >= end {
                break;
            }
            let begun = Instant::now();
            client.look(&arrival.caller).await?;
            mine.add(TimeDelta::from_std(begun.elapsed()).unwrap_or_default());
        }
        polls.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend(mine);
        Ok(())
    })
    .await;
    let polls = polls.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let count = polls.spread().map_or(0, |spread| spread.count);
    (polls, count as f64 / begun.elapsed().as_secs_f64())
}
