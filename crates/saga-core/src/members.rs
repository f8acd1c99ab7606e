//! The members of a group of parallel steps, as a saga's row keeps them.

use chrono::{DateTime, Utc};

/// Most members of a group.
pub const MAX_MEMBERS: usize = 8;
/// The length of an encoded member.
const MEMBER_BYTES: usize = 25;
const BACKING_OFF: u8 = 16;
const NO_DUE_TIME: i64 = i64::MIN;

/// Whether a reply to a member's command is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemberState {
    Open,
    Done,
    /// It has no effect, so its undo is left out.
    Rejected,
}

/// A member of a group. The fields have the meaning of those of the saga.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    pub state: MemberState,
    pub attempt: i32,
    pub send: i32,
    pub since: DateTime<Utc>,
    pub backing_off: bool,
    pub due_at: Option<DateTime<Utc>>,
}

/// The members of a saga's group, in the order of the definition. It is empty outside of a group, and while every member of a group
/// stands as the saga's row does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Members(pub(super) Vec<Member>);

/// Bytes that encode no members.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the members of a group are not encoded as they should be: {0} bytes")]
pub struct MalformedMembers(usize);

impl Member {
    fn encode(self, out: &mut Vec<u8>) {
        let state = match self.state {
            MemberState::Open => 0,
            MemberState::Done => 1,
            MemberState::Rejected => 2,
        };
        out.push(state | if self.backing_off { BACKING_OFF } else { 0 });
        out.extend(self.attempt.to_be_bytes());
        out.extend(self.send.to_be_bytes());
        out.extend(self.since.timestamp_micros().to_be_bytes());
        out.extend(self.due_at.map_or(NO_DUE_TIME, |due| due.timestamp_micros()).to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (flags, rest) = bytes.split_first()?;
        let (attempt, rest) = rest.split_first_chunk()?;
        let (send, rest) = rest.split_first_chunk()?;
        let (since, due) = rest.split_first_chunk()?;
        let state = match flags & !BACKING_OFF {
            0 => MemberState::Open,
            1 => MemberState::Done,
            2 => MemberState::Rejected,
            _ => return None,
        };
        let due = i64::from_be_bytes(due.try_into().ok()?);
        Some(Self {
            state,
            attempt: i32::from_be_bytes(*attempt),
            send: i32::from_be_bytes(*send),
            since: DateTime::from_timestamp_micros(i64::from_be_bytes(*since))?,
            backing_off: flags & BACKING_OFF != 0,
            due_at: if due == NO_DUE_TIME { None } else { Some(DateTime::from_timestamp_micros(due)?) },
        })
    }
}

impl Members {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.0.iter()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.0.iter_mut()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// As the row keeps them, in codes. No bytes: there are none.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.0.len() * MEMBER_BYTES);
        self.0.iter().for_each(|member| member.encode(&mut out));
        out
    }

    /// # Errors
    /// If the bytes are not those of [`Members::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedMembers> {
        let members = bytes.chunks(MEMBER_BYTES).map(Member::decode).collect::<Option<Vec<_>>>();
        let members = members.filter(|members| members.len() <= MAX_MEMBERS);
        members.map(Self).ok_or(MalformedMembers(bytes.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_encoded_in_few_bytes() {
        let since = DateTime::from_timestamp_micros(1_800_000_000_123_456).unwrap();
        let open = Member {
            state: MemberState::Open,
            attempt: 3,
            send: 4,
            since,
            backing_off: true,
            due_at: Some(since + chrono::TimeDelta::seconds(9)),
        };
        let done = Member { state: MemberState::Done, due_at: None, backing_off: false, ..open };
        let members = Members(vec![open, done, Member { state: MemberState::Rejected, ..done }]);
        let bytes = members.encode();
        assert_eq!(bytes.len(), 3 * MEMBER_BYTES);
        assert_eq!(Members::decode(&bytes), Ok(members));
        assert_eq!(Members::decode(&[]), Ok(Members::default()));
        assert!(Members::decode(&bytes[1..]).is_err(), "cut off");
        assert!(Members::decode(&[7; MEMBER_BYTES]).is_err(), "no state has this number");
        assert!(Members::decode(&[0; MEMBER_BYTES * (MAX_MEMBERS + 1)]).is_err(), "too many");
    }
}
