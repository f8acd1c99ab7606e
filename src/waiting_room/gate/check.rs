//! Decides who may pass, as a pure function of a token and of what this instance knows of its place.
//!
//! What the instance knows counts more than the token. If it lags by a few milliseconds, it must not refuse an
//! admitted user: it accepts a signed session that has not expired, unless it knows that the session has ended.

use chrono::{DateTime, Utc};

use super::super::line::{Epoch, View};
use super::super::place::{Claims, PlaceStatus, Signer};
use crate::bus::incarnation;
use crate::ids::{ConcertId, UserId};

/// Why the gate refuses a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("join the line of this concert first and send the token you get as Queue-Token")]
    Required,
    /// The signature is not ours.
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
    /// The code in the response body.
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

/// The state of a token that is presented with a payment, which a live hold also permits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PassState {
    Live(Claims),
    /// The token is signed for this user and concert, but its place is not active. It pays only for a live hold.
    NotLive(Claims, Refused),
}

impl PassState {
    pub fn claims(&self) -> &Claims {
        match self {
            Self::Live(claims) | Self::NotLive(claims, _) => claims,
        }
    }
}

/// The state of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaceState {
    /// In line. The rank is `None` only if this instance has not seen the place yet. A silent place has a grace.
    Waiting {
        rank: Option<usize>,
        grace_until: Option<DateTime<Utc>>,
    },
    Active {
        activated_at: DateTime<Utc>,
        expires_at: DateTime<Utc>,
        used: bool,
        bucket: u64,
    },
    Ended {
        activated_at: Option<DateTime<Utc>>,
        expires_at: Option<DateTime<Utc>>,
    },
}

/// Reads a token and checks its user.
pub fn identify(signer: &Signer, token: Option<&str>, user: UserId) -> Result<Claims, Refused> {
    let token = token.ok_or(Refused::Required)?;
    let claims = signer.read(token).ok_or(Refused::Invalid)?;
    if claims.user == user { Ok(claims) } else { Err(Refused::WrongUser) }
}

/// Reads a token and checks its user and its concert.
pub fn identify_for(
    signer: &Signer,
    token: Option<&str>,
    user: UserId,
    concert: ConcertId,
) -> Result<Claims, Refused> {
    let claims = identify(signer, token, user)?;
    if claims.concert == concert { Ok(claims) } else { Err(Refused::WrongConcert) }
}

