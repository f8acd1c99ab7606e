//! Errors of Postgres that pass, but last longer than twenty deliveries of a message: no saga gets stuck by them.

use std::time::Duration;

use boxoffice::app::Role as Does;
use boxoffice::store;
use sqlx::AssertSqlSafe;
use tokio::time::sleep;

use crate::common::Env;
use crate::common::app::{TestApp, assert_good};
use crate::common::http::Entrance;
use crate::common::postgres::Admin;

/// Twenty deliveries take a minute, a step of a booking has a minute; this is more.
const LASTS: Duration = Duration::from_secs(80);

/// Holds, payments and cancellations under way while the trouble lasts, and what became of them.
async fn outlasts(entrance: &Entrance, begin: impl AsyncFnOnce(), end: impl AsyncFnOnce()) {
    let buyer = entrance.admitted(10_000).await;
    let paid = entrance.reserve(&buyer, &[1]).await.good(201).clone();
    entrance.reserve(&buyer, &[2]).await.good(201);
    begin().await;
    for reply in [entrance.reserve(&buyer, &[3]).await, entrance.pay(&buyer, &paid).await] {
        assert!([202, 503].contains(&reply.status), "{reply:#?}");
    }
    sleep(LASTS).await;
    assert_eq!(stuck_and_parked(entrance).await, (0, 0), "while it lasts");
    end().await;
    entrance
        .test
        .until(120, "every saga to end", || async {
            let open = store::sagas::count_open(&entrance.pool).await;
            open.is_ok_and(|open| open.is_empty())
        })
        .await;
    assert_eq!(stuck_and_parked(entrance).await, (0, 0), "afterwards");
    assert_good(&entrance.test.app).await;
    entrance.reserve(&buyer, &[4]).await.good(201);
}

async fn stuck_and_parked(entrance: &Entrance) -> (i64, i64) {
    let sql = "select (select count(*) from sagas where stuck_since is not null), (select count(*) from parked_messages)";
    sqlx::query_as(sql).fetch_one(&entrance.pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn long_missing_table_sticks_no_saga() {
    let entrance = Entrance::with(&["--hold-seconds", "20"]).await;
    let pool = &entrance.test.env.pool;
    let run = async |sql: &str| {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(pool).await.unwrap();
    };
    outlasts(
        &entrance,
        async || run("alter table seats rename to seats_away").await,
        async || run("alter table seats_away rename to seats").await,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_read_only_postgres_sticks_no_saga() {
    let env = Env::with_own_postgres().await;
    let mut admin = Admin::of(env.own_superuser_url()).await;
    let mut other = Admin::of(env.own_superuser_url()).await;
    let entrance = Entrance::of(TestApp::on(env, &["--hold-seconds", "20"], &Does::ALL).await).await;
    outlasts(&entrance, async || admin.read_only(true).await, async || other.read_only(false).await).await;
}
