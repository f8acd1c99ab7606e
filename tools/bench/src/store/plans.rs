//! How the server executes the statements of one connection: it sends the plan of each as a notice.

use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use boxoffice::store::Result;

/// From now on the server sends, as a notice, the plan of every statement of this connection, with its row counts and
/// its duration.
pub async fn send_as_notices(conn: &mut PgConnection) -> Result<()> {
    let sql = "
        load 'auto_explain';
        set auto_explain.log_min_duration = 0;
        set auto_explain.log_analyze = on;
        set auto_explain.log_buffers = on;
        set auto_explain.log_format = json;
        set auto_explain.log_level = notice;
        set plan_cache_mode = force_custom_plan;";
    sqlx::raw_sql(sql).execute(conn).await.map(drop)
}

/// Plans are made for any values, as the server may do for a statement that comes often.
pub async fn plan_for_any_values(conn: &mut PgConnection) -> Result<()> {
    sqlx::raw_sql("set plan_cache_mode = force_generic_plan").execute(conn).await.map(drop)
}

/// Whether plans may use indexes; where an order or a join asks for one, the server finds another way.
pub async fn use_indexes(conn: &mut PgConnection, use_them: bool) -> Result<()> {
    let value = if use_them { "on" } else { "off" };
    for setting in ["enable_indexscan", "enable_indexonlyscan", "enable_bitmapscan"] {
        sqlx::query("select set_config($1, $2, false)").bind(setting).bind(value).execute(&mut *conn).await?;
    }
    // The server does not replan cached plans by itself.
    sqlx::raw_sql("discard plans").execute(conn).await.map(drop)
}

/// A finished booking out of many, from their middle.
pub async fn some_booking(db: impl PgExecutor<'_>) -> Result<Uuid> {
    let sql = "
        select id from reservations where status = 'confirmed' order by id
        offset (select count(*) / 2 from reservations where status = 'confirmed') limit 1";
    sqlx::query_scalar(sql).fetch_one(db).await
}

/// Marks some waiting sagas as stuck, so that there are some to be found.
pub async fn get_stuck(db: impl PgExecutor<'_>, ids: &[Uuid]) -> Result<()> {
    let sql = "update sagas set status = saga_status('stuck'), stuck_since = now(), due_at = null where id = any($1)";
    sqlx::query(sql).bind(ids).execute(db).await.map(drop)
}
