//! One export: its snapshot, and the rows page by page.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use sqlx::{PgPool, Postgres, Transaction};

use super::format::{self, Columns};
use super::{Export, ExportError, ExportFormat, Position};
use crate::store;
use crate::store::audit::snapshot;
use crate::store::exports::{self as rows, LedgerRow, RedemptionRow, ReservationRow, TicketRow};
use crate::store::operations::{self, ActRow};

/// Rows of one page. A page of the widest rows takes about half a megabyte.
const PAGE_ROWS: i64 = 500;

impl Columns for ReservationRow {
    const COLUMNS: &'static [&'static str] = &[
        "id",
        "user_id",
        "concert_id",
        "concert",
        "performance_id",
        "venue",
        "starts_at",
        "status",
        "reason",
        "seats",
        "lines",
        "amount",
        "expires_at",
        "cancellation_id",
        "payment_id",
        "payment_status",
        "paid_at",
        "created_at",
        "updated_at",
    ];
}

impl Columns for LedgerRow {
    const COLUMNS: &'static [&'static str] = &[
        "id",
        "user_id",
        "kind",
        "amount",
        "balance",
        "reservation_id",
        "reverses_id",
        "position",
        "created_at",
    ];
}

impl Columns for TicketRow {
    const COLUMNS: &'static [&'static str] = &[
        "id",
        "reservation_id",
        "user_id",
        "concert_id",
        "concert",
        "performance_id",
        "venue",
        "starts_at",
        "seat",
        "section",
        "price",
        "status",
        "issued_at",
        "voided_at",
    ];
}

impl Columns for RedemptionRow {
    const COLUMNS: &'static [&'static str] = &[
        "id",
        "ticket_id",
        "reservation_id",
        "concert_id",
        "concert",
        "performance_id",
        "venue",
        "starts_at",
        "seat",
        "gate",
        "scanned_at",
        "recorded_at",
        "status",
        "undone_at",
        "undone_by",
        "reason",
    ];
}

/// What is to be exported, and after which row.
#[derive(Clone, Copy, Debug)]
pub struct ExportOrder {
    pub export: Export,
    pub format: ExportFormat,
    /// From the first row on if it is missing.
    pub after: Option<Position>,
}

/// A part of an export: some whole lines.
#[derive(Clone, Debug)]
pub struct Chunk {
    pub text: Bytes,
    pub rows: usize,
    /// The cursor of the last row that was written.
    pub cursor: Option<String>,
}

/// An export under way. It holds a connection and a snapshot until it is dropped.
pub struct ExportRun {
    tx: Transaction<'static, Postgres>,
    order: ExportOrder,
    after: Position,
    /// The line of column names is still to be written. A continued export has none, so that both parts make one file.
    needs_head: bool,
    is_over: bool,
}

impl ExportRun {
    /// Takes the snapshot. `time` is the longest that one statement, or one wait for the client, may take.
    pub async fn begin(pool: &PgPool, order: ExportOrder, time: Duration) -> Result<Self, ExportError> {
        let mut tx = snapshot(pool).await?;
        rows::bound(&mut tx, time).await?;
        let needs_head = order.format == ExportFormat::Csv && order.after.is_none();
        let after = order.after.unwrap_or(Position::START);
        Ok(Self { tx, order, after, needs_head, is_over: false })
    }

    /// The next part; none at the end.
    pub async fn next(&mut self) -> Result<Option<Chunk>, ExportError> {
        if self.is_over {
            return Ok(None);
        }
        let Position { id, seat } = self.after;
        match self.order.export {
            Export::Reservations => {
                let page = rows::reservations(&mut self.tx, id, PAGE_ROWS).await?;
                self.chunk(&page, |row| Position { id: row.id, seat: 0 })
            }
            Export::Ledger => {
                let page = rows::ledger(&mut self.tx, id, PAGE_ROWS).await?;
                self.chunk(&page, |row| Position { id: row.id, seat: 0 })
            }
            Export::Tickets => {
                let page = rows::tickets(&mut self.tx, id, seat, PAGE_ROWS).await?;
                self.chunk(&page, |row| Position { id: row.reservation_id, seat: row.seat })
            }
            Export::Redemptions => {
                let page = rows::redemptions(&mut self.tx, id, PAGE_ROWS).await?;
                self.chunk(&page, |row| Position { id: row.id, seat: 0 })
            }
        }
    }

