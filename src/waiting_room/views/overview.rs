//! The lines for operators, the public view of a sale, and the gauges.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::line::{Draw, LastMinute, LineCounts, Queue};
use super::super::queue_token::{Inventory, Phase};
use super::super::room_state::{RoomError, RoomState};
use super::super::sale::{Sale, Throttle, ThrottleState};
use crate::ids::ConcertId;
use crate::store::queue::QueueSettings;
use crate::telemetry::CONCERT_LABELS;

const MINUTE: Duration = Duration::from_secs(60);

/// A line for operators.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct QueueOverview {
    pub concert_id: Uuid,
    /// The phase of the sale.
    pub phase: Phase,
    /// How many seats are left, roughly.
    pub inventory: Inventory,
    /// When the sale opens or has opened; null while unknown.
    pub opens_at: Option<DateTime<Utc>>,
    /// The lottery among the users who joined before the opening; null while no opening is known.
    pub draw: Option<Draw>,
    /// How many users wait.
    pub length: u64,
    /// How many of the waiting users are silent: they are skipped until they send a heartbeat or their grace ends.
    pub silent: u64,
    /// How many users are admitted and not over.
    pub active: u64,
    /// Places that are free now.
    pub free: u64,
    /// Admissions per minute in force: the configured rate, or the one of the throttle.
    pub admission_rate: u32,
    /// What the throttle does and why; null while it is off, and until the leader has decided.
    pub brake: Option<Throttle>,
    /// Since when the line has stood still although places are free; null if all is well.
    pub stalled_since: Option<DateTime<Utc>>,
    /// The process that leads; null if none does.
    pub leader: Option<Uuid>,
    /// Joins of the last minute, since this instance started to watch. In its first minute at least the users who are
    /// still there.
    pub joined_last_minute: u64,
    /// Admissions of the last minute, counted in the same way.
    pub admitted_last_minute: u64,
    /// Users who became silent in the last minute, since this instance started to watch.
    pub silenced_last_minute: u64,
    /// Users whose claim window expired unused in the last minute, since this instance started to watch.
    pub no_shows_last_minute: u64,
    /// When the first of the waiting users joined.
    pub oldest_waiter_since: Option<DateTime<Utc>>,
    /// How long that user has waited, in whole seconds.
    pub oldest_waiter_seconds: Option<i64>,
    /// The settings of the line.
    pub settings: QueueSettings,
}

/// The public view of a sale.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct SaleView {
    /// The phase of the sale.
    pub phase: Phase,
    /// How many seats are left, roughly.
    pub inventory: Inventory,
    /// When users may join; null if no time was set.
    pub pre_queue_at: Option<DateTime<Utc>>,
    /// When the sale opens or has opened; null while no date is on sale or to come.
    pub opens_at: Option<DateTime<Utc>>,
    /// Whole seconds until the opening; null once it has opened.
    pub opens_in_seconds: Option<i64>,
    /// The lottery among the users who joined before the opening; null while no opening is known.
    pub draw: Option<Draw>,
}

pub async fn sale(room: &RoomState, concert: ConcertId) -> Result<SaleView, RoomError> {
    let sale = room.sales.fresh(concert).await.map_err(|_| RoomError::Unavailable)?;
    let sale = sale.ok_or(RoomError::NotFound)?;
    let opens_at = sale.lottery.map(|lottery| lottery.opens_at);
    Ok(SaleView {
        phase: sale.phase,
        inventory: sale.inventory,
        pre_queue_at: sale.settings.pre_queue_at,
        opens_at,
        opens_in_seconds: opens_at.map(|at| room.seconds_until(at)).filter(|seconds| *seconds > 0),
        draw: sale.lottery.map(|lottery| lottery.shown(room.clock.now())),
    })
}

/// Ordered by concert.
pub fn all(room: &RoomState) -> Vec<QueueOverview> {
    let mut sales = room.sales.all();
    sales.sort_by_key(|sale| sale.settings.concert_id);
    sales.into_iter().map(|sale| looked_at(room, sale)).collect()
}

pub async fn one(room: &RoomState, concert: ConcertId) -> Result<QueueOverview, RoomError> {
    let sale = room.sales.fresh(concert).await.map_err(|_| RoomError::Unavailable)?;
    sale.map(|sale| looked_at(room, sale)).ok_or(RoomError::NotFound)
}

