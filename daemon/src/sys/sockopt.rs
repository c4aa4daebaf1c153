#![expect(unsafe_code, reason = "socket options that no safe crate offers yet")]
//! Options of the daemon's own sockets. One function per intent, not per option.
//! Each takes any socket by descriptor and leaves its ownership alone.

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

use crate::workload::NetnsCookie;

/// Source: `include/uapi/linux/in.h`; Linux 6.3.
const IP_LOCAL_PORT_RANGE: c_int = 51;
/// Source: `include/uapi/asm-generic/socket.h`; Linux 5.14.
const SO_NETNS_COOKIE: c_int = 71;

/// Makes the coming `close` send a reset and drop what was not sent (`SO_LINGER` 0).
pub fn reset_on_close(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_linger(Some(Duration::ZERO))
}

/// Whether connections can be accepted on it.
pub fn is_listening(socket: &impl AsFd) -> io::Result<bool> {
    SockRef::from(socket).is_listener()
}

/// Small writes leave at once (`TCP_NODELAY`).
pub fn send_at_once(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_tcp_nodelay(true)
}

/// Flag of `send`: more will follow at once, so what does not fill a packet may wait for it.
pub const MORE_FOLLOWS: c_int = libc::MSG_MORE;

/// How long sent data may stay unacknowledged before the connection ends (`TCP_USER_TIMEOUT`).
pub fn set_user_timeout(socket: &impl AsFd, timeout: Duration) -> io::Result<()> {
    SockRef::from(socket).set_tcp_user_timeout(Some(timeout))
}

/// Probes a silent peer: first after `idle`, then every `interval`, `probes` times.
pub fn set_keepalive(
    socket: &impl AsFd,
    idle: Duration,
    interval: Duration,
    probes: u32,
) -> io::Result<()> {
    let keepalive =
        TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(probes);
    SockRef::from(socket).set_tcp_keepalive(&keepalive)
}

/// Binds to a network interface by index (`SO_BINDTOIFINDEX`); 0 lifts the binding.
pub fn bind_to_interface(socket: &impl AsFd, ifindex: u32) -> io::Result<()> {
    let ifindex = c_int::try_from(ifindex).map_err(|_| io::ErrorKind::InvalidInput)?;
    set(socket, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, &ifindex)
}

/// `bind` to port 0 takes an address only; the port is chosen at `connect`, by the whole 4-tuple,
/// so that one address serves more connections than it has ports (`IP_BIND_ADDRESS_NO_PORT`).
pub fn choose_port_at_connect(socket: &impl AsFd) -> io::Result<()> {
    let on: c_int = 1;
    set(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, &on)
}

/// Limits the ports that the kernel may choose for this socket (`IP_LOCAL_PORT_RANGE`).
///
/// # Errors
/// `Unsupported` before Linux 6.3: the caller goes on without.
pub fn limit_local_ports(socket: &impl AsFd, first: u16, last: u16) -> io::Result<()> {
    let range = u32::from(last) << 16 | u32::from(first);
    set(socket, libc::IPPROTO_IP, IP_LOCAL_PORT_RANGE, &range).map_err(|error| {
        match error.raw_os_error() {
            Some(libc::ENOPROTOOPT) => io::ErrorKind::Unsupported.into(),
            _ => error,
        }
    })
}

/// A listening socket hands connections on when they are established, not only when data has come
/// (`TCP_DEFER_ACCEPT` off).
pub fn accept_at_once(socket: &impl AsFd) -> io::Result<()> {
    let off: c_int = 0;
    set(socket, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, &off)
}

/// Port of the other end of a connected TCP socket.
///
/// # Errors
/// `NotConnected` if the other end is gone already.
pub fn peer_port(socket: impl AsFd) -> io::Result<u16> {
    let peer = SockRef::from(&socket).peer_addr()?;
    peer.as_socket().map(|addr| addr.port()).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// The cookie of the network namespace that a socket belongs to (`SO_NETNS_COOKIE`).
pub fn netns_cookie(socket: &impl AsFd) -> io::Result<NetnsCookie> {
    let mut cookie = 0_u64;
    let mut len = libc::socklen_t::try_from(size_of::<u64>()).map_err(io::Error::other)?;
    // SAFETY: the pointers are to live locals, and `len` is the size of the one written to.
    let done = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast::<c_void>(),
            &raw mut len,
        )
    };
    if done == 0 { Ok(NetnsCookie(cookie)) } else { Err(io::Error::last_os_error()) }
}

/// `setsockopt` with a plain integer value.
fn set<T: Copy>(socket: &impl AsFd, level: c_int, option: c_int, value: &T) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: `value` outlives the call, which reads `len` bytes of it, its size.
    let done = unsafe {
        let value: *const T = value;
        libc::setsockopt(socket.as_fd().as_raw_fd(), level, option, value.cast::<c_void>(), len)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};

    use socket2::{Domain, Socket, Type};

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[test]
    fn a_close_becomes_a_reset() {
        let (client, mut server) = pair();
        reset_on_close(&client).unwrap();
        drop(client);
        let error = server.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn timeouts_are_taken() {
        let (client, _server) = pair();
        send_at_once(&client).unwrap();
        set_user_timeout(&client, Duration::from_secs(9)).unwrap();
        set_keepalive(&client, Duration::from_secs(7), Duration::from_secs(3), 2).unwrap();
        let socket = SockRef::from(&client);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(9)));
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(7));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 2);
        assert!(socket.tcp_nodelay().unwrap());
    }

    #[test]
    fn the_port_is_chosen_at_connect_and_from_the_range() {
        for ip in [std::net::IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            let addr = SocketAddr::new(ip, 0);
            let listener = TcpListener::bind(addr).unwrap();
            let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).unwrap();
            choose_port_at_connect(&socket).unwrap();
            let ranged = limit_local_ports(&socket, 40_000, 40_100).is_ok();
            socket.bind(&addr.into()).unwrap();
            assert_eq!(socket.local_addr().unwrap().as_socket().unwrap().port(), 0);
            socket.connect(&listener.local_addr().unwrap().into()).unwrap();
            let port = socket.local_addr().unwrap().as_socket().unwrap().port();
            assert!(!ranged || (40_000..=40_100).contains(&port), "{port}");
        }
    }

    #[test]
    fn sockets_of_one_namespace_have_one_cookie() {
        let (client, server) = pair();
        assert_eq!(netns_cookie(&client).unwrap(), netns_cookie(&server).unwrap());
        assert_ne!(netns_cookie(&client).unwrap(), NetnsCookie(0));
    }

    #[test]
    fn an_interface_that_is_not_there_is_refused() {
        let (client, _server) = pair();
        assert!(bind_to_interface(&client, u32::MAX).is_err());
    }
}
