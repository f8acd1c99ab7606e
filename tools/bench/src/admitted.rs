//! People who came through the line: joined over HTTP, admitted by the leader, with points; and a seat for each.

use std::time::Duration;

use anyhow::bail;
use serde_json::json;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::client::{Caller, Client};
use super::crowd;
use super::halls::Halls;
use super::people::stand_in_line;
use super::progress::Progress;
use super::stage::Stage;
use crate::store::rehearsal;

/// Users who join at the same time.
const AT_ONCE: u32 = 256;
/// Points of each.
const POINTS: i64 = 1_000_000;
/// How long all admissions may take.
const PATIENCE: Duration = Duration::from_secs(180);

/// No session ends during the run, and no user counts as silent because the generator does not poll for them.
pub(super) const SETTINGS: [(&str, &str); 4] = [
    ("BOXOFFICE_QUEUE_SESSION_SECONDS", "7200"),
    ("BOXOFFICE_QUEUE_CLAIM_SECONDS", "7200"),
    ("BOXOFFICE_QUEUE_SILENCE_SECONDS", "3600"),
    ("BOXOFFICE_HOLD_SECONDS", "3600"),
];

/// People with an open session, and the seats on sale to them: one for each, in their order.
#[derive(Debug)]
pub(super) struct Admitted {
    pub people: Vec<Caller>,
    pub halls: Halls,
}

/// Lets so many people join a line and waits until all are admitted.
pub(super) async fn gather(
    stage: &Stage,
    client: &Client,
    people: u32,
    progress: &Progress,
) -> anyhow::Result<Admitted> {
    let queue = json!({ "max_active": 1_000_000, "admit_per_minute": 6_000_000 });
    let halls = Halls::open(stage, client, queue, people).await?;
    let joined = stand_in_line(stage, client, halls.concert, AT_ONCE, people, progress).await?;
    let (ids, people): (Vec<Uuid>, Vec<Caller>) = joined.into_iter().unzip();
    rehearsal::endow(&stage.pool, &ids, POINTS).await?;
    progress.begin("all are admitted", 0);
    let end = Instant::now() + PATIENCE;
    while crowd::line(stage, client, halls.concert).await?.0 > 0 {
        if Instant::now() > end {
            bail!("people still wait after {} s", PATIENCE.as_secs());
        }
        sleep(Duration::from_millis(200)).await;
    }
    Ok(Admitted { people, halls })
}
