//! What can be wrong with a state of the model.

use saga_core::Definition;

/// What is wrong with a state. Steps are indices.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Fault {
    DoneTwice(u8),
    DoneAfterUndo(u8),
    LeftBehind(u8),
    NotDone(u8),
    EndMoved,
    StuckWithoutReason,
    Sleeps,
    Illegal(String),
    NeverEnds,
}

impl Fault {
    /// The fault in words, with the names of the steps.
    pub(super) fn told(&self, definition: &Definition) -> String {
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
            Self::EndMoved => "an ended saga moves".to_owned(),
            Self::StuckWithoutReason => "the saga is stuck and does not say why".to_owned(),
            Self::Sleeps => "the saga sleeps without an alarm".to_owned(),
            Self::Illegal(why) => format!("the engine calls a message impossible: {why}"),
            Self::NeverEnds => {
                "from here the saga comes to no end, even if nothing goes wrong any more".to_owned()
            }
        }
    }
}
