//! A JSON body with its entity tag, rendered once and sent often.

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

/// A shorter body fits into a packet.
const COMPRESSED_FROM: usize = 1_400;
/// A longer body is compressed by a blocking thread, so that the runtime's threads serve other requests.
const INLINE_BYTES_MAX: usize = 32 << 10;

/// Clones share the compressed form.
#[derive(Clone, Debug)]
pub struct Document {
    pub json: Bytes,
    /// The strong entity tag, with its quotes.
    pub etag: String,
    gzip: Arc<OnceCell<Bytes>>,
}

impl Document {
    pub fn of(json: Vec<u8>) -> Self {
        let digest = Sha256::digest(&json);
        let hash: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Self { json: Bytes::from(json), etag: format!("\"{hash}\""), gzip: Arc::default() }
    }

    pub fn render(body: &impl Serialize) -> Self {
        Self::of(serde_json::to_vec(body).expect("a plain struct has a JSON form"))
    }

    pub fn is_compressible(&self) -> bool {
        self.json.len() >= COMPRESSED_FROM
    }

    /// The gzip form, computed once for all callers.
    pub async fn gzip(&self) -> Bytes {
        let compress = async || {
            let json = self.json.clone();
            if json.len() <= INLINE_BYTES_MAX {
                return gzip(&json);
            }
            let compressed = tokio::task::spawn_blocking(move || gzip(&json)).await;
            compressed.expect("compressing does not panic")
        };
        self.gzip.get_or_init(compress).await.clone()
    }
}

fn gzip(json: &[u8]) -> Bytes {
    // The fast level: a map that changes often is compressed again for each version.
    let mut encoder = GzEncoder::new(Vec::with_capacity(json.len() / 8), Compression::fast());
    encoder.write_all(json).expect("a vector takes all that is written");
    Bytes::from(encoder.finish().expect("a vector takes all that is written"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[tokio::test]
    async fn document_is_compressed_once() {
        for seats in [100, 20_000] {
            let document = Document::render(&(0..seats).collect::<Vec<i32>>());
            let compressed = document.gzip().await;
            assert!(compressed.len() < document.json.len());
            assert_eq!(document.clone().gzip().await.as_ptr(), compressed.as_ptr());
            let mut json = Vec::new();
            flate2::read::GzDecoder::new(&compressed[..]).read_to_end(&mut json).unwrap();
            assert_eq!(json, document.json);
        }
    }
}
