//! Postgres in trouble: frozen, locked, read-only, refusing connections, or changed under the service. No request
//! waits longer than five seconds, every temporary error is a 503, no saga gets stuck, and the service recovers by
//! itself.

use std::time::Duration;

use boxoffice::app::Role as Does;
use boxoffice::store;
use boxoffice::store::api_keys::Role;
use futures::future::join_all;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};
use tokio::time::{Instant, sleep, timeout};

use crate::common::Env;
use crate::common::app::{TestApp, assert_good, until};
use crate::common::http::{Caller, Entrance, Reply};
use crate::common::postgres::Admin;
use crate::common::standby::Standby;

/// The longest that an answer may take: five seconds by the contract, and some for a busy machine.
const ANSWER_TIME: Duration = Duration::from_secs(8);

/// The service on servers of its own.
async fn alone(flags: &[&str]) -> (Entrance, Admin) {
    let started = async {
        let env = Env::with_own_postgres().await;
        let admin = Admin::of(env.own_superuser_url()).await;
        (Entrance::of(TestApp::on(env, flags, &Does::ALL).await).await, admin)
    };
    // The stack of a test is small.
    Box::pin(started).await
}

/// What a buyer does while Postgres is in trouble.
struct Buyer {
    caller: Caller,
    held: Value,
    unwanted: Value,
}

impl Buyer {
    /// With a hold to be paid and another one to be given back.
    async fn of(entrance: &Entrance, seat: i64) -> Self {
        let caller = entrance.admitted(1_000).await;
        let held = entrance.reserve(&caller, &[seat]).await.good(201).clone();
        let unwanted = entrance.reserve(&caller, &[seat + 1]).await.good(201).clone();
        Self { caller, held, unwanted }
    }

    /// Pays, cancels, holds, and charges, all at once; each under a key, so that it can be sent again.
    async fn acts(&self, entrance: &Entrance, seat: i64) -> Vec<(&'static str, Reply)> {
        let path = |of: &Value, act: &str| format!("/v1/reservations/{}/{act}", of["id"].as_str().unwrap());
        let hold = json!({ "performance_id": entrance.test.performance, "seats": [seat] });
        let acts = [
            ("pay", path(&self.held, "payment"), json!({})),
            ("cancel", path(&self.unwanted, "cancellation"), json!({})),
            ("hold", "/v1/reservations".to_owned(), hold),
            ("charge", "/v1/points/charges".to_owned(), json!({ "amount": 7 })),
        ];
        let sent = acts.into_iter().map(|(name, path, body)| async move {
            let caller = self.caller.with("idempotency-key", name);
            (name, in_time(&format!("{name} {path}"), entrance.post(&path, &caller, body)).await)
        });
        Box::pin(join_all(sent)).await
    }

    /// Sends all of it again until it is done, once each.
    async fn done(&self, entrance: &Entrance, seat: i64) {
        until(60, "everything to be done", || async {
            let replies = self.acts(entrance, seat).await;
            replies.iter().all(|(name, reply)| {
                // A payment ends the session that the other hold needs.
                let is_over = *name == "hold" && reply.status == 403;
                assert!(is_over || [200, 201, 202, 409, 503].contains(&reply.status), "{name}: {reply:#?}");
                is_over || [200, 201].contains(&reply.status)
            })
        })
        .await;
        let points = entrance.get("/v1/points", &self.caller).await.good(200)["balance"].clone();
        assert_eq!(points, 1_000 - 100 + 7, "one payment, and one charge");
    }
}

async fn in_time(what: &str, reply: impl Future<Output = Reply>) -> Reply {
    timeout(ANSWER_TIME, reply).await.unwrap_or_else(|_| panic!("{what} has no answer in time"))
}

/// Not done, and it says so; nothing is a defect.
fn is_put_off(what: &str, reply: &Reply) {
    assert!([202, 503].contains(&reply.status), "{what}: {reply:#?}");
    assert!(reply.headers.contains_key("retry-after"), "{what}: {reply:#?}");
    if reply.status == 503 {
        reply.is(503, "unavailable");
    }
}

