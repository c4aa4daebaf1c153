//! Passing descriptors from one process to another over a Unix socket (`SCM_RIGHTS`, `unix(7)`),
//! and who is at its other end.
#![expect(unsafe_code, reason = "received descriptors are taken over")]

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, getsockopt, recvmsg, sendmsg,
};
use nix::unistd::geteuid;

/// Descriptors that one message may carry; the kernel's own bound is 253.
pub const MOST: usize = 16;

/// Sends these descriptors with one byte.
pub fn send(over: &impl AsFd, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    let over = over.as_fd().as_raw_fd();
    let sent = sendmsg::<()>(over, &[IoSlice::new(&[0])], control, MsgFlags::MSG_NOSIGNAL, None)?;
    if sent == 1 { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Receives what [`send`] sent, in the same order; closed on exec.
pub fn receive(over: &impl AsFd) -> io::Result<Vec<OwnedFd>> {
    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let mut room = nix::cmsg_space!([RawFd; MOST]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(over.as_fd().as_raw_fd(), &mut parts, Some(&mut room), flags)?;
    let mut received = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = part {
            for fd in descriptors {
                // SAFETY: the kernel has just made this descriptor in this process.
                received.push(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
    }
    if message.bytes != 1 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(received)
}

/// Pid of the process at the other end, when it connected or began to listen.
///
/// # Errors
/// `PermissionDenied` if it is neither root's nor of this process's own user.
pub fn trusted_peer(of: &impl AsFd) -> io::Result<u32> {
    let credentials = getsockopt(&of.as_fd(), PeerCredentials)?;
    if credentials.uid() != 0 && credentials.uid() != geteuid().as_raw() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    u32::try_from(credentials.pid()).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_is_passed_is_the_same_socket() {
        let (one, other) = UnixStream::pair().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        send(&one, &[listener.as_fd(), one.as_fd()]).unwrap();
        let received = receive(&other).unwrap();
        assert_eq!(received.len(), 2);
        let passed = TcpListener::from(received.into_iter().next().unwrap());
        assert_eq!(passed.local_addr().unwrap(), listener.local_addr().unwrap());
        send(&one, &[]).unwrap();
        assert!(receive(&other).unwrap().is_empty());
        drop(one);
        assert!(receive(&other).is_err());
    }

    #[test]
    fn the_peer_is_known() {
        let (one, _other) = UnixStream::pair().unwrap();
        assert_eq!(trusted_peer(&one).unwrap(), std::process::id());
    }
}
