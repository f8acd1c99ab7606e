//! Operators' queries and acts, over the API and on the command line: both can do the same.

mod batch_jobs;
mod batches;
mod by_hand;
mod endings;
mod gauges;
mod overview;
mod parked;
mod pausing;
mod reading;
mod repairs;
mod tail;
mod walk;
mod why;

use boxoffice::ids;
use serde_json::Value;
use uuid::Uuid;

use crate::common::app::TestApp;
use crate::common::program::Program;

/// A saga whose first undo has failed for good: the seats of its reservation are still held.
pub(crate) async fn stuck(test: &TestApp, seat: i32) -> Uuid {
    let held = test.reserve(ids::new(), &[seat]).await;
    make_stuck(test, held.id).await;
    held.id
}

/// The row as it is when the release of the seats has failed too often.
async fn make_stuck(test: &TestApp, id: Uuid) {
    let changed = sqlx::query(
        "update sagas set status = saga_status('stuck'), step = saga_step(definition, 'reserve'), direction = 1, stuck_since = now(), due_at = null,
                reason = 'undo of reserve failed 70 times: busy',
                rejection = '{\"step\": \"reserve\", \"code\": \"hold_expired\", \"detail\": {}}'
         where id = $1",
    )
    .bind(id)
    .execute(&test.app.pool)
    .await
    .unwrap();
    assert_eq!(changed.rows_affected(), 1);
}

/// Waits until the command line shows this status of a saga.
async fn until_status(test: &TestApp, id: Uuid, status: &str) -> Value {
    let program = Program::of(&test.env);
    let shown = async || program.json(0, &format!("saga show {id}")).await;
    test.until(10, status, || async { shown().await["status"] == status }).await;
    shown().await
}
