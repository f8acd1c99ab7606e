//! Whether the database can be written.

use std::time::Duration;

use sqlx::PgPool;

use super::{Result, bounded_by};

/// How long a write of one row may take, with the wait for a connection.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Writes one row and commits it. It is one short statement; within `PROBE_TIMEOUT` it has an answer.
///
/// # Errors
/// Why nothing can be written: the server is away, does not answer, is read-only or in recovery, has no space left, or
/// refuses this role.
pub async fn can_write(pool: &PgPool) -> Result<()> {
    let write = sqlx::query!(
        "insert into write_probe (written_at) values (clock_timestamp())
         on conflict (only_row) do update set written_at = excluded.written_at"
    );
    bounded_by(PROBE_TIMEOUT, async { write.execute(pool).await.map(drop) }).await
}
