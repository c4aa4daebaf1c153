//! `tacit bundle`: the trust bundles that a node knows, and those of other trust domains given to it
//! by hand.

mod args;
mod obey;

pub(super) use args::Bundle;
pub(super) use obey::obey;