    fn chunk<T: Columns>(
        &mut self,
        page: &[T],
        position: impl Fn(&T) -> Position,
    ) -> Result<Option<Chunk>, ExportError> {
        let export = self.order.export;
        self.is_over = page.len() < PAGE_ROWS as usize;
        let mut text = if std::mem::take(&mut self.needs_head) { format::head::<T>()? } else { Vec::new() };
        text.extend(format::body(page, self.order.format, |row| position(row).cursor(export))?);
        self.after = page.last().map_or(self.after, &position);
        let cursor = page.last().map(|row| position(row).cursor(export));
        Ok((!text.is_empty()).then(|| Chunk { text: text.into(), rows: page.len(), cursor }))
    }
}

/// Writes down who exports what: an export has the data of all buyers.
pub async fn record(pool: &PgPool, order: &ExportOrder, actor: &str) -> store::Result<()> {
    let detail = json!({ "format": order.format, "is_continued": order.after.is_some() });
    let act = ActRow {
        actor,
        act: "export",
        saga_id: None,
        target: Some(order.export.name()),
        reason: "",
        from: "",
        to: "started",
        detail: Some(&detail),
    };
    operations::record_act(pool, &act).await
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use serde::Serialize;
    use serde_json::Value;
    use sqlx::types::Json;
    use uuid::Uuid;

    use super::*;

    fn assert_columns<T: Columns + Serialize>(row: &T) {
        let text = serde_json::to_string(row).unwrap();
        let mut from = 0;
        for column in T::COLUMNS {
            let at = text[from..].find(&format!("\"{column}\":"));
            from += at.unwrap_or_else(|| panic!("{column} is missing or out of order in {text}"));
        }
        let fields = serde_json::to_value(row).unwrap();
        assert_eq!(fields.as_object().unwrap().len(), T::COLUMNS.len());
    }

    #[test]
    fn columns_are_the_fields_of_the_rows() {
        let (id, at) = (Uuid::nil(), DateTime::UNIX_EPOCH);
        assert_columns(&ReservationRow {
            id,
            user_id: id,
            concert_id: id,
            concert: None,
            performance_id: id,
            venue: None,
            starts_at: None,
            status: String::new(),
            reason: None,
            seats: Vec::new(),
            lines: Json(Value::Null),
            amount: 0,
            expires_at: None,
            cancellation_id: None,
            payment_id: None,
            payment_status: None,
            paid_at: None,
            created_at: at,
            updated_at: at,
        });
        assert_columns(&LedgerRow {
            id,
            user_id: id,
            kind: String::new(),
            amount: 1,
            balance: 1,
            reservation_id: None,
            reverses_id: None,
            position: 1,
            created_at: at,
        });
        assert_columns(&TicketRow {
            id,
            reservation_id: id,
            user_id: None,
            concert_id: None,
            concert: None,
            performance_id: id,
            venue: None,
            starts_at: None,
            seat: 1,
            section: None,
            price: None,
            status: String::new(),
            issued_at: at,
            voided_at: None,
        });
        assert_columns(&RedemptionRow {
            id,
            ticket_id: id,
            reservation_id: id,
            concert_id: None,
            concert: None,
            performance_id: id,
            venue: None,
            starts_at: None,
            seat: 1,
            gate: String::new(),
            scanned_at: at,
            recorded_at: at,
            status: String::new(),
            undone_at: None,
            undone_by: None,
            reason: None,
        });
    }
}
