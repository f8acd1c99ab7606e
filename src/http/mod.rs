//! The REST entrance: all routes on one screen, and serving them.
//!
//! A handler unwraps, checks, makes one call and wraps the answer. What it takes in its signature is its policy,
//! and the order there is the order of checks: who is calling, what was sent, and only then whether the object
//! exists, whether the place in line lets one through, and what the rules say.

mod admin;
mod cancellations;
mod payments;
mod reservations;
mod outcome;
mod concerts;
mod points;
mod queue_tokens;
mod ops;
mod queue_settings;
mod users;
mod probes;
mod docs;
mod gate;
mod address;
pub mod state;
pub mod listeners;
pub mod health;
mod idempotency;
mod page;
mod request;
mod body;
mod shape;
mod objects;
pub mod connections;
mod connection_io;
mod open_connections;
mod observe;
mod time_limit;
mod passing_body;
mod tagged;
mod answer;
pub mod auth;
mod joins;
mod origin;
mod pace;
pub mod problem;
pub mod error;

use std::sync::Arc;
use std::time::Duration;

use axum::routing::get;
use axum::{Router, middleware};
use tokio::net::TcpListener;
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::SwaggerUi;

pub use idempotency::Repeats;
pub use joins::Joins;
pub use state::AppState;

use error::Code;
use problem::Problem;

/// A shorter answer is sent as it is, in bytes.
const COMPRESSED_FROM: u64 = 4_096;

/// Every route. `POST /v1/users` is there in local mode only.
fn routes(local: bool) -> OpenApiRouter<Arc<AppState>> {
    let all = OpenApiRouter::with_openapi(docs::base())
        .routes(routes!(concerts::list))
        .routes(routes!(concerts::show))
        .routes(routes!(concerts::performances))
        .routes(routes!(concerts::seats))
        .routes(routes!(queue_tokens::join))
        .routes(routes!(queue_tokens::current, queue_tokens::leave))
        .routes(routes!(queue_tokens::events))
        .routes(routes!(reservations::reserve, reservations::list))
        .routes(routes!(reservations::show))
        .routes(routes!(payments::pay))
        .routes(routes!(cancellations::cancel))
        .routes(routes!(points::balance))
        .routes(routes!(points::charge))
        .routes(routes!(points::entries))
        .routes(routes!(admin::add_concert))
        .routes(routes!(admin::add_performance))
        .routes(routes!(queue_settings::show, queue_settings::change))
        .routes(routes!(ops::sagas::list))
        .routes(routes!(ops::sagas::counts))
        .routes(routes!(ops::sagas::show))
        .routes(routes!(ops::sagas::why))
        .routes(routes!(ops::tail::tail))
        .routes(routes!(ops::saga_acts::retry))
        .routes(routes!(ops::saga_acts::complete))
        .routes(routes!(ops::saga_acts::skip_undo))
        .routes(routes!(ops::saga_acts::cancel))
        .routes(routes!(ops::saga_acts::abandon))
        .routes(routes!(ops::saga_acts::refund))
        .routes(routes!(ops::saga_acts::pause))
        .routes(routes!(ops::saga_acts::resume))
        .routes(routes!(ops::batch::run))
        .routes(routes!(ops::acts::list))
        .routes(routes!(ops::parked::list))
        .routes(routes!(ops::parked::show))
        .routes(routes!(ops::parked::release))
        .routes(routes!(ops::parked::discard))
        .routes(routes!(ops::pauses::list))
        .routes(routes!(ops::pauses::pause_workflow))
        .routes(routes!(ops::pauses::resume_workflow))
        .routes(routes!(ops::pauses::pause_step))
        .routes(routes!(ops::pauses::resume_step))
        .routes(routes!(ops::queues::list))
        .routes(routes!(ops::queues::show))
        .routes(routes!(ops::queues::pause))
        .routes(routes!(ops::queues::resume))
        .routes(routes!(ops::queues::admit))
        .routes(routes!(ops::queues::set))
        .routes(routes!(ops::queues::acts))
        .routes(routes!(probes::livez))
        .routes(routes!(probes::readyz))
        .routes(routes!(probes::metrics));
    if local { all.routes(routes!(users::create)) } else { all }
}

/// The API description, as `/openapi.json` gives it in local mode.
pub fn description() -> OpenApi {
    docs::complete(routes(true).into_openapi())
}

/// The whole entrance as a service.
pub fn router(state: Arc<AppState>) -> Router {
    let (router, api) = routes(state.access.is_local()).split_for_parts();
    let page = SwaggerUi::new("/docs").url("/openapi.json", docs::complete(api));
    let page = Router::from(page).route("/asyncapi.json", get(docs::messages));
    let router = router
        .merge(page.layer(middleware::from_fn(docs::protect)))
        .method_not_allowed_fallback(async || {
            Problem::new(Code::MethodNotAllowed, "See Allow for what this takes.")
        })
        .fallback(async || Problem::new(Code::NotFound, "There is no such route. See /docs for all of them."))
        .with_state(state)
        .layer(middleware::from_fn(time_limit::limit));
    observe::surround(router.layer(compression()))
}

/// Compresses long answers that are not compressed yet; answers about places in line and streams are never long.
fn compression() -> CompressionLayer<impl Predicate> {
    let long = SizeAbove::new(COMPRESSED_FROM).and(NotForContentType::SSE);
    CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(long)
}

/// Answers requests on the listener until the state's `stop` is cancelled, and those under way to their end.
pub async fn serve(listener: TcpListener, state: Arc<AppState>) {
    let (router, proxies) = (router(Arc::clone(&state)), state.trusted_proxies.clone());
    let served = connections::serve(listener, router, state.limits, proxies, state.stop.clone());
    tokio::join!(served, tick(&state));
}

/// What has to be done every second while the entrance is open.
async fn tick(state: &AppState) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    while state.stop.run_until_cancelled(ticks.tick()).await.is_some() {
        // Else measurements would pile up in memory until somebody asks for them.
        state.metrics.run_upkeep();
        state.access.forget_idle();
        state.joins.forget_idle();
    }
}
