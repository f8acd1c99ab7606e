//! Free seats in the order in which they are offered, for requests that leave the choice to the service, and what their buyers
//! have already.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Result;
use super::batch_tx::BatchTx;
use super::seats::{ENDED_HOLDS_WINDOW, Key, Owned, REHOLD_DELAY, Seat};

const FIND_FREE: &str = include_str!("../../sql/find_free_seats.sql");
const _: () = {
    fn _checked(
        lists: &[i32],
        ids: &[Uuid],
        sections: &[Option<String>],
        most: &[Option<i64>],
        now: DateTime<Utc>,
    ) {
        drop(sqlx::query_file!("sql/find_free_seats.sql", lists, ids, sections as _, most as _, now));
    }
};
const FIND_CHOOSERS: &str = include_str!("../../sql/find_choosers.sql");
const _: () = {
    fn _checked(ids: &[Uuid], sections: &[Option<String>], users: &[Uuid], now: DateTime<Utc>) {
        let (payers, window, most, delay) = (&[] as &[Option<Uuid>], ENDED_HOLDS_WINDOW, 0, REHOLD_DELAY);
        drop(sqlx::query_file!(
            "sql/find_choosers.sql",
            ids,
            sections as _,
            users,
            payers as _,
            now,
            window as _,
            most,
            delay as _,
        ));
    }
};

/// The free seats of a date, or of one section of it, that are asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct WantedList {
    pub performance_id: Uuid,
    /// All sections, if it is none.
    pub section: Option<String>,
    /// How many are read at most, the best first; all if it is none.
    pub most: Option<i64>,
}

/// A free seat with its place.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct FreeSeat {
    #[sqlx(flatten)]
    pub seat: Seat,
    /// The position of the list that it is of.
    pub list: i32,
    pub rank: i32,
    pub row_label: Option<String>,
    pub accessible: bool,
    pub companion: bool,
    read_at: DateTime<Utc>,
}

/// Who has seats chosen, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct WantedChooser {
    pub performance_id: Uuid,
    pub section: Option<String>,
    pub buyer: Uuid,
    /// Whether the points of the buyer are asked for, too.
    pub pays: bool,
}

/// The facts that decide whether a buyer may have seats chosen.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Chooser {
    pub performance_id: Uuid,
    pub section: Option<String>,
    pub has_section: bool,
    pub sale_opens_at: DateTime<Utc>,
    pub sale_closes_at: DateTime<Utc>,
    pub starts_at: DateTime<Utc>,
    pub cancelled_at: Option<DateTime<Utc>>,
    pub date_version: i64,
    pub buyer: Uuid,
    #[sqlx(flatten)]
    pub owned: Owned,
    /// The points of a buyer who pays at once. None without an account.
    pub balance: Option<i64>,
    read_at: DateTime<Utc>,
}

impl Chooser {
    /// As [`Seat::sale_ends_at`].
    pub fn sale_ends_at(&self) -> DateTime<Utc> {
        let closes_at = self.sale_closes_at.min(self.starts_at);
        self.cancelled_at.map_or(closes_at, |cancelled_at| closes_at.min(cancelled_at))
    }
}

/// Locks these seats, and the free ones that the lists ask for, in the order of their keys. Seats that become free later are not
/// locked; what is written about them is compared.
pub async fn lock(conn: &mut PgConnection, named: &[Key], lists: &[WantedList]) -> Result<()> {
    let (ids, numbers): (Vec<Uuid>, Vec<i32>) = named.iter().copied().unzip();
    let performances: Vec<Uuid> = lists.iter().map(|list| list.performance_id).collect();
    let sections: Vec<Option<String>> = lists.iter().map(|list| list.section.clone()).collect();
    let most: Vec<Option<i64>> = lists.iter().map(|list| list.most).collect();
    sqlx::query_file!(
        "sql/lock_seats_to_choose.sql",
        &ids,
        &numbers,
        &performances,
        sections as _,
        most as _
    )
    .fetch_all(conn)
    .await?;
    Ok(())
}

/// Reads the lists by the time that this attempt has read, or by the database's clock. A seat that is in two lists comes twice.
pub async fn read(attempt: &mut BatchTx, lists: &[WantedList]) -> Result<Vec<FreeSeat>> {
    if lists.is_empty() {
        return Ok(Vec::new());
    }
    let positions: Vec<i32> = (0..).take(lists.len()).collect();
    let performances: Vec<Uuid> = lists.iter().map(|list| list.performance_id).collect();
    let sections: Vec<Option<&str>> = lists.iter().map(|list| list.section.as_deref()).collect();
    let most: Vec<Option<i64>> = lists.iter().map(|list| list.most).collect();
    let now = attempt.read_at();
    let query =
        sqlx::query_as(FIND_FREE).bind(positions).bind(performances).bind(sections).bind(most).bind(now);
    let found: Vec<FreeSeat> = query.fetch_all(attempt.conn()).await?;
    if let Some(first) = found.first() {
        attempt.note_time(first.read_at);
    }
    Ok(found)
}

/// Reads what these buyers have, by the time that this attempt has read, or by the database's clock. `max_ended` is as in
/// [`super::seats::read`]. A date that does not exist is left out.
pub async fn choosers(
    attempt: &mut BatchTx,
    wanted: &[WantedChooser],
    max_ended: i64,
) -> Result<Vec<Chooser>> {
    let performances: Vec<Uuid> = wanted.iter().map(|one| one.performance_id).collect();
    let sections: Vec<Option<&str>> = wanted.iter().map(|one| one.section.as_deref()).collect();
    let buyers: Vec<Uuid> = wanted.iter().map(|one| one.buyer).collect();
    let payers: Vec<Option<Uuid>> = wanted.iter().map(|one| Some(one.buyer).filter(|_| one.pays)).collect();
    let now = attempt.read_at();
    let query =
        sqlx::query_as(FIND_CHOOSERS).bind(performances).bind(sections).bind(buyers).bind(payers).bind(now);
    let query =
        query.bind(ENDED_HOLDS_WINDOW).bind(i32::try_from(max_ended).unwrap_or(i32::MAX)).bind(REHOLD_DELAY);
    let found: Vec<Chooser> = query.fetch_all(attempt.conn()).await?;
    if let Some(first) = found.first() {
        attempt.note_time(first.read_at);
    }
    Ok(found)
}
