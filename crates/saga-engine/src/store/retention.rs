//! What goes by age: ended sagas, one by one along an index, and their history, a whole day at a time.
//!
//! History is kept in parts by the day in the saga's id, and a default part for what has no day of its own.

use std::ops::Range;
use std::time::Duration;

use chrono::{DateTime, Days, NaiveDate, NaiveTime, TimeDelta, Utc};
use sqlx::{AssertSqlSafe, PgConnection, PgExecutor};
use uuid::Uuid;

use super::Result;
use crate::ids;

/// How long a change of the parts waits for those who write history: they wait behind it.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
/// Ids of times further ahead than clocks differ are none that were made of a time.
const IDS_AHEAD: TimeDelta = TimeDelta::days(1);
/// How long such a change may take once it has begun.
const WORK_PATIENCE: Duration = Duration::from_secs(5);

/// Takes the turn to tidy up until the transaction ends; `false`: another instance has it.
pub async fn take_turn(conn: &mut PgConnection) -> Result<bool> {
    // Statistics lag behind what was just deleted; the indexes are right whatever they say.
    sqlx::query!("set local enable_seqscan = off").execute(&mut *conn).await?;
    sqlx::query_scalar!(r#"select pg_try_advisory_xact_lock(20112, 1) as "taken!""#).fetch_one(conn).await
}

/// Deletes up to `limit` sagas at rest that ended before this moment, and what the default part of the history has of
/// them. Locked ones are left for the next time.
pub async fn delete_ended(conn: &mut PgConnection, before: DateTime<Utc>, limit: i64) -> Result<usize> {
    let now = super::now(&mut *conn).await?;
    // A saga ends after its id was made. Ids that are not made of a time sort above all that are.
    let mut deleted = delete_between(conn, Uuid::nil()..ids::first_of(before), before, limit).await?;
    if deleted < limit as usize {
        let others = ids::first_of(now + IDS_AHEAD)..Uuid::max();
        deleted += delete_between(conn, others, before, limit - deleted as i64).await?;
    }
    Ok(deleted)
}

async fn delete_between(
    conn: &mut PgConnection,
    ids: Range<Uuid>,
    before: DateTime<Utc>,
    limit: i64,
) -> Result<usize> {
    let deleted = sqlx::query_scalar!(
        r#"
        delete from sagas where id = any (array(
            select id from sagas where id >= $1 and id < $2 and finished_at < $3 and due_at is null
            order by id limit $4 for update skip locked))
        returning id
        "#,
        ids.start,
        ids.end,
        before,
        limit,
    )
    .fetch_all(&mut *conn)
    .await?;
    if !deleted.is_empty() {
        sqlx::query!("delete from saga_history_default where saga_id = any($1)", &deleted)
            .execute(&mut *conn)
            .await?;
        sqlx::query!("delete from saga_attributes where saga_id = any($1)", &deleted).execute(conn).await?;
    }
    Ok(deleted.len())
}

/// The days whose history has a part of its own, oldest first.
pub async fn days(db: impl PgExecutor<'_>) -> Result<Vec<NaiveDate>> {
    let names = sqlx::query_scalar!(
        r#"
        select c.relname::text as "name!" from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'saga_history'::regclass order by c.relname
        "#,
    )
    .fetch_all(db)
    .await?;
    Ok(names.iter().filter_map(|name| NaiveDate::parse_from_str(name, "saga_history_p%Y%m%d").ok()).collect())
}

/// Makes the part of a day. `false`: the default part has rows of that day already, so it keeps the rest too.
pub async fn add_day(conn: &mut PgConnection, day: NaiveDate) -> Result<bool> {
    let (name, from, to) = (part(day), first_id(day), first_id(day + Days::new(1)));
    let occupied = sqlx::query_scalar!(
        r#"select exists (select from saga_history_default where saga_id >= $1 and saga_id < $2) as "occupied!""#,
        from,
        to,
    );
    if occupied.fetch_one(&mut *conn).await? {
        return Ok(false);
    }
    be_quick(conn).await?;
    // Attached, not made in place: writers of history do not wait for it.
    run(conn, format!("create table {name} (like saga_history including all)")).await?;
    run(
        conn,
        format!("alter table saga_history attach partition {name} for values from ('{from}') to ('{to}')"),
    )
    .await?;
    Ok(true)
}

/// Drops the history of a day, but for the sagas that are still there: theirs moves to the default part.
pub async fn drop_day(conn: &mut PgConnection, day: NaiveDate) -> Result<()> {
    let (name, from, to) = (part(day), first_id(day), first_id(day + Days::new(1)));
    be_quick(conn).await?;
    run(conn, format!("alter table saga_history detach partition {name}")).await?;
    let kept = format!(
        "with kept as materialized (select id from sagas where id >= '{from}' and id < '{to}')
         insert into saga_history select history.* from kept join {name} as history on history.saga_id = kept.id"
    );
    run(conn, kept).await?;
    run(conn, format!("drop table {name}")).await
}

/// A part's name; made of digits of a date, so that it may stand in a statement.
fn part(day: NaiveDate) -> String {
    format!("saga_history_p{}", day.format("%Y%m%d"))
}

/// Where the ids of a day begin.
fn first_id(day: NaiveDate) -> Uuid {
    ids::first_of(day.and_time(NaiveTime::MIN).and_utc())
}

/// From here to the end of the transaction nothing waits or works for long: sales go on beside it.
async fn be_quick(conn: &mut PgConnection) -> Result<()> {
    run(conn, format!("set local lock_timeout = '{} ms'", LOCK_PATIENCE.as_millis())).await?;
    run(conn, format!("set local statement_timeout = '{} ms'", WORK_PATIENCE.as_millis())).await
}

/// For statements that name a part. They have no parameters that come from outside.
async fn run(conn: &mut PgConnection, statement: String) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(conn).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partition_is_found_by_its_day() {
        let day = NaiveDate::from_ymd_opt(2026, 1, 9).unwrap();
        assert_eq!(part(day), "saga_history_p20260109");
        assert_eq!(NaiveDate::parse_from_str(&part(day), "saga_history_p%Y%m%d"), Ok(day));
        assert!(NaiveDate::parse_from_str("saga_history_default", "saga_history_p%Y%m%d").is_err());
        assert_eq!(first_id(day).to_string(), "019ba00d-8800-0000-0000-000000000000");
    }
}
