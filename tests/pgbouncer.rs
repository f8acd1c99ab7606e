//! The service behind `PgBouncer`: session mode works as it is installed, the other modes are refused.

use std::time::Duration;

use boxoffice::store;
use boxoffice::store::reservations::ReservationStatus;
use boxoffice::store::session;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};

use crate::common::app::{TestApp, add_concert, add_performance, start};
use crate::common::pgbouncer::PgBouncer;
use crate::common::program::Program;
use crate::common::{Env, fresh_database};

const SESSION_MODE: &str = "pool_mode = session";

/// A service of all roles whose database is reached through `PgBouncer` in session mode.
async fn behind() -> (TestApp, PgBouncer) {
    let mut env = Env::start().await;
    let bouncer = PgBouncer::start(&env.database_url, SESSION_MODE);
    env.database_url.clone_from(&bouncer.url);
    let app = start(&env, &[], &boxoffice::app::Role::ALL).await;
    let concert = add_concert(&app).await;
    let performance = add_performance(&app, concert, 50, 100).await;
    (TestApp { app, env, concert, performance }, bouncer)
}

#[tokio::test(flavor = "multi_thread")]
async fn bookings_work_behind_session_mode() {
    let (test, _bouncer) = behind().await;
    let user = test.user(1_000).await;
    let held = test.reserve(user, &[1, 2]).await;
    assert_eq!(test.pay(held.id).await.status, ReservationStatus::Confirmed);
    let other = test.reserve(user, &[3]).await;
    assert_eq!(test.cancel(other.id).await.status, ReservationStatus::Cancelled);
    assert_eq!(test.balance(user).await, 800);
    test.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_connection_has_its_settings_behind_session_mode() {
    let bouncer = PgBouncer::start(&fresh_database().await, SESSION_MODE);
    let all = store::open(&bouncer.url, 2).unwrap();
    let steps = store::open_for_steps(&bouncer.url, 2).unwrap();
    let common = [("jit", "off"), ("lock_timeout", "4s"), ("idle_in_transaction_session_timeout", "30s")];
    let of_steps = [("plan_cache_mode", "force_generic_plan"), ("enable_seqscan", "off")];
    for (pool, expected) in [(&all, common.to_vec()), (&steps, [&common[..], &of_steps[..]].concat())] {
        let mut held = [pool.acquire().await.unwrap(), pool.acquire().await.unwrap()];
        for conn in &mut held {
            for (name, value) in &expected {
                let found = sqlx::query_scalar::<_, String>("select current_setting($1)").bind(name);
                assert_eq!(found.fetch_one(&mut **conn).await.unwrap(), *value, "{name}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_work_behind_session_mode() {
    let bouncer = PgBouncer::start(&fresh_database().await, SESSION_MODE);
    let program = Program::alone().with("DATABASE_URL", &bouncer.url);
    assert_eq!(program.json(0, "migrate").await["migrated"], true);
    assert_eq!(program.json(0, "audit").await["verdict"], "good");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_modes_are_refused_with_one_sentence() {
    let env = Env::start().await;
    // Each cleans up differently after a transaction, and gives the next one another server's connection or the same.
    for settings in [
        "pool_mode = transaction",
        "pool_mode = transaction\nserver_round_robin = 1",
        "pool_mode = transaction\nserver_reset_query_always = 1",
        "pool_mode = statement",
    ] {
        let bouncer = PgBouncer::start(&env.database_url, settings);
        let _others = warm_up(&bouncer.url).await;
        let program = Program::alone()
            .with("DATABASE_URL", &bouncer.url)
            .with("NATS_URL", &env.nats_url)
            .with("BOXOFFICE_LISTEN", "127.0.0.1:0")
            .with("BOXOFFICE_LOCAL", "true");
        for command in ["serve --role worker", "migrate", "audit"] {
            let ran = program.run(command).await;
            assert_eq!(ran.code, 1, "{settings}, {command}: {}", ran.err);
            let sentences: Vec<&str> =
                ran.err.lines().filter(|line| line.contains("set pool_mode = session")).collect();
            assert_eq!(sentences.len(), 1, "{settings}, {command}: {}", ran.err);
            assert!(!ran.err.contains("prepared statement"), "{settings}, {command}: {}", ran.err);
        }
        let checks = program.json(1, "doctor").await["checks"].clone();
        let postgres = checks.as_array().unwrap().iter().find(|check| check["check"] == "postgres").unwrap();
        assert!(postgres["found"].as_str().unwrap().contains("set pool_mode = session"), "{postgres}");
    }
}

/// Several connections of the pooler to the server, idle, so that the next transactions have a choice.
async fn warm_up(url: &str) -> Vec<PgConnection> {
    let options: PgConnectOptions = url.parse().unwrap();
    let options = options.extra_float_digits(None);
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(PgConnection::connect_with(&options).await.unwrap());
    }
    let waits = clients.iter_mut().map(|client| sqlx::raw_sql("select pg_sleep(0.2)").execute(client));
    futures::future::join_all(waits).await;
    clients
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_kept_by_postgres_and_session_mode() {
    let database = fresh_database().await;
    let bouncer = PgBouncer::start(&database, SESSION_MODE);
    for url in [&database, &bouncer.url] {
        let pool = store::open(url, 1).unwrap();
        for _ in 0..5 {
            let began = tokio::time::Instant::now();
            assert!(session::are_kept(&pool).await.unwrap(), "{url}");
            assert!(began.elapsed() < Duration::from_secs(4));
        }
    }
}
