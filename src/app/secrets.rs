//! Whether the secrets of the settings are good enough to sign tokens with.

use std::collections::{BTreeMap, HashSet};

use anyhow::{Context, bail, ensure};

use crate::config;
use crate::ticket_codes::TicketKeys;

/// A shorter secret can be guessed.
const SECRET_BYTES: usize = 32;
/// Fewer different bytes than this are no random secret: 32 random hexadecimal digits nearly always have eleven or more.
const DISTINCT_BYTES: usize = 8;
/// Bits by the frequencies of a secret's bytes: 32 random hexadecimal digits have about 115.
const ENTROPY_BITS: f64 = 90.0;
/// Words of examples and templates.
const PLACEHOLDERS: [&str; 10] = [
    "changeme",
    "change-me",
    "change_me",
    "change this",
    "change-this",
    "changethis",
    "placeholder",
    "replaceme",
    "replace-me",
    "your-secret",
];

/// The settings and their secrets.
fn named(settings: &config::Http) -> Vec<(&'static str, &str)> {
    let access = settings.access_secret.as_deref().filter(|_| settings.jwks.is_none());
    let access = access.map(|secret| ("BOXOFFICE_ACCESS_SECRET", secret));
    let queue = settings.queue_secret.as_deref().map(|secret| ("BOXOFFICE_QUEUE_SECRET", secret));
    let previous = settings.queue_previous_secrets.iter();
    let previous = previous.map(|secret| ("each of BOXOFFICE_QUEUE_PREVIOUS_SECRETS", secret.as_str()));
    let ticket = settings.ticket_secret.as_deref().map(|secret| ("BOXOFFICE_TICKET_SECRET", secret));
    access.into_iter().chain(queue).chain(previous).chain(ticket).collect()
}

/// Signs and reads ticket codes; none where no secret is given. Without a secret of their own, codes are signed under a key that is
/// derived from the current secret of queue tokens, and those under its earlier secrets count too.
pub(super) fn ticket_keys(settings: &config::Http) -> anyhow::Result<Option<TicketKeys>> {
    check(settings)?;
    let own = settings.ticket_secret.as_deref();
    let Some(secret) = own.or(settings.queue_secret.as_deref()) else { return Ok(None) };
    let earlier = if own.is_none() { settings.queue_previous_secrets.as_slice() } else { &[] };
    let mut further = settings.ticket_public_keys.clone();
    for secret in earlier {
        further.extend(TicketKeys::new(secret, [])?.public().into_iter().map(|key| key.key));
    }
    let further = further.iter().map(String::as_str);
    Ok(Some(TicketKeys::new(secret, further).context("BOXOFFICE_TICKET_PUBLIC_KEYS")?))
}

/// Refuses short secrets, and outside local mode those that can be guessed or serve twice.
pub(super) fn check(settings: &config::Http) -> anyhow::Result<()> {
    let secrets = named(settings);
    for (name, secret) in &secrets {
        ensure!(secret.len() >= SECRET_BYTES, "{name} must have {SECRET_BYTES} bytes or more");
    }
    if settings.local {
        return Ok(());
    }
    for (name, secret) in &secrets {
        if let Some(fault) = weakness(secret) {
            bail!("{name} {fault}; make a random one, such as with `openssl rand -hex 32`");
        }
    }
    for (own, what) in [("BOXOFFICE_ACCESS_SECRET", "access tokens"), ("BOXOFFICE_TICKET_SECRET", "tickets")]
    {
        let Some((_, secret)) = secrets.iter().find(|(name, _)| *name == own) else { continue };
        if let Some((name, _)) = secrets.iter().find(|(name, other)| *name != own && other == secret) {
            let name = name.trim_start_matches("each of ");
            bail!(
                "{own} is also a secret of {name}: a service that signs {what} could also sign the other; make one \
                 secret for each"
            );
        }
    }
    Ok(())
}

