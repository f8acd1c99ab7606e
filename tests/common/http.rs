//! The HTTP service on a port of its own, and a client for it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use boxoffice::app::Role as Does;
use boxoffice::background::Tasks;
use boxoffice::catalog::Catalog;
use boxoffice::crowd::Crowds;
use boxoffice::http::admin_state::{CHECKS_AT_ONCE, TAILS_AT_ONCE};
use boxoffice::http::auth::{Access, Keys, NewKey};
use boxoffice::http::connections::Limits as ClientLimits;
use boxoffice::http::health::Health;
use boxoffice::http::state::CHARGES_AT_ONCE;
use boxoffice::http::stream_limit::StreamLimit;
use boxoffice::http::{self, AdminState, AppState, CodeLookup, JoinLimits, Repeats, Service};
use boxoffice::operations::batch_jobs::BatchJobs;
use boxoffice::operations::exports::Exports;
use boxoffice::operations::gauges::Gauges;
use boxoffice::operations::overview::Overviews;
use boxoffice::redemptions::Redemptions;
use boxoffice::store::api_keys::{self, Role};
use boxoffice::ticket_codes::TicketKeys;
use boxoffice::transfers::Transfers;
use boxoffice::webhooks::UrlRules;
use boxoffice::{ids, telemetry};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use super::app::{self, TICKET_SECRET, TestApp, settings};

/// The secret that access tokens are signed with.
pub const SECRET: &str = "a secret of the tests, long enough for anybody";

/// The service with its entrance.
pub struct Entrance {
    pub test: TestApp,
    pub pool: PgPool,
    url: String,
    client: reqwest::Client,
    _stop: Option<DropGuard>,
}

