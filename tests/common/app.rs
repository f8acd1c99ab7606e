//! The service in this process, with every role, against servers of the test's own.

use boxoffice::app::{App, Role};
use boxoffice::booking::{Answer, Order};
use boxoffice::config::Settings;
use boxoffice::orchestrator::{self, Engine};
use boxoffice::saga::NewSaga;
use boxoffice::store::catalog::{NewConcert, Performance, SeatRange};
use boxoffice::store::reservations::Reservation;
use boxoffice::store::write_batch::WriteBatch;
use boxoffice::{audit, ids, store};
use chrono::{DateTime, TimeDelta, Utc};
use clap::Parser;
use uuid::Uuid;

use super::Env;

/// The secret that queue tokens are signed with, unless a flag says otherwise.
pub const QUEUE_SECRET: &str = "another secret of the tests and long enough too";
pub const TICKET_SECRET: &str = "the third secret of the tests, which signs the tickets";

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    settings: Settings,
}

/// Settings from flags, the others as they are when nothing is said.
pub fn settings(flags: &[&str]) -> Settings {
    Flags::parse_from(["test", "--local", "--listen", "127.0.0.1:0"].iter().chain(flags)).settings
}

/// The service, its servers, and a concert to sell.
pub struct TestApp {
    pub app: App,
    pub env: Env,
    pub concert: Uuid,
    pub performance: Uuid,
}

impl TestApp {
    /// All roles, default settings.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// All roles, with these flags.
    pub async fn with(flags: &[&str]) -> Self {
        Self::roles(flags, &Role::ALL).await
    }

    /// Some roles only.
    pub async fn roles(flags: &[&str], roles: &[Role]) -> Self {
        Self::on(Env::start().await, flags, roles).await
    }

    /// Some roles, on these servers.
    pub async fn on(env: Env, flags: &[&str], roles: &[Role]) -> Self {
        let app = start(&env, flags, roles).await;
        let concert = add_concert(&app).await;
        let performance = add_performance(&app, concert, 50, 100).await;
        Self { app, env, concert, performance }
    }

    /// Another process of all roles on the same servers.
    pub async fn another(&self, flags: &[&str]) -> App {
        start(&self.env, flags, &Role::ALL).await
    }

    /// A user with points.
    pub async fn user(&self, points: i64) -> Uuid {
        let user = ids::new();
        if points > 0 {
            self.charge(user, points).await;
        }
        user
    }

    pub async fn charge(&self, user: Uuid, points: i64) {
        store::points::charge(&self.app.pool, ids::new(), user, points)
            .await
            .unwrap()
            .expect("within the limit");
    }

    pub async fn balance(&self, user: Uuid) -> i64 {
        store::points::balance(&self.app.pool, user).await.unwrap()
    }

    pub fn order(&self, user: Uuid, seats: &[i32]) -> Order {
        Order {
            id: ids::new(),
            user_id: user,
            concert_id: self.concert,
            performance_id: self.performance,
            seats: seats.to_vec(),
            best: None,
            block: None,
            access_code: None,
            pay_now: false,
            trace: None,
        }
    }

    pub async fn reserve(&self, user: Uuid, seats: &[i32]) -> Reservation {
        settled(self.app.booking.reserve(self.order(user, seats)).await.unwrap())
    }

    pub async fn pay(&self, reservation: Uuid) -> Reservation {
        settled(self.app.booking.pay(reservation).await.unwrap().0)
    }

    pub async fn cancel(&self, reservation: Uuid) -> Reservation {
        settled(self.app.booking.cancel(reservation).await.unwrap())
    }

    pub async fn find(&self, reservation: Uuid) -> Reservation {
        self.app.booking.find(reservation).await.unwrap()
    }

    /// Waits until `check` holds, for at most `seconds`.
    pub async fn until<Fut: Future<Output = bool>>(&self, seconds: u64, what: &str, check: impl Fn() -> Fut) {
        until(seconds, what, check).await;
    }

