//! Who may pass: the answer that every booking route asks for.

use super::token::Claims;

/// Why a token does not open the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("join the line of this concert first and send the token you get as Queue-Token")]
    Required,
    #[error("the queue token is not one of ours: send the latest one that the service gave you")]
    Invalid,
    #[error("the queue token belongs to another user")]
    WrongUser,
    #[error("the queue token is for another concert")]
    WrongConcert,
    #[error("you are still in line: ask for your place until the status is active")]
    Waiting,
    #[error("the session of this queue token is over: join the line again")]
    Expired,
}

impl Refused {
    /// The code of the answer's body.
    pub fn code(self) -> &'static str {
        match self {
            Self::Required => "queue_token_required",
            Self::Invalid => "queue_token_invalid",
            Self::WrongUser => "queue_token_wrong_user",
            Self::WrongConcert => "queue_token_wrong_concert",
            Self::Waiting => "queue_token_waiting",
            Self::Expired => "queue_token_expired",
        }
    }
}

/// How a token stands that is presented with a payment, where a live hold is a pass of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PassState {
    /// The session is alive.
    Live(Claims),
    /// Rightly signed for this user and concert, but not (or no longer) a pass: pays only for a live hold.
    NotLive(Claims, Refused),
}

impl PassState {
    /// Whose place it is.
    pub fn claims(&self) -> &Claims {
        match self {
            Self::Live(claims) | Self::NotLive(claims, _) => claims,
        }
    }
}
