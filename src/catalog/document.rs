//! JSON as it goes out, with its tag: rendered once, sent often.

use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest, Sha256};

/// A body and the hash of it.
#[derive(Clone, Debug)]
pub struct Document {
    pub json: Bytes,
    /// The strong entity tag, quotes included.
    pub etag: String,
}

impl Document {
    /// This body with its tag.
    pub fn of(json: Vec<u8>) -> Self {
        let digest = Sha256::digest(&json);
        let hash: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Self { json: Bytes::from(json), etag: format!("\"{hash}\"") }
    }

    /// The JSON of a plain struct.
    pub fn render(body: &impl Serialize) -> Self {
        Self::of(serde_json::to_vec(body).expect("a plain struct has a JSON form"))
    }
}
