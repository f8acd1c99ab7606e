//! Who may pass: a pure decision over what the token says and what this instance knows of its place.
//!
//! What the instance knows wins, as far as it knows it. An instance that is a few milliseconds behind does not turn
//! an admitted user away: it accepts a signed session that has not run out, unless it knows that it has ended.

use chrono::{DateTime, Utc};

use super::super::line::{Era, View};
use super::super::place::{Claims, Signer, Standing};
use crate::bus::incarnation;
use crate::ids::{ConcertId, UserId};

/// Why a token does not open the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no token.
    #[error("join the line of this concert first and send the token you get as Queue-Token")]
    Required,
    /// It is not signed by us.
    #[error("the queue token is not one of ours: send the latest one that the service gave you")]
    Invalid,
    /// It is another user's.
    #[error("the queue token belongs to another user")]
    WrongUser,
    /// It is for another concert.
    #[error("the queue token is for another concert")]
    WrongConcert,
    /// Its place has not been admitted yet.
    #[error("you are still in line: ask for your place until the status is active")]
    Waiting,
    /// Its session is over.
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

/// How a place stands now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// In line; the rank is missing only where this instance has not seen the place yet. Whoever is silent has a grace.
    Waiting { rank: Option<usize>, grace_until: Option<DateTime<Utc>> },
    /// Admitted.
    Active { activated_at: DateTime<Utc>, expires_at: DateTime<Utc>, used: bool, bucket: u64 },
    /// Over.
    Over { activated_at: Option<DateTime<Utc>>, expires_at: Option<DateTime<Utc>> },
}

/// Reads a token and checks that it is this user's.
pub fn identify(signer: &Signer, token: Option<&str>, user: UserId) -> Result<Claims, Refused> {
    let token = token.ok_or(Refused::Required)?;
    let claims = signer.read(token).ok_or(Refused::Invalid)?;
    if claims.user == user { Ok(claims) } else { Err(Refused::WrongUser) }
}

/// Reads a token and checks that it is this user's and for this concert.
pub fn identify_for(
    signer: &Signer,
    token: Option<&str>,
    user: UserId,
    concert: ConcertId,
) -> Result<Claims, Refused> {
    let claims = identify(signer, token, user)?;
    if claims.concert == concert { Ok(claims) } else { Err(Refused::WrongConcert) }
}