/// Decides the state of a place. Memory is complete up to the revision `seen`. `promised` is the end of the session by
/// a pending write of this instance.
pub fn check(
    claims: &Claims,
    view: &View,
    seen: u64,
    epoch: &Epoch,
    promised: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> PlaceState {
    let over = PlaceState::Ended { activated_at: claims.activated_at, expires_at: claims.expires_at };
    if view.is_over(claims.place) {
        let ends = [view.end.map(|end| end.since), claims.expires_at];
        return PlaceState::Ended {
            activated_at: claims.activated_at,
            expires_at: ends.into_iter().flatten().min(),
        };
    }
    let is_admitted = claims.activated_at.is_some() && is_admission_trusted(claims, epoch, promised);
    let by_token = |rank| match (claims.activated_at, claims.expires_at) {
        (Some(activated_at), Some(expires_at)) if is_admitted => {
            let ends = promised.map_or(expires_at, |promised| promised.max(expires_at));
            session(activated_at, ends, promised.is_some(), claims.bucket, now)
        }
        _ => PlaceState::Waiting { rank, grace_until: None },
    };
    match view.entry {
        // This instance has not seen the join of the token's place yet, so the token decides.
        Some(entry) if entry.revision < claims.place => by_token(None),
        // The user joined again after the bucket was lost. The old place may still be restored.
        Some(entry) if entry.place > claims.place => match entry.status {
            status if status.is_in_line() && epoch.is_undecided(claims.place) => by_token(view.rank),
            _ => over,
        },
        Some(entry) => match entry.status {
            PlaceStatus::Waiting => by_token(view.rank),
            PlaceStatus::Silent { grace_until } => match by_token(view.rank) {
                PlaceState::Waiting { rank, .. } if now < grace_until => {
                    PlaceState::Waiting { rank, grace_until: Some(grace_until) }
                }
                PlaceState::Waiting { .. } => over,
                session => session,
            },
            PlaceStatus::Active { activated_at, expires_at, used } => {
                let ends = [Some(expires_at), claims.expires_at, promised].into_iter().flatten().max();
                let (ends, used) = (ends.unwrap_or(expires_at), used || promised.is_some());
                session(activated_at, ends, used, incarnation::of(entry.revision), now)
            }
        },
        None if epoch.is_undecided(claims.place) => by_token(None),
        None if !is_admitted && seen >= claims.place => over,
        None => by_token(None),
    }
}

/// Whether the admission that a token shows counts: not if its bucket has been lost since. A session that this
/// instance has granted counts until the journal has been read.
fn is_admission_trusted(claims: &Claims, epoch: &Epoch, promised: Option<DateTime<Utc>>) -> bool {
    epoch.trusts_admission_of(claims.bucket) || (promised.is_some() && !epoch.is_restored())
}

fn session(
    activated_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    used: bool,
    bucket: u64,
    now: DateTime<Utc>,
) -> PlaceState {
    if now < expires_at {
        PlaceState::Active { activated_at, expires_at, used, bucket }
    } else {
        PlaceState::Ended { activated_at: Some(activated_at), expires_at: Some(expires_at) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::waiting_room::line::Tombstones;
    use crate::waiting_room::place::Entry;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_900_000_000 + seconds, 0).unwrap()
    }

    fn claims(place: u64, until: Option<i64>) -> Claims {
        Claims {
            user: UserId::from_u128(1),
            concert: ConcertId::from_u128(2),
            place,
            issued_at: at(0),
            activated_at: until.map(|_| at(5)),
            expires_at: until.map(at),
            bucket: 0,
        }
    }

    /// The first bucket.
    fn first() -> Epoch {
        Epoch::new(0)
    }

    fn view(place: u64, revision: u64, until: Option<i64>) -> View {
        let status = match until {
            Some(until) => PlaceStatus::Active { activated_at: at(5), expires_at: at(until), used: true },
            None => PlaceStatus::Waiting,
        };
        let entry = Entry { revision, place, issued_at: at(0), status };
        View { entry: Some(entry), rank: until.is_none().then_some(3), ..View::default() }
    }

    /// The key was deleted at revision 9.
    fn ended(since: DateTime<Utc>) -> View {
        let mut ends = Tombstones::default();
        ends.delete(UserId::from_u128(1), 9, since);
        View { end: ends.of(UserId::from_u128(1)), ..View::default() }
    }

    fn state(claims: &Claims, view: &View, seen: u64, now: i64) -> &'static str {
        match check(claims, view, seen, &first(), None, at(now)) {
            PlaceState::Waiting { rank: Some(3), grace_until: Some(_) } => "silent at 3",
            PlaceState::Waiting { rank: Some(3), .. } => "waiting at 3",
            PlaceState::Waiting { .. } => "waiting",
            PlaceState::Active { .. } => "active",
            PlaceState::Ended { .. } => "over",
        }
    }

    #[test]
    fn memory_wins_over_the_token() {
        let waiting = claims(7, None);
        assert_eq!(state(&waiting, &view(7, 7, None), 9, 10), "waiting at 3");
        assert_eq!(
            state(&waiting, &view(7, 9, Some(60)), 9, 10),
            "active",
            "an older token of the same place"
        );
        assert_eq!(state(&waiting, &view(7, 9, Some(60)), 9, 60), "over");
        let active = claims(7, Some(60));
        assert_eq!(state(&active, &view(7, 12, Some(600)), 12, 100), "active", "made longer since");
        assert_eq!(state(&active, &view(30, 30, None), 30, 10), "over", "the user joined anew");
        assert_eq!(state(&active, &ended(at(5)), 9, 10), "over", "ended early");
    }

    #[test]
    fn early_end_has_its_time() {
        let claims = claims(7, Some(60));
        let over_at = |since, now| check(&claims, &ended(at(since)), 9, &first(), None, at(now));
        let over = |since| PlaceState::Ended { activated_at: Some(at(5)), expires_at: Some(at(since)) };
        assert_eq!(over_at(20, 30), over(20));
        assert_eq!(over_at(61, 70), over(60), "the deletion of what had run out before");
    }

    #[test]
    fn lagging_instance_accepts_a_signed_session() {
        let active = claims(7, Some(60));
        assert_eq!(state(&active, &view(7, 7, None), 7, 10), "active", "it has not seen the admission");
        assert_eq!(state(&active, &View::default(), 3, 10), "active", "it has not even seen the join");
        assert_eq!(state(&active, &view(2, 4, None), 4, 10), "active", "it knows an earlier place only");
        assert_eq!(state(&active, &View::default(), 3, 60), "over", "but not one that has run out");
    }

    #[test]
    fn missing_place_is_over_and_unseen_place_waits() {
        let waiting = claims(7, None);
        assert_eq!(state(&waiting, &View::default(), 6, 10), "waiting");
        assert_eq!(state(&waiting, &View::default(), 7, 10), "over");
    }

    #[test]
    fn silent_user_keeps_the_rank_during_grace() {
        let silent = PlaceStatus::Silent { grace_until: at(60) };
        let entry = Entry { revision: 9, place: 7, issued_at: at(0), status: silent };
        let view = View { entry: Some(entry), rank: Some(3), ..View::default() };
        assert_eq!(state(&claims(7, None), &view, 9, 59), "silent at 3");
        assert_eq!(state(&claims(7, None), &view, 9, 60), "over");
        assert_eq!(
            state(&claims(7, Some(90)), &view, 9, 60),
            "active",
            "its admission was not seen here yet"
        );
    }

    #[test]
    fn pending_session_counts_before_it_is_written() {
        let claims = claims(7, Some(60));
        let verdict = check(&claims, &view(7, 9, Some(60)), 9, &first(), Some(at(600)), at(100));
        let expected = PlaceState::Active { activated_at: at(5), expires_at: at(600), used: true, bucket: 0 };
        assert_eq!(verdict, expected);
    }

    #[test]
    fn token_of_a_lost_bucket_does_not_pass() {
        let (last, base) = (incarnation::first_revision(7), incarnation::first_revision(8));
        let mut epoch = Epoch::new(8);
        let (waiting, admitted) =
            (claims(last + 5, None), Claims { bucket: 7, ..claims(last + 5, Some(60)) });
        let verdict =
            |claims: &Claims, view: &View, epoch: &Epoch| check(claims, view, base + 9, epoch, None, at(10));
        let is_waiting = |state| matches!(state, PlaceState::Waiting { .. });
        let anew = View { rank: Some(3), ..view(base + 2, base + 2, None) };
        for claims in [&waiting, &admitted] {
            assert!(is_waiting(verdict(claims, &View::default(), &epoch)), "the journal has not been read");
            assert!(is_waiting(verdict(claims, &anew, &epoch)), "the old place may come back");
        }
        let known = view(last + 5, last + 6, Some(60));
        assert!(
            matches!(verdict(&waiting, &known, &epoch), PlaceState::Active { bucket: 7, .. }),
            "known from before"
        );

        epoch.restore(last + 5);
        assert!(matches!(verdict(&waiting, &View::default(), &epoch), PlaceState::Ended { .. }));
        assert!(matches!(verdict(&admitted, &View::default(), &epoch), PlaceState::Ended { .. }));
        assert!(matches!(verdict(&admitted, &anew, &epoch), PlaceState::Ended { .. }));
        assert!(is_waiting(verdict(&admitted, &view(last + 5, base + 1, None), &epoch)), "restored in line");
        let restored = view(last + 5, base + 1, Some(60));
        assert!(matches!(verdict(&waiting, &restored, &epoch), PlaceState::Active { bucket: 8, .. }));
        epoch.restore(last + 4);
        assert!(is_waiting(verdict(&admitted, &View::default(), &epoch)), "taken in the last moment");
    }

    #[test]
    fn each_mistake_has_its_own_answer() {
        let signer = Signer::new(b"ours");
        let claims = claims(7, None);
        let token = signer.sign(&claims);
        let (user, concert) = (claims.user, claims.concert);
        let other = crate::ids::new();
        let refused = |token: Option<&str>, user, concert| identify_for(&signer, token, user, concert).err();
        assert_eq!(refused(None, user, concert), Some(Refused::Required));
        assert_eq!(refused(Some("x"), user, concert), Some(Refused::Invalid));
        assert_eq!(
            refused(Some(&Signer::new(b"theirs").sign(&claims)), user, concert),
            Some(Refused::Invalid)
        );
        assert_eq!(refused(Some(&token), other, other), Some(Refused::WrongUser));
        assert_eq!(refused(Some(&token), user, other), Some(Refused::WrongConcert));
        assert_eq!(refused(Some(&token), user, concert), None);
    }
}
