//! A type for each role that a socket address plays, so that they cannot be mixed up.
//! IPv4-mapped IPv6 addresses are always held in their IPv4 form.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

macro_rules! address_role {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(SocketAddr);

        impl $name {
            /// Wraps an address, turning `::ffff:a.b.c.d` into `a.b.c.d`.
            pub fn new(addr: SocketAddr) -> Self {
                Self(SocketAddr::new(addr.ip().to_canonical(), addr.port()))
            }

            /// The address.
            pub fn get(self) -> SocketAddr {
                self.0
            }

            /// The IP address.
            pub fn ip(self) -> IpAddr {
                self.0.ip()
            }

            /// The port, in host byte order.
            pub fn port(self) -> u16 {
                self.0.port()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

address_role!(
    /// The address and port that a client asked for, before capture.
    OriginalDst
);
address_role!(
    /// The address and port of a client, as the server application is to see it.
    ClientAddr
);
address_role!(
    /// The address and port that a server application listens on, or that a connection to it used.
    ListenAddr
);
