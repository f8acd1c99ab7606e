//! Operator acts on lines: each changes settings and records the act, in one transaction.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};
use sqlx::PgPool;

use super::acts::OperatorAct;
use crate::ids::ConcertId;
use crate::store::operations::{self, ActRow};
use crate::store::queue::{self, QueueSettings, SettingsChange};

/// The beginning of the names of all acts on lines.
const ACTS: &str = "queue.";

/// Who acts, and why.
#[derive(Clone, Copy, Debug)]
pub struct By<'a> {
    /// The key's name, or `cli:` and the user of the command line.
    pub actor: &'a str,
    /// Empty if none was given.
    pub reason: &'a str,
}

/// Why a line's settings stay as they are.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    #[error("there is no such concert")]
    Unknown,
    /// Fields that cannot be set so, and what is wrong with each.
    #[error("{}", .0.iter().map(|(field, problem)| format!("{field} {problem}")).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<(&'static str, String)>),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Changes settings and writes it down: who, why, and what changed from what to what.
pub async fn change(
    pool: &PgPool,
    concert: ConcertId,
    change: &SettingsChange,
    by: By<'_>,
) -> Result<QueueSettings, ChangeError> {
    let mut tx = pool.begin().await?;
    let locked = queue::lock(&mut *tx, concert).await?.ok_or(ChangeError::Unknown)?;
    let before = queue::get(&mut *tx, concert).await?.ok_or(ChangeError::Unknown)?;
    let problems = problems(&before, locked.opens_at, change, locked.now);
    if !problems.is_empty() {
        return Err(ChangeError::Invalid(problems));
    }
    let after = queue::change(&mut *tx, concert, change).await?.ok_or(ChangeError::Unknown)?;
    let (from, to) = difference(&before, &after);
    let act = match change.paused {
        Some(true) => "queue.pause",
        Some(false) => "queue.resume",
        None => "queue.set",
    };
    let detail = json!({ "before": from, "after": to });
    record(&mut *tx, concert, act, by, &told(&from), &told(&to), &detail).await?;
    tx.commit().await?;
    Ok(after)
}

/// Writes down that some were admitted by hand.
pub async fn record_admission(
    pool: &PgPool,
    concert: ConcertId,
    wanted: u32,
    admitted: u32,
    by: By<'_>,
) -> Result<(), sqlx::Error> {
    let detail = json!({ "wanted": wanted, "admitted": admitted });
    let (from, to) = (format!("{wanted} wanted"), format!("{admitted} admitted"));
    record(pool, concert, "queue.admit", by, &from, &to, &detail).await
}

/// Acts on lines, or on one, newest first, before the act `before`.
pub async fn acts(
    pool: &PgPool,
    concert: Option<ConcertId>,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<OperatorAct>, sqlx::Error> {
    let concert = concert.map(|concert| concert.to_string());
    let found = operations::acts_on(pool, ACTS, concert.as_deref(), before, limit).await?;
    Ok(found.into_iter().map(OperatorAct::from).collect())
}

/// Checks a change against the current settings and the opening of the sale; returns the impossible fields.
fn problems(
    before: &QueueSettings,
    opens_at: Option<DateTime<Utc>>,
    change: &SettingsChange,
    now: DateTime<Utc>,
) -> Vec<(&'static str, String)> {
    let mut problems = change.problems();
    let (min, max) = (change.min_rate.unwrap_or(before.min_rate), change.max_rate.unwrap_or(before.max_rate));
    if let Some((min, max)) = min.zip(max).filter(|(min, max)| min > max) {
        problems.push(("min_rate", format!("must not be more than max_rate, but {min} is more than {max}")));
    }
    // The draw is done: another opening in the past would only reorder the users who wait.
    let has_opened = opens_at.filter(|opens_at| *opens_at <= now);
    let wanted = change.opens_at.filter(|wanted| *wanted != before.opens_at);
    if let (Some(opened), Some(wanted)) = (has_opened, wanted)
        && wanted.is_none_or(|wanted| wanted <= now)
    {
        let problem =
            format!("must be in the future to open the sale again; it has been open since {opened}");
        problems.push(("opens_at", problem));
    }
    problems
}

/// What differs, before and after.
fn difference(before: &QueueSettings, after: &QueueSettings) -> (Map<String, Value>, Map<String, Value>) {
    let fields = |settings| match serde_json::to_value(settings) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    let (mut from, mut to) = (fields(before), fields(after));
    let same: Vec<String> = from
        .iter()
        .filter(|(name, value)| to.get(*name) == Some(*value))
        .map(|(name, _)| name.clone())
        .collect();
    for name in same {
        from.remove(&name);
        to.remove(&name);
    }
    (from, to)
}

/// Fields as one line of text.
fn told(fields: &Map<String, Value>) -> String {
    fields.iter().map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", ")
}

async fn record(
    db: impl sqlx::PgExecutor<'_>,
    concert: ConcertId,
    act: &str,
    by: By<'_>,
    from: &str,
    to: &str,
    detail: &Value,
) -> Result<(), sqlx::Error> {
    let target = concert.to_string();
    let row = ActRow {
        actor: by.actor,
        act,
        saga_id: None,
        target: Some(&target),
        reason: by.reason,
        from,
        to,
        detail: Some(detail),
    };
    operations::record_act(db, &row).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_900_000_000 + seconds, 0).unwrap()
    }

    fn settings() -> QueueSettings {
        QueueSettings { min_rate: Some(60), ..QueueSettings::sample() }
    }

    #[test]
    fn bounds_are_compared_with_what_stays() {
        let fields = |change: &SettingsChange| -> Vec<_> {
            problems(&settings(), None, change, at(0)).into_iter().map(|(field, _)| field).collect()
        };
        assert!(fields(&SettingsChange { max_rate: Some(Some(60)), ..Default::default() }).is_empty());
        assert_eq!(fields(&SettingsChange { max_rate: Some(Some(59)), ..Default::default() }), ["min_rate"]);
        let both = SettingsChange { min_rate: Some(None), max_rate: Some(Some(1)), ..Default::default() };
        assert!(fields(&both).is_empty());
    }

    #[test]
    fn opened_sale_reopens_or_stays_open() {
        let opens_at = |wanted| SettingsChange { opens_at: Some(wanted), ..Default::default() };
        let opened = |change: &SettingsChange| problems(&settings(), Some(at(-60)), change, at(0)).len();
        assert_eq!(opened(&opens_at(Some(at(1)))), 0);
        assert_eq!(opened(&opens_at(Some(at(0)))), 1);
        assert_eq!(opened(&opens_at(None)), 0, "as it is");
        assert_eq!(
            problems(&settings(), Some(at(60)), &opens_at(Some(at(-5))), at(0)).len(),
            0,
            "not yet open"
        );
    }

    #[test]
    fn only_what_differs_is_written_down() {
        let after = QueueSettings { max_active: 7, min_rate: None, ..settings() };
        let (from, to) = difference(&settings(), &after);
        assert_eq!(
            (told(&from), told(&to)),
            ("max_active 10, min_rate 60".into(), "max_active 7, min_rate null".into())
        );
    }
}
