//! Every setting, once: a flag, an environment variable and a default each, listed by `--help`.

mod exports;
mod gate;
mod queue;
mod trace_url;
mod webhooks;
mod transfers;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use chrono::TimeDelta;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
pub use exports::Exports;
pub use gate::Gate;
use ipnet::IpNet;
pub use queue::Queue;
pub use saga_engine::bus::access::INBOX;
pub use saga_engine::store::Control;
pub use trace_url::TraceUrl;
pub use transfers::Transfers;
pub use webhooks::Webhooks;

/// The settings that every command takes.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    #[command(flatten)]
    pub servers: Servers,
    #[command(flatten)]
    pub http: Http,
    #[command(flatten)]
    pub booking: Booking,
    #[command(flatten)]
    pub queue: Queue,
    #[command(flatten)]
    pub gate: Gate,
    #[command(flatten)]
    pub transfers: Transfers,
    #[command(flatten)]
    pub engine: Engine,
    #[command(flatten)]
    pub exports: Exports,
    #[command(flatten)]
    pub webhooks: Webhooks,
    /// How logs are written to standard error; RUST_LOG filters them
    #[arg(long, env = "BOXOFFICE_LOG_FORMAT", global = true, value_enum, default_value_t = LogFormat::Lines)]
    pub log_format: LogFormat,
}

/// Where the truth and its carrier are.
#[derive(Args, Clone, Debug)]
pub struct Servers {
    /// Postgres; without it the private server of the data directory is used
    #[arg(long, env = "DATABASE_URL", global = true, hide_env_values = true)]
    pub database_url: Option<String>,
    /// NATS (several, separated by commas); without it the private server of the data directory is used
    #[arg(long, env = "NATS_URL", global = true, hide_env_values = true)]
    pub nats_url: Option<String>,
    /// Where private servers, keys and the addresses of a running `up` are kept
    #[arg(long, env = "BOXOFFICE_DATA_DIR", global = true, default_value = ".boxoffice")]
    pub data_dir: PathBuf,
    /// Most connections to Postgres that one process opens
    #[arg(long, env = "BOXOFFICE_DATABASE_CONNECTIONS", global = true, default_value_t = 24,
          value_parser = clap::value_parser!(u32).range(6..=1000))]
    pub database_connections: u32,
    /// Copies that JetStream keeps of each stream and bucket
    #[arg(long, env = "BOXOFFICE_NATS_REPLICAS", global = true, default_value_t = 1,
          value_parser = clap::value_parser!(u8).range(1..=5))]
    pub nats_replicas: u8,
    #[command(flatten)]
    pub nats_access: NatsAccess,
}

/// How a process proves to NATS who it is, beside a user and password in the address.
#[derive(Args, Clone, Debug)]
pub struct NatsAccess {
    /// File with the credentials of the NATS user (.creds: a JWT and its seed)
    #[arg(long, env = "BOXOFFICE_NATS_CREDS", global = true, conflicts_with = "nats_nkey")]
    pub nats_creds: Option<PathBuf>,
    /// File with the seed of the NATS user's nkey
    #[arg(long, env = "BOXOFFICE_NATS_NKEY", global = true)]
    pub nats_nkey: Option<PathBuf>,
    /// File (PEM) with the certificate authority that NATS's certificate is checked against, beside those of the system
    #[arg(long, env = "BOXOFFICE_NATS_CA", global = true)]
    pub nats_ca: Option<PathBuf>,
    /// File (PEM) with the client certificate that NATS is shown
    #[arg(long, env = "BOXOFFICE_NATS_CERT", global = true, requires = "nats_key")]
    pub nats_cert: Option<PathBuf>,
    /// File (PEM) with the key of the client certificate
    #[arg(long, env = "BOXOFFICE_NATS_KEY", global = true, requires = "nats_cert")]
    pub nats_key: Option<PathBuf>,
    /// Refuses to talk to a NATS without TLS
    #[arg(long, env = "BOXOFFICE_NATS_TLS", global = true, default_value_t = false, num_args = 0..=1, default_missing_value = "true")]
    pub nats_tls: bool,
    /// Beginning of the subjects on which NATS answers this process, such as _INBOX_api; a user's rights may name it
    #[arg(long, env = "BOXOFFICE_NATS_INBOX", global = true, default_value = INBOX, value_parser = inbox)]
    pub nats_inbox: String,
    /// Name under which another account has JetStream's API for this one; none in the account that JetStream belongs to
    #[arg(long, env = "BOXOFFICE_NATS_DOMAIN", global = true)]
    pub nats_domain: Option<String>,
}

