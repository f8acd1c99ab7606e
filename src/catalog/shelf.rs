//! Many things of one kind, each kept by its key: seat maps by date, pages of a list by where they begin.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use moka::future::Cache;

use super::CatalogError;
use super::kept::{Kept, Pace};

/// What nobody has asked for so long is let go of.
const UNUSED: Duration = Duration::from_secs(60);

type Reader<K, V> = dyn Fn(K) -> BoxFuture<'static, Result<V, CatalogError>> + Send + Sync;

/// The shelf. Clones are the same.
pub(super) struct Shelf<K, V> {
    reader: Arc<Reader<K, V>>,
    kept: Cache<K, Kept<V>>,
    /// None: nothing is kept, whoever asks has it read.
    pace: Option<Pace>,
}

impl<K, V> Clone for Shelf<K, V> {
    fn clone(&self) -> Self {
        Self { reader: Arc::clone(&self.reader), kept: self.kept.clone(), pace: self.pace }
    }
}

impl<K, V> Shelf<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// An empty shelf for at most `capacity` things.
    pub(super) fn new(
        capacity: u64,
        pace: Option<Pace>,
        reader: impl Fn(K) -> BoxFuture<'static, Result<V, CatalogError>> + Send + Sync + 'static,
    ) -> Self {
        let kept = Cache::builder().max_capacity(capacity).time_to_idle(UNUSED).build();
        Self { reader: Arc::new(reader), kept, pace }
    }

    /// What stands there under a key, as old as the pace allows.
    pub(super) async fn get(&self, key: K) -> Result<Arc<V>, CatalogError> {
        let Some(pace) = self.pace else {
            return (self.reader)(key).await.map(Arc::new);
        };
        let place = async {
            let (reader, key) = (Arc::clone(&self.reader), key.clone());
            Kept::new(Box::new(move || reader(key.clone())), pace)
        };
        self.kept.get_with_by_ref(&key, place).await.get().await
    }

    /// Something has changed somewhere; see [`Kept::changed`].
    pub(super) async fn changed(&self, key: &K) {
        if let Some(kept) = self.kept.get(key).await {
            kept.changed();
        }
    }

    /// Whatever is kept is forgotten; see [`Kept::forget`].
    pub(super) fn forget_all(&self) {
        self.kept.iter().for_each(|(_, kept)| kept.forget());
    }
}
