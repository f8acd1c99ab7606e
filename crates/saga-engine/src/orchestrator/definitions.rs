//! The definitions that this process knows: read at the start, after every deployment, and whenever a saga needs one.

use sqlx::PgConnection;

use super::Engine;
use crate::bus::subjects;
use crate::saga::Saga;
use crate::store::{self, definitions};

impl Engine {
    /// Reads what new sagas of each workflow begin with.
    pub async fn reload_workflows(&self) -> store::Result<()> {
        store::bounded(definitions::reload(&self.pool, &self.registry)).await
    }

    /// Reads the names and the definitions of these sagas' workflows where this process does not know them yet.
    pub async fn learn(&self, conn: &mut PgConnection, sagas: &[Saga]) -> store::Result<()> {
        self.codes.learn(&mut *conn, sagas).await?;
        definitions::learn(conn, &self.registry, sagas).await
    }

    /// After a deployment or a retirement: this process reads it, and the others are notified. The notice is the one about
    /// pauses, which asks them to read again what operators have changed.
    pub async fn workflows_changed(&self) -> store::Result<()> {
        self.reload_workflows().await?;
        if let Err(error) = self.bus.notify(subjects::PAUSES, Vec::new().into()).await {
            tracing::warn!(%error, "other instances read the deployment once they are connected again");
        }
        Ok(())
    }
}
