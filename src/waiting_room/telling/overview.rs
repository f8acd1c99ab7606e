//! The lines as their operators see them, and the gauges that say the same.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::hall::{Hall, RoomError};
use super::super::line::{Draw, LastMinute, Queue, Tally};
use super::super::sale::{Brake, BrakeState, Sale};
use super::super::status::{Inventory, Phase};
use crate::ids::ConcertId;
use crate::store::queue::QueueSettings;
use crate::telemetry::CONCERT_LABELS;

const MINUTE: Duration = Duration::from_secs(60);

/// A line as its operators see it.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct QueueOverview {
    /// Whose line it is.
    pub concert_id: Uuid,
    /// What the sale is doing.
    pub phase: Phase,
    /// How many seats are left, roughly.
    pub inventory: Inventory,
    /// When the sale opens or has opened; null while that is not known.
    pub opens_at: Option<DateTime<Utc>>,
    /// The draw among those who came before; null while no opening is known.
    pub draw: Option<Draw>,
    /// How many wait.
    pub length: u64,
    /// How many of those nobody has heard of for a while: passed over, until they are heard of or their grace is over.
    pub silent: u64,
    /// How many are admitted and not over.
    pub active: u64,
    /// Places that are free this moment.
    pub free: u64,
    /// Admissions per minute in force: the rate that is set, or what the brake makes of it.
    pub admission_rate: u32,
    /// What the brake does and why; null while it is off, and until the leader has looked.
    pub brake: Option<Brake>,
    /// Since when people have waited with places free and nobody admitted, longer than it can be meant; null if all is well.
    pub stalled_since: Option<DateTime<Utc>>,
    /// The running process that admits; null if none does.
    pub leader: Option<Uuid>,
    /// Joins of the last minute, as far as this instance has been watching; in its first minute at least those who are
    /// still there.
    pub joined_last_minute: u64,
    /// Admissions of the last minute, counted in the same way.
    pub admitted_last_minute: u64,
    /// Who went silent in the last minute, as far as this instance has been watching.
    pub silenced_last_minute: u64,
    /// Whose claim window ran out unused in the last minute, as far as this instance has been watching.
    pub no_shows_last_minute: u64,
    /// Since when the one who came first waits.
    pub oldest_waiter_since: Option<DateTime<Utc>>,
    /// The same, in whole seconds.
    pub oldest_waiter_seconds: Option<i64>,
    /// How the line is run.
    pub settings: QueueSettings,
}

/// A sale as everybody sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct SaleView {
    /// What the sale is doing.
    pub phase: Phase,
    /// How many seats are left, roughly.
    pub inventory: Inventory,
    /// From when early comers gather; null if no time was set.
    pub pre_queue_at: Option<DateTime<Utc>>,
    /// When the sale opens or has opened; null while no date is on sale or to come.
    pub opens_at: Option<DateTime<Utc>>,
    /// The same, in whole seconds from now; null once it has opened.
    pub opens_in_seconds: Option<i64>,
    /// The draw among those who came before the opening; null while no opening is known.
    pub draw: Option<Draw>,
}

/// One sale as everybody sees it.
pub async fn sale(hall: &Hall, concert: ConcertId) -> Result<SaleView, RoomError> {
    let sale = hall.sales.fresh(concert).await.map_err(|_| RoomError::Unavailable)?;
    let sale = sale.ok_or(RoomError::NotFound)?;
    let opens_at = sale.lot.map(|lot| lot.opens_at);
    Ok(SaleView {
        phase: sale.phase,
        inventory: sale.inventory,
        pre_queue_at: sale.settings.pre_queue_at,
        opens_at,
        opens_in_seconds: opens_at.map(|at| hall.seconds_until(at)).filter(|seconds| *seconds > 0),
        draw: sale.lot.map(|lot| lot.shown(hall.clock.now())),
    })
}

