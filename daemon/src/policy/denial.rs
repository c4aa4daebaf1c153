//! Why a connection was denied: one reason, one record, one metric label.

/// The closed set of reasons. `as_str` is public: audit records and metrics carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DenyReason {
    /// The connection reached the proxy without a record from the kernel.
    UnknownFlow,
    /// Somebody dialled the proxy's own port.
    ProxyDialled,
    /// No listener is known for the address.
    NoListener,
    /// Holders of the listening socket disagree about who they are.
    ListenerAmbiguous,
    /// Another listener accepted than the one that was attested.
    ListenerChanged,
    /// The pid belongs to a process that started after the socket was opened.
    PidReused,
    /// The process, its executable or its credentials are not the recorded ones.
    ProcessChanged,
    /// The process could not be attested.
    AttestFailed,
    /// No registration entry matches.
    NoIdentity,
    /// The entry matches, but no valid SVID could be had for it.
    NoSvid,
    /// No rule speaks of this connection, and the scope is strict.
    NoRule,
    /// Either end is on the deny list, by its identity or by the certificate that it shows.
    DenyListed,
    /// A rule refuses it.
    RuleRefuses,
    /// The peer proved an identity that no rule allows.
    PeerNotAllowed,
    /// The peer showed no certificate, or one that is no valid X.509-SVID of a trusted domain.
    PeerUnverified,
    /// The peer's X.509-SVID has expired or is not yet valid.
    PeerExpired,
    /// Plaintext where only TLS is admitted.
    PlaintextRefused,
    /// TLS that is not the mesh's where that is not admitted.
    UnmarkedTlsRefused,
    /// Nothing was said within the first-byte timeout.
    FirstByteTimeout,
    /// The TLS handshake did not finish in time.
    HandshakeTimeout,
    /// The workload has as many connections as it may.
    WorkloadLimit,
    /// The node has as many connections as it may.
    NodeLimit,
    /// Too many clients that have not proved who they are, of this address or in all.
    UnprovedLimit,
    /// The socket is in a network namespace that this daemon does not serve.
    ForeignNetns,
    /// A kernel map had no room for the record.
    MapFull,
    /// No daemon was alive.
    DaemonAbsent,
    /// A transport other than TCP that the scope does not allow.
    TransportRefused,
    /// A packet of a strict scope that would have left without the daemon.
    Backstop,
    /// A connection to a strict listener that is not the daemon's own dial.
    StrictListener,
    /// A strict socket in the hands of a process outside its scope.
    ForeignSocket,
    /// An IPv6 link-local destination: no hook is shown its interface.
    LinkLocal,
    /// The socket is bound to a device that does not lead to the destination.
    BoundDevice,
    /// The thread acted with credentials that are not its process's own (an `io_uring` personality).
    BorrowedCredentials,
}

impl DenyReason {
    /// Every reason, for metrics and documentation.
    pub const ALL: [Self; 33] = [
        Self::UnknownFlow,
        Self::ProxyDialled,
        Self::NoListener,
        Self::ListenerAmbiguous,
        Self::ListenerChanged,
        Self::PidReused,
        Self::ProcessChanged,
        Self::AttestFailed,
        Self::NoIdentity,
        Self::NoSvid,
        Self::NoRule,
        Self::DenyListed,
        Self::RuleRefuses,
        Self::PeerNotAllowed,
        Self::PeerUnverified,
        Self::PeerExpired,
        Self::PlaintextRefused,
        Self::UnmarkedTlsRefused,
        Self::FirstByteTimeout,
        Self::HandshakeTimeout,
        Self::WorkloadLimit,
        Self::NodeLimit,
        Self::UnprovedLimit,
        Self::ForeignNetns,
        Self::MapFull,
        Self::DaemonAbsent,
        Self::TransportRefused,
        Self::Backstop,
        Self::StrictListener,
        Self::ForeignSocket,
        Self::LinkLocal,
        Self::BoundDevice,
        Self::BorrowedCredentials,
    ];

    /// Stable label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownFlow => "unknown_flow",
            Self::ProxyDialled => "proxy_dialled",
            Self::NoListener => "no_listener",
            Self::ListenerAmbiguous => "listener_ambiguous",
            Self::ListenerChanged => "listener_changed",
            Self::PidReused => "pid_reused",
            Self::ProcessChanged => "process_changed",
            Self::AttestFailed => "attest_failed",
            Self::NoIdentity => "no_identity",
            Self::NoSvid => "no_svid",
            Self::NoRule => "no_rule",
            Self::DenyListed => "deny_listed",
            Self::RuleRefuses => "rule_refuses",
            Self::PeerNotAllowed => "peer_not_allowed",
            Self::PeerUnverified => "peer_unverified",
            Self::PeerExpired => "peer_expired",
            Self::PlaintextRefused => "plaintext_refused",
            Self::UnmarkedTlsRefused => "unmarked_tls_refused",
            Self::FirstByteTimeout => "first_byte_timeout",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::WorkloadLimit => "workload_limit",
            Self::NodeLimit => "node_limit",
            Self::UnprovedLimit => "unproved_limit",
            Self::ForeignNetns => "foreign_netns",
            Self::MapFull => "map_full",
            Self::DaemonAbsent => "daemon_absent",
            Self::TransportRefused => "transport_refused",
            Self::Backstop => "backstop",
            Self::StrictListener => "strict_listener",
            Self::ForeignSocket => "foreign_socket",
            Self::LinkLocal => "link_local",
            Self::BoundDevice => "bound_device",
            Self::BorrowedCredentials => "borrowed_credentials",
        }
    }
}