/// Sets the gauges of every line that has or had users, and the lag of the journal.
pub fn measure(room: &RoomState) {
    metrics::gauge!("boxoffice_queue_journal_lag")
        .set((room.memory.changes() + room.admission.journal.lag()) as f64);
    let sales = room.memory.concerts().into_iter().filter_map(|concert| room.sales.get(concert));
    let mut shown: BTreeMap<String, QueueOverview> = BTreeMap::new();
    for line in sales.map(|sale| of(room, sale)) {
        let worst = shown.entry(CONCERT_LABELS.of(line.concert_id)).or_insert_with(|| line.clone());
        // Of the lines that share a label, the one that needs attention first is shown.
        let need = |line: &QueueOverview| (line.stalled_since.is_some(), line.length);
        if need(&line) > need(worst) {
            *worst = line;
        }
    }
    for (concert, line) in shown {
        let gauge = |name, value: f64| metrics::gauge!(name, "concert" => concert.clone()).set(value);
        let is_braked = |throttle: &Throttle| {
            !matches!(throttle.state, ThrottleState::Released | ThrottleState::Recovering)
        };
        gauge("boxoffice_queue_waiting", line.length as f64);
        gauge("boxoffice_queue_silent", line.silent as f64);
        gauge("boxoffice_queue_active", line.active as f64);
        gauge("boxoffice_queue_free", line.free as f64);
        gauge("boxoffice_queue_admission_rate", f64::from(line.admission_rate));
        gauge("boxoffice_queue_admitted_last_minute", line.admitted_last_minute as f64);
        gauge("boxoffice_queue_joined_last_minute", line.joined_last_minute as f64);
        gauge("boxoffice_queue_no_shows_last_minute", line.no_shows_last_minute as f64);
        gauge("boxoffice_queue_oldest_waiter_seconds", line.oldest_waiter_seconds.unwrap_or(0) as f64);
        gauge("boxoffice_queue_braked", f64::from(u8::from(line.brake.as_ref().is_some_and(is_braked))));
        gauge("boxoffice_queue_stalled", f64::from(u8::from(line.stalled_since.is_some())));
    }
}

/// A line for a request. A process that has watched for less than a minute, such as a command, counts the users who
/// are there.
fn looked_at(room: &RoomState, sale: Sale) -> QueueOverview {
    let mut line = of(room, sale);
    if room.memory.since_start() < MINUTE {
        let since = room.clock.now() - MINUTE;
        let (joined, admitted) =
            room.memory.lines().queue(line.concert_id).map_or((0, 0), |queue| queue.since(since));
        line.joined_last_minute = line.joined_last_minute.max(joined);
        line.admitted_last_minute = line.admitted_last_minute.max(admitted);
    }
    line
}

fn of(room: &RoomState, sale: Sale) -> QueueOverview {
    let lines = room.memory.lines();
    let queue = lines.queue(sale.settings.concert_id);
    let since_start = room.memory.since_start();
    let oldest = queue.and_then(Queue::oldest);
    let active = queue.map_or(0, |queue| queue.active() as u64);
    let last_minute = |of: fn(&LineCounts) -> &LastMinute| {
        queue.map_or(0, |queue| u64::from(of(&queue.counts).total(since_start)))
    };
    QueueOverview {
        concert_id: sale.settings.concert_id,
        phase: sale.phase,
        inventory: sale.inventory,
        opens_at: sale.lottery.map(|lottery| lottery.opens_at),
        draw: sale.lottery.map(|lottery| lottery.shown(room.clock.now())),
        length: queue.map_or(0, |queue| queue.waiting() as u64),
        active,
        free: u64::try_from(sale.settings.max_active).unwrap_or(0).saturating_sub(active),
        admission_rate: room.admission.throttles.rate(&sale.settings),
        brake: room.admission.throttles.of(&sale.settings),
        stalled_since: room.admission.stalls.since(sale.settings.concert_id),
        leader: lines.lease().holder,
        silent: queue.map_or(0, |queue| queue.silent() as u64),
        joined_last_minute: last_minute(|counts| &counts.joined),
        admitted_last_minute: last_minute(|counts| &counts.admitted),
        silenced_last_minute: last_minute(|counts| &counts.silenced),
        no_shows_last_minute: last_minute(|counts| &counts.no_shows),
        oldest_waiter_since: oldest,
        oldest_waiter_seconds: oldest.map(|since| (room.clock.now() - since).num_seconds().max(0)),
        settings: sale.settings,
    }
}
