//! What a decision hands on: a [`Permit`], which the relay demands, or a [`Denial`].
//! Both say which rule decided and in which policy; neither can be made outside of `policy`.

use std::sync::Arc;

use super::DenyReason;

/// Permission for one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit {
    rule: Arc<str>,
    epoch: u64,
    dry_run: Option<Arc<str>>,
}

/// Refusal of one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    reason: DenyReason,
    rule: Option<Arc<str>>,
    epoch: u64,
    dry_run: Option<Arc<str>>,
    detail: Option<Arc<str>>,
}

impl Permit {
    pub(super) fn new(rule: &Arc<str>, epoch: u64) -> Self {
        Self { rule: Arc::clone(rule), epoch, dry_run: None }
    }

    pub(super) fn rehearsed(mut self, dry_run: Option<Arc<str>>) -> Self {
        self.dry_run = dry_run;
        self
    }

    /// Name of the rule that admits; [`super::DEFAULT_RULE`] if none speaks of the connection.
    pub fn rule(&self) -> &Arc<str> {
        &self.rule
    }

    /// Epoch of the policy that decided.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The dry-run rule that would have decided otherwise.
    pub fn dry_run(&self) -> Option<&Arc<str>> {
        self.dry_run.as_ref()
    }
}

impl Denial {
    pub(super) fn new(reason: DenyReason, rule: Option<&Arc<str>>, epoch: u64) -> Self {
        Self { reason, rule: rule.map(Arc::clone), epoch, dry_run: None, detail: None }
    }

    pub(super) fn rehearsed(mut self, dry_run: Option<Arc<str>>) -> Self {
        self.dry_run = dry_run;
        self
    }

    /// The same, with more to say than its reason does.
    pub(super) fn because(mut self, detail: Arc<str>) -> Self {
        self.detail = Some(detail);
        self
    }

    /// What is to be said beyond the reason.
    pub fn detail(&self) -> Option<&Arc<str>> {
        self.detail.as_ref()
    }

    /// Why.
    pub fn reason(&self) -> DenyReason {
        self.reason
    }

    /// Name of the rule that refuses, or of the one that speaks of the connection without
    /// admitting this peer.
    pub fn rule(&self) -> Option<&Arc<str>> {
        self.rule.as_ref()
    }

    /// Epoch of the policy that decided.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The dry-run rule that would have decided otherwise.
    pub fn dry_run(&self) -> Option<&Arc<str>> {
        self.dry_run.as_ref()
    }
}
