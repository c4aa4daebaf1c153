//! Servers: what they accept they treat in one way, each connection in a thread of its own, and
//! they say which addresses they saw and how the connection ended.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use sha2::{Digest as _, Sha256};
use socket2::{Domain, Protocol, Socket, Type};

use crate::connect::set_tcp_option;
use crate::exchange::{hex, send_noise};

/// What a server does with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// Everything comes back.
    Echo,
    /// Reads to the end, answers with the digest.
    Digest,
    /// Sends 64 MiB of noise that bears a mark, and closes.
    Source,
    /// Speaks first, then echoes.
    Greet,
    /// Accepts and never says or reads anything.
    Mute,
}

/// How it listens, and what it sends.
#[derive(Debug, Clone, Args)]
pub(crate) struct Manner {
    /// Make the listening socket an MPTCP one.
    #[arg(long)]
    mptcp: bool,
    /// Share the port with others (`SO_REUSEPORT`).
    #[arg(long)]
    reuse_port: bool,
    /// Take data in SYNs (`TCP_FASTOPEN`).
    #[arg(long)]
    fast_open: bool,
    /// The mark of what `source` sends.
    #[arg(long, default_value = "")]
    mark: String,
}

/// Serves until it is ended.
pub(crate) fn run(what: What, address: SocketAddr, manner: &Manner) -> Result<()> {
    let protocol = if manner.mptcp { Protocol::MPTCP } else { Protocol::TCP };
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(protocol))?;
    socket.set_reuse_address(true)?;
    if manner.reuse_port {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into()).context("bind")?;
    socket.listen(1024).context("listen")?;
    if manner.fast_open {
        // Room for 16 connections that have sent data before their handshake is over.
        set_tcp_option(&socket, libc::TCP_FASTOPEN, 16)?;
    }
    let listener: TcpListener = socket.into();
    println!("listening={}", listener.local_addr()?);
    loop {
        let (stream, from) = listener.accept().context("accept")?;
        let mark = manner.mark.clone();
        let builder = thread::Builder::new().stack_size(256 * 1024);
        builder.spawn(move || {
            let peer = stream.peer_addr().map_or_else(|error| kind(&error), |it| it.to_string());
            let local = stream.local_addr().map_or_else(|error| kind(&error), |it| it.to_string());
            println!("accept={from} peer={peer} local={local}");
            match treat(what, stream, &mark) {
                Ok(bytes) => println!("bytes={bytes} end=eof"),
                Err(error) => println!("end={}", kind(&error)),
            }
        })?;
    }
}

/// Listens and stops on one address in several processes; the first of them ends last.
pub(crate) fn churn(address: SocketAddr, processes: usize, rounds: usize) -> Result<()> {
    let mut others = Vec::new();
    for _ in 1..processes {
        let words = ["churn", &address.to_string(), "--processes", "1"];
        let mut other = Command::new("/proc/self/exe");
        others.push(other.args(words).args(["--rounds", &rounds.to_string()]).spawn()?);
    }
    for _ in 0..rounds {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into()).context("bind")?;
        socket.listen(16).context("listen")?;
    }
    for mut other in others {
        ensure!(other.wait()?.success(), "another ended badly");
    }
    println!("churned={}", processes * rounds);
    Ok(())
}

fn treat(what: What, mut stream: TcpStream, mark: &str) -> io::Result<u64> {
    match what {
        What::Echo => echo(&mut stream),
        What::Greet => {
            stream.write_all(b"220 welcome\r\n")?;
            echo(&mut stream)
        }
        What::Digest => {
            let (mut hash, mut total) = (Sha256::new(), 0);
            let mut buffer = vec![0; 64 * 1024];
            loop {
                let read = stream.read(&mut buffer)?;
                if read == 0 {
                    break;
                }
                hash.update(buffer.get(..read).unwrap_or_default());
                total += u64::try_from(read).unwrap_or(0);
            }
            stream.write_all(hex(&hash.finalize()).as_bytes())?;
            Ok(total)
        }
        What::Source => {
            const SIZE: u64 = 64 << 20;
            let digest = send_noise(&mut stream, SIZE, mark)?;
            println!("sha256={digest}");
            Ok(SIZE)
        }
        What::Mute => loop {
            thread::park();
        },
    }
}

fn echo(stream: &mut TcpStream) -> io::Result<u64> {
    let mut total = 0;
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Ok(total);
        }
        stream.write_all(buffer.get(..read).unwrap_or_default())?;
        total += u64::try_from(read).unwrap_or(0);
    }
}

/// One word for an error.
fn kind(error: &io::Error) -> String {
    format!("{:?}", error.kind())
}
