//! Who may talk to whom, and who to nobody: rules of both directions, and the deny list.

pub(super) mod denials;
pub(super) mod inbound;
pub(super) mod outbound;
