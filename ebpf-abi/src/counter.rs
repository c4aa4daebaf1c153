//! One index per decision that a program can take without the daemon.

/// Index into the `COUNTERS` per-CPU array.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counter {
    /// Connections redirected to the outbound listener.
    Redirected = 0,
    /// Connections steered to the inbound listener.
    Steered = 1,
    /// Outbound connections left alone and watched.
    Observed = 2,
    /// Denied: somebody dialled the proxy's own port.
    ProxyDialled = 3,
    /// Denied: the socket is in a namespace that the daemon does not serve.
    ForeignNetns = 4,
    /// Denied: no daemon was alive.
    DaemonAbsent = 5,
    /// Denied: no room for the record.
    MapFull = 6,
    /// Denied: a packet of a strict scope would have left without the daemon.
    Backstop = 7,
    /// Denied: a connection to a strict listener that is not the daemon's own dial.
    StrictListener = 8,
    /// Denied: a transport other than TCP that the scope does not allow.
    Transport = 9,
    /// Denied: a strict socket used by a process outside its scope.
    ForeignSocket = 10,
    /// Denied: an IPv6 link-local destination, whose interface no hook can see.
    LinkLocal = 11,
    /// Events that found no room in the ring.
    EventsLost = 12,
    /// Left alone because no daemon was alive and the scope fails open.
    FailedOpen = 13,
    /// Denied: the socket is bound to a device that does not lead to the destination.
    BoundDevice = 14,
    /// Denied: the thread acts with credentials that are not its process's own.
    BorrowedCredentials = 15,
}

impl Counter {
    /// Its index in the map.
    #[expect(clippy::as_conversions, reason = "an enum of this representation")]
    pub const fn index(self) -> u32 {
        self as u32
    }

    /// Number of counters.
    pub const COUNT: u32 = 16;

    /// Every counter with its stable label.
    pub const ALL: [(Self, &'static str); 16] = [
        (Self::Redirected, "redirected"),
        (Self::Steered, "steered"),
        (Self::Observed, "observed"),
        (Self::ProxyDialled, "proxy_dialled"),
        (Self::ForeignNetns, "foreign_netns"),
        (Self::DaemonAbsent, "daemon_absent"),
        (Self::MapFull, "map_full"),
        (Self::Backstop, "backstop"),
        (Self::StrictListener, "strict_listener"),
        (Self::Transport, "transport_refused"),
        (Self::ForeignSocket, "foreign_socket"),
        (Self::LinkLocal, "link_local"),
        (Self::EventsLost, "events_lost"),
        (Self::FailedOpen, "failed_open"),
        (Self::BoundDevice, "bound_device"),
        (Self::BorrowedCredentials, "borrowed_credentials"),
    ];
}
