//! The cases, in the order in which they run.

mod presence;
mod answers;
mod undo;
mod slow;
mod outcomes;
mod by_hand;
mod poison;
mod crash;

use crate::tester::{Ending, Tester};

/// A case: its name, and whether the others make sense only after it.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    kind: Kind,
    /// If it fails, the others are skipped.
    pub(crate) must_pass: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Presence,
    Answer,
    Duplicates,
    Rejection,
    LateDo,
    UndoFirst,
    AtOnce,
    LateVisit,
    Failure,
    Unknown,
    Deadline,
    Slow,
    ByHand,
    Poison,
    Crash,
    Last,
}

const fn case(name: &'static str, kind: Kind) -> Case {
    Case { name, kind, must_pass: matches!(kind, Kind::Answer) }
}

/// All of them. The crash comes last: after it a worker may behave differently because it has lost what it had in memory.
pub(crate) const CASES: &[Case] = &[
    case("announcement and consumer", Kind::Presence),
    case("command is answered", Kind::Answer),
    case("duplicates", Kind::Duplicates),
    case("rejection is repeated", Kind::Rejection),
    case("late do after undo", Kind::LateDo),
    case("undo first", Kind::UndoFirst),
    case("do and undo at once", Kind::AtOnce),
    case("late visits", Kind::LateVisit),
    case("failure is tried again", Kind::Failure),
    case("unknown outcome", Kind::Unknown),
    case("deadline passed", Kind::Deadline),
    case("slow answer", Kind::Slow),
    case("completion by hand", Kind::ByHand),
    case("poison input", Kind::Poison),
    case("crash before acknowledgement", Kind::Crash),
    case("acknowledged last", Kind::Last),
];

impl Case {
    pub(crate) fn is_first(&self) -> bool {
        self.kind == Kind::Presence
    }
}

/// Plays one case.
pub(crate) async fn play(case: &Case, tester: &mut Tester) -> Ending {
    match case.kind {
        Kind::Presence => presence::announced(tester).await,
        Kind::Answer => answers::answered(tester).await,
        Kind::Duplicates => answers::duplicates(tester).await,
        Kind::Rejection => outcomes::rejection(tester).await,
        Kind::LateDo => undo::late_do(tester).await,
        Kind::UndoFirst => undo::undo_first(tester).await,
        Kind::AtOnce => undo::at_once(tester).await,
        Kind::LateVisit => answers::late_visit(tester).await,
        Kind::Failure => outcomes::failure(tester).await,
        Kind::Unknown => outcomes::unknown(tester).await,
        Kind::Deadline => answers::deadline(tester).await,
        Kind::Slow => slow::slow(tester).await,
        Kind::ByHand => by_hand::by_hand(tester).await,
        Kind::Poison => poison::poison(tester).await,
        Kind::Crash => crash::crash(tester).await,
        Kind::Last => answers::last(tester).await,
    }
}
