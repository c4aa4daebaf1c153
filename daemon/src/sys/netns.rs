//! The network namespace that the daemon lives in.

use std::fs::File;
use std::io;

use socket2::{Domain, Socket, Type};

use super::sockopt;
use crate::workload::NetnsCookie;

/// The cookie of the daemon's own network namespace.
///
/// # Errors
/// The kernel is older than 5.14, or out of sockets.
pub fn own_cookie() -> io::Result<NetnsCookie> {
    // UDP needs no connection and takes no port; a host without IPv4 has IPv6.
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)
        .or_else(|_| Socket::new(Domain::IPV6, Type::DGRAM, None))?;
    sockopt::netns_cookie(&socket)
}

/// A descriptor of the daemon's own network namespace, as attaching to it needs.
pub fn open_own() -> io::Result<File> {
    File::open("/proc/self/ns/net")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_cookie_stays_the_same() {
        assert_eq!(own_cookie().unwrap(), own_cookie().unwrap());
    }

    #[test]
    fn the_descriptor_is_of_this_namespace() {
        let named = std::fs::metadata("/proc/self/ns/net").unwrap();
        assert_eq!(open_own().unwrap().metadata().unwrap().ino(), named.ino());
    }
}
