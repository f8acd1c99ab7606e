//! Traces by OpenTelemetry: what a collector receives, and that a collector that is away slows nothing.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use boxoffice::http::auth::NewKey;
use boxoffice::store::api_keys::{self, Role};
use boxoffice::{ids, store};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::Instant;
use uuid::Uuid;

use crate::common::Env;
use crate::common::app::{TestApp, until};
use crate::common::program::Program;
use crate::own_workflows::{TRIP, travel_agency};
use crate::process::{Process, buyers, client};

/// The trace and the span of the caller.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// A span, and the service that sent it.
type Sent = (String, Span);

/// A receiver of OTLP over HTTP.
struct Collector {
    url: String,
    spans: Arc<Mutex<Vec<Sent>>>,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let spans = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&spans);
        let take = async move |headers: HeaderMap, body: Bytes| {
            if headers["content-type"] != "application/x-protobuf" || headers["x-tenant"] != "tests" {
                return StatusCode::BAD_REQUEST;
            }
            let request = ExportTraceServiceRequest::decode(body).unwrap();
            for resource in request.resource_spans {
                let about = resource.resource.unwrap().attributes;
                let name = about.iter().find(|about| about.key == "service.name").unwrap();
                let service = format!("{:?}", name.value);
                let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
                kept.lock().unwrap().extend(spans.map(|span| (service.clone(), span)));
            }
            StatusCode::OK
        };
        let router = Router::new().route("/v1/traces", post(take));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, spans }
    }

    /// The spans of one trace that have come by now.
    fn of(&self, trace: &str) -> Vec<Sent> {
        let spans = self.spans.lock().unwrap();
        spans.iter().filter(|(_, span)| hex(&span.trace_id) == trace).cloned().collect()
    }

    fn names(&self, trace: &str) -> BTreeSet<String> {
        self.of(trace).into_iter().map(|(_, span)| span.name).collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A process of these roles on the servers of a test.
async fn serve(env: &Env, roles: &str, variables: &[(&str, &str)]) -> Process {
    let data_dir = env.dir.display().to_string();
    let (database, nats) = (&env.database_url, &env.nats_url);
    let arguments =
        ["serve", "--role", roles, "--local", "--data-dir", &data_dir, "--database-url", database];
    Process::start_with(&[&arguments[..], &["--nats-url", nats]].concat(), variables).await
}

/// A client that belongs to the trace.
fn traced_client() -> reqwest::Client {
    let _chosen = rustls::crypto::ring::default_provider().install_default();
    let mut headers = HeaderMap::new();
    headers.insert("traceparent", format!("00-{TRACE}-{CALLER}-01").parse().unwrap());
    reqwest::Client::builder().default_headers(headers).timeout(Duration::from_secs(10)).build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_booking_is_one_trace_over_all_processes() {
    let (env, collector) = (Env::start().await, Collector::start().await);
    let endpoint = format!("{}/v1/traces", collector.url);
    let variables = |service| {
        [
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint.as_str()),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=tests"),
            ("OTEL_SERVICE_NAME", service),
            ("OTEL_BSP_SCHEDULE_DELAY", "200"),
        ]
    };
    let api = serve(&env, "api", &variables("front")).await;
    let rest = serve(&env, "orchestrator,worker,scheduler", &variables("back")).await;
    boxoffice::sample_concerts::load(&env.pool, chrono::Utc::now(), 1_000, 60_000).await.unwrap();
    buyers(&api.url).buy(&traced_client(), 1).await.expect("the booking is confirmed");
    let expected = [
        "POST /v1/reservations",
        "start booking",
        "send seats.hold",
        "process seats.hold",
        "publish reservation.reserved",
        "POST /v1/reservations/{reservation}/payment",
        "signal pay",
        "send points.deduct",
        "process points.deduct",
        "send tickets.issue",
        "process tickets.issue",
        "publish reservation.confirmed",
    ];
    let came = || async { expected.iter().all(|name| collector.names(TRACE).contains(*name)) };
    if tokio::time::timeout(Duration::from_secs(40), until(30, "all spans to come", came)).await.is_err() {
        panic!("{:#?}", collector.names(TRACE));
    }
    let spans = collector.of(TRACE);
    let find = |name: &str| spans.iter().find(|(_, span)| span.name == name).unwrap();
    for (name, service) in [("POST /v1/reservations", "front"), ("process seats.hold", "back")] {
        assert!(find(name).0.contains(service), "{name}: {}", find(name).0);
    }
    let parent = |name: &str| hex(&find(name).1.parent_span_id);
    let id = |name: &str| hex(&find(name).1.span_id);
    assert_eq!(parent("POST /v1/reservations"), CALLER);
    assert_eq!(parent("start booking"), id("POST /v1/reservations"));
    assert_eq!(parent("send seats.hold"), id("start booking"));
    assert_eq!(parent("process seats.hold"), id("send seats.hold"));
    assert_eq!(parent("signal pay"), id("POST /v1/reservations/{reservation}/payment"));
    let known: BTreeSet<String> = spans.iter().map(|(_, span)| hex(&span.span_id)).collect();
    for (_, span) in &spans {
        let parent = hex(&span.parent_span_id);
        assert!(parent == CALLER || known.contains(&parent), "{} has no parent in the trace", span.name);
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano, "{}", span.name);
    }
    let saga: Option<Uuid> =
        sqlx::query_scalar("select trace from sagas limit 1").fetch_one(&env.pool).await.unwrap();
    assert_eq!(saga, Some(TRACE.parse().unwrap()), "the saga names the trace");

    trip_is_one_trace(&env, &api, &collector).await;
    api.kill().await;
    rest.kill().await;
}

