//! Opens the listeners of a process: one for buyers and clients, one for operators and monitoring, or one for all of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::{Announce, App, secrets};
use crate::catalog::Catalog;
use crate::config::{Settings, Switch};
use crate::crowd::Crowds;
use crate::http::admin_state::{CHECKS_AT_ONCE, TAILS_AT_ONCE};
use crate::http::auth::{Access, Keys};
use crate::http::connections::{self, Limits};
use crate::http::health::Health;
use crate::http::shop::ShopFacts;
use crate::http::state::CHARGES_AT_ONCE;
use crate::http::stream_limit::StreamLimit;
use crate::http::{self, AdminState, AppState, CodeLookup, JoinLimits, Repeats, Service};
use crate::operations::batch_jobs::BatchJobs;
use crate::operations::exports::Exports;
use crate::operations::gauges::Gauges;
use crate::operations::overview::Overviews;
use crate::redemptions::Redemptions;
use crate::telemetry;
use crate::transfers::Transfers;

/// Where a process answers HTTP.
#[derive(Clone, Copy, Debug, Default)]
pub struct Listening {
    /// Buyers and clients, in a process with the role api.
    pub public: Option<SocketAddr>,
    /// Operators and monitoring; the same address unless they have one of their own.
    pub admin: Option<SocketAddr>,
}

/// Binds the addresses of the settings, announces them and begins to answer there.
pub(super) async fn open(
    app: &mut App,
    settings: &Settings,
    is_api: bool,
    announce: Announce<'_>,
) -> anyhow::Result<()> {
    let listen = settings.http.listen;
    let own_admin = settings.http.admin_listen.filter(|admin| !(is_api && is_shared(listen, *admin)));
    let admin = Arc::new(admin_state(app, settings, is_api).await?);
    let mut services = Vec::new();
    if is_api {
        let listener = bind(listen, "BOXOFFICE_LISTEN")?;
        let crowds = Crowds::new(listener.local_addr()?, &app.tasks, &app.stop);
        let state = Arc::new(public_state(app, settings, &admin, crowds)?);
        let service = if own_admin.is_some() { Service::Public(state) } else { Service::Both(state) };
        services.push(("http", listener, service));
    }
    if let Some(address) = own_admin {
        services.push(("admin http", bind(address, "BOXOFFICE_ADMIN_LISTEN")?, Service::Admin(admin)));
    }
    let addresses = services.iter().map(|(_, listener, _)| listener.local_addr());
    let addresses = addresses.collect::<std::io::Result<Vec<SocketAddr>>>()?;
    let public = addresses.first().copied().filter(|_| is_api);
    let listening = Listening { public, admin: addresses.last().copied() };
    announce(listening)?;
    (app.address, app.admin_address) = (listening.public, listening.admin);
    for (name, listener, service) in services {
        app.tasks.supervise(name, http::serve(listener, service));
    }
    Ok(())
}

/// Whether both settings mean one listener: the same address with a port that is not picked.
fn is_shared(listen: SocketAddr, admin: SocketAddr) -> bool {
    listen == admin && listen.port() != 0
}

fn bind(address: SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    let advice = || format!("cannot listen on {address} ({setting}); port 0 picks a free one");
    connections::listen(address).with_context(advice)
}

fn redemptions(app: &App, settings: &Settings) -> anyhow::Result<Option<Redemptions>> {
    let keys = secrets::ticket_keys(&settings.http)?;
    Ok(keys.map(|keys| Redemptions::new(app.pool.clone(), keys, &settings.gate)))
}

async fn admin_state(app: &App, settings: &Settings, is_api: bool) -> anyhow::Result<AdminState> {
    let keeps = settings.http.cache == Switch::On;
    let (pool, bus, clock) = (app.pool.clone(), app.bus.clone(), app.clock.clone());
    let catalog = match is_api {
        true => Some(Catalog::open(pool, bus, clock, keeps, &app.tasks, &app.stop).await?),
        false => None,
    };
    Ok(AdminState {
        pool: app.pool.clone(),
        clock: app.clock.clone(),
        engine: app.engine.clone(),
        keys: Keys::new(app.pool.clone()),
        repeats: Repeats::open(&app.engine, &app.tasks, &app.stop),
        redemptions: redemptions(app, settings)?,
        room: app.room.clone(),
        booking: app.booking.clone(),
        catalog,
        queue: settings.queue.clone(),
        goodwill_per_day: settings.booking.goodwill_per_day.into(),
        health: Health::new(app.bus.health.clone(), app.tasks.clone()),
        batches: BatchJobs::new(&app.engine, &app.tasks, &app.stop),
        exports: Exports::new(app.pool.clone(), settings.exports.time(), &app.tasks, &app.stop),
        overviews: Overviews::default(),
        tails: Arc::new(Semaphore::new(TAILS_AT_ONCE)),
        checks: Semaphore::new(CHECKS_AT_ONCE),
        check_time: Duration::from_secs(settings.engine.workflow_check_seconds.into()),
        webhook_rules: super::webhook_rules(settings),
        gauges: Gauges::default(),
        metrics: telemetry::start_metrics(),
        trace_url: settings.http.trace_url.clone(),
        limits: Limits::of_admin(&settings.http),
        trusted_proxies: settings.http.trusted_proxies.clone(),
        stop: app.stop.clone(),
    })
}

fn public_state(
    app: &App,
    settings: &Settings,
    admin: &Arc<AdminState>,
    crowds: Crowds,
) -> anyhow::Result<AppState> {
    let gate = admin.redemptions.as_ref();
    let gate = gate.context("BOXOFFICE_QUEUE_SECRET is needed, the same on every instance")?;
    Ok(AppState {
        admin: Arc::clone(admin),
        pool: app.pool.clone(),
        clock: app.clock.clone(),
        catalog: admin.catalog.clone().context("the role api reads the catalogue")?,
        room: app.room.clone().context("the role api has a waiting room")?,
        booking: app.booking.clone(),
        repeats: admin.repeats.clone(),
        engine: app.engine.clone(),
        access: Access::new(&settings.http, app.clock.clone())?,
        keys: admin.keys.clone(),
        tickets: gate.keys.clone(),
        transfers: Transfers::new(app.pool.clone(), &settings.transfers),
        joins: JoinLimits::new(&settings.queue),
        codes: CodeLookup::new(app.pool.clone()),
        trusted_proxies: settings.http.trusted_proxies.clone(),
        cors_origins: settings.http.cors_origins.clone(),
        limits: Limits::of(&settings.http),
        booking_settings: settings.booking.clone(),
        charges: Semaphore::new(CHARGES_AT_ONCE),
        listeners: StreamLimit::new(settings.queue.queue_streams, settings.queue.queue_streams_per_user),
        crowds,
        shop: ShopFacts::of(&settings.http),
        stop: app.stop.clone(),
    })
}
