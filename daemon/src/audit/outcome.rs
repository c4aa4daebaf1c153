//! How a connection ended: closed sets with stable labels, shared by records and metrics.
//! `as_str` is the outcome's label, `reason` the finer one. Neither ever holds outside text.

use crate::policy::DenyReason;

/// Which side of the connection the local workload is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// The local workload called `connect()`.
    Outbound,
    /// The local workload listens.
    Inbound,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Both sides said all they had to say.
    Completed,
    /// It was not let through.
    Denied(DenyReason),
    /// The remote side failed.
    PeerFailed(PeerFailure),
    /// The local application failed.
    LocalFailed(LocalFailure),
    /// The daemon ended a connection that had been admitted.
    Cut(CutReason),
    /// The daemon was killed, or the task that carried the connection died.
    Interrupted,
}

/// What went wrong with the remote side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PeerFailure {
    /// No answer to the SYN within the connect timeout.
    ConnectTimedOut,
    /// The SYN was answered with a reset.
    ConnectRefused,
    /// The network or the host cannot be reached.
    Unreachable,
    /// Any other fault of `connect()`.
    ConnectFailed,
    /// The peer did not finish the TLS handshake in time.
    HandshakeTimedOut,
    /// The peer broke off the TLS handshake, or did not speak TLS 1.3.
    HandshakeFailed,
    /// The peer refused our certificate by a TLS alert.
    CertificateRefused,
    /// The peer reset the connection after it was made.
    Reset,
    /// The peer closed TCP without TLS's `close_notify`: what it said may be cut short.
    Truncated,
    /// What the peer sent is no valid TLS.
    ProtocolViolated,
    /// Any other fault while carrying bytes.
    Failed,
}

/// What went wrong with the local application's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LocalFailure {
    /// The workload's own listener answered with a reset.
    ConnectRefused,
    /// The workload's own listener did not answer: its backlog is full.
    ConnectTimedOut,
    /// Any other fault when dialling the workload's listener.
    ConnectFailed,
    /// The application gave up before the connection was made.
    Abandoned,
    /// The application reset the connection.
    Reset,
    /// Any other fault while carrying bytes.
    Failed,
    /// The node was out of a resource such as file descriptors or local ports.
    Exhausted,
}

/// Why the daemon ended a connection that had been admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CutReason {
    /// The rules, as they are now, no longer allow it.
    PolicyChanged,
    /// The scope's mode, as it is now, no longer allows it.
    ScopeChanged,
    /// The registration entry is gone or names another identity.
    EntryGone,
    /// By the entries as they are now, the local workload is somebody else, or nobody.
    IdentityChanged,
    /// Either end is on the deny list now.
    DenyListed,
    /// The SVID ran out and could not be renewed.
    SvidExpired,
    /// An authority of either side's chain is no longer trusted.
    AuthorityGone,
    /// Nothing was said for the idle timeout.
    Idle,
    /// The daemon was stopped and the drain time was over.
    Drained,
    /// The peer no longer acknowledges data.
    PeerUnresponsive,
}

impl Direction {
    /// Both, for metrics.
    pub const ALL: [Self; 2] = [Self::Outbound, Self::Inbound];

    /// Stable label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}

impl Outcome {
    /// Stable label of the kind of outcome.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Denied(_) => "denied",
            Self::PeerFailed(_) => "peer_failed",
            Self::LocalFailed(_) => "local_failed",
            Self::Cut(_) => "cut",
            Self::Interrupted => "interrupted",
        }
    }

    /// Stable label of the reason; none where the outcome says it all.
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Self::Completed | Self::Interrupted => None,
            Self::Denied(reason) => Some(reason.as_str()),
            Self::PeerFailed(failure) => Some(failure.as_str()),
            Self::LocalFailed(failure) => Some(failure.as_str()),
            Self::Cut(reason) => Some(reason.as_str()),
        }
    }
}

impl PeerFailure {
    /// Stable label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConnectTimedOut => "connect: timed out",
            Self::ConnectRefused => "connect: refused",
            Self::Unreachable => "connect: unreachable",
            Self::ConnectFailed => "connect: failed",
            Self::HandshakeTimedOut => "handshake: timed out",
            Self::HandshakeFailed => "handshake: failed",
            Self::CertificateRefused => "handshake: certificate refused",
            Self::Reset => "reset",
            Self::Truncated => "closed without close_notify",
            Self::ProtocolViolated => "tls: protocol violated",
            Self::Failed => "i/o failed",
        }
    }
}

impl LocalFailure {
    /// Stable label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConnectRefused => "connect: refused",
            Self::ConnectTimedOut => "connect: timed out",
            Self::ConnectFailed => "connect: failed",
            Self::Abandoned => "abandoned",
            Self::Reset => "reset",
            Self::Failed => "i/o failed",
            Self::Exhausted => "resources exhausted",
        }
    }
}

impl CutReason {
    /// Stable label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PolicyChanged => "policy_changed",
            Self::ScopeChanged => "scope_changed",
            Self::EntryGone => "entry_gone",
            Self::IdentityChanged => "identity_changed",
            Self::DenyListed => "deny_listed",
            Self::SvidExpired => "svid_expired",
            Self::AuthorityGone => "authority_gone",
            Self::Idle => "idle",
            Self::Drained => "drained",
            Self::PeerUnresponsive => "peer_unresponsive",
        }
    }
}
