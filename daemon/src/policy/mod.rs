//! The rules: who may talk to whom, and how. Pure functions over snapshots; no I/O, no clock, so
//! that every decision can be replayed from a log line. Only this folder can make a [`Permit`].
//! Start at [`plan_outbound`] and [`admit_inbound`].

mod denial;
mod deny_list;
mod explain;
mod inbound;
mod networks;
mod outbound;
mod pattern;
mod proved;
mod rule;
mod verdict;

#[cfg(test)]
mod tests;

pub use denial::DenyReason;
pub use deny_list::{Denied, DenyError, DenyItem, DenyList};
pub use explain::{
    Explanation, Judgement, Mismatch, RuleFinding, Standing, explain_inbound, explain_outbound,
};
pub use inbound::{InboundPlan, SupposedPeer, plan_inbound};
pub use networks::Networks;
pub use outbound::{Expectation, OutboundPlan, plan_outbound};
pub use pattern::{PatternError, PeerPattern};
pub use proved::{
    LiveInbound, LiveOutbound, Peer, admit_inbound, recheck_inbound, recheck_outbound,
};
pub use rule::{
    DEFAULT_RULE, InboundAction, InboundRule, OutboundAction, OutboundRule, Policy, UnmarkedTls,
};
pub use verdict::{Denial, Permit};
