//! Cached values of one kind by key, for example seat maps by performance.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use moka::future::Cache;

use super::CatalogError;
use super::cached_value::{CachedValue, RefreshPolicy};

/// A value without requests for this time is removed.
const IDLE_TTL: Duration = Duration::from_secs(60);

type Reader<K, V> = dyn Fn(K) -> BoxFuture<'static, Result<V, CatalogError>> + Send + Sync;

/// Clones share the values.
pub(super) struct KeyedCache<K, V> {
    reader: Arc<Reader<K, V>>,
    values: Cache<K, CachedValue<V>>,
    /// `None`: nothing is cached, and every request is a read.
    policy: Option<RefreshPolicy>,
}

impl<K, V> Clone for KeyedCache<K, V> {
    fn clone(&self) -> Self {
        Self { reader: Arc::clone(&self.reader), values: self.values.clone(), policy: self.policy }
    }
}

impl<K, V> KeyedCache<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    pub(super) fn new(
        capacity: u64,
        policy: Option<RefreshPolicy>,
        reader: impl Fn(K) -> BoxFuture<'static, Result<V, CatalogError>> + Send + Sync + 'static,
    ) -> Self {
        let values = Cache::builder().max_capacity(capacity).time_to_idle(IDLE_TTL).build();
        Self { reader: Arc::new(reader), values, policy }
    }

    pub(super) async fn get(&self, key: K) -> Result<Arc<V>, CatalogError> {
        let Some(policy) = self.policy else {
            return (self.reader)(key).await.map(Arc::new);
        };
        let value = async {
            let (reader, key) = (Arc::clone(&self.reader), key.clone());
            CachedValue::new(Box::new(move || reader(key.clone())), policy)
        };
        self.values.get_with_by_ref(&key, value).await.get().await
    }

    /// See [`CachedValue::notify_change`].
    pub(super) async fn notify_change(&self, key: &K) {
        if let Some(value) = self.values.get(key).await {
            value.notify_change();
        }
    }

    /// See [`CachedValue::invalidate`].
    pub(super) fn invalidate_all(&self) {
        self.values.iter().for_each(|(_, value)| value.invalidate());
    }
}