/// Why a secret can be guessed, if it can.
fn weakness(secret: &str) -> Option<&'static str> {
    let bytes = secret.as_bytes();
    let lower = secret.to_lowercase();
    if PLACEHOLDERS.iter().any(|word| lower.contains(word)) {
        return Some("is a placeholder");
    }
    let distinct = bytes.iter().collect::<HashSet<_>>().len();
    if distinct < DISTINCT_BYTES || entropy_bits(bytes) < ENTROPY_BITS {
        return Some("has too few different characters to be random");
    }
    let period = (1..=bytes.len() / 2)
        .find(|period| bytes.iter().zip(&bytes[*period..]).all(|(one, other)| one == other));
    if period.is_some_and(|period| period < SECRET_BYTES) {
        return Some("repeats itself");
    }
    // Of 32 random hexadecimal digits a sixth follow their neighbour, and once in a million half of them.
    let steps = bytes.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) <= 1).count();
    (steps * 4 > bytes.len() * 3).then_some("is a row of consecutive characters")
}

/// The length times the entropy of one byte, by how often each occurs.
fn entropy_bits(bytes: &[u8]) -> f64 {
    let mut counts: BTreeMap<u8, f64> = BTreeMap::new();
    for byte in bytes {
        *counts.entry(*byte).or_default() += 1.0;
    }
    let length = bytes.len() as f64;
    counts.values().map(|count| count * (length / count).log2()).sum()
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use uuid::Uuid;

    use super::*;
    use crate::ticket_codes::SignedTicket;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        http: config::Http,
    }

    /// The keys of these settings, with the secrets of queue tokens.
    fn keys(flags: &[&str]) -> TicketKeys {
        let all = ["boxoffice", "--queue-secret"].iter().chain(flags);
        ticket_keys(&Flags::parse_from(all).http).unwrap().unwrap()
    }

    #[test]
    fn queue_secrets_serve_where_tickets_have_none() {
        const FIRST: &str = "0b7d41f92c6ea853d1f0947be2c8563a";
        const NEXT: &str = "7c20b9e5d1f8a6340e5bd7913ac4f862";
        let ticket =
            SignedTicket { ticket_id: Uuid::from_u128(1), performance_id: Uuid::from_u128(2), seat: 3 };
        let code = keys(&[FIRST]).code(ticket);
        assert_eq!(keys(&[FIRST]).read(&code), Some(ticket));
        assert_eq!(keys(&[NEXT]).read(&code), None, "the first secret is forgotten");
        let after = keys(&[NEXT, "--queue-previous-secrets", FIRST]);
        assert_eq!(after.read(&code), Some(ticket));
        assert_ne!(after.code(ticket), code, "the next one signs");
        assert_ne!(
            keys(&[FIRST, "--ticket-secret", NEXT]).code(ticket),
            code,
            "a secret of their own counts"
        );
    }

    #[test]
    fn secrets_that_can_be_guessed_are_known() {
        for weak in [
            "a".repeat(64),
            "ab".repeat(20),
            "abcdefgh".repeat(4),
            "0123456789abcdef".repeat(2),
            "abcdefghijklmnopqrstuvwxyz0123456789".to_owned(),
            "changeme-changeme-now-or-later-please".to_owned(),
            "please CHANGE-ME before production, thanks".to_owned(),
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaabcdefghij".to_owned(),
        ] {
            assert!(weakness(&weak).is_some(), "{weak}");
        }
        assert_eq!(weakness("a secret of the tests, long enough to be good"), None);
    }

    #[test]
    fn random_secrets_are_good() {
        use rand::RngExt;
        assert_eq!(weakness("4001f11e46544ffee99878b7ddc9654d"), None, "many of its digits are neighbours");
        let mut rng = rand::rng();
        for _ in 0..2_000 {
            let bytes: [u8; 16] = rng.random();
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(weakness(&hex), None, "{hex}");
            assert_eq!(weakness(&crate::ids::new().to_string()), None);
        }
    }
}