/// Every concert's line, by concert.
pub fn all(hall: &Hall) -> Vec<QueueOverview> {
    let mut sales = hall.sales.all();
    sales.sort_by_key(|sale| sale.settings.concert_id);
    sales.into_iter().map(|sale| looked_at(hall, sale)).collect()
}

/// One concert's line.
pub async fn one(hall: &Hall, concert: ConcertId) -> Result<QueueOverview, RoomError> {
    let sale = hall.sales.fresh(concert).await.map_err(|_| RoomError::Unavailable)?;
    sale.map(|sale| looked_at(hall, sale)).ok_or(RoomError::NotFound)
}

/// Sets the gauges of every line that had somebody in it, and how many places the leader has not journalled yet.
pub fn measure(hall: &Hall) {
    metrics::gauge!("boxoffice_queue_journal_lag").set((hall.memory.changes() + hall.journal.lag()) as f64);
    let sales = hall.memory.concerts().into_iter().filter_map(|concert| hall.sales.get(concert));
    let mut shown: BTreeMap<String, QueueOverview> = BTreeMap::new();
    for line in sales.map(|sale| of(hall, sale)) {
        let worst = shown.entry(CONCERT_LABELS.of(line.concert_id)).or_insert_with(|| line.clone());
        // Of the lines that share a label the one that needs attention first is shown.
        let need = |line: &QueueOverview| (line.stalled_since.is_some(), line.length);
        if need(&line) > need(worst) {
            *worst = line;
        }
    }
    for (concert, line) in shown {
        let gauge = |name, value: f64| metrics::gauge!(name, "concert" => concert.clone()).set(value);
        let is_braked = |brake: &Brake| !matches!(brake.state, BrakeState::Released | BrakeState::Recovering);
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

/// A line as somebody asks for it. Who has not watched for a minute, such as a command that only looks, goes by those who are
/// there.
fn looked_at(hall: &Hall, sale: Sale) -> QueueOverview {
    let mut line = of(hall, sale);
    if hall.memory.since_start() < MINUTE {
        let since = hall.clock.now() - MINUTE;
        let (joined, admitted) =
            hall.memory.lines().queue(line.concert_id).map_or((0, 0), |queue| queue.since(since));
        line.joined_last_minute = line.joined_last_minute.max(joined);
        line.admitted_last_minute = line.admitted_last_minute.max(admitted);
    }
    line
}

fn of(hall: &Hall, sale: Sale) -> QueueOverview {
    let lines = hall.memory.lines();
    let queue = lines.queue(sale.settings.concert_id);
    let since_start = hall.memory.since_start();
    let oldest = queue.and_then(Queue::oldest);
    let active = queue.map_or(0, |queue| queue.active() as u64);
    let last_minute = |of: fn(&Tally) -> &LastMinute| {
        queue.map_or(0, |queue| u64::from(of(&queue.tally).total(since_start)))
    };
    QueueOverview {
        concert_id: sale.settings.concert_id,
        phase: sale.phase,
        inventory: sale.inventory,
        opens_at: sale.lot.map(|lot| lot.opens_at),
        draw: sale.lot.map(|lot| lot.shown(hall.clock.now())),
        length: queue.map_or(0, |queue| queue.waiting() as u64),
        active,
        free: u64::try_from(sale.settings.max_active).unwrap_or(0).saturating_sub(active),
        admission_rate: hall.brakes.rate(&sale.settings),
        brake: hall.brakes.of(&sale.settings),
        stalled_since: hall.stalls.since(sale.settings.concert_id),
        leader: lines.lease().holder,
        silent: queue.map_or(0, |queue| queue.silent() as u64),
        joined_last_minute: last_minute(|tally| &tally.joined),
        admitted_last_minute: last_minute(|tally| &tally.admitted),
        silenced_last_minute: last_minute(|tally| &tally.silenced),
        no_shows_last_minute: last_minute(|tally| &tally.no_shows),
        oldest_waiter_since: oldest,
        oldest_waiter_seconds: oldest.map(|since| (hall.clock.now() - since).num_seconds().max(0)),
        settings: sale.settings,
    }
}