impl Default for NatsAccess {
    fn default() -> Self {
        Self {
            nats_creds: None,
            nats_nkey: None,
            nats_ca: None,
            nats_cert: None,
            nats_key: None,
            nats_tls: false,
            nats_inbox: INBOX.to_owned(),
            nats_domain: None,
        }
    }
}

impl NatsAccess {
    /// The same, as the engine takes it.
    pub fn access(&self) -> saga_engine::bus::NatsAccess {
        saga_engine::bus::NatsAccess {
            creds: self.nats_creds.clone(),
            nkey: self.nats_nkey.clone(),
            ca: self.nats_ca.clone(),
            identity: self.nats_cert.clone().zip(self.nats_key.clone()),
            requires_tls: self.nats_tls,
            inbox: self.nats_inbox.clone(),
            domain: self.nats_domain.clone(),
        }
    }
}

/// The REST entrance.
#[derive(Args, Clone, Debug)]
pub struct Http {
    /// Address to listen on; port 0 picks a free one and prints it
    #[arg(long, env = "BOXOFFICE_LISTEN", global = true, default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Address that operators and monitoring use: /metrics, /readyz, /v1/ops, /v1/admin, the console; port 0 picks a free one
    /// and prints it [default: 127.0.0.1:8081 in `serve`; in `up`, without it, --listen serves all of it]
    #[arg(long, env = "BOXOFFICE_ADMIN_LISTEN", global = true)]
    pub admin_listen: Option<SocketAddr>,
    /// Local mode: issues access tokens itself, and lets users charge their own points
    #[arg(long, env = "BOXOFFICE_LOCAL", global = true, default_value_t = false, num_args = 0..=1, default_missing_value = "true")]
    pub local: bool,
    /// Secret (32 bytes or more) that access tokens are signed with (HS256)
    #[arg(long, env = "BOXOFFICE_ACCESS_SECRET", global = true, hide_env_values = true)]
    pub access_secret: Option<String>,
    /// Address or file of the JWKS of the identity provider, instead of a shared secret
    #[arg(long, env = "BOXOFFICE_JWKS", global = true)]
    pub jwks: Option<String>,
    /// Issuer that access tokens must name, if set
    #[arg(long, env = "BOXOFFICE_ACCESS_ISSUER", global = true)]
    pub access_issuer: Option<String>,
    /// Audience that access tokens must name, if set
    #[arg(long, env = "BOXOFFICE_ACCESS_AUDIENCE", global = true)]
    pub access_audience: Option<String>,
    /// Most requests of one user per second on this instance; 0 sets no limit
    #[arg(long, env = "BOXOFFICE_USER_REQUESTS_PER_SECOND", global = true, default_value_t = 0)]
    pub user_requests_per_second: u32,
    /// Secret (32 bytes or more) that queue tokens are signed with
    #[arg(long, env = "BOXOFFICE_QUEUE_SECRET", global = true, hide_env_values = true)]
    pub queue_secret: Option<String>,
    /// Further secrets whose queue tokens count, separated by commas: earlier ones, or the next one before it is used
    #[arg(
        long,
        env = "BOXOFFICE_QUEUE_PREVIOUS_SECRETS",
        global = true,
        hide_env_values = true,
        value_delimiter = ','
    )]
    pub queue_previous_secrets: Vec<String>,
    /// Secret (32 bytes or more) from which the key that signs ticket codes is derived; without it, BOXOFFICE_QUEUE_SECRET
    #[arg(long, env = "BOXOFFICE_TICKET_SECRET", global = true, hide_env_values = true)]
    pub ticket_secret: Option<String>,
    /// Further public keys whose ticket codes count, as `GET /v1/tickets/keys` shows them, separated by commas: earlier ones,
    /// or the next one before it is used
    #[arg(long, env = "BOXOFFICE_TICKET_PUBLIC_KEYS", global = true, value_delimiter = ',')]
    pub ticket_public_keys: Vec<String>,
    /// How long a client may take to send the head of a request, and then its body, in seconds
    #[arg(long, env = "BOXOFFICE_CLIENT_SECONDS", global = true, default_value_t = 40,
          value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub client_seconds: u32,
    /// How long a connection may be idle between two requests, in seconds; longer than the idle time of a balancer in front
    #[arg(long, env = "BOXOFFICE_KEEP_ALIVE_SECONDS", global = true, default_value_t = 75,
          value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub keep_alive_seconds: u32,
    /// Most connections that this instance keeps open; those without a request close first, then one too many is answered
    /// 503 and closed
    #[arg(long, env = "BOXOFFICE_MAX_CONNECTIONS", global = true, default_value_t = 10_000,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_connections: u32,
    /// Most of them of one address (of IPv6: a network of 64 bits), and most requests under way of one address that a
    /// trusted proxy names; 0 sets no limit
    #[arg(long, env = "BOXOFFICE_MAX_CONNECTIONS_PER_ADDRESS", global = true, default_value_t = 0)]
    pub max_connections_per_address: u32,
    /// Addresses or networks of proxies whose X-Forwarded-For is believed, separated by commas
    #[arg(long, env = "BOXOFFICE_TRUSTED_PROXIES", global = true, value_delimiter = ',', value_parser = network)]
    pub trusted_proxies: Vec<IpNet>,
    /// Origins of web pages that browsers may call the public API from, separated by commas, such as `https://shop.example`;
    /// none by default
    #[arg(long, env = "BOXOFFICE_CORS_ORIGINS", global = true, value_delimiter = ',', value_parser = web_origin)]
    pub cors_origins: Vec<String>,
    /// Whether concerts, dates and seat maps are kept in memory; off is for measuring what that is worth
    #[arg(long, env = "BOXOFFICE_CACHE", global = true, value_enum, default_value_t = Switch::On)]
    pub cache: Switch,
    /// The shop at `/`, a storefront for buyers; on in `up`, off in `serve` unless it is set
    #[arg(long, env = "BOXOFFICE_SHOP", global = true, value_enum)]
    pub shop: Option<Switch>,
    /// Where traces are shown, such as `https://jaeger.example/trace/{trace_id}`: the console links each saga to its trace
    #[arg(long, env = "BOXOFFICE_TRACE_URL", global = true)]
    pub trace_url: Option<TraceUrl>,
}

