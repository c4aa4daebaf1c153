//! One dump over netlink: one request, all answers. Blocking, which for dumps means: as long as the
//! kernel writes. Answers that the `netlink-packet` crates cannot read are left out: what else the
//! kernel lists is still true.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// More than the kernel ever puts into one datagram of a dump (32 KiB).
const BUFFER_BYTES: usize = 64 << 10;
/// How often a dump is begun anew because the table changed under it. Chosen.
const ATTEMPTS: usize = 5;

/// Sends a dump request and gives the answers.
///
/// # Errors
/// What the kernel answered (`NotFound` where it lacks the protocol asked about), or `Interrupted`
/// if the table never kept still.
pub(super) fn dump<A: NetlinkDeserializable>(
    protocol: SockProtocol,
    request: impl NetlinkSerializable,
) -> io::Result<Vec<A>> {
    // Sequence number and port stay 0: one request per socket, so they carry nothing.
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    for _attempt in 0..ATTEMPTS {
        if let Some(answers) = dump_once(protocol, &bytes)? {
            return Ok(answers);
        }
    }
    Err(io::ErrorKind::Interrupted.into())
}

/// Sends a request that changes something, and waits until the kernel has done it.
///
/// # Errors
/// What the kernel answered.
pub(super) fn change(protocol: SockProtocol, request: impl NetlinkSerializable) -> io::Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_ACK;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(5))?;
    send(socket.as_raw_fd(), &bytes, MsgFlags::empty())?;
    let len = recv(socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_TRUNC)?;
    let answer = bytes.get(..len.min(bytes.len())).unwrap_or_default();
    // An acknowledgement is an error of number 0, in the first word behind the header.
    let number = answer.get(16..20).and_then(|word| word.try_into().ok()).map(i32::from_ne_bytes);
    match number {
        Some(0) => Ok(()),
        Some(number) => Err(io::Error::from_raw_os_error(number.saturating_neg())),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// `None` if the table changed meanwhile.
fn dump_once<A: NetlinkDeserializable>(
    protocol: SockProtocol,
    request: &[u8],
) -> io::Result<Option<Vec<A>>> {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(5))?;
    send(socket.as_raw_fd(), request, MsgFlags::empty())?;
    collect(&socket)
}

fn collect<A: NetlinkDeserializable>(socket: &OwnedFd) -> io::Result<Option<Vec<A>>> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut answers = Vec::new();
    loop {
        let len = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = buffer.get(..len).unwrap_or_default();
        if rest.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while let Some((message, behind)) = split(rest) {
            rest = behind;
            if NetlinkBuffer::new(message).flags() & NLM_F_DUMP_INTR != 0 {
                return Ok(None);
            }
            let Ok(message) = NetlinkMessage::deserialize(message) else {
                continue;
            };
            match message.payload {
                NetlinkPayload::Done(done) if done.code == 0 => return Ok(Some(answers)),
                NetlinkPayload::Done(done) => {
                    return Err(io::Error::from_raw_os_error(done.code.saturating_neg()));
                }
                NetlinkPayload::Error(error) if error.code.is_some() => {
                    return Err(error.to_io());
                }
                NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                _ => {}
            }
        }
    }
}

/// The first message of a datagram, and what is behind it.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = NetlinkBuffer::new_checked(bytes).ok()?.length();
    let len = usize::try_from(len).ok()?;
    let behind = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    Some((bytes.get(..len)?, behind))
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::RouteNetlinkMessage;
    use netlink_packet_sock_diag::SockDiagMessage;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn never_panics_and_always_ends(bytes: Vec<u8>) {
            let mut rest = bytes.as_slice();
            while let Some((message, behind)) = split(rest) {
                prop_assert!(behind.len() < rest.len());
                let _route = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message);
                let _socket = NetlinkMessage::<SockDiagMessage>::deserialize(message);
                rest = behind;
            }
        }
    }
}
