//! One statement that writes all that was decided together, or nothing of it: one round trip and one commit for a whole batch.
//!
//! Each part is a common table expression; the file of each noun has those that write it. A part that replaces rows
//! compares them with what was read before. If one is not any more as it was, the whole statement fails and
//! [`is_stale_read`] says so: the caller reads again, under locks. This is optimistic concurrency control
//! (H. T. Kung, J. T. Robinson: On Optimistic Methods for Concurrency Control, 1981), with the comparison
//! in the write itself.
//!
//! The statements are put together, so they are not held against the schema when they are compiled; every part is executed by the
//! tests of the steps.

use std::collections::BTreeMap;
use std::fmt::Write;

use chrono::{DateTime, Utc};
use sqlx::postgres::{PgArguments, PgConnection};
use sqlx::{Arguments, AssertSqlSafe, Encode, Postgres, Type};

use super::Result;

/// The place of a table in the order in which rows are locked, here and everywhere: two writers who lock in one order never wait for
/// each other in a circle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LockOrder(u8);

impl LockOrder {
    /// No row: the database's clock.
    pub const CLOCK: Self = Self(0);
    pub const SAGAS: Self = Self(100);

    /// A table that is locked before the sagas, at this place among those.
    pub const fn before_sagas(place: u8) -> Self {
        Self(1 + place)
    }

    /// A table that is locked after the sagas, at this place among those.
    pub const fn after_sagas(place: u8) -> Self {
        Self(101 + place)
    }
}

/// What is to be written, so far.
#[derive(Debug, Default)]
pub struct WriteBatch {
    parts: Vec<String>,
    checks: BTreeMap<LockOrder, String>,
    /// Whether each inserting part came to its number of rows. They are compared after the checks.
    inserted: Vec<String>,
    arguments: PgArguments,
    refused: Option<sqlx::error::BoxDynError>,
}

/// The arguments of a part, in their order.
#[derive(Debug)]
pub struct Binding<'a>(&'a mut WriteBatch);

impl WriteBatch {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Writes all of it, or nothing.
    ///
    /// # Errors
    /// Among others the one of which [`is_stale_read`] speaks.
    pub async fn write(self, conn: &mut PgConnection) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        if let Some(refused) = self.refused {
            return Err(sqlx::Error::Encode(refused));
        }
        // They are evaluated from left to right, and each brings its part about: this is the order of the locks.
        let are_as_read: Vec<String> = self.checks.into_values().collect();
        let sql = format!(
            "with {} select case when not ({}) then not_as_read() when not ({}) then not_written() else true end",
            self.parts.join(", "),
            all_of(&are_as_read),
            all_of(&self.inserted)
        );
        sqlx::query_with(AssertSqlSafe(sql), self.arguments).execute(conn).await.map(drop)
    }

    /// Nothing of it can be written: a value has no form in the database.
    pub fn refuse(&mut self, error: impl Into<sqlx::error::BoxDynError>) {
        self.refused = Some(error.into());
        // So that it is not taken for nothing to write.
        self.parts.push(String::new());
    }

    /// Adds a part under a name that no other has. Its parameters are numbered from 1.
    pub fn add(&mut self, name: &str, sql: &str) -> Binding<'_> {
        let part = format!("{name} as ({})", renumbered(sql, self.arguments.len()));
        self.parts.push(part);
        Binding(self)
    }

    /// Adds a part of that place in the order of locks which has to come to so many rows; one that replaces rows finds those that are as they were
    /// read. It returns something of each.
    pub fn counted(&mut self, order: LockOrder, name: &str, rows: usize, sql: &str) -> Binding<'_> {
        self.check(order, &format!("(select count(*) from {name}) = $1")).bind(rows as i64);
        self.add(name, sql)
    }

    /// Adds a part that has to write so many rows, whatever was read: a smaller number is a defect, and the whole statement
    /// fails with an error that comes again. It returns something of each row.
    pub fn complete(&mut self, name: &str, rows: usize, sql: &str) -> Binding<'_> {
        let check = renumbered(&format!("(select count(*) from {name}) = $1"), self.arguments.len());
        self.inserted.push(check);
        Binding(self).bind(rows as i64);
        self.add(name, sql)
    }

    /// The time by which all was decided must be near the database's clock. It was taken from this process's.
    pub fn compare_clock(&mut self, now: DateTime<Utc>) {
        let sql = "abs(extract(epoch from clock_timestamp() - $1)) < 0.5";
        self.check(LockOrder::CLOCK, sql).bind(now);
    }

    /// Adds the condition of that place in the order of locks; its parameters are numbered from 1.
    pub fn check(&mut self, order: LockOrder, sql: &str) -> Binding<'_> {
        let check = renumbered(sql, self.arguments.len());
        let replaced = self.checks.insert(order, check);
        assert!(
            replaced.is_none(),
            "a statement has one condition of each place in the order of locks: {order:?}"
        );
        Binding(self)
    }
}

impl Binding<'_> {
    /// Gives the next argument.
    pub fn bind<'q, T: Encode<'q, Postgres> + Type<Postgres>>(self, value: T) -> Self {
        if let Err(refused) = self.0.arguments.add(value) {
            self.0.refused = Some(refused);
        }
        self
    }
}

/// Whether something was not written because a row is not any more as it was read: reading again helps.
pub fn is_stale_read(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "40001")
}

fn all_of(conditions: &[String]) -> String {
    match conditions {
        [] => "true".to_owned(),
        conditions => conditions.join(" and "),
    }
}

/// The statement with its parameters counted on from those before it.
fn renumbered(sql: &str, before: usize) -> String {
    let mut pieces = sql.split('$');
    let mut whole = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let end = piece.find(|c: char| !c.is_ascii_digit()).unwrap_or(piece.len());
        let (number, rest) = piece.split_at(end);
        let number = number.parse().map_or(0, |number: usize| number + before);
        write!(whole, "${number}{rest}").expect("a string takes all");
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_count_on_from_part_to_part() {
        const FIRST: LockOrder = LockOrder::after_sagas(0);
        const SECOND: LockOrder = LockOrder::after_sagas(1);
        assert_eq!(renumbered("select $1, $12::int[] + 1", 0), "select $1, $12::int[] + 1");
        assert_eq!(renumbered("$1::uuid[], $2", 30), "$31::uuid[], $32");
        let mut changes = WriteBatch::default();
        changes.add("one", "insert $1 $2").bind(1).bind(2);
        changes.counted(SECOND, "two", 7, "update $1 returning 1").bind(3);
        changes.check(FIRST, "f($1)").bind(4);
        changes.complete("three", 2, "insert $1 returning 1").bind(5);
        let parts =
            ["one as (insert $1 $2)", "two as (update $4 returning 1)", "three as (insert $7 returning 1)"];
        assert_eq!(changes.parts, parts);
        assert_eq!(changes.inserted, ["(select count(*) from three) = $6"]);
        let checks: Vec<&str> = changes.checks.values().map(String::as_str).collect();
        assert_eq!(checks, ["f($5)", "(select count(*) from two) = $3"], "in the order of the locks");
    }
}
