//! One statement that writes all that was decided together, or nothing of it: one round trip and one commit for a whole batch.
//!
//! Each part is a common table expression; the file of each noun has those that write it. A part that replaces rows
//! compares them with what was read before. If one is not any more as it was, the whole statement fails and
//! [`is_stale_read`] says so: the caller reads again, under locks. This is optimistic concurrency control
//! (H. T. Kung, J. T. Robinson: On Optimistic Methods for Concurrency Control, 1981), with the comparison
//! in the write itself.
//!
//! Each part lies in a file of `sql/`, which is checked against the schema at compile time beside the code that binds its
//! arguments. The statement that a set of parts makes is put together once per process and kept, and prepared once per connection.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use sqlx::postgres::{PgArguments, PgConnection};
use sqlx::{Arguments, AssertSqlSafe, Encode, Postgres, Type};

use super::Result;

/// The place of a table in the order in which rows are locked, here and everywhere: two writers who lock in one order never wait for
/// each other in a circle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

/// The SQL of one part, with its parameters numbered from 1, under a name that no other part has.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    name: &'static str,
    sql: &'static str,
}

impl Part {
    /// A part; `sql` is usually the text of a file.
    pub const fn new(name: &'static str, sql: &'static str) -> Self {
        Self { name, sql }
    }
}

/// The condition that the database's clock is near the time by which all was decided.
const COMPARE_CLOCK: Part = Part::new("clock", include_str!("../../sql/compare_clock.sql"));
const _: fn(DateTime<Utc>) = |now| drop(sqlx::query_file!("sql/compare_clock.sql", now));

/// What is to be written, so far.
#[derive(Debug, Default)]
pub struct WriteBatch {
    pieces: Vec<Piece>,
    arguments: PgArguments,
    refused: Option<sqlx::error::BoxDynError>,
}

/// Something that a part contributes to the statement, and the number of arguments before its own.
#[derive(Clone, Copy, Debug)]
struct Piece {
    part: Part,
    role: Role,
    before: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Role {
    /// A common table expression.
    Write,
    /// A condition of this place in the order of locks.
    Condition(LockOrder),
    /// The number of rows of the part, at this place in the order of locks.
    AsRead(LockOrder),
    /// The number of rows of the part, compared after the conditions.
    Written,
}

/// What a statement consists of.
type Shape = Vec<(&'static str, Role, usize)>;

/// Statements by what they consist of. There are as many as there are kinds of batches.
static STATEMENTS: LazyLock<Mutex<HashMap<Shape, Arc<str>>>> = LazyLock::new(Mutex::default);

/// The arguments of a part, in their order.
#[derive(Debug)]
pub struct Binding<'a>(&'a mut WriteBatch);

impl WriteBatch {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.refused.is_none() && !self.pieces.iter().any(|piece| piece.role == Role::Write)
    }

    /// Writes all of it, or nothing.
    ///
    /// # Errors
    /// Among others the one of which [`is_stale_read`] speaks.
    pub async fn write(self, conn: &mut PgConnection) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let statement = self.statement();
        match self.refused {
            Some(refused) => Err(sqlx::Error::Encode(refused)),
            None => sqlx::query_with(AssertSqlSafe(statement), self.arguments).execute(conn).await.map(drop),
        }
    }

    fn statement(&self) -> Arc<str> {
        let shape = self.pieces.iter().map(|piece| (piece.part.name, piece.role, piece.before)).collect();
        let mut known = STATEMENTS.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.entry(shape).or_insert_with(|| composed(&self.pieces).into()))
    }

    /// Nothing of it can be written: a value has no form in the database.
    pub fn refuse(&mut self, error: impl Into<sqlx::error::BoxDynError>) {
        self.refused = Some(error.into());
    }

    /// Adds a part.
    pub fn add(&mut self, part: Part) -> Binding<'_> {
        self.push(part, Role::Write)
    }

    /// Adds a part of that place in the order of locks which has to come to so many rows; one that replaces rows finds those that are as they were
    /// read. It returns something of each.
    pub fn counted(&mut self, order: LockOrder, part: Part, rows: usize) -> Binding<'_> {
        self.push(part, Role::AsRead(order)).bind(rows as i64);
        self.add(part)
    }

    /// Adds a part that has to write so many rows, whatever was read: a smaller number is a defect, and the whole statement
    /// fails with an error that comes again. It returns something of each row.
    pub fn complete(&mut self, part: Part, rows: usize) -> Binding<'_> {
        self.push(part, Role::Written).bind(rows as i64);
        self.add(part)
    }

    /// The time by which all was decided must be near the database's clock. It was taken from this process's.
    pub fn compare_clock(&mut self, now: DateTime<Utc>) {
        self.check(LockOrder::CLOCK, COMPARE_CLOCK).bind(now);
    }

    /// Adds a condition of that place in the order of locks: a query of one truth value.
    pub fn check(&mut self, order: LockOrder, condition: Part) -> Binding<'_> {
        self.push(condition, Role::Condition(order))
    }

    fn push(&mut self, part: Part, role: Role) -> Binding<'_> {
        self.pieces.push(Piece { part, role, before: self.arguments.len() });
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

/// The text of the statement. Conditions are evaluated from left to right, and each brings its part about: this is the order of
/// the locks.
fn composed(pieces: &[Piece]) -> String {
    let (mut parts, mut as_read, mut written) = (Vec::new(), BTreeMap::new(), Vec::new());
    for Piece { part: Part { name, sql }, role, before } in pieces {
        let counted = || format!("(select count(*) from {name}) = ${}", before + 1);
        let (order, condition) = match role {
            Role::Write => {
                parts.push(format!("{name} as ({})", renumbered(sql, *before)));
                continue;
            }
            Role::Written => {
                written.push(counted());
                continue;
            }
            Role::AsRead(order) => (*order, counted()),
            Role::Condition(order) => (*order, format!("({})", renumbered(sql, *before))),
        };
        let replaced = as_read.insert(order, condition);
        assert!(
            replaced.is_none(),
            "a statement has one condition of each place in the order of locks: {order:?}"
        );
    }
    let as_read: Vec<String> = as_read.into_values().collect();
    format!(
        "with {} select case when not ({}) then not_as_read() when not ({}) then not_written() else true end",
        parts.join(", "),
        all_of(&as_read),
        all_of(&written)
    )
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
        changes.add(Part::new("one", "insert $1 $2")).bind(1).bind(2);
        changes.counted(SECOND, Part::new("two", "update $1 returning 1"), 7).bind(3);
        changes.check(FIRST, Part::new("first", "select f($1)")).bind(4);
        changes.complete(Part::new("three", "insert $1 returning 1"), 2).bind(5);
        let expected = "with one as (insert $1 $2), two as (update $4 returning 1), three as (insert $7 returning 1) \
                        select case when not ((select f($5)) and (select count(*) from two) = $3) then not_as_read() \
                        when not ((select count(*) from three) = $6) then not_written() else true end";
        assert_eq!(&*changes.statement(), expected, "conditions stand in the order of the locks");
        assert!(Arc::ptr_eq(&changes.statement(), &changes.statement()), "it is put together once");
    }
}
