//! As many bytes as possible one way. Only what has arrived counts. Nobody half-closes: not every
//! relay carries that on.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use clap::ValueEnum;

use crate::{CHUNK_BYTES, kind};

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Way {
    /// From client to server.
    Up,
    /// From server to client.
    Down,
}

/// Prints `bytes=` and `seconds=`, from the common start to the end of the last stream.
pub(crate) fn run(to: SocketAddr, way: Way, streams: usize, milliseconds: u32) -> Result<()> {
    let barrier = Arc::new(Barrier::new(streams + 1));
    let threads: Vec<_> = (0..streams)
        .map(|_| {
            let barrier = Arc::clone(&barrier);
            thread::spawn(move || {
                let connected = TcpStream::connect(to);
                barrier.wait();
                let socket = connected.context("cannot connect")?;
                match way {
                    Way::Up => up(socket, milliseconds),
                    Way::Down => down(socket, milliseconds),
                }
            })
        })
        .collect();
    barrier.wait();
    let start = Instant::now();
    let mut bytes = 0;
    for thread in threads {
        bytes += thread.join().map_err(|_| anyhow!("a stream panicked"))??;
    }
    println!("bytes={bytes} seconds={:.6}", start.elapsed().as_secs_f64());
    Ok(())
}

fn up(mut socket: TcpStream, milliseconds: u32) -> Result<u64> {
    let until = Instant::now() + Duration::from_millis(milliseconds.into());
    socket.write_all(&[kind::SINK])?;
    let mut chunk = vec![0x5a; CHUNK_BYTES];
    while Instant::now() < until {
        socket.write_all(&chunk)?;
    }
    if let Some(first) = chunk.first_mut() {
        *first = kind::LAST;
    }
    socket.write_all(&chunk)?;
    let mut total = [0; 8];
    socket.read_exact(&mut total).context("the server did not say how much arrived")?;
    Ok(u64::from_be_bytes(total))
}

fn down(mut socket: TcpStream, milliseconds: u32) -> Result<u64> {
    let [a, b, c, d] = milliseconds.to_be_bytes();
    socket.write_all(&[kind::SOURCE, a, b, c, d])?;
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut total = 0;
    loop {
        match socket.read(&mut buffer)? {
            0 => return Ok(total),
            count => total += u64::try_from(count)?,
        }
    }
}
