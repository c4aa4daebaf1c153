//! The load of the benchmarks: a server and clients that measure what an application sees. It
//! knows nothing of Tacit or of the peers, and every loop of it has an end.
//!
//! Blocking sockets and one thread per connection: nothing lies between the sockets and the
//! measurement that would flatter a relay by slowing plain TCP down. Start at `serve.rs`.
#![expect(clippy::print_stdout, reason = "what it measured is its result")]

mod api;
mod bulk;
mod dial;
mod hold;
mod serve;
mod trips;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve all of the below.
    Serve {
        /// Address to listen on.
        address: SocketAddr,
    },
    /// Carry as many bytes as possible.
    Bulk {
        /// Where to.
        to: SocketAddr,
        /// Which way.
        way: bulk::Way,
        /// Connections at a time.
        #[arg(long, default_value_t = 1)]
        streams: usize,
        /// For how long.
        #[arg(long)]
        milliseconds: u32,
    },
    /// Send 64 bytes, wait for them, and again.
    Trips {
        /// Where to.
        to: SocketAddr,
        /// Connections at a time.
        #[arg(long, default_value_t = 1)]
        connections: usize,
        /// For how long.
        #[arg(long)]
        milliseconds: u32,
    },
    /// Open connections one after the other, each carrying one byte there and back.
    New {
        /// Where to.
        to: SocketAddr,
        /// How many at a time.
        #[arg(long, default_value_t = 1)]
        at_once: usize,
        /// For how long.
        #[arg(long)]
        milliseconds: u32,
    },
    /// Time `connect()` alone.
    Dial {
        /// Where to.
        to: SocketAddr,
        /// How often.
        #[arg(long)]
        count: u32,
    },
    /// Open connections, use each once, and keep them open until killed.
    Hold {
        /// Where to.
        to: SocketAddr,
        /// How many.
        #[arg(long)]
        connections: usize,
    },
    /// Open a connection, use it once, and say when it ends.
    UntilCut {
        /// Where to.
        to: SocketAddr,
    },
    /// Call a method of a Workload API again and again.
    Call {
        /// The socket.
        socket: PathBuf,
        /// What is called.
        method: api::Method,
        /// How often.
        #[arg(long)]
        count: usize,
    },
    /// Follow an SVID by many streams of a Workload API, and say when changes come.
    Watch {
        /// The socket.
        socket: PathBuf,
        /// How many.
        #[arg(long)]
        streams: usize,
    },
    /// Send a text and expect it back.
    Say {
        /// Where to.
        to: SocketAddr,
        /// What.
        text: String,
    },
}

/// What a client asks of the server, by the first byte of a connection.
mod kind {
    /// Send everything back until the client has finished.
    pub(crate) const ECHO: u8 = b'e';
    /// Count chunks until one that begins with [`LAST`], and say how many bytes they were.
    pub(crate) const SINK: u8 = b's';
    /// Begins the last chunk.
    pub(crate) const LAST: u8 = b'l';
    /// Send for as many milliseconds as the next four bytes say.
    pub(crate) const SOURCE: u8 = b'g';
    /// Send one byte back and close.
    pub(crate) const ONCE: u8 = b'o';
    /// Send 64 bytes back and keep the connection.
    pub(crate) const HOLD: u8 = b'h';
}

/// Bytes of a message of the round trips.
const MESSAGE_BYTES: usize = 64;
/// Bytes that are read or written at once in bulk.
const CHUNK_BYTES: usize = 128 << 10;

fn main() -> ExitCode {
    match run(Arguments::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("FAIL: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<()> {
    let time = |milliseconds: u32| Duration::from_millis(milliseconds.into());
    match verb {
        Verb::Serve { address } => serve::run(address),
        Verb::Bulk { to, way, streams, milliseconds } => bulk::run(to, way, streams, milliseconds),
        Verb::Trips { to, connections, milliseconds } => {
            trips::run(to, connections, time(milliseconds))
        }
        Verb::New { to, at_once, milliseconds } => dial::new(to, at_once, time(milliseconds)),
        Verb::Dial { to, count } => dial::time(to, count),
        Verb::Hold { to, connections } => hold::run(to, connections),
        Verb::UntilCut { to } => hold::until_cut(to),
        Verb::Call { socket, method, count } => api::call(&socket, method, count),
        Verb::Watch { socket, streams } => api::watch(&socket, streams),
        Verb::Say { to, text } => trips::say(to, &text),
    }
}
