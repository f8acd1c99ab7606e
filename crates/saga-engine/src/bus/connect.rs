//! Connecting to NATS, and saying plainly what is wrong with a server that will not do.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::context::{AccountError, AccountErrorKind, ContextBuilder};
use async_nats::jetstream::{self, ErrorCode};
use async_nats::subject::ToSubject;
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerError};
use bytes::Bytes;
use saga_worker::credentials;

use super::access::NatsAccess;
use super::denials::Denials;
use super::health::Health;
use super::retry::reconnect_delay;

/// The oldest server whose JetStream has all that is used here: schedules, message TTLs, delete markers.
const OLDEST_SERVER: (u64, u64, u64) = (2, 14, 0);
/// How long JetStream may take to answer a request or to acknowledge a message.
const JETSTREAM_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the client may take to accept a message that is not stored.
const NOTIFY_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection, its JetStream context, and how many copies new streams get.
#[derive(Clone, Debug)]
pub struct Bus {
    pub client: Client,
    pub jetstream: jetstream::Context,
    pub replicas: usize,
    /// How JetStream did lately, where it is probed.
    pub health: Health,
    /// Subjects that the server has forbidden.
    pub denials: Denials,
}

/// Why a message that is not stored was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotifyError {
    #[error("there is no connection to NATS")]
    Disconnected,
    #[error("NATS did not take the message within {NOTIFY_TIMEOUT:?}")]
    TimedOut,
    #[error("the message is too large or its subject is invalid")]
    Invalid,
}

impl Bus {
    /// Sends a message over core NATS, which does not store it. Without a connection it is not sent: it would wait in the
    /// client's queue, and everything behind it too.
    pub async fn notify(&self, subject: impl ToSubject, payload: Bytes) -> Result<(), NotifyError> {
        if !self.is_connected() {
            return Err(NotifyError::Disconnected);
        }
        match tokio::time::timeout(NOTIFY_TIMEOUT, self.client.publish(subject, payload)).await {
            Ok(sent) => sent.map_err(|_| NotifyError::Invalid),
            Err(_elapsed) => Err(NotifyError::TimedOut),
        }
    }

    /// Whether the connection stands at this moment.
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// How often the connection was made. A higher number than before: messages that were sent meanwhile, and are not stored, are lost.
    pub fn connects(&self) -> u64 {
        self.client.statistics().connects.load(Ordering::Relaxed)
    }
}

/// What a server must take: input, outputs and reason of a saga fit it.
const MAX_PAYLOAD_NEEDED: usize = 1 << 20;

/// Why a server cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("NATS at {urls} does not answer: {source}")]
    Unreachable { urls: String, source: async_nats::ConnectError },
    #[error("NATS at {urls} refuses the user, password or key: {source}")]
    Refused { urls: String, source: async_nats::ConnectError },
    #[error("{setting} names {path}, which cannot be used: {reason}", path = path.display())]
    File { setting: String, path: PathBuf, reason: String },
    #[error("NATS at {urls} is version {found}; Box Office needs 2.14 or newer (schedules and message TTLs)")]
    TooOld { urls: String, found: String },
    #[error(
        "NATS at {urls} takes messages of at most {bytes} bytes; Box Office needs {MAX_PAYLOAD_NEEDED} (max_payload)"
    )]
    SmallPayload { urls: String, bytes: usize },
    #[error(
        "NATS at {urls} runs without JetStream; start it with `-js` or a `jetstream {{ }}` block, or restart it if \
         its disk was full: {reason}"
    )]
    NoJetStream { urls: String, reason: String },
    #[error("JetStream is switched off for this user's account on NATS at {urls}: {reason}")]
    NoJetStreamForAccount { urls: String, reason: String },
    #[error("JetStream of NATS at {urls} does not answer: {reason}")]
    SilentJetStream { urls: String, reason: String },
}

/// Connects and checks the server: version, and JetStream switched on. `urls` are separated by commas.
pub async fn connect(urls: &str, name: &str, replicas: u8) -> Result<Bus, ConnectError> {
    connect_as(urls, name, replicas, &NatsAccess::default()).await
}