/// Whose request it is, and what it carries beside the body.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    pub id: Uuid,
    headers: Vec<(String, String)>,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl Entrance {
    /// Local mode, default settings.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// Local mode, with these flags.
    pub async fn with(flags: &[&str]) -> Self {
        Self::roles(flags, &Does::ALL).await
    }

    /// Local mode, with these flags and roles; the api is one of them.
    pub async fn roles(flags: &[&str], roles: &[Does]) -> Self {
        Self::of(TestApp::roles(flags, roles).await).await
    }

    /// The entrance of a service that runs.
    pub async fn of(test: TestApp) -> Self {
        let address = test.app.address.expect("the service has the api role");
        Self::at(test, address, None).await
    }

    /// The same after the service was stopped and started again, in local mode, with all roles and these flags.
    pub async fn restarted(self, flags: &[&str]) -> Self {
        let TestApp { app, env, concert, performance } = self.test;
        app.stop().await;
        let app = app::start(&env, flags, &Does::ALL).await;
        Self::of(TestApp { app, env, concert, performance }).await
    }

    /// A second entrance to the same service, not in local mode; the one to be tried.
    pub async fn production() -> Self {
        let test = TestApp::start().await;
        let mut settings = settings(&[]);
        settings.http.local = false;
        settings.http.access_secret = Some(SECRET.to_owned());
        let (service, stop) = (&test.app, CancellationToken::new());
        let (pool, bus, clock) = (service.pool.clone(), service.bus.clone(), service.clock.clone());
        let catalog = Catalog::open(pool, bus, clock, true, &Tasks::new(&stop), &stop).await.unwrap();
        let tickets = TicketKeys::new(TICKET_SECRET, []).expect("no further key");
        let admin = AdminState {
            pool: service.pool.clone(),
            clock: service.clock.clone(),
            engine: service.engine.clone(),
            keys: Keys::new(service.pool.clone()),
            repeats: Repeats::open(&service.engine, &Tasks::new(&stop), &stop),
            redemptions: Some(Redemptions::new(service.pool.clone(), tickets.clone(), &settings.gate)),
            room: service.room.clone(),
            booking: service.booking.clone(),
            catalog: Some(catalog.clone()),
            queue: settings.queue.clone(),
            goodwill_per_day: settings.booking.goodwill_per_day.into(),
            health: Health::new(service.bus.health.clone(), Tasks::new(&stop)),
            batches: BatchJobs::new(&service.engine, &Tasks::new(&stop), &stop),
            exports: Exports::new(service.pool.clone(), settings.exports.time(), &Tasks::new(&stop), &stop),
            overviews: Overviews::default(),
            tails: Arc::new(Semaphore::new(TAILS_AT_ONCE)),
            checks: Semaphore::new(CHECKS_AT_ONCE),
            check_time: Duration::from_secs(20),
            webhook_rules: UrlRules { allows_private: false },
            gauges: Gauges::default(),
            metrics: telemetry::start_metrics(),
            trace_url: settings.http.trace_url.clone(),
            limits: ClientLimits::of_admin(&settings.http),
            trusted_proxies: settings.http.trusted_proxies.clone(),
            stop: stop.clone(),
        };
        let state = AppState {
            repeats: admin.repeats.clone(),
            keys: admin.keys.clone(),
            admin: Arc::new(admin),
            tickets,
            transfers: Transfers::new(service.pool.clone(), &settings.transfers),
            pool: service.pool.clone(),
            clock: service.clock.clone(),
            catalog,
            room: service.room.clone().expect("the service has the api role"),
            booking: service.booking.clone(),
            engine: service.engine.clone(),
            access: Access::new(&settings.http, service.clock.clone()).expect("the secret is good"),
            joins: JoinLimits::new(&settings.queue),
            codes: CodeLookup::new(service.pool.clone()),
            limits: ClientLimits::of(&settings.http),
            trusted_proxies: settings.http.trusted_proxies,
            cors_origins: settings.http.cors_origins,
            booking_settings: settings.booking,
            charges: Semaphore::new(CHARGES_AT_ONCE),
            listeners: StreamLimit::new(settings.queue.queue_streams, settings.queue.queue_streams_per_user),
            crowds: Crowds::new(([127, 0, 0, 1], 0).into(), &Tasks::new(&stop), &stop),
            shop: None,
            stop: stop.clone(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(http::serve(listener, Service::Both(Arc::new(state))));
        Self::at(test, address, Some(stop.drop_guard())).await
    }

    async fn at(test: TestApp, address: SocketAddr, stop: Option<DropGuard>) -> Self {
        // Another test of this process may have installed it before.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let (pool, room) = (test.app.pool.clone(), test.app.room.clone().expect("there is a waiting room"));
        app::until(10, "the line to be known", || async { room.ready() }).await;
        let (url, client) = (format!("http://{address}"), reqwest::Client::new());
        Self { test, pool, url, client, _stop: stop }
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A user with an access token and points.
    pub async fn user(&self, points: i64) -> Caller {
        let id = self.test.user(points).await;
        Caller::new(id, &access_token(&json!({ "sub": id })))
    }

    /// A user who was admitted to the test's concert.
    pub async fn admitted(&self, points: i64) -> Caller {
        self.admitted_to(self.test.concert, points).await
    }

    /// A user who was admitted to a concert.
    pub async fn admitted_to(&self, concert: Uuid, points: i64) -> Caller {
        let user = self.user(points).await;
        let path = format!("/v1/concerts/{concert}/queue-tokens");
        let token = self.post(&path, &user, json!({})).await.body["token"].as_str().unwrap().to_owned();
        let user = user.with("queue-token", &token);
        let end = tokio::time::Instant::now() + Duration::from_secs(10);
        loop {
            let place = self.get("/v1/queue-tokens/current", &user).await.body;
            if place["status"] == "active" {
                return user.with("queue-token", place["token"].as_str().unwrap());
            }
            assert!(tokio::time::Instant::now() < end, "not admitted in time: {place}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A new API key.
    pub async fn key(&self, role: Role) -> Caller {
        let NewKey { secret, hash } = NewKey::generate();
        let id = ids::new();
        api_keys::insert(&self.pool, id, role.as_str(), role, &hash).await.unwrap();
        Caller::new(id, &secret)
    }

    /// A new API key of a client of these workflows.
    pub async fn client_key(&self, workflows: &[&str]) -> Caller {
        let NewKey { secret, hash } = NewKey::generate();
        let (id, workflows) = (ids::new(), workflows.iter().map(ToString::to_string).collect::<Vec<_>>());
        api_keys::insert_for(&self.pool, id, "client", Role::Client, &hash, Some(&workflows)).await.unwrap();
        Caller::new(id, &secret)
    }

    /// Ends the nats-server of this test, at once.
    pub fn kill_nats(&self) {
        self.test.env.kill_nats();
    }

    pub async fn get(&self, path: &str, caller: &Caller) -> Reply {
        self.send(Method::GET, path, caller, None).await
    }

    pub async fn post(&self, path: &str, caller: &Caller, body: Value) -> Reply {
        self.send(Method::POST, path, caller, Some(body)).await
    }

    pub async fn send(&self, method: Method, path: &str, caller: &Caller, body: Option<Value>) -> Reply {
        let mut request = self.request(method, path, caller);
        if let Some(body) = body {
            request = request.json(&body);
        }
        reply(request).await
    }

    /// A request that is still to be completed.
    pub fn request(&self, method: Method, path: &str, caller: &Caller) -> reqwest::RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.url));
        caller.headers.iter().fold(request, |request, (name, value)| request.header(name, value))
    }

    /// Holds seats of the test's performance.
    pub async fn reserve(&self, caller: &Caller, seats: &[i64]) -> Reply {
        let body = json!({ "performance_id": self.test.performance, "seats": seats });
        self.post("/v1/reservations", caller, body).await
    }

    /// Pays for a reservation.
    pub async fn pay(&self, caller: &Caller, reservation: &Value) -> Reply {
        self.post(&path_of(reservation, "payment"), caller, json!({})).await
    }

    /// Cancels a reservation.
    pub async fn cancel(&self, caller: &Caller, reservation: &Value) -> Reply {
        self.post(&path_of(reservation, "cancellation"), caller, json!({})).await
    }
}

fn path_of(reservation: &Value, act: &str) -> String {
    format!("/v1/reservations/{}/{act}", reservation["id"].as_str().expect("a reservation has an id"))
}

/// Sends a request and reads the answer; what is not JSON is given as a text.
pub async fn reply(request: reqwest::RequestBuilder) -> Reply {
    try_reply(request).await.expect("the entrance answers")
}

/// The same for a request whose connection may be closed.
pub async fn try_reply(request: reqwest::RequestBuilder) -> reqwest::Result<Reply> {
    let answer = request.send().await?;
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let text = answer.text().await?;
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Ok(Reply { status, headers, body })
}

/// An access token with these claims.
pub fn access_token(claims: &Value) -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &key).unwrap()
}

impl Caller {
    /// Without a token.
    pub fn anonymous() -> Self {
        Self::default()
    }

    pub fn new(id: Uuid, token: &str) -> Self {
        Self { id, headers: Vec::new() }.with("authorization", &format!("Bearer {token}"))
    }

    /// The same with a header more, or another value for it.
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut caller = self.without(name);
        caller.headers.push((name.to_owned(), value.to_owned()));
        caller
    }

    /// The same with a header less.
    pub fn without(&self, name: &str) -> Self {
        let headers = self.headers.iter().filter(|(known, _)| known != name).cloned().collect();
        Self { id: self.id, headers }
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).unwrap_or_default()
    }
}

impl Reply {
    /// Whether this is a problem with this status and code, whole by RFC 9457; answers its body.
    #[track_caller]
    pub fn is(&self, status: u16, code: &str) -> &Value {
        assert_eq!((self.status, self.body["code"].as_str()), (status, Some(code)), "{self:#?}");
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.body["status"], status);
        for member in ["type", "title", "detail"] {
            assert!(self.body[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {self:#?}");
        }
        assert!(self.headers.contains_key("x-request-id"));
        let passes = ["request_in_progress", "unavailable", "rate_limited"].contains(&code);
        assert_eq!(self.headers.contains_key("retry-after"), passes, "{self:#?}");
        &self.body
    }

    /// Whether this is a good answer with this status; answers its body.
    #[track_caller]
    pub fn good(&self, status: u16) -> &Value {
        assert_eq!(self.status, status, "{self:#?}");
        assert!(self.headers.contains_key("x-request-id"));
        &self.body
    }

    /// The pointers of an `invalid_request`.
    #[track_caller]
    pub fn pointers(&self) -> Vec<&str> {
        let errors = self.is(422, "invalid_request")["errors"].as_array().expect("it lists errors");
        errors.iter().map(|error| error["pointer"].as_str().unwrap()).collect()
    }
}
