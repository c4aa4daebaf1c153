//! What the programs tell unasked: denials that no daemon had a part in, connections that were only
//! observed, and how much of that was lost on its way.

mod lost;
mod observed;
mod recorder;

pub(super) use lost::LostEvents;
pub(super) use recorder::{Recorder, record};
