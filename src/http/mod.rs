//! The REST API: all routes on one screen, and serving them on one listener or two.
//!
//! A handler unwraps, checks, makes one call and wraps the answer. What it takes in its signature is its policy,
//! and the order there is the order of checks: who is calling, what was sent, and only then whether the object
//! exists, whether the place in line lets one through, and what the rules say.

mod support;
mod performances;
mod admin;
mod seat_ranges;
mod seat_blocks;
mod access_codes;
mod cancellations;
mod payments;
mod reservations;
mod reservation_view;
mod new_reservation;
mod redemptions;
mod tickets;
mod transfers;
mod result_mapping;
mod concerts;
mod points;
mod queue_tokens;
mod queue_streams;
mod workflows;
mod sagas;
mod personal_data;
mod ops;
mod queue_settings;
mod exports;
mod sales_reports;
mod webhooks;
mod users;
mod crowds;
mod probes;
mod docs;
mod console;
pub mod api_part;
mod operation_ids;
mod gate;
mod address;
pub mod state;
pub mod shop;
mod static_files;
pub mod admin_state;
pub mod stream_limit;
pub mod health;
mod keyed;
mod idempotency;
mod answer_writer;
mod open_keys;
mod page;
mod request;
mod body;
mod validation;
mod objects;
pub mod connections;
mod connection_io;
mod open_connections;
mod open_files;
mod observe;
mod request_span;
mod time_limit;
mod cors;
mod passing_body;
mod etag;
mod answer;
pub mod auth;
mod code_lookup;
mod rate_limit;
mod origin;
mod problem_body;
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
use tower_http::cors::CorsLayer;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::SwaggerUi;

pub use admin_state::AdminState;
pub use code_lookup::CodeLookup;
pub use idempotency::Repeats;
pub use rate_limit::JoinLimits;
pub use state::AppState;

use error::Code;
use problem::Problem;

/// A shorter answer is sent as it is, in bytes.
const COMPRESSED_FROM: u64 = 4_096;
/// How often the rates of idle callers are forgotten.
const FORGET_INTERVAL: Duration = Duration::from_secs(1);

/// What buyers and clients call. `POST /v1/users` is there in local mode only.
fn public_routes(local: bool) -> OpenApiRouter<Arc<AppState>> {
    let all = OpenApiRouter::default()
        .routes(routes!(concerts::list))
        .routes(routes!(concerts::show))
        .routes(routes!(concerts::performances))
        .routes(routes!(concerts::seats))
        .routes(routes!(queue_tokens::join))
        .routes(routes!(queue_tokens::current, queue_tokens::leave))
        .routes(routes!(queue_streams::events))
        .routes(routes!(queue_streams::add_key))
        .routes(routes!(reservations::reserve, reservations::list))
        .routes(routes!(reservations::show))
        .routes(routes!(payments::pay))
        .routes(routes!(transfers::list))
        .routes(routes!(transfers::offer, transfers::withdraw))
        .routes(routes!(transfers::accept))
        .routes(routes!(cancellations::cancel))
        .routes(routes!(points::balance))
        .routes(routes!(points::charge))
        .routes(routes!(points::entries))
        .routes(routes!(crowds::start))
        .routes(routes!(crowds::current));
    if local { all.routes(routes!(users::create)) } else { all }
}

/// What operators and monitoring call.
fn admin_routes() -> OpenApiRouter<Arc<AdminState>> {
    OpenApiRouter::default()
        .routes(routes!(admin::add_concert))
        .routes(routes!(admin::add_performance))
        .routes(routes!(performances::show, performances::change))
        .routes(routes!(performances::cancel, performances::cancellation))
        .routes(routes!(support::list))
        .routes(routes!(support::story))
        .routes(routes!(support::cancel))
        .routes(routes!(support::give_points))
        .routes(routes!(support::resend_events))
        .routes(routes!(access_codes::add, access_codes::list))
        .routes(routes!(access_codes::revoke))
        .routes(routes!(seat_blocks::add, seat_blocks::list))
        .routes(routes!(seat_blocks::release))
        .routes(routes!(seat_blocks::sell))
        .routes(routes!(queue_settings::show, queue_settings::change))
        .routes(routes!(exports::export))
        .routes(routes!(sales_reports::list))
        .routes(routes!(sales_reports::show))
        .routes(routes!(webhooks::add, webhooks::list))
        .routes(routes!(webhooks::show, webhooks::delete))
        .routes(routes!(webhooks::rotate))
        .routes(routes!(webhooks::enable))
        .routes(routes!(webhooks::log))
        .routes(routes!(webhooks::replay))
        .routes(routes!(personal_data::export))
        .routes(routes!(personal_data::forget))
        .routes(routes!(workflows::deploy))
        .routes(routes!(workflows::retire))
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
        .routes(routes!(ops::batch_jobs::start, ops::batch_jobs::list))
        .routes(routes!(ops::batch_jobs::show))
        .routes(routes!(ops::batch_jobs::stop))
        .routes(routes!(ops::batch_jobs::resume))
        .routes(routes!(ops::overview::show))
        .routes(routes!(ops::overview::key))
        .routes(routes!(ops::overview::workers))
        .routes(routes!(ops::overview::workflows))
        .routes(routes!(ops::overview::workflow))
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
        .routes(routes!(probes::metrics))
}

/// Workflows of one's own: clients read and start them, operators and the console too. Every listener answers this.
fn workflow_routes() -> OpenApiRouter<Arc<AdminState>> {
    OpenApiRouter::default()
        .routes(routes!(workflows::list))
        .routes(routes!(workflows::show))
        .routes(routes!(sagas::start))
        .routes(routes!(sagas::show))
        .routes(routes!(sagas::signal))
        .routes(routes!(sagas::cancel))
}