/// No saga got stuck, no message was parked, and the books are right.
async fn nothing_is_stuck(test: &TestApp) {
    test.until(60, "sagas to end", || async {
        let open = store::sagas::count_open(&test.app.pool).await.unwrap();
        open.iter().all(|(_, status, _)| status == "waiting")
    })
    .await;
    assert_eq!(stuck_and_parked(&test.app.pool).await, (0, 0));
    assert_good(&test.app).await;
}

async fn stuck_and_parked(pool: &PgPool) -> (i64, i64) {
    let sql = "select (select count(*) from sagas where stuck_since is not null), (select count(*) from parked_messages)";
    sqlx::query_as(sql).fetch_one(pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_postgres_blocks_no_caller_and_work_resumes() {
    let (entrance, admin) = alone(&[]).await;
    let buyer = Buyer::of(&entrance, 1).await;
    let key = entrance.key(Role::Admin).await;
    entrance.get("/v1/ops/sagas", &key).await.good(200);
    admin.freeze();
    let frozen = Instant::now();
    let reads = ["/v1/points", "/v1/points/entries", "/v1/reservations", "/v1/concerts?limit=7"];
    let reads = reads.map(|path| (path, &buyer.caller)).into_iter().chain([("/v1/ops/sagas", &key)]);
    let reads = join_all(reads.map(|(path, caller)| {
        let reply = entrance.get(path, caller);
        async move { (path, in_time(path, reply).await) }
    }));
    let write = timeout(ANSWER_TIME, store::can_write(&entrance.pool));
    let (reads, acts, written) = tokio::join!(reads, buyer.acts(&entrance, 3), write);
    reads.iter().for_each(|(path, reply)| {
        reply.is(503, "unavailable");
        assert!(reply.status == 503, "{path}");
    });
    acts.iter().for_each(|(name, reply)| is_put_off(name, reply));
    assert!(written.expect("it has a bound").is_err());
    entrance.get("/livez", &Caller::anonymous()).await.good(200);
    // Longer than what works in the background waits for an answer.
    sleep((store::WORK_TIMEOUT + Duration::from_secs(2)).saturating_sub(frozen.elapsed())).await;
    admin.thaw();
    buyer.done(&entrance, 3).await;
    until(20, "the service to be ready", || async {
        entrance.get("/readyz", &Caller::anonymous()).await.status == 200
    })
    .await;
    nothing_is_stuck(&entrance.test).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn locked_tables_block_no_caller_and_repeat_nothing() {
    let entrance = Entrance::start().await;
    let buyer = Buyer::of(&entrance, 1).await;
    let mut tx = entrance.pool.begin().await.unwrap();
    let tables =
        "lock table sagas, reservations, accounts, ledger_entries, idempotency_keys in access exclusive mode";
    sqlx::query(tables).execute(&mut *tx).await.unwrap();
    for (name, reply) in buyer.acts(&entrance, 3).await {
        is_put_off(name, &reply);
    }
    let points = in_time("points", entrance.get("/v1/points", &buyer.caller)).await;
    points.is(503, "unavailable");
    tx.rollback().await.unwrap();
    buyer.done(&entrance, 3).await;
    nothing_is_stuck(&entrance.test).await;
}

/// How a server refuses connections, and how it is repaired.
const REFUSALS: [(&str, &[&str], &[&str]); 4] = [
    ("28000", &["alter role boxoffice nologin"], &["alter role boxoffice login"]),
    (
        "55000",
        &["alter database boxoffice allow_connections false"],
        &["alter database boxoffice allow_connections true"],
    ),
    ("28P01", &["alter role boxoffice password 'another'"], &[]),
    ("3D000", &[], &["alter database elsewhere rename to boxoffice"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn refused_connections_give_503_no_stuck_saga() {
    let (entrance, mut admin) = alone(&[]).await;
    let url = url::Url::parse(&entrance.test.env.database_url).unwrap();
    let password = format!("alter role boxoffice password '{}'", url.password().unwrap());
    for (number, (code, wrong, right)) in REFUSALS.into_iter().enumerate() {
        let seat = 1 + 3 * number as i64;
        let buyer = Buyer::of(&entrance, seat).await;
        admin.run(wrong).await;
        if code == "3D000" {
            admin.run(&["alter database boxoffice allow_connections false"]).await;
            let end = Instant::now() + Duration::from_secs(10);
            while !admin.renamed().await {
                assert!(Instant::now() < end, "a client stays connected");
                admin.end_sessions("boxoffice").await;
            }
            admin.run(&["alter database elsewhere allow_connections true"]).await;
        }
        // A session that was being opened meanwhile is seen only once it is open.
        for _ in 0..5 {
            admin.end_sessions("boxoffice").await;
            sleep(Duration::from_millis(100)).await;
        }
        for (name, reply) in buyer.acts(&entrance, seat + 2).await {
            is_put_off(&format!("{code} {name}"), &reply);
        }
        in_time(code, entrance.get("/v1/points", &buyer.caller)).await.is(503, "unavailable");
        admin.run(right).await;
        admin.run(&[&password]).await;
        Box::pin(buyer.done(&entrance, seat + 2)).await;
    }
    nothing_is_stuck(&entrance.test).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn read_only_server_is_left_and_used_again() {
    let (entrance, mut admin) = alone(&[]).await;
    let buyer = Buyer::of(&entrance, 1).await;
    admin.read_only(true).await;
    until(10, "writing to be refused", || async { store::can_write(&entrance.pool).await.is_err() }).await;
    for (name, reply) in buyer.acts(&entrance, 3).await {
        is_put_off(name, &reply);
    }
    entrance.get("/v1/points", &buyer.caller).await.good(200);
    admin.read_only(false).await;
    buyer.done(&entrance, 3).await;
    nothing_is_stuck(&entrance.test).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writable_server_of_several_is_used() {
    let (one, other) = tokio::join!(Env::with_own_postgres(), Env::with_own_postgres());
    let (mut one_admin, mut other_admin) =
        tokio::join!(Admin::of(one.own_superuser_url()), Admin::of(other.own_superuser_url()));
    let mut passwords = Vec::new();
    for (env, admin) in [(&one, &mut one_admin), (&other, &mut other_admin)] {
        store::migrate(&env.pool).await.unwrap();
        admin.run(&["alter role boxoffice password 'alike'"]).await;
        passwords.push(url::Url::parse(&env.database_url).unwrap().port().unwrap());
    }
    let [first, second] = passwords[..] else { panic!("two ports") };
    one_admin.read_only(true).await;
    let url = format!(
        "postgres://boxoffice:alike@127.0.0.1:{first},127.0.0.1:{second}/boxoffice?target_session_attrs=read-write"
    );
    let pool = store::open(&url, 4).unwrap();
    let writes_to = async || {
        let written = store::can_write(&pool).await.is_ok();
        let port = sqlx::query_scalar::<_, i32>("select inet_server_port()").fetch_one(&pool).await;
        written.then_some(port.ok()).flatten()
    };
    until(20, "the second to be written", || async { writes_to().await == Some(second.into()) }).await;
    // The other way round, while its connections are idle.
    one_admin.read_only(false).await;
    other_admin.read_only(true).await;
    until(20, "the first to be written", || async {
        // It is requests that find out.
        if let Err(error) = store::can_write(&pool).await {
            assert!(store::is_unavailable(&error), "{error}");
        }
        writes_to().await == Some(first.into())
    })
    .await;
    other_admin.freeze();
    assert_eq!(writes_to().await, Some(first.into()), "no connection leads to the second any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn service_goes_on_once_a_standby_is_promoted() {
    let mut env = Env::with_own_postgres().await;
    let primary = Admin::of(env.own_superuser_url()).await;
    let standby = Standby::of(env.own_superuser_url()).await;
    let port = url::Url::parse(&env.database_url).unwrap().port().unwrap();
    let both = format!("127.0.0.1:{port},127.0.0.1:{}", standby.port);
    let url = env.database_url.replace(&format!("127.0.0.1:{port}"), &both);
    env.database_url = format!("{url}?target_session_attrs=read-write");
    // The stack of a test is small.
    let started = async { Entrance::of(TestApp::on(env, &[], &Does::ALL).await).await };
    let entrance = Box::pin(started).await;
    let status = async || entrance.get("/readyz", &Caller::anonymous()).await.status;
    let buyer = Buyer::of(&entrance, 1).await;
    until(10, "the service to be ready", || async { status().await == 200 }).await;
    primary.stop();
    until(10, "the service to ask for no more requests", || async { status().await == 503 }).await;
    // The standby can be read, and is not what is wanted.
    for (name, reply) in buyer.acts(&entrance, 3).await {
        is_put_off(name, &reply);
    }
    standby.promote().await;
    buyer.done(&entrance, 3).await;
    until(20, "the service to be ready again", || async { status().await == 200 }).await;
    nothing_is_stuck(&entrance.test).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_column_type_is_reread_at_once() {
    let entrance = Entrance::start().await;
    let buyer = entrance.admitted(1_000).await;
    let held = entrance.reserve(&buyer, &[1]).await.good(201).clone();
    let key = entrance.key(Role::Admin).await;
    let show = format!("/v1/reservations/{}", held["id"].as_str().unwrap());
    let read_all = async || {
        // Several at once, so that several connections have prepared the statements.
        join_all((0..8).map(|_| async {
            entrance.get("/v1/ops/sagas", &key).await.good(200);
            entrance.get("/v1/reservations", &buyer).await.good(200);
            entrance.get(&show, &buyer).await.good(200);
        }))
        .await;
    };
    read_all().await;
    let changes = "alter table reservations alter column reason type varchar(900);
                   alter table performances alter column venue type varchar(900)";
    sqlx::raw_sql(changes).execute(&entrance.test.env.pool).await.unwrap();
    read_all().await;
    let paid = entrance.pay(&buyer, &held).await;
    assert!([201, 202].contains(&paid.status), "{paid:#?}");
    nothing_is_stuck(&entrance.test).await;
}

/// Buyers come, hold, and pay or cancel until `over`; those who are served count.
async fn sell(entrance: &Entrance, seat: i64, over: Instant) -> usize {
    let buyer = entrance.admitted(1_000_000).await;
    let mut served = 0;
    while Instant::now() < over {
        let held = in_time("hold", entrance.reserve(&buyer, &[seat])).await;
        if held.status != 201 {
            assert!([202, 409, 429, 503].contains(&held.status), "{held:#?}");
            sleep(Duration::from_millis(50)).await;
            continue;
        }
        let cancelled = in_time("cancel", entrance.cancel(&buyer, &held.body)).await;
        assert!([200, 202, 409, 503].contains(&cancelled.status), "{cancelled:#?}");
        served += 1;
    }
    served
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_added_under_load_stick_no_saga() {
    let entrance = Entrance::with(&["--max-expired-holds", "0"]).await;
    let over = Instant::now() + Duration::from_secs(8);
    let sales = join_all((1..=12).map(|seat| sell(&entrance, seat, over)));
    let alter = async {
        let pool = &entrance.test.env.pool;
        let tables =
            "select c.relname::text from pg_class c where c.relkind in ('r', 'p') and not c.relispartition
                      and c.relnamespace = 'public'::regnamespace and c.relname not like '\\_%' order by 1";
        let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(pool).await.unwrap();
        assert!(tables.len() > 15, "{tables:?}");
        for kind in ["integer", "text not null default 'x'"] {
            sleep(Duration::from_secs(1)).await;
            for table in &tables {
                let column = format!("zz_{}", &kind[..4]);
                let sql = format!("alter table {table} add column {column} {kind}");
                // It may lose against a lock that is held; then it is tried again, as a migration is.
                until(10, &sql, || async {
                    sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(pool).await.is_ok()
                })
                .await;
            }
        }
    };
    let (served, ()) = tokio::join!(sales, alter);
    assert!(served.iter().all(|served| *served > 1), "{served:?}");
    nothing_is_stuck(&entrance.test).await;
}

/// What a prepared statement returns must stay the same when a migration adds a column.
#[test]
fn statements_name_the_columns_of_tables() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/store");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    // The copies that growth makes are not prepared more than once.
    let files = files.filter(|path| path.is_file() && !path.ends_with("growth.rs"));
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        for line in text.lines().filter(|line| line.contains("select *")) {
            assert!(line.contains("from unnest("), "{}: {}", path.display(), line.trim());
        }
    }
}
