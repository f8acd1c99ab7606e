//! Transfers: the owner of a ticket makes a link, and the user who opens it takes the ticket over. The ticket gets a new id and so
//! a new code, in the transaction that ends the old one. Refunds go to the buyer who paid.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use sha2::{Digest, Sha256};
use sqlx::PgPool;
use uuid::Uuid;

use crate::ids::{self, UserId};
use crate::store::transfers::{self, NewTransfer, TakenTicket};
use crate::{config, store};

/// Makes and accepts transfers, where they are on.
#[derive(Clone, Debug)]
pub struct Transfers {
    pool: PgPool,
    /// How long a link can be used; none where transfers are off.
    ttl: Option<TimeDelta>,
}

/// An offer with its token, which is shown once.
#[derive(Clone, Debug)]
pub struct Offer {
    pub token: String,
    pub expires_at: DateTime<Utc>,
}

/// Why a ticket is not transferred.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    #[error("tickets cannot be transferred here: BOXOFFICE_TRANSFERS is off")]
    Off,
    #[error("there is no such ticket or link")]
    Unknown,
    #[error("the ticket is redeemed, void or being refunded, or its performance has begun")]
    NotTransferable,
    #[error("the ticket is the caller's own already")]
    Own,
    #[error("the link was used, withdrawn, replaced by another one, or has expired")]
    Over,
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl Transfers {
    pub fn new(pool: PgPool, settings: &config::Transfers) -> Self {
        Self { pool, ttl: settings.ttl() }
    }

    fn ttl(&self) -> Result<TimeDelta, TransferError> {
        self.ttl.ok_or(TransferError::Off)
    }

    /// Makes a link for a ticket; an earlier link of the ticket ends.
    pub async fn offer(&self, user: UserId, ticket: Uuid) -> Result<Offer, TransferError> {
        let ttl = self.ttl()?;
        let mut tx = self.pool.begin().await?;
        let own = transfers::own_ticket(&mut *tx, user, ticket).await?.ok_or(TransferError::Unknown)?;
        transfers::lock_reservation(&mut tx, own.reservation_id).await?;
        // Read again under the lock: it may have been redeemed, refunded or taken meanwhile.
        let own = transfers::own_ticket(&mut *tx, user, ticket).await?.ok_or(TransferError::Unknown)?;
        let now = store::now(&mut *tx).await?;
        if !own.is_valid || own.is_redeemed || own.starts_at <= now {
            return Err(TransferError::NotTransferable);
        }
        let token = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        let expires_at = (now + ttl).min(own.starts_at);
        transfers::withdraw(&mut tx, ticket).await?;
        let new = NewTransfer {
            id: ids::new(),
            ticket: &own,
            giver_id: user,
            token_hash: &hash(&token),
            expires_at,
        };
        transfers::insert(&mut tx, &new).await?;
        tx.commit().await?;
        Ok(Offer { token, expires_at })
    }

    /// Ends the open link of a ticket; nothing happens if there is none.
    pub async fn withdraw(&self, user: UserId, ticket: Uuid) -> Result<(), TransferError> {
        self.ttl()?;
        let mut tx = self.pool.begin().await?;
        let own = transfers::own_ticket(&mut *tx, user, ticket).await?.ok_or(TransferError::Unknown)?;
        transfers::lock_reservation(&mut tx, own.reservation_id).await?;
        transfers::withdraw(&mut tx, ticket).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Takes a ticket over, once. The user who took it gets it again.
    pub async fn accept(&self, user: UserId, token: &str) -> Result<TakenTicket, TransferError> {
        self.ttl()?;
        let mut tx = self.pool.begin().await?;
        let found = transfers::by_token(&mut *tx, &hash(token)).await?.ok_or(TransferError::Unknown)?;
        if found.giver_id == user {
            return Err(TransferError::Own);
        }
        transfers::lock_reservation(&mut tx, found.reservation_id).await?;
        if transfers::accept(&mut tx, found.id, user, ids::new()).await?
            && !transfers::hand_over(&mut tx, found.id).await?
        {
            return Err(TransferError::NotTransferable);
        }
        // Of an offer that had ended: the caller's own acceptance, if it was that.
        let taken = transfers::taken_tickets(&mut *tx, user, Some(found.id), None, 1).await?.pop();
        tx.commit().await?;
        taken.ok_or(TransferError::Over)
    }

    /// Tickets that a user has taken over and still has.
    pub async fn taken(
        &self,
        user: UserId,
        before: Option<Uuid>,
        limit: i64,
    ) -> store::Result<Vec<TakenTicket>> {
        transfers::taken_tickets(&self.pool, user, None, before, limit).await
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}
