//! How a process proves to NATS who it is, beside a user and password in the address.

use std::path::PathBuf;

/// The beginning of answers' subjects that every NATS client has unless it is given another.
pub const INBOX: &str = "_INBOX";

/// Credentials, key and TLS of a process. The default has none of them.
#[derive(Clone, Debug)]
pub struct NatsAccess {
    /// File with the credentials of the NATS user (.creds: a JWT and its seed).
    pub creds: Option<PathBuf>,
    /// File with the seed of the NATS user's nkey.
    pub nkey: Option<PathBuf>,
    /// File (PEM) with the certificate authority that NATS's certificate is checked against, beside those of the system.
    pub ca: Option<PathBuf>,
    /// Files (PEM) with the client certificate that NATS is shown, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Refuses to talk to a NATS without TLS.
    pub requires_tls: bool,
    /// Beginning of the subjects on which NATS answers this process; a user's rights may name it.
    pub inbox: String,
    /// Name under which another account has JetStream's API for this one; none in the account that JetStream belongs to.
    pub domain: Option<String>,
}

impl Default for NatsAccess {
    fn default() -> Self {
        let inbox = INBOX.to_owned();
        Self { creds: None, nkey: None, ca: None, identity: None, requires_tls: false, inbox, domain: None }
    }
}
