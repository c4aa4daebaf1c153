//! How much there may be at a time, and who goes first when it is less than all want: connections
//! of the node and of each workload, clients that have not proved who they are, and handshakes.
//! Start at [`Limits`].

mod line;
mod newcomers;
mod places;
mod turns;

pub(super) use places::{Limits, Owner, Place, Remote};
