//! The ways in which a state can be wrong.

use saga_core::Definition;

/// Steps are indices.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Violation {
    DoneTwice(u8),
    DoneAfterUndo(u8),
    LeftBehind(u8),
    NotDone(u8),
    EndChanged,
    StuckWithoutReason,
    WithoutDueTime,
    Illegal(String),
    NeverEnds,
}

impl Violation {
    /// The text of the violation, with the names of the steps.
    pub(super) fn describe(&self, definition: &Definition) -> String {
        let name = |step: &u8| &definition.steps[usize::from(*step)].name;
        match self {
            Self::DoneTwice(step) => format!("the effect of {} is made twice", name(step)),
            Self::DoneAfterUndo(step) => {
                format!("{} takes effect after its undo: nothing takes it back any more", name(step))
            }
            Self::LeftBehind(step) => {
                format!("the saga has ended, but the effect of {} is left behind", name(step))
            }
            Self::NotDone(step) => {
                format!("the saga is completed, but the effect of {} is not there", name(step))
            }
            Self::EndChanged => "an ended saga moves".to_owned(),
            Self::StuckWithoutReason => "the saga is stuck and does not say why".to_owned(),
            Self::WithoutDueTime => "the saga sleeps without an alarm".to_owned(),
            Self::Illegal(why) => format!("the engine calls a message impossible: {why}"),
            Self::NeverEnds => {
                "from here the saga comes to no end, even if nothing goes wrong any more".to_owned()
            }
        }
    }
}