/// Where `serve` listens for operators and monitoring unless it is given an address.
pub const ADMIN_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8081);

/// Something that can be switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Switch {
    /// As it should be.
    On,
    /// Without it.
    Off,
}

/// What may be booked, and how long a hold lives.
#[derive(Args, Clone, Debug)]
pub struct Booking {
    /// How long an unpaid hold keeps its seats, in seconds
    #[arg(long, env = "BOXOFFICE_HOLD_SECONDS", global = true, default_value_t = 300,
          value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub hold_seconds: u32,
    /// How long after that a payment under way keeps the seats from others, in seconds
    #[arg(long, env = "BOXOFFICE_PAYMENT_GRACE_SECONDS", global = true, default_value_t = 15,
          value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub payment_grace_seconds: u32,
    /// Most seats of one reservation
    #[arg(long, env = "BOXOFFICE_MAX_SEATS", global = true, default_value_t = 6,
          value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub max_seats: u32,
    /// Most seats that one user may hold and own of one performance
    #[arg(long, env = "BOXOFFICE_MAX_SEATS_PER_USER", global = true, default_value_t = 12,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub max_seats_per_user: u32,
    /// Most holds of one user and concert that may end within an hour, by running out, by cancellation or by failing, before
    /// the next is refused; 0 sets no limit
    #[arg(long, visible_alias = "max-ended-holds", env = "BOXOFFICE_MAX_EXPIRED_HOLDS", global = true, default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub max_expired_holds: u32,
    /// Most points that one key of the support desk may give as goodwill within 24 hours
    #[arg(long, env = "BOXOFFICE_GOODWILL_PER_DAY", global = true, default_value_t = 100_000,
          value_parser = clap::value_parser!(u32).range(0..=1_000_000_000))]
    pub goodwill_per_day: u32,
}

/// How logs are written; what is written is filtered by `RUST_LOG`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Lines,
    /// For programs, one object per line.
    Json,
}

