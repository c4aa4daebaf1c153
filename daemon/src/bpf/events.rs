//! What the programs tell: denials and observed connections unasked, counters when asked.
#![expect(unsafe_code, reason = "reads a ring record as the type that the programs wrote")]

use std::net::SocketAddr;
use std::{fmt, io};

use aya::maps::{MapData, PerCpuArray, RingBuf};
use ebpf_abi::{Counter, Event, flags, kind};
use tokio::io::unix::AsyncFd;

use crate::workload::{ClaimSource, ProcessClaim, ScopeId};

use super::{Kernel, LoadError, convert};

/// Why a program denied something by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Somebody dialled the proxy's own port.
    ProxyDialled,
    /// The socket is in a namespace that the daemon does not serve.
    ForeignNetns,
    /// No daemon was alive.
    DaemonAbsent,
    /// No room for the record.
    MapFull,
    /// A packet of a strict scope would have left without the daemon.
    Backstop,
    /// A connection to a strict listener that is not the daemon's own dial.
    StrictListener,
    /// A transport other than TCP that the scope does not allow.
    Transport,
    /// A strict socket used by a process outside its scope.
    ForeignSocket,
    /// An IPv6 link-local destination.
    LinkLocal,
    /// The socket is bound to a device that does not lead to the destination.
    BoundDevice,
    /// Credentials that are not the process's own.
    BorrowedCredentials,
}

/// A program denied something by itself.
#[derive(Debug, Clone)]
pub struct Denied {
    /// Who, if it is known.
    pub claim: Option<ProcessClaim>,
    /// Why.
    pub cause: Cause,
    /// The scope that decided.
    pub scope: ScopeId,
    /// Local end; unspecified before a connection has one.
    pub local: SocketAddr,
    /// Remote end.
    pub remote: SocketAddr,
    /// Whether it was the local process that wanted to connect or send.
    pub outbound: bool,
    /// IP protocol number.
    pub protocol: u8,
    /// The ends are those of a TCP socket of this host.
    pub of_tcp_socket: bool,
    /// When, nanoseconds since boot.
    pub at_ns: u64,
}

/// An observed connection, established or closed.
#[derive(Debug, Clone)]
pub struct Observed {
    /// Who opened or accepted it.
    pub claim: ProcessClaim,
    /// Its scope; 0 for none.
    pub scope: ScopeId,
    /// Local end.
    pub local: SocketAddr,
    /// Remote end.
    pub remote: SocketAddr,
    /// Whether the local process connected.
    pub outbound: bool,
    /// Whether it was established at all.
    pub established: bool,
    /// When it began, nanoseconds since boot.
    pub opened_ns: u64,
    /// When this was told, nanoseconds since boot.
    pub at_ns: u64,
    /// Bytes that the peer acknowledged, known at the close.
    pub bytes_sent: u64,
    /// Bytes received, known at the close.
    pub bytes_received: u64,
}

/// What the programs tell.
#[derive(Debug, Clone)]
pub enum KernelEvent {
    /// A denial.
    Denied(Denied),
    /// An observed connection is established.
    Established(Observed),
    /// An observed connection has closed, or was never established.
    Closed(Observed),
    /// Who is about to open one.
    Opening(ProcessClaim),
}

/// The stream of events; one reader.
pub struct EventStream(AsyncFd<RingBuf<MapData>>);

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").finish_non_exhaustive()
    }
}

impl EventStream {
    /// Opens the ring. What one reader has read, the next does not see; two at a time would each
    /// see a part.
    pub fn open(kernel: &Kernel) -> Result<Self, LoadError> {
        let ring: RingBuf<MapData> = kernel.pinned("EVENTS")?;
        // SAFETY: the ring owns its descriptor as long as it lives, and it lives in the AsyncFd.
        let fd = unsafe { AsyncFd::register(ring) };
        fd.map(Self)
            .map_err(|source| LoadError::Pin { path: "EVENTS".into(), source: source.into() })
    }

    /// The next event; one that cannot be read is skipped.
    ///
    /// # Cancel safety
    /// Cancel safe: an event is taken from the ring only when it is returned.
    pub async fn next(&mut self) -> io::Result<KernelEvent> {
        loop {
            let mut ready = self.0.readable_mut().await?;
            while let Some(item) = ready.get_inner_mut().next() {
                if let Some(event) = read(&item).as_ref().and_then(translate) {
                    return Ok(event);
                }
            }
            ready.clear_ready();
        }
    }
}

