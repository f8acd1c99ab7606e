//! Keys of machines and staff. The secret itself is never stored, only its SHA-256.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgExecutor;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Result;

/// What a key may do.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, sqlx::Type, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum Role {
    /// Sees sagas and lines.
    Viewer,
    /// Also acts on them.
    Operator,
    /// Also adds concerts and sets how their lines run.
    Admin,
    /// Credits points, and nothing else.
    Cashier,
    /// Starts, signals, cancels and reads sagas of the workflows that the key was made for, and nothing else.
    Client,
    /// Finds reservations, refunds them and undoes redemptions of tickets, and nothing else.
    Support,
    /// Redeems tickets and counts redemptions, and nothing else.
    Gate,
}

impl Role {
    /// Whether a key of this role may do what needs the other. Only viewers, operators and admins include
    /// each other; each other role has rights of its own.
    pub fn includes(self, needed: Self) -> bool {
        match needed {
            Self::Cashier | Self::Client | Self::Support | Self::Gate => self == needed,
            Self::Viewer => matches!(self, Self::Viewer | Self::Operator | Self::Admin),
            Self::Operator => matches!(self, Self::Operator | Self::Admin),
            Self::Admin => self == Self::Admin,
        }
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
            Self::Cashier => "cashier",
            Self::Client => "client",
            Self::Support => "support",
            Self::Gate => "gate",
        }
    }
}

/// A key, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ApiKey {
    pub id: Uuid,
    pub name: String,
    pub role: Role,
    /// What a client's key is for; none of any other.
    pub workflows: Option<Vec<String>>,
    pub created_at: DateTime<Utc>,
    pub revoked_at: Option<DateTime<Utc>>,
}

/// Adds a key by the SHA-256 of its secret.
pub async fn insert(db: impl PgExecutor<'_>, id: Uuid, name: &str, role: Role, hash: &[u8]) -> Result<()> {
    insert_for(db, id, name, role, hash, None).await
}

/// Adds a key that is for these workflows; a client's must be for some, and no other may.
pub async fn insert_for(
    db: impl PgExecutor<'_>,
    id: Uuid,
    name: &str,
    role: Role,
    hash: &[u8],
    workflows: Option<&[String]>,
) -> Result<()> {
    sqlx::query!(
        r#"insert into api_keys (id, name, role, hash, workflows) values ($1, $2, $3, $4, $5)"#,
        id,
        name,
        role.as_str(),
        hash,
        workflows,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The key whose secret has this SHA-256, unless it was revoked.
pub async fn by_hash(db: impl PgExecutor<'_>, hash: &[u8]) -> Result<Option<ApiKey>> {
    sqlx::query_as!(
        ApiKey,
        r#"
        select id, name, role as "role: Role", workflows, created_at, revoked_at
        from api_keys where hash = $1 and revoked_at is null
        "#,
        hash,
    )
    .fetch_optional(db)
    .await
}

/// All keys, newest first, revoked ones too.
pub async fn list(db: impl PgExecutor<'_>) -> Result<Vec<ApiKey>> {
    sqlx::query_as!(
        ApiKey,
        r#"select id, name, role as "role: Role", workflows, created_at, revoked_at from api_keys order by id desc"#,
    )
    .fetch_all(db)
    .await
}

/// Ends a key; false if there is no such key or it has ended already.
pub async fn revoke(db: impl PgExecutor<'_>, id: Uuid) -> Result<bool> {
    let done = sqlx::query!(
        r#"update api_keys set revoked_at = clock_timestamp() where id = $1 and revoked_at is null"#,
        id,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

#[cfg(test)]
mod tests {
    use super::Role::{self, Admin, Cashier, Client, Gate, Operator, Support, Viewer};

    #[test]
    fn only_the_ladder_includes_lower_roles() {
        let all = [Viewer, Operator, Admin, Cashier, Client, Support, Gate];
        let included =
            |role: Role| all.into_iter().filter(|needed| role.includes(*needed)).collect::<Vec<_>>();
        assert_eq!(included(Viewer), [Viewer]);
        assert_eq!(included(Operator), [Viewer, Operator]);
        assert_eq!(included(Admin), [Viewer, Operator, Admin]);
        for alone in [Cashier, Client, Support, Gate] {
            assert_eq!(included(alone), [alone]);
        }
    }
}
