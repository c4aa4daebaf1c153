//! A program that knows nothing of Tacit: it serves and connects in every way that TCP offers,
//! checks what it got, and says what it saw (`accept=`, `peer=`, `local=`, `end=`).
//!
//! Tests drive it where a stock program cannot be made to do the thing in question.
#![expect(clippy::print_stdout, reason = "what it saw is its result")]

mod connect;
mod exchange;
mod hand_over;
mod load;
mod serve;

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Listen and treat every connection in one way.
    Serve {
        /// What is done with a connection.
        what: serve::What,
        /// Address to listen on; `[::]` takes both families.
        address: SocketAddr,
        #[command(flatten)]
        manner: serve::Manner,
    },
    /// Connect, send, and expect the same back.
    Talk {
        /// Where to.
        address: SocketAddr,
        /// How to connect.
        #[arg(long, value_enum, default_value = "plain")]
        how: connect::How,
        /// Source address to bind to.
        #[arg(long)]
        source: Option<SocketAddr>,
        /// Interface to bind to.
        #[arg(long)]
        device: Option<String>,
        /// Milliseconds to wait before anything is done.
        #[arg(long, default_value_t = 0)]
        delay: u64,
        #[command(flatten)]
        payload: exchange::Payload,
    },
    /// As `talk`, on a connected socket that was inherited under this number.
    TalkOn {
        /// The file descriptor.
        fd: i32,
        #[command(flatten)]
        payload: exchange::Payload,
    },
    /// Open many connections, then talk on each at once.
    Many {
        /// Where to.
        address: SocketAddr,
        /// How many.
        count: usize,
        /// What is said on each, before its number.
        #[arg(long, default_value = "connection")]
        text: String,
    },
    /// Talk, then leave without a goodbye (RST).
    Abort {
        /// Where to.
        address: SocketAddr,
        /// What is said before.
        #[arg(long, default_value = "hello")]
        text: String,
    },
    /// Send a number of bytes and expect their digest back.
    Upload {
        /// Where to.
        address: SocketAddr,
        /// How many.
        bytes: u64,
        /// A mark in them.
        #[arg(long, default_value = "")]
        mark: String,
    },
    /// Read to the end, slowly at first if asked, and print the digest.
    Download {
        /// Where from.
        address: SocketAddr,
        /// Milliseconds to sleep before each of the first reads.
        #[arg(long, default_value_t = 0)]
        pause: u64,
    },
    /// Connect, then let another process have the connection.
    HandOver {
        /// How it gets there.
        way: hand_over::Way,
        /// Where to.
        address: SocketAddr,
        /// User that the opener becomes before it connects, where it is another process.
        #[arg(long)]
        opener_uid: Option<u32>,
    },
    /// Make a process with the pid of one that has gone; it sleeps.
    TakePid {
        /// Which.
        pid: i32,
    },
    /// Listen and stop listening on one address, again and again, in several processes at once.
    Churn {
        /// Where; shared by `SO_REUSEPORT`.
        address: SocketAddr,
        /// How many processes.
        #[arg(long, default_value_t = 4)]
        processes: usize,
        /// How often each.
        #[arg(long, default_value_t = 2000)]
        rounds: usize,
    },
    /// Talk again and again until SIGTERM, and count how it ended.
    Load {
        /// Where to.
        address: SocketAddr,
        #[command(flatten)]
        manner: load::Manner,
    },
    /// Send a UDP datagram.
    Datagram {
        /// Where to.
        address: SocketAddr,
        /// What.
        text: String,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error={}", format!("{error:#}").replace(' ', "_"));
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::Serve { what, address, manner } => serve::run(what, address, &manner),
        Verb::Talk { address, how, source, device, delay, payload } => {
            std::thread::sleep(std::time::Duration::from_millis(delay));
            let wish = connect::Wish { address, how, source, device };
            if how == connect::How::FastOpen {
                return exchange::fast_open(&wish, &payload);
            }
            exchange::talk(&connect::open(&wish)?, &payload)
        }
        Verb::TalkOn { fd, payload } => exchange::talk(&hand_over::inherited(fd), &payload),
        Verb::Many { address, count, text } => exchange::many(address, count, &text),
        Verb::Abort { address, text } => exchange::abort(address, &text),
        Verb::Upload { address, bytes, mark } => exchange::upload(address, bytes, &mark),
        Verb::Download { address, pause } => exchange::download(address, pause),
        Verb::HandOver { way, address, opener_uid } => hand_over::run(way, address, opener_uid),
        Verb::TakePid { pid } => hand_over::take_pid(pid),
        Verb::Churn { address, processes, rounds } => serve::churn(address, processes, rounds),
        Verb::Load { address, manner } => load::run(address, &manner),
        Verb::Datagram { address, text } => {
            let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let sent = std::net::UdpSocket::bind(any)?.send_to(text.as_bytes(), address)?;
            println!("sent={sent}");
            Ok(())
        }
    }
}
