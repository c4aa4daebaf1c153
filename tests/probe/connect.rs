//! The ways in which a program can open a TCP connection.
#![expect(unsafe_code, reason = "io_uring entries and AF_UNSPEC have no safe form")]

use std::io;
use std::mem::size_of;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// A way to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum How {
    /// A blocking `connect()`.
    Plain,
    /// A non-blocking `connect()`, then a poll.
    Nonblocking,
    /// An IPv4 destination through an IPv6 socket.
    Mapped,
    /// TCP Fast Open: the first bytes are given with the destination (`MSG_FASTOPEN`).
    FastOpen,
    /// TCP Fast Open by `TCP_FASTOPEN_CONNECT`: `connect()` returns at once.
    FastOpenConnect,
    /// Through `io_uring`.
    IoUring,
    /// Through `io_uring` with the credentials that the process had before it became nobody's.
    Personality,
    /// An MPTCP socket.
    Mptcp,
    /// Connect, dissolve with `AF_UNSPEC`, connect again.
    Unspec,
}

/// What is wished for.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) address: SocketAddr,
    pub(crate) how: How,
    pub(crate) source: Option<SocketAddr>,
    pub(crate) device: Option<String>,
}

/// Opens the connection, or says what the kernel said.
pub(crate) fn open(wish: &Wish) -> Result<TcpStream> {
    let socket = prepare(wish)?;
    let address = SockAddr::from(target(wish));
    match wish.how {
        How::Plain | How::Mapped | How::Mptcp => socket.connect(&address).context("connect")?,
        How::Nonblocking => nonblocking(&socket, &address)?,
        How::FastOpenConnect => {
            set_tcp_option(&socket, libc::TCP_FASTOPEN_CONNECT, 1)?;
            socket.connect(&address).context("connect")?;
        }
        How::IoUring => through_io_uring(&socket, &address, false)?,
        How::Personality => through_io_uring(&socket, &address, true)?,
        How::Unspec => {
            socket.connect(&address).context("first connect")?;
            dissolve(&socket)?;
            socket.connect(&address).context("second connect")?;
        }
        How::FastOpen => bail!("fast open sends with the connect; see exchange::fast_open"),
    }
    Ok(socket.into())
}

/// The socket before it connects.
pub(crate) fn prepare(wish: &Wish) -> Result<Socket> {
    let domain = Domain::for_address(target(wish));
    let protocol = if wish.how == How::Mptcp { Protocol::MPTCP } else { Protocol::TCP };
    let socket = Socket::new(domain, Type::STREAM, Some(protocol)).context("socket")?;
    if let Some(device) = &wish.device {
        socket.bind_device(Some(device.as_bytes())).context("bind to device")?;
    }
    if let Some(source) = wish.source {
        socket.bind(&source.into()).context("bind to source")?;
    }
    Ok(socket)
}

/// The destination in the form that the socket takes it.
pub(crate) fn target(wish: &Wish) -> SocketAddr {
    match (wish.how, wish.address.ip()) {
        (How::Mapped, IpAddr::V4(ip)) => {
            SocketAddr::new(ip.to_ipv6_mapped().into(), wish.address.port())
        }
        _ => wish.address,
    }
}

fn nonblocking(socket: &Socket, address: &SockAddr) -> Result<()> {
    socket.set_nonblocking(true)?;
    match socket.connect(address) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {
            let fd = std::os::fd::AsFd::as_fd(socket);
            let mut fds = [PollFd::new(fd, PollFlags::POLLOUT)];
            let ready = poll(&mut fds, PollTimeout::try_from(Duration::from_secs(15))?)?;
            if ready == 0 {
                bail!("connect: not established in time");
            }
            if let Some(error) = socket.take_error()? {
                return Err(error).context("connect");
            }
        }
        Err(error) => return Err(error).context("connect"),
    }
    Ok(socket.set_nonblocking(false)?)
}

/// Sets a number among the options of TCP.
pub(crate) fn set_tcp_option(
    socket: &Socket,
    option: libc::c_int,
    value: libc::c_int,
) -> Result<()> {
    let size = libc::socklen_t::try_from(size_of::<libc::c_int>())?;
    // SAFETY: `value` outlives the call and `size` is its size.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            (&raw const value).cast(),
            size,
        )
    };
    if set != 0 {
        return Err(io::Error::last_os_error()).context("setsockopt");
    }
    Ok(())
}

fn through_io_uring(socket: &Socket, address: &SockAddr, borrowed: bool) -> Result<()> {
    use io_uring::{IoUring, opcode, types};
    let mut ring = IoUring::new(2).context("io_uring_setup")?;
    let mut connect =
        opcode::Connect::new(types::Fd(socket.as_raw_fd()), address.as_ptr().cast(), address.len())
            .build();
    if borrowed {
        let before = ring.submitter().register_personality().context("register personality")?;
        let nobody = nix::unistd::Uid::from_raw(65_534);
        nix::unistd::setresuid(nobody, nobody, nobody).context("setresuid")?;
        connect = connect.personality(before);
    }
    // SAFETY: `address` outlives the submission, which is waited for below.
    unsafe { ring.submission().push(&connect) }.context("submission queue")?;
    ring.submit_and_wait(1).context("io_uring_enter")?;
    let result = ring.completion().next().context("no completion")?.result();
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result)).context("connect");
    }
    Ok(())
}

/// `connect()` to `AF_UNSPEC` ends the association (connect(2)).
fn dissolve(socket: &Socket) -> Result<()> {
    // SAFETY: all zeros is a valid sockaddr.
    let mut nowhere: libc::sockaddr = unsafe { std::mem::zeroed() };
    nowhere.sa_family = libc::sa_family_t::try_from(libc::AF_UNSPEC)?;
    let size = libc::socklen_t::try_from(size_of::<libc::sockaddr>())?;
    // SAFETY: `nowhere` outlives the call and `size` is its size.
    if unsafe { libc::connect(socket.as_raw_fd(), &raw const nowhere, size) } != 0 {
        return Err(io::Error::last_os_error()).context("connect to AF_UNSPEC");
    }
    Ok(())
}
