//! The network namespace that the daemon lives in.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;

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

/// Whether a process lives in the daemon's own network namespace; none if it is gone.
///
/// # Errors
/// It may not be looked at.
pub fn is_own(pid: u32) -> io::Result<Option<bool>> {
    let own = fs::metadata("/proc/self/ns/net")?;
    match fs::metadata(format!("/proc/{pid}/ns/net")) {
        Ok(its) => Ok(Some((its.dev(), its.ino()) == (own.dev(), own.ino()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_stays_the_same() {
        assert_eq!(own_cookie().unwrap(), own_cookie().unwrap());
    }

    #[test]
    fn a_process_is_in_this_namespace_or_gone() {
        assert_eq!(is_own(std::process::id()).unwrap(), Some(true));
        assert_eq!(is_own(1 << 23).unwrap(), None);
    }

    #[test]
    fn the_descriptor_is_of_this_namespace() {
        let named = fs::metadata("/proc/self/ns/net").unwrap();
        assert_eq!(open_own().unwrap().metadata().unwrap().ino(), named.ino());
    }
}
