//! The audit of the last minutes: it finds what was broken in them, and reports it as a metric.

use boxoffice::audit::recent;
use boxoffice::store;
use chrono::TimeDelta;
use metrics_exporter_prometheus::PrometheusBuilder;
use sqlx::PgPool;

use crate::audit::make_good;
use crate::common::{fresh_database, superuser};

/// The names of what the audit of the last `window` finds.
async fn recent_findings(pool: &PgPool, window: TimeDelta) -> Vec<&'static str> {
    let broken = recent::judge(pool, window).await.unwrap();
    assert!(broken.iter().all(|broken| broken.count > 0 && !broken.examples.is_empty()), "{broken:#?}");
    broken.iter().map(|broken| broken.invariant.name()).collect()
}

/// So long ago that all rows of the tests are newer.
const EVER: TimeDelta = TimeDelta::days(36_500);

/// The ids of payments begin with a time, as the program makes them.
const TIMED_IDS: &str = "update payments_without_entry set id = reservation_id";

#[tokio::test]
async fn recent_audit_finds_what_was_broken() {
    let damages: [(&str, &[&str]); 9] = [
        (
            "delete from reservations where id = '00000000-0000-7000-8000-000000000001'",
            &["tickets_without_reservation", "payments_without_reservation"],
        ),
        ("delete from seats where number = 1", &["sold_seats", "tickets_without_seat"]),
        ("delete from accounts where balance = 50", &["entries_without_account"]),
        ("update payments_without_entry set amount = 5", &["payments", "payments_without_entry"]),
        ("update accounts set balance = 551 where balance = 550", &["balances"]),
        ("update seats set holder = gen_random_uuid() where number = 3", &["held_seats"]),
        (
            "update payments_without_entry set status = 'failed', paid_at = null
             where reservation_id = '00000000-0000-7000-8000-000000000007'",
            &["payments"],
        ),
        ("update reservations set concert_id = gen_random_uuid()", &["reservations_of_another_concert"]),
        ("delete from performances", &["reservations_without_performance"]),
    ];
    for (damage, expected) in damages {
        let url = fresh_database().await;
        let pool = store::open(&url, 2).unwrap();
        make_good(&pool).await;
        sqlx::raw_sql(TIMED_IDS).execute(&pool).await.unwrap();
        assert_eq!(recent_findings(&pool, EVER).await, Vec::<&str>::new());
        let mut admin = superuser(&url).await.acquire().await.unwrap();
        sqlx::raw_sql("set session_replication_role = replica").execute(&mut *admin).await.unwrap();
        sqlx::raw_sql(damage).execute(&mut *admin).await.unwrap();
        assert_eq!(recent_findings(&pool, EVER).await, expected, "after: {damage}");
        assert_eq!(recent_findings(&pool, recent::WINDOW).await, Vec::<&str>::new(), "these rows are older");
    }
}

#[tokio::test]
async fn recent_audit_reports_findings_as_metric() {
    let url = fresh_database().await;
    let pool = store::open(&url, 2).unwrap();
    make_good(&pool).await;
    sqlx::raw_sql(TIMED_IDS).execute(&pool).await.unwrap();
    let recorder = PrometheusBuilder::new().build_recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let shown = |finding: &str, count: u32| {
        recorder
            .handle()
            .render()
            .contains(&format!("boxoffice_audit_findings{{finding=\"{finding}\"}} {count}\n"))
    };
    recent::report(&pool, EVER).await.unwrap();
    assert!(shown("tickets_without_seat", 0), "{}", recorder.handle().render());

    let damage = "set session_replication_role = replica; delete from seats where number in (1, 2)";
    sqlx::raw_sql(damage).execute(&superuser(&url).await).await.unwrap();
    recent::report(&pool, EVER).await.unwrap();
    assert!(shown("tickets_without_seat", 2) && shown("balances", 0), "{}", recorder.handle().render());
}