/// Tickets at the entrance: scanners, support and the console. Every listener answers this.
fn ticket_routes() -> OpenApiRouter<Arc<AdminState>> {
    OpenApiRouter::default()
        .routes(routes!(tickets::keys))
        .routes(routes!(redemptions::redeem))
        .routes(routes!(redemptions::upload::upload))
        .routes(routes!(redemptions::undo))
        .routes(routes!(redemptions::counts::show))
        .routes(routes!(redemptions::counts::watch))
}

/// Whether the process lives and is ready. Every listener answers this.
fn probe_routes() -> OpenApiRouter<Arc<AdminState>> {
    OpenApiRouter::default().routes(routes!(probes::livez)).routes(routes!(probes::readyz))
}

/// What a listener answers.
#[derive(Clone)]
pub enum Service {
    /// What buyers and clients need.
    Public(Arc<AppState>),
    /// What operators and monitoring need.
    Admin(Arc<AdminState>),
    /// All of it, on one address.
    Both(Arc<AppState>),
}

impl Service {
    fn admin(&self) -> &Arc<AdminState> {
        match self {
            Self::Public(app) | Self::Both(app) => &app.admin,
            Self::Admin(admin) => admin,
        }
    }

    /// Browsers may call what buyers need; the console is served by the listener that it calls.
    fn cors(&self) -> Option<CorsLayer> {
        match self {
            Self::Public(app) | Self::Both(app) => cors::layer(&app.cors_origins),
            Self::Admin(_) => None,
        }
    }

    /// The shop, where it is on.
    fn shop(&self) -> Router {
        match self {
            Self::Public(app) | Self::Both(app) => app.shop.as_ref().map(shop::routes).unwrap_or_default(),
            Self::Admin(_) => Router::new(),
        }
    }

    fn routes(&self) -> OpenApiRouter {
        let probes = OpenApiRouter::with_openapi(docs::base())
            .merge(probe_routes().with_state(Arc::clone(self.admin())))
            .merge(workflow_routes().with_state(Arc::clone(self.admin())))
            .merge(ticket_routes().with_state(Arc::clone(self.admin())));
        let public = |app: &Arc<AppState>| public_routes(app.access.is_local()).with_state(Arc::clone(app));
        let admin = || admin_routes().with_state(Arc::clone(self.admin()));
        match self {
            Self::Public(app) => probes.merge(public(app)),
            Self::Admin(_) => probes.merge(admin()),
            Self::Both(app) => probes.merge(public(app)).merge(admin()),
        }
    }
}

/// The API description of all routes, as `/openapi.json` gives it in local mode where one listener serves them all.
pub fn description() -> OpenApi {
    docs::complete(undescribed())
}

fn undescribed() -> OpenApi {
    let parts = [
        public_routes(true).into_openapi(),
        workflow_routes().into_openapi(),
        ticket_routes().into_openapi(),
        admin_routes().into_openapi(),
        probe_routes().into_openapi(),
    ];
    parts.into_iter().fold(docs::base(), OpenApi::merge_from)
}

/// All that a listener answers, with its description.
pub fn router(service: &Service) -> Router {
    let (router, api) = service.routes().split_for_parts();
    let page = SwaggerUi::new("/docs").url("/openapi.json", docs::complete(api));
    let page = Router::from(page).route("/asyncapi.json", get(docs::messages));
    let router = match service {
        Service::Public(_) => router,
        Service::Admin(_) | Service::Both(_) => router.merge(console::routes()),
    };
    let router = router
        .merge(service.shop())
        .merge(page.layer(middleware::from_fn(docs::protect)))
        .method_not_allowed_fallback(async || {
            Problem::new(Code::MethodNotAllowed, "See Allow for what this takes.")
        })
        .fallback(async || Problem::new(Code::NotFound, "There is no such route. See /docs for all of them."))
        .layer(middleware::from_fn(time_limit::limit))
        .layer(compression());
    observe::surround(match service.cors() {
        Some(cors) => router.layer(cors),
        None => router,
    })
}

/// Compresses long answers that are not compressed yet; answers about places in line and streams are never long.
fn compression() -> CompressionLayer<impl Predicate> {
    let long = SizeAbove::new(COMPRESSED_FROM).and(NotForContentType::SSE);
    CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(long)
}

/// Answers requests on the listener until the state's `stop` is cancelled, and those under way to their end.
pub async fn serve(listener: TcpListener, service: Service) {
    let (limits, proxies, stop) = match &service {
        Service::Public(app) | Service::Both(app) => {
            (app.limits, app.trusted_proxies.clone(), app.stop.clone())
        }
        Service::Admin(admin) => (admin.limits, admin.trusted_proxies.clone(), admin.stop.clone()),
    };
    let served = connections::serve(listener, router(&service), limits, proxies, stop);
    match &service {
        Service::Public(app) | Service::Both(app) => {
            tokio::join!(served, tidy_up(app));
        }
        Service::Admin(_) => served.await,
    }
}

/// Forgets the rates of callers who have not called for a while, and keeps the keys of the identity provider fresh.
async fn tidy_up(app: &AppState) {
    let mut ticks = tokio::time::interval(FORGET_INTERVAL);
    while app.stop.run_until_cancelled(ticks.tick()).await.is_some() {
        app.access.refresh_keys();
        app.access.remove_idle();
        app.joins.remove_idle();
        app.codes.remove_idle();
    }
}
