//! A database with many finished bookings: the copies are as good as what they are copies of, and the statements that
//! are executed again and again find what they need by their indexes.

use boxoffice::ids;
use boxoffice_bench::indexes::{self, Listener, Planned, Sample};
use boxoffice_bench::store::growth::{self, Copies};
use boxoffice_bench::store::{plans, rehearsal};
use chrono::{TimeDelta, Utc};
use uuid::Uuid;

use crate::common::app::{TestApp, assert_good};
use crate::common::{superuser, superuser_url};

/// Finished bookings.
const BOOKINGS: i32 = 10_000;
/// Seats of each performance.
const HALL: i64 = 500;
/// Waiting and stuck ones beside them.
const WAITING: usize = 50;
const STUCK: usize = 5;

/// The service, after many bookings that are copies of one.
async fn grown() -> TestApp {
    let test = TestApp::start().await;
    let user = test.user(1_000).await;
    let pattern = test.reserve(user, &[1]).await.id;
    test.pay(pattern).await;
    let (age, pool) = (TimeDelta::days(3), &test.app.pool);
    let from = Utc::now() - age;
    growth::make_days(pool, from).await.unwrap();
    let copies = Copies { pattern, from, step: age / BOOKINGS, count: BOOKINGS.into(), hall: HALL };
    growth::copy(&superuser(&test.env.database_url).await, copies).await.unwrap();
    test
}

#[tokio::test]
async fn hot_statements_use_their_indexes_for_all_values() {
    let test = grown().await;
    let pool = &test.app.pool;
    let counted = async |table: &str| -> i64 {
        let sql = format!("select count(*) from {table}");
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(pool).await.unwrap()
    };
    for table in ["sagas", "reservations", "payments", "tickets", "accounts"] {
        assert_eq!(counted(table).await, i64::from(BOOKINGS) + 1, "{table}");
    }
    let pattern: i64 = counted("saga_history").await / (i64::from(BOOKINGS) + 1);
    assert!(pattern >= 4, "{pattern} rows of history for each booking");
    assert_good(&test.app).await;

    let waiting: Vec<Uuid> = (0..WAITING).map(|_| ids::new()).collect();
    rehearsal::add_waiting(pool, &waiting, Utc::now() + TimeDelta::hours(1)).await.unwrap();
    plans::get_stuck(pool, &waiting[..STUCK]).await.unwrap();
    growth::settle(&superuser(&test.env.database_url).await).await.unwrap();
    let sample = Sample::take(pool).await.unwrap();
    let mut lacking = Vec::new();
    let superuser_url = superuser_url(&test.env.database_url).await;
    for planned in [Planned::ForTheseValues, Planned::ForAnyValues] {
        let listener = Listener::connect(&superuser_url, planned).await.unwrap();
        for hot in indexes::all() {
            let executed = listener.plan(&hot, &sample).await.unwrap();
            let lacks = executed.lacks(hot.indexes);
            if !lacks.is_empty() {
                lacking
                    .push(format!("{planned:?}, {}, does not use {lacks:?}:\n{}", hot.what, executed.plan));
            }
        }
    }
    assert!(lacking.is_empty(), "{}", lacking.join("\n"));

    // And it would be noticed.
    sqlx::query("drop index sagas_subject").execute(pool).await.unwrap();
    let listener = Listener::connect(&superuser_url, Planned::ForTheseValues).await.unwrap();
    let hot = indexes::all().into_iter().find(|hot| hot.indexes == ["sagas_subject"]).unwrap();
    let executed = listener.plan(&hot, &sample).await.unwrap();
    assert_eq!(executed.lacks(hot.indexes), ["sagas_subject"], "{}", executed.plan);
}
