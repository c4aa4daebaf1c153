//! Connections that end up in other hands than those that opened them: inherited over fork or
//! exec, passed over a Unix socket, left behind under a pid that is then somebody else's.
#![expect(unsafe_code, reason = "fork, clone3 and inherited descriptors have no safe form")]

use std::fs;
use std::io::{IoSlice, IoSliceMut};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Gid, Pid, Uid, fork, setresgid, setresuid};
use socket2::{Domain, Protocol, Socket, Type};

/// How a connection changes hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Way {
    /// The opener forks after the connect; the child talks, the opener waits.
    Fork,
    /// The opener executes another program, which talks.
    Exec,
    /// The opener passes the socket to another process (`SCM_RIGHTS`) and lives on.
    Pass,
    /// A child opens the connection and exits; its parent talks.
    Gone,
    /// As `gone`, and another process gets the child's pid before the parent talks.
    ReusedPid,
}

/// Connects and hands over.
pub(crate) fn run(way: Way, address: SocketAddr, opener_uid: Option<u32>) -> Result<()> {
    match way {
        Way::Fork => {
            let stream = TcpStream::connect(address).context("connect")?;
            in_child(|| talk_as_other_program(&stream))
        }
        Way::Exec => {
            let stream = TcpStream::connect(address).context("connect")?;
            talk_as_other_program(&stream)
        }
        Way::Pass => pass(address),
        Way::Gone | Way::ReusedPid => leave_behind(way, address, opener_uid),
    }
}

/// A socket that was inherited.
pub(crate) fn inherited(fd: RawFd) -> TcpStream {
    // SAFETY: the caller of this program names a descriptor that it left open for it alone.
    unsafe { TcpStream::from_raw_fd(fd) }
}

/// Becomes this program again, with the socket as an inherited descriptor.
fn talk_as_other_program(stream: &TcpStream) -> Result<()> {
    fcntl(stream, FcntlArg::F_SETFD(FdFlag::empty())).context("keep the socket over exec")?;
    let fd = stream.as_raw_fd().to_string();
    let error = Command::new("/proc/self/exe").args(["talk-on", &fd]).exec();
    Err(error).context("exec")
}

fn pass(address: SocketAddr) -> Result<()> {
    let (giver, taker) =
        socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
    // SAFETY: this program has one thread.
    match unsafe { fork() }? {
        ForkResult::Child => {
            drop(giver);
            let fd = receive(&taker)?;
            talk_as_other_program(&fd.into())
        }
        ForkResult::Parent { child } => {
            let stream = TcpStream::connect(address).context("connect")?;
            let fds = [stream.as_raw_fd()];
            let rights = [ControlMessage::ScmRights(&fds)];
            sendmsg::<()>(
                giver.as_raw_fd(),
                &[IoSlice::new(b"x")],
                &rights,
                MsgFlags::empty(),
                None,
            )
            .context("pass the socket")?;
            finish(child)
        }
    }
}

fn receive(from: &OwnedFd) -> Result<OwnedFd> {
    let (mut byte, mut space) = ([0_u8; 1], nix::cmsg_space!(RawFd));
    let mut parts = [IoSliceMut::new(&mut byte)];
    let message = recvmsg::<()>(from.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty())?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control {
            let fd = *fds.first().context("an empty message")?;
            // SAFETY: the kernel has just installed this descriptor for us.
            return Ok(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
    bail!("no socket came")
}

/// The socket is made here, connected in a child that exits, and used here.
fn leave_behind(way: Way, address: SocketAddr, opener_uid: Option<u32>) -> Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // SAFETY: this program has one thread.
    let opener = match unsafe { fork() }? {
        ForkResult::Child => {
            if let Some(uid) = opener_uid {
                let (gid, uid) = (Gid::from_raw(uid), Uid::from_raw(uid));
                setresgid(gid, gid, gid)?;
                setresuid(uid, uid, uid)?;
            }
            socket.connect(&address.into()).context("connect")?;
            return Ok(());
        }
        ForkResult::Parent { child } => child,
    };
    finish(opener).context("the opener")?;
    println!("opener={opener}");
    let stream: TcpStream = socket.into();
    if way == Way::Gone {
        fcntl(&stream, FcntlArg::F_SETFD(FdFlag::empty()))?;
        return talk_as_other_program(&stream);
    }
    // /proc tells when a process started in hundredths of a second: two of one pid within the same
    // one could not be told apart, and pids do not come round that fast by themselves.
    thread::sleep(Duration::from_millis(50));
    let Some(twin) = with_pid(opener)? else {
        // The twin: it only has to be there.
        thread::sleep(Duration::from_secs(30));
        return Ok(());
    };
    ensure!(fs::exists(format!("/proc/{twin}"))?, "the twin is gone");
    println!("reused={twin}");
    let payload = Command::new("/proc/self/exe");
    let talked = talk_in_child(payload, &stream);
    nix::sys::signal::kill(twin, nix::sys::signal::Signal::SIGKILL)?;
    talked
}

fn talk_in_child(mut program: Command, stream: &TcpStream) -> Result<()> {
    fcntl(stream, FcntlArg::F_SETFD(FdFlag::empty()))?;
    // What the server does with the connection is the test's business; a silent one is cut off.
    let mut child = program.args(["talk-on", &stream.as_raw_fd().to_string()]).spawn()?;
    let until = Instant::now() + Duration::from_secs(20);
    while Instant::now() < until {
        if let Some(status) = child.try_wait()? {
            ensure!(status.success(), "{status}");
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
    child.kill()?;
    bail!("no end within 20 s")
}

/// Makes a child with this pid (clone3 with `set_tid`, Linux 5.5); `None` in the child.
fn with_pid(pid: Pid) -> Result<Option<Pid>> {
    let wanted = [pid.as_raw()];
    // SAFETY: all zeros is a valid clone_args.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.exit_signal = u64::try_from(libc::SIGCHLD)?;
    arguments.set_tid = u64::try_from(wanted.as_ptr().expose_provenance())?;
    arguments.set_tid_size = 1;
    let size = size_of::<libc::clone_args>();
    // SAFETY: `arguments` and `wanted` outlive the call; without CLONE_VM it is a fork, and this
    // program has one thread.
    let made = unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size) };
    match made {
        -1 => Err(std::io::Error::last_os_error()).context("clone3 with set_tid"),
        0 => Ok(None),
        child => Ok(Some(Pid::from_raw(i32::try_from(child)?))),
    }
}

/// Becomes the parent of a process with this pid, which is somebody else's no more.
pub(crate) fn take_pid(pid: i32) -> Result<()> {
    let Some(twin) = with_pid(Pid::from_raw(pid))? else {
        thread::sleep(Duration::from_secs(30));
        return Ok(());
    };
    println!("reused={twin}");
    finish(twin)
}

/// Does something in a child and waits for its good end.
fn in_child(act: impl FnOnce() -> Result<()>) -> Result<()> {
    // SAFETY: this program has one thread.
    match unsafe { fork() }? {
        ForkResult::Child => act(),
        ForkResult::Parent { child } => finish(child),
    }
}

fn finish(child: Pid) -> Result<()> {
    match waitpid(child, None)? {
        WaitStatus::Exited(_, 0) => Ok(()),
        other => bail!("{other:?}"),
    }
}