/// A service with a database of its own, and a caller without a trace: the trace begins with the request.
async fn trip_is_one_trace(env: &Env, api: &Process, collector: &Collector) {
    let NewKey { secret, hash } = NewKey::generate();
    api_keys::insert(&env.pool, ids::new(), "test", Role::Admin, &hash).await.unwrap();
    let file = env.dir.join("trip.toml");
    std::fs::write(&file, TRIP).unwrap();
    Program::of(env).json(0, &format!("workflow deploy {}", file.display())).await;
    let _agency = travel_agency(&env.bus, &env.pool).await;
    let order = json!({ "input": { "city": "Oslo", "approved": true } });
    let start = client().post(format!("{}/v1/workflows/trip/sagas?wait=30", api.url)).bearer_auth(&secret);
    let begun: serde_json::Value = start.json(&order).send().await.unwrap().json().await.unwrap();
    let trace = begun["trace_id"].as_str().unwrap_or_else(|| panic!("{begun}")).to_owned();
    let expected = [
        "POST /v1/workflows/{workflow}/sagas",
        "start trip",
        "send travel.book_flight",
        "reply travel.book_flight",
    ];
    let came = || async { expected.iter().all(|name| collector.names(&trace).contains(*name)) };
    if tokio::time::timeout(Duration::from_secs(40), until(30, "the spans of the trip", came)).await.is_err()
    {
        panic!("{:#?}", collector.names(&trace));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_unless_a_collector_is_named() {
    let collector = Collector::start().await;
    let test = TestApp::start().await;
    let user = test.user(1_000).await;
    let held = test.reserve(user, &[1]).await;
    assert!(saga_protocol::spans::exporter().is_none(), "no exporter is installed, so no span is made");
    let saga = store::sagas::get(&test.app.pool, held.id).await.unwrap().unwrap();
    assert_eq!(saga.trace, None);
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str());
    let off = [endpoint, ("OTEL_SDK_DISABLED", "true"), ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=tests")];
    let process = serve(&test.env, "api,worker", &off).await;
    let answer = traced_client().get(format!("{}/v1/concerts", process.url)).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    process.kill().await;
    assert!(collector.spans.lock().unwrap().is_empty());
    let wrong =
        Program::of(&test.env).with(endpoint.0, endpoint.1).with("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    let refused = wrong.run("serve --role worker --local --admin-listen 127.0.0.1:0").await;
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("only http/protobuf is supported"), "{}", refused.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_slows_no_request() {
    let env = Env::start().await;
    // It accepts connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "600000"),
        ("OTEL_BSP_SCHEDULE_DELAY", "10"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "4"),
    ];
    let process = serve(&env, "api", &variables).await;
    let (client, begun) = (client(), Instant::now());
    for _ in 0..100 {
        let answer = client.get(format!("{}/v1/concerts", process.url)).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    let metrics = client.get(format!("{}/metrics", process.admin_url)).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    let dropped = metrics.lines().find_map(|line| {
        line.strip_prefix("boxoffice_trace_spans_dropped_total{reason=\"queue_full\"} ")?.parse::<u64>().ok()
    });
    assert!(dropped.is_some_and(|dropped| (80..=100).contains(&dropped)), "{dropped:?}");
    process.kill().await;
}