/// The engine's own pace.
#[derive(Args, Clone, Debug)]
pub struct Engine {
    /// Folder of further workflow definitions, which are deployed at the start without a check, beside the built-in ones
    #[arg(long, env = "BOXOFFICE_WORKFLOWS", global = true)]
    pub workflows: Option<PathBuf>,
    /// How long the model checker may take for a definition that is deployed by the API, in seconds
    #[arg(long, env = "BOXOFFICE_WORKFLOW_CHECK_SECONDS", global = true, default_value_t = 20,
          value_parser = clap::value_parser!(u32).range(1..=60))]
    pub workflow_check_seconds: u32,
    /// How long a caller waits for a saga before the answer is 202, in milliseconds
    #[arg(long, env = "BOXOFFICE_SETTLE_MS", global = true, default_value_t = 2_000,
          value_parser = clap::value_parser!(u64).range(0..=60_000))]
    pub settle_ms: u64,
    /// How steps that meet at the same rows are kept apart
    #[arg(long, env = "BOXOFFICE_STEP_CONTROL", global = true, default_value = "optimistic",
          value_parser = PossibleValuesParser::new(["optimistic", "pessimistic"]).map(|name| control(&name)))]
    pub step_control: Control,
    /// How long ended sagas and their history are kept, in days
    #[arg(long, env = "BOXOFFICE_KEEP_FINISHED_DAYS", global = true, default_value_t = 30,
          value_parser = clap::value_parser!(u32).range(1..=3_650))]
    pub keep_finished_days: u32,
    /// Makes this machine's clock go wrong, in milliseconds, to rehearse it
    #[arg(
        long,
        env = "BOXOFFICE_CLOCK_SKEW_MS",
        global = true,
        default_value_t = 0,
        hide = true,
        allow_hyphen_values = true
    )]
    pub clock_skew_ms: i64,
}

impl Engine {
    /// How long a caller waits for a saga to settle.
    pub fn settle(&self) -> Duration {
        Duration::from_millis(self.settle_ms)
    }

    /// How long ended sagas and their history are kept.
    pub fn keep(&self) -> TimeDelta {
        TimeDelta::days(self.keep_finished_days.into())
    }
}

fn control(name: &str) -> Control {
    if name == "pessimistic" { Control::Pessimistic } else { Control::Optimistic }
}

/// A literal subject that may stand before others: words of letters, digits, `-` and `_`, with dots between them.
fn inbox(text: &str) -> Result<String, String> {
    let plain = |word: &str| {
        !word.is_empty() && word.chars().all(|sign| sign.is_ascii_alphanumeric() || matches!(sign, '-' | '_'))
    };
    let good = text.split('.').all(plain);
    good.then(|| text.to_owned())
        .ok_or_else(|| "not the beginning of a subject such as _INBOX_api".to_owned())
}

/// A network such as 10.0.0.0/8, or a single address.
fn network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse().map(|address: IpAddr| IpNet::from(address.to_canonical()));
    let told = "neither an address nor a network such as 10.0.0.0/8";
    text.parse().or_else(|_| address()).map_err(|_| told.to_owned())
}

/// The origin of a web page as a browser sends it: scheme, host, and a port that is not the scheme's own.
fn web_origin(text: &str) -> Result<String, String> {
    if text == "*" {
        let reason = "`*` is refused because the API takes credentials; name each origin, such as https://shop.example";
        return Err(reason.to_owned());
    }
    let parsed = url::Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let is_origin = parsed.is_some_and(|url| url.origin().ascii_serialization() == text);
    is_origin.then(|| text.to_owned()).ok_or_else(|| {
        "not the origin of a web page: scheme, host and port alone, in lower case, such as https://shop.example".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_as_browsers_send_them() {
        for good in [
            "https://shop.example",
            "http://127.0.0.1:5173",
            "http://[::1]:3000",
            "https://xn--bcher-kva.example",
        ] {
            assert_eq!(web_origin(good).as_deref(), Ok(good));
        }
        for bad in [
            "",
            "null",
            "shop.example",
            "https://shop.example/",
            "https://Shop.example",
            "https://shop.example:443",
            "ftp://shop.example",
            "https://*.example/x",
            "https://user@shop.example",
        ] {
            assert!(web_origin(bad).is_err_and(|error| error.contains("https://shop.example")), "{bad}");
        }
        assert!(web_origin("*").is_err_and(|error| error.contains("credentials")));
    }

    #[test]
    fn a_proxy_is_an_address_or_a_network() {
        assert_eq!(network("10.0.0.0/8").unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(network("192.0.2.7").unwrap().to_string(), "192.0.2.7/32");
        assert_eq!(network("fd00::1").unwrap().to_string(), "fd00::1/128");
        assert!(network("proxy.example").unwrap_err().contains("10.0.0.0/8"));
    }
}