    /// Waits until no saga is under way, then asks the audit.
    pub async fn check_books(&self) {
        self.until(30, "sagas to end", || async {
            let open = store::sagas::count_open(&self.app.pool).await.unwrap();
            open.iter().all(|(_, status, _)| status == "waiting")
        })
        .await;
        assert_good(&self.app).await;
    }
}

/// The audit finds nothing.
pub async fn assert_good(app: &App) {
    let report = audit::run(&app.pool).await.unwrap();
    assert!(report.is_good(true), "the audit found: {report:#?}");
}

/// Waits until `check` holds, for at most `seconds`.
pub async fn until<Fut: Future<Output = bool>>(seconds: u64, what: &str, check: impl Fn() -> Fut) {
    let end = tokio::time::Instant::now() + std::time::Duration::from_secs(seconds);
    while !check().await {
        assert!(tokio::time::Instant::now() < end, "waited {seconds} s in vain for {what}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// Begins a saga of a workflow that takes no input; its first command is out unless it is held back.
pub async fn begin_saga(engine: &Engine, workflow: &str, id: Uuid) {
    let (input, trace) = (serde_json::Map::new(), None);
    let new = NewSaga { id, subject_id: id, input, trace, seq: 0 };
    let mut tx = engine.pool.begin().await.unwrap();
    let now = store::now(&mut *tx).await.unwrap();
    let mut changes = WriteBatch::default();
    let begun = orchestrator::start(&mut changes, engine, workflow, vec![new], now).unwrap();
    changes.write(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
    engine.dispatch(begun).await.unwrap();
}

/// A process of these roles.
pub async fn start(env: &Env, flags: &[&str], roles: &[Role]) -> App {
    let mut settings = settings(flags);
    settings.servers.database_url = Some(env.database_url.clone());
    settings.servers.nats_url = Some(env.nats_url.clone());
    settings.http.access_secret = Some("a secret of the tests, long enough for anybody".to_owned());
    settings.http.queue_secret.get_or_insert_with(|| QUEUE_SECRET.to_owned());
    settings.http.ticket_secret.get_or_insert_with(|| TICKET_SECRET.to_owned());
    App::start(&settings, roles).await.unwrap()
}

pub async fn add_concert(app: &App) -> Uuid {
    let id = ids::new();
    let concert = NewConcert {
        id,
        name: &format!("Concert {id}"),
        description: "for a test",
        max_active: 100_000,
        admit_per_minute: 6_000_000,
    };
    let mut conn = app.pool.acquire().await.unwrap();
    store::catalog::insert_concert(&mut conn, &concert).await.unwrap();
    id
}

/// A performance in a month, on sale now, with seats 1..=`seats` at `price` each.
pub async fn add_performance(app: &App, concert: Uuid, seats: i32, price: i64) -> Uuid {
    let now = Utc::now();
    add_performance_at(app, concert, seats, price, now + TimeDelta::days(30), now - TimeDelta::hours(1)).await
}

/// A performance with its own start and opening of the sale, which closes in three weeks.
pub async fn add_performance_at(
    app: &App,
    concert: Uuid,
    seats: i32,
    price: i64,
    starts_at: DateTime<Utc>,
    sale_opens_at: DateTime<Utc>,
) -> Uuid {
    let id = ids::new();
    let performance = Performance {
        id,
        concert_id: concert,
        venue: "The Hall".to_owned(),
        starts_at,
        duration_minutes: 120,
        sale_opens_at,
        sale_closes_at: Utc::now() + TimeDelta::days(21),
        seats_total: seats,
    };
    let range = SeatRange { from: 1, to: seats, section: "A".to_owned(), price };
    let mut conn = app.pool.acquire().await.unwrap();
    store::catalog::insert_performance(&mut conn, &performance, &[range]).await.unwrap();
    id
}

/// What an answer has settled on.
pub fn settled(answer: Answer) -> Reservation {
    match answer {
        Answer::Settled(reservation) => *reservation,
        Answer::Pending(reservation) => panic!("not settled in time: {reservation:#?}"),
    }
}
