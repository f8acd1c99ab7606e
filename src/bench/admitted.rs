//! People who came through the line: joined over HTTP, admitted by the leader, with points; and a seat for each.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::bail;
use serde_json::json;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::client::{Caller, Client};
use super::crowd;
use super::load::at_once;
use super::people::People;
use super::progress::Progress;
use super::stage::Stage;
use crate::store::rehearsal;

/// Seats of one date: the most that there may be.
const HALL: u32 = 100_000;
/// Who joins at once.
const AT_ONCE: u32 = 256;
/// Who gets points at once.
const SOME: usize = 10_000;
/// Points of each.
const POINTS: i64 = 1_000_000;
/// How long all admissions may take.
const PATIENCE: Duration = Duration::from_secs(180);

/// Nobody's session ends meanwhile, and nobody is taken for gone who is only not asked for by the generator.
pub(super) const SETTINGS: [(&str, &str); 4] = [
    ("BOXOFFICE_QUEUE_SESSION_SECONDS", "7200"),
    ("BOXOFFICE_QUEUE_CLAIM_SECONDS", "7200"),
    ("BOXOFFICE_QUEUE_SILENCE_SECONDS", "3600"),
    ("BOXOFFICE_HOLD_SECONDS", "3600"),
];

/// People with an open session, and the dates on sale to them.
#[derive(Debug)]
pub(super) struct Admitted {
    pub people: Vec<Caller>,
    halls: Vec<Uuid>,
    hall: u32,
}

impl Admitted {
    /// The seat of the person of this number: performance and number of the seat.
    pub(super) fn seat(&self, number: usize) -> (Uuid, u32) {
        let number = number as u32;
        (self.halls[(number / self.hall) as usize], number % self.hall + 1)
    }
}

/// Lets so many people join a line and waits until all are admitted.
pub(super) async fn gather(
    stage: &Stage,
    client: &Client,
    people: u32,
    progress: &Progress,
) -> anyhow::Result<Admitted> {
    let hall = people.clamp(1, HALL);
    let queue = json!({ "max_active": 1_000_000, "admit_per_minute": 6_000_000 });
    let (concert, first) = crowd::sale(stage, client, queue, hall).await?;
    let mut halls = vec![first];
    for _ in 1..people.div_ceil(hall) {
        halls.push(crowd::date(stage, client, concert, hall).await?);
    }
    let signed = People::of(stage);
    let joined = Mutex::new(Vec::with_capacity(people as usize));
    progress.begin("people join", people.into());
    let load = at_once(AT_ONCE, people, progress, async |_| {
        let (id, mut caller) = signed.somebody()?;
        caller.queue_token = client.join(concert, &caller).await?.1.token;
        joined.lock().unwrap_or_else(PoisonError::into_inner).push((id, caller));
        Ok(())
    })
    .await;
    if load.errors > 0 {
        bail!("{} of {people} could not join", load.errors);
    }
    let (ids, people): (Vec<Uuid>, Vec<Caller>) =
        joined.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().unzip();
    for some in ids.chunks(SOME) {
        rehearsal::endow(&stage.pool, some, POINTS).await?;
    }
    progress.begin("all are admitted", 0);
    let end = Instant::now() + PATIENCE;
    while crowd::line(stage, client, concert).await?.0 > 0 {
        if Instant::now() > end {
            bail!("people still wait after {} s", PATIENCE.as_secs());
        }
        sleep(Duration::from_millis(200)).await;
    }
    Ok(Admitted { people, halls, hall })
}