/// Decides how a place stands. `seen` is the revision up to which this instance knows everything; `promised` is an
/// end of the session that this instance has granted and not yet seen written.
pub fn judge(
    claims: &Claims,
    view: &View,
    seen: u64,
    era: &Era,
    promised: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Judged {
    let over = Judged::Over { activated_at: claims.activated_at, expires_at: claims.expires_at };
    if view.is_over(claims.place) {
        let ends = [view.end.map(|end| end.since), claims.expires_at];
        return Judged::Over {
            activated_at: claims.activated_at,
            expires_at: ends.into_iter().flatten().min(),
        };
    }
    let is_admitted = claims.activated_at.is_some() && is_believed(claims, era, promised);
    let by_token = |rank| match (claims.activated_at, claims.expires_at) {
        (Some(activated_at), Some(expires_at)) if is_admitted => {
            let ends = promised.map_or(expires_at, |promised| promised.max(expires_at));
            session(activated_at, ends, promised.is_some(), claims.bucket, now)
        }
        _ => Judged::Waiting { rank, grace_until: None },
    };
    match view.entry {
        // Written before the token's place was taken: this instance is behind, only the token knows.
        Some(entry) if entry.revision < claims.place => by_token(None),
        // Joined anew after the bucket was lost; the old place may come back.
        Some(entry) if entry.place > claims.place => match entry.standing {
            standing if standing.is_in_line() && era.is_undecided(claims.place) => by_token(view.rank),
            _ => over,
        },
        Some(entry) => match entry.standing {
            Standing::Waiting => by_token(view.rank),
            Standing::Silent { grace_until } => match by_token(view.rank) {
                Judged::Waiting { rank, .. } if now < grace_until => {
                    Judged::Waiting { rank, grace_until: Some(grace_until) }
                }
                Judged::Waiting { .. } => over,
                session => session,
            },
            Standing::Active { activated_at, expires_at, used } => {
                let ends = [Some(expires_at), claims.expires_at, promised].into_iter().flatten().max();
                let (ends, used) = (ends.unwrap_or(expires_at), used || promised.is_some());
                session(activated_at, ends, used, incarnation::of(entry.revision), now)
            }
        },
        None if era.is_undecided(claims.place) => by_token(None),
        None if !is_admitted && seen >= claims.place => over,
        None => by_token(None),
    }
}

/// Whether what a token says of its admission counts: not if the bucket that it was written in has been lost since. What
/// this instance has granted on top of it stands until the journal has been read.
fn is_believed(claims: &Claims, era: &Era, promised: Option<DateTime<Utc>>) -> bool {
    era.believes(claims.bucket) || (promised.is_some() && !era.is_restored())
}

fn session(
    activated_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    used: bool,
    bucket: u64,
    now: DateTime<Utc>,
) -> Judged {
    if now < expires_at {
        Judged::Active { activated_at, expires_at, used, bucket }
    } else {
        Judged::Over { activated_at: Some(activated_at), expires_at: Some(expires_at) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::waiting_room::line::Ends;
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

    /// A bucket before which there was none.
    fn first() -> Era {
        Era::new(0)
    }

    fn view(place: u64, revision: u64, until: Option<i64>) -> View {
        let standing = match until {
            Some(until) => Standing::Active { activated_at: at(5), expires_at: at(until), used: true },
            None => Standing::Waiting,
        };
        let entry = Entry { revision, place, issued_at: at(0), standing };
        View { entry: Some(entry), rank: until.is_none().then_some(3), ..View::default() }
    }

    /// The key was deleted at revision 9.
    fn ended(since: DateTime<Utc>) -> View {
        let mut ends = Ends::default();
        ends.delete(UserId::from_u128(1), 9, since);
        View { end: ends.of(UserId::from_u128(1)), ..View::default() }
    }

    fn judged(claims: &Claims, view: &View, seen: u64, now: i64) -> &'static str {
        match judge(claims, view, seen, &first(), None, at(now)) {
            Judged::Waiting { rank: Some(3), grace_until: Some(_) } => "silent at 3",
            Judged::Waiting { rank: Some(3), .. } => "waiting at 3",
            Judged::Waiting { .. } => "waiting",
            Judged::Active { .. } => "active",
            Judged::Over { .. } => "over",
        }
    }

    #[test]
    fn memory_wins_over_the_token() {
        let waiting = claims(7, None);
        assert_eq!(judged(&waiting, &view(7, 7, None), 9, 10), "waiting at 3");
        assert_eq!(
            judged(&waiting, &view(7, 9, Some(60)), 9, 10),
            "active",
            "an older token of the same place"
        );
        assert_eq!(judged(&waiting, &view(7, 9, Some(60)), 9, 60), "over");
        let active = claims(7, Some(60));
        assert_eq!(judged(&active, &view(7, 12, Some(600)), 12, 100), "active", "made longer since");
        assert_eq!(judged(&active, &view(30, 30, None), 30, 10), "over", "the user joined anew");
        assert_eq!(judged(&active, &ended(at(5)), 9, 10), "over", "ended early");
    }

    #[test]
    fn an_early_end_is_told_with_its_time() {
        let claims = claims(7, Some(60));
        let over_at = |since, now| judge(&claims, &ended(at(since)), 9, &first(), None, at(now));
        let over = |since| Judged::Over { activated_at: Some(at(5)), expires_at: Some(at(since)) };
        assert_eq!(over_at(20, 30), over(20));
        assert_eq!(over_at(61, 70), over(60), "the deletion of what had run out before");
    }

    #[test]
    fn an_instance_that_is_behind_believes_a_signed_session() {
        let active = claims(7, Some(60));
        assert_eq!(judged(&active, &view(7, 7, None), 7, 10), "active", "it has not seen the admission");
        assert_eq!(judged(&active, &View::default(), 3, 10), "active", "it has not even seen the join");
        assert_eq!(judged(&active, &view(2, 4, None), 4, 10), "active", "it knows an earlier place only");
        assert_eq!(judged(&active, &View::default(), 3, 60), "over", "but not one that has run out");
    }

    #[test]
    fn a_waiting_place_that_is_gone_is_over_and_one_not_seen_yet_is_waiting() {
        let waiting = claims(7, None);
        assert_eq!(judged(&waiting, &View::default(), 6, 10), "waiting");
        assert_eq!(judged(&waiting, &View::default(), 7, 10), "over");
    }

    #[test]
    fn who_is_silent_keeps_the_rank_until_the_grace_is_over() {
        let silent = Standing::Silent { grace_until: at(60) };
        let entry = Entry { revision: 9, place: 7, issued_at: at(0), standing: silent };
        let view = View { entry: Some(entry), rank: Some(3), ..View::default() };
        assert_eq!(judged(&claims(7, None), &view, 9, 59), "silent at 3");
        assert_eq!(judged(&claims(7, None), &view, 9, 60), "over");
        assert_eq!(
            judged(&claims(7, Some(90)), &view, 9, 60),
            "active",
            "its admission was not seen here yet"
        );
    }

    #[test]
    fn what_was_promised_here_counts_before_it_is_written() {
        let claims = claims(7, Some(60));
        let verdict = judge(&claims, &view(7, 9, Some(60)), 9, &first(), Some(at(600)), at(100));
        let expected = Judged::Active { activated_at: at(5), expires_at: at(600), used: true, bucket: 0 };
        assert_eq!(verdict, expected);
    }

    #[test]
    fn after_a_lost_bucket_a_token_proves_its_place_and_is_no_pass() {
        let (last, base) = (incarnation::first_revision(7), incarnation::first_revision(8));
        let mut era = Era::new(8);
        let (waiting, admitted) =
            (claims(last + 5, None), Claims { bucket: 7, ..claims(last + 5, Some(60)) });
        let verdict =
            |claims: &Claims, view: &View, era: &Era| judge(claims, view, base + 9, era, None, at(10));
        let is_waiting = |judged| matches!(judged, Judged::Waiting { .. });
        let anew = View { rank: Some(3), ..view(base + 2, base + 2, None) };
        for claims in [&waiting, &admitted] {
            assert!(is_waiting(verdict(claims, &View::default(), &era)), "the journal has not been read");
            assert!(is_waiting(verdict(claims, &anew, &era)), "the old place may come back");
        }
        let known = view(last + 5, last + 6, Some(60));
        assert!(
            matches!(verdict(&waiting, &known, &era), Judged::Active { bucket: 7, .. }),
            "known from before"
        );

        era.restore(last + 5);
        assert!(matches!(verdict(&waiting, &View::default(), &era), Judged::Over { .. }));
        assert!(matches!(verdict(&admitted, &View::default(), &era), Judged::Over { .. }));
        assert!(matches!(verdict(&admitted, &anew, &era), Judged::Over { .. }));
        assert!(is_waiting(verdict(&admitted, &view(last + 5, base + 1, None), &era)), "restored in line");
        let restored = view(last + 5, base + 1, Some(60));
        assert!(matches!(verdict(&waiting, &restored, &era), Judged::Active { bucket: 8, .. }));
        era.restore(last + 4);
        assert!(is_waiting(verdict(&admitted, &View::default(), &era)), "taken in the last moment");
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