impl EventStream {
    /// The next event that is there already.
    pub fn waiting(&mut self) -> Option<KernelEvent> {
        let ring = self.0.get_mut();
        while let Some(item) = ring.next() {
            if let Some(event) = read(&item).as_ref().and_then(translate) {
                return Some(event);
            }
        }
        None
    }
}

fn read(bytes: &[u8]) -> Option<Event> {
    if bytes.len() < size_of::<Event>() {
        return None;
    }
    // SAFETY: long enough, and any bytes are a valid Event: integers and arrays only.
    Some(unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) })
}

fn translate(event: &Event) -> Option<KernelEvent> {
    let claim = convert::to_claim(&event.process, ClaimSource::Kernel);
    let local = convert::from_addr(event.local, event.local_port);
    let remote = convert::from_addr(event.remote, event.remote_port);
    let scope = ScopeId(event.scope);
    match event.kind {
        kind::DENIED => {
            let (cause, outbound) = cause(event.reason)?;
            Some(KernelEvent::Denied(Denied {
                claim: (event.process.seen_ns != 0).then_some(claim),
                cause,
                scope,
                local,
                remote,
                // A denied connect() has no local port yet.
                outbound: outbound.unwrap_or(event.local_port == 0),
                protocol: u8::try_from(event.protocol).unwrap_or(u8::MAX),
                of_tcp_socket: event.flags & flags::OF_TCP_SOCKET != 0,
                at_ns: event.time_ns,
            }))
        }
        kind::OPENING => Some(KernelEvent::Opening(claim)),
        kind::ESTABLISHED => Some(KernelEvent::Established(observed(event, claim))),
        kind::OBSERVED => Some(KernelEvent::Closed(observed(event, claim))),
        _ => None,
    }
}

fn observed(event: &Event, claim: ProcessClaim) -> Observed {
    Observed {
        claim,
        scope: ScopeId(event.scope),
        local: convert::from_addr(event.local, event.local_port),
        remote: convert::from_addr(event.remote, event.remote_port),
        outbound: event.flags & flags::INBOUND == 0,
        established: event.flags & flags::ESTABLISHED != 0,
        opened_ns: event.opened_ns,
        at_ns: event.time_ns,
        bytes_sent: event.bytes_sent,
        bytes_received: event.bytes_received,
    }
}

/// The cause behind a counter, and whether it is always an outbound or inbound matter.
fn cause(counter: u32) -> Option<(Cause, Option<bool>)> {
    use Counter as C;
    let (found, _) = C::ALL.iter().find(|(known, _)| known.index() == counter)?;
    Some(match found {
        C::ProxyDialled => (Cause::ProxyDialled, None),
        C::ForeignNetns => (Cause::ForeignNetns, Some(true)),
        C::DaemonAbsent => (Cause::DaemonAbsent, None),
        C::MapFull => (Cause::MapFull, None),
        C::Backstop => (Cause::Backstop, Some(true)),
        C::StrictListener => (Cause::StrictListener, Some(false)),
        C::Transport => (Cause::Transport, Some(true)),
        C::ForeignSocket => (Cause::ForeignSocket, Some(true)),
        C::LinkLocal => (Cause::LinkLocal, None),
        C::BoundDevice => (Cause::BoundDevice, None),
        C::BorrowedCredentials => (Cause::BorrowedCredentials, Some(true)),
        C::Redirected | C::Steered | C::Observed | C::EventsLost | C::FailedOpen => return None,
    })
}

/// The counters, summed over CPUs.
pub struct KernelCounters(PerCpuArray<MapData, u64>);

impl fmt::Debug for KernelCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.read()).finish()
    }
}

impl KernelCounters {
    /// Takes the counters over; can be done once.
    pub fn take(kernel: &Kernel) -> Result<Self, LoadError> {
        kernel.take_map("COUNTERS").map(Self)
    }

    /// Events that found no room in the ring, since the programs were first loaded.
    pub fn events_lost(&self) -> u64 {
        self.sum(Counter::EventsLost)
    }

    /// Every counter by its label.
    pub fn read(&self) -> Vec<(&'static str, u64)> {
        Counter::ALL.iter().map(|(counter, label)| (*label, self.sum(*counter))).collect()
    }

    fn sum(&self, counter: Counter) -> u64 {
        self.0.get(&counter.index(), 0).map_or(0, |values| values.iter().sum())
    }
}
