//! One act on every saga that a filter finds: counted before, paced, bounded, and each act written down by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{AskError, SagaFilter, sagas};
use crate::orchestrator::{ActError, Engine};
use crate::saga::{OperatorAction, Saga};

/// Most sagas of one batch.
pub const LIMIT_MAX: u32 = 10_000;
/// Acts per second, unless something else is said.
pub const RATE_DEFAULT: u32 = 50;
/// Most acts per second.
pub const RATE_MAX: u32 = 1_000;
/// Sagas that are read at a time.
pub(super) const PAGE: i64 = 200;

/// What to do, to which sagas, and how fast.
#[derive(Clone, Debug)]
pub struct Batch {
    pub act: OperatorAction,
    pub filter: SagaFilter,
    pub actor: String,
    pub reason: String,
    /// Only look: nothing is changed.
    pub dry_run: bool,
    pub per_second: u32,
    /// At most so many sagas, the newest first.
    pub limit: u32,
}

/// How far a batch is, and in the end what it did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct Tally {
    pub act: String,
    pub dry_run: bool,
    /// Sagas that matched when it began.
    pub matched: i64,
    /// Sagas that were looked at so far.
    pub looked_at: u64,
    /// Acts that were done; in a dry run, that would be done.
    pub done: u64,
    pub refused: u64,
    /// Why acts were refused, and how often.
    pub refusals: BTreeMap<String, u64>,
    /// Why it ended early; null if it did not.
    pub stopped: Option<String>,
    /// Whether matching sagas are left that it did not come to.
    pub more: bool,
}

/// The acts that can be done to many sagas alike. A hand-made output belongs to one saga.
pub fn act_named(name: &str) -> Option<OperatorAction> {
    let name = name.replace('-', "_");
    OperatorAction::all()
        .into_iter()
        .find(|act| act.name() == name && !matches!(act, OperatorAction::Complete { .. }))
}

/// Goes through the matching sagas, newest first, until the limit or until `stop`: the current act is finished, and
/// the rest is left as it is. The callback gets the counts after every saga.
pub async fn run(
    engine: &Engine,
    batch: &Batch,
    stop: &CancellationToken,
    mut told: impl FnMut(&Tally),
) -> Result<Tally, AskError> {
    let counts = sagas::counts(&engine.pool, &batch.filter).await?;
    let mut tally = Tally {
        act: batch.act.name().to_owned(),
        dry_run: batch.dry_run,
        matched: counts.iter().map(|count| count.count).sum(),
        ..Tally::default()
    };
    told(&tally);
    let mut pace = tokio::time::interval(Duration::from_secs(1) / batch.per_second.max(1));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before: Option<Uuid> = None;
    loop {
        let page = sagas::list(&engine.pool, &batch.filter, before, PAGE).await?;
        let last = page.len() < PAGE as usize;
        before = page.last().map(|saga| saga.id);
        for saga in page {
            if tally.looked_at >= u64::from(batch.limit) {
                tally.more = true;
                return Ok(tally);
            }
            if !batch.dry_run && stop.run_until_cancelled(pace.tick()).await.is_none() || stop.is_cancelled()
            {
                (tally.stopped, tally.more) = (Some("it was stopped".to_owned()), true);
                return Ok(tally);
            }
            if let Err(error) = one(engine, batch, &saga, &mut tally).await {
                (tally.stopped, tally.more) = (Some(error.to_string()), true);
                return Ok(tally);
            }
            told(&tally);
        }
        if last {
            return Ok(tally);
        }
    }
}

/// Does the act to one saga, or counts why not. An error ends the batch.
pub(super) async fn one(
    engine: &Engine,
    batch: &Batch,
    saga: &Saga,
    tally: &mut Tally,
) -> Result<(), ActError> {
    let refused = if batch.dry_run {
        let allowed = engine.allowed_actions(saga);
        (!allowed.contains(&batch.act.name()))
            .then(|| ActError::Illegal { status: saga.status, allowed }.to_string())
    } else {
        match engine.act(saga.id, batch.act.clone(), &batch.actor, &batch.reason).await {
            Ok(_) => None,
            Err(error @ (ActError::Database(_) | ActError::Consumers(_))) => return Err(error),
            Err(refused) => Some(refused.to_string()),
        }
    };
    tally.looked_at += 1;
    match refused {
        None => tally.done += 1,
        Some(why) => {
            tally.refused += 1;
            *tally.refusals.entry(why).or_default() += 1;
        }
    }
    Ok(())
}

/// How long a batch may take at most, by its limit and pace.
pub fn longest(limit: u32, per_second: u32) -> Duration {
    Duration::from_secs(u64::from(limit.div_ceil(per_second.max(1))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acts_parse_in_both_spellings() {
        assert_eq!(act_named("skip-undo"), Some(OperatorAction::SkipUndo));
        assert_eq!(act_named("skip_undo"), Some(OperatorAction::SkipUndo));
        assert_eq!(act_named("complete"), None);
        assert_eq!(act_named("delete"), None);
    }

    #[test]
    fn batch_duration_follows_its_rate() {
        assert_eq!(longest(1_000, 50), Duration::from_secs(20));
        assert_eq!(longest(1, 1_000), Duration::from_secs(1));
    }
}