/// The same as a user with credentials or a key, by TLS, or from another account.
pub async fn connect_as(
    urls: &str,
    name: &str,
    replicas: u8,
    access: &NatsAccess,
) -> Result<Bus, ConnectError> {
    let servers: Vec<&str> = urls.split(',').map(str::trim).collect();
    let urls = &shown(&servers);
    // The client itself ignores what stands before the `@`.
    let options = match servers.iter().find_map(|url| credentials(url)) {
        Some((user, password)) => ConnectOptions::with_user_and_password(user, password),
        None => ConnectOptions::new(),
    };
    let denials = Denials::default();
    let heard = denials.clone();
    let client = secured(options, access)?
        .name(name)
        .custom_inbox_prefix(&access.inbox)
        .ping_interval(Duration::from_secs(5))
        .request_timeout(Some(JETSTREAM_TIMEOUT))
        .reconnect_delay_callback(reconnect_delay)
        .event_callback(move |event| {
            if let Event::ServerError(ServerError::Other(complaint)) = &event {
                heard.note(complaint);
            }
            async move { tracing::info!(%event, "nats") }
        })
        .connect(servers)
        .await
        .map_err(|source| unconnected(urls, source))?;
    check_version(urls, &client.server_info().version)?;
    let bytes = client.server_info().max_payload;
    if bytes < MAX_PAYLOAD_NEEDED {
        return Err(ConnectError::SmallPayload { urls: urls.to_owned(), bytes });
    }
    let context = match &access.domain {
        Some(domain) => ContextBuilder::new().domain(domain).timeout(JETSTREAM_TIMEOUT),
        None => ContextBuilder::new().timeout(JETSTREAM_TIMEOUT),
    };
    let jetstream = context.ack_timeout(JETSTREAM_TIMEOUT).build(client.clone());
    jetstream.query_account().await.map_err(|error| unusable_jetstream(urls, &error))?;
    let health = Health::default();
    Ok(Bus { client, jetstream, replicas: usize::from(replicas), health, denials })
}

fn unusable_jetstream(urls: &str, error: &AccountError) -> ConnectError {
    let (urls, reason) = (urls.to_owned(), error.to_string());
    let code = match error.kind() {
        AccountErrorKind::TimedOut => return ConnectError::SilentJetStream { urls, reason },
        AccountErrorKind::JetStream(answer) => Some(answer.error_code()),
        AccountErrorKind::JetStreamUnavailable | AccountErrorKind::Other => None,
    };
    match code {
        Some(ErrorCode::CLUSTER_NOT_AVAILABLE) => ConnectError::SilentJetStream { urls, reason },
        Some(ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT) => {
            ConnectError::NoJetStreamForAccount { urls, reason }
        }
        _ => ConnectError::NoJetStream { urls, reason },
    }
}

fn unconnected(urls: &str, source: async_nats::ConnectError) -> ConnectError {
    let urls = urls.to_owned();
    match source.kind() {
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
            ConnectError::Refused { urls, source }
        }
        _ => ConnectError::Unreachable { urls, source },
    }
}

/// Credentials, key and TLS, as far as they are given.
fn secured(mut options: ConnectOptions, access: &NatsAccess) -> Result<ConnectOptions, ConnectError> {
    if let Some(path) = &access.creds {
        let refused = |error: std::io::Error| unusable("creds", path, &error);
        options = options.credentials(&text("creds", path)?).map_err(refused)?;
    }
    if let Some(path) = &access.nkey {
        options = options.nkey(text("nkey", path)?.trim().to_owned());
    }
    if let Some(path) = &access.ca {
        text("ca", path)?;
        options = options.add_root_certificates(path.clone());
    }
    if let Some((cert, key)) = &access.identity {
        text("cert", cert)?;
        text("key", key)?;
        options = options.add_client_certificate(cert.clone(), key.clone());
    }
    Ok(if access.requires_tls { options.require_tls(true) } else { options })
}

/// A file that a setting names. That it cannot be read is another error than a server that refuses.
fn text(setting: &str, path: &Path) -> Result<String, ConnectError> {
    std::fs::read_to_string(path).map_err(|error| unusable(setting, path, &error))
}

fn unusable(setting: &str, path: &Path, error: &std::io::Error) -> ConnectError {
    ConnectError::File { setting: setting.to_owned(), path: path.to_owned(), reason: error.to_string() }
}

/// The addresses as messages may show them: without what stands before the `@`.
fn shown(servers: &[&str]) -> String {
    let hosts = servers.iter().map(|url| url.rsplit_once('@').map_or(*url, |(_hidden, host)| host));
    hosts.collect::<Vec<_>>().join(", ")
}

fn check_version(urls: &str, found: &str) -> Result<(), ConnectError> {
    let mut parts = found.split(['.', '-']).map(|part| part.parse::<u64>().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    if (next(), next(), next()) >= OLDEST_SERVER {
        return Ok(());
    }
    Err(ConnectError::TooOld { urls: urls.to_owned(), found: found.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        let url = "nats://staff:secret@host:4222";
        assert_eq!(shown(&[url, "nats://other"]), "host:4222, nats://other");
    }

    #[test]
    fn servers_before_2_14_are_refused_by_name() {
        assert!(check_version("n", "2.14.0").is_ok());
        assert!(check_version("n", "2.15.1").is_ok());
        assert!(check_version("n", "3.0.0-beta.1").is_ok());
        let error = check_version("nats://somewhere", "2.9.25").unwrap_err().to_string();
        assert!(error.contains("2.9.25") && error.contains("2.14"), "{error}");
    }
}
