//! A place that NATS lost before it was journalled, and its owner presents again by its signed token.

use chrono::{DateTime, Utc};

use super::super::line::View;
use super::super::place::{Claims, Entry, If, Place, Standing};

/// What the token says of the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Returning {
    place: Place,
    issued_at: DateTime<Utc>,
    /// When it was admitted, or else taken: a payment since then has ended it.
    pub since: DateTime<Utc>,
}

impl Returning {
    /// The place of these claims.
    pub fn of(claims: &Claims) -> Self {
        let since = claims.activated_at.unwrap_or(claims.issued_at);
        Self { place: claims.place, issued_at: claims.issued_at, since }
    }

    /// What is to be written under which condition, given what is known of the key; nothing once that is done, or if the
    /// place is over. Whoever joined anew meanwhile gets the older place, as in a restoration.
    pub fn wants(&self, view: &View) -> Option<(If, Entry)> {
        let condition = match view.entry {
            _ if view.is_over(self.place) => return None,
            None => If::At(0),
            Some(anew) if anew.place > self.place && anew.standing.is_in_line() => If::At(anew.revision),
            Some(_) => return None,
        };
        let entry = Entry {
            revision: self.place,
            place: self.place,
            issued_at: self.issued_at,
            standing: Standing::Waiting,
        };
        Some((condition, entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ConcertId, UserId};
    use crate::waiting_room::line::Ends;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_900_000_000 + seconds, 0).unwrap()
    }

    #[test]
    fn it_is_written_before_a_newer_one_unless_it_is_over_or_there() {
        let (user, concert) = (UserId::from_u128(1), ConcertId::from_u128(2));
        let waiting = |place, revision| {
            let entry = Entry { revision, place, issued_at: at(0), standing: Standing::Waiting };
            View { entry: Some(entry), ..View::default() }
        };
        let claims =
            Claims { activated_at: Some(at(5)), ..waiting(5, 5).entry.unwrap().claims(user, concert) };
        let returning = Returning::of(&claims);
        assert_eq!(returning.since, at(5));
        let condition = |view: &View| {
            returning.wants(view).map(|(condition, entry)| {
                assert_eq!((entry.place, entry.standing), (5, Standing::Waiting));
                condition
            })
        };
        assert_eq!(condition(&View::default()), Some(If::At(0)));
        assert_eq!(condition(&waiting(12, 14)), Some(If::At(14)), "joined anew");
        let standing = Standing::Active { activated_at: at(0), expires_at: at(60), used: false };
        let admitted = Entry { standing, ..waiting(12, 14).entry.unwrap() };
        assert_eq!(condition(&View { entry: Some(admitted), ..View::default() }), None, "and was admitted");
        assert_eq!(condition(&waiting(5, 15)), None, "it is done");
        let mut ends = Ends::default();
        ends.bar(user, 5, at(0));
        assert_eq!(condition(&View { end: ends.of(user), ..View::default() }), None);
    }
}
