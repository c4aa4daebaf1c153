//! Round trips of 64 bytes, each timed.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::{MESSAGE_BYTES, kind};

/// Untimed trips of each connection before the timed ones.
const WARM_UP: usize = 20;

/// Prints `trips=`, `seconds=`, `p50_ns=` and `p99_ns=`.
pub(crate) fn run(to: SocketAddr, connections: usize, time: Duration) -> Result<()> {
    let barrier = Arc::new(Barrier::new(connections + 1));
    let threads: Vec<_> = (0..connections)
        .map(|_| {
            let barrier = Arc::clone(&barrier);
            thread::spawn(move || {
                let warm = warm(to);
                barrier.wait();
                timed(warm?, time)
            })
        })
        .collect();
    barrier.wait();
    let start = Instant::now();
    let mut all = Vec::new();
    for thread in threads {
        all.extend(thread.join().map_err(|_| anyhow!("a connection panicked"))??);
    }
    let seconds = start.elapsed().as_secs_f64();
    all.sort_unstable();
    let (p50, p99) = (percentile(&all, 50)?, percentile(&all, 99)?);
    println!("trips={} seconds={seconds:.6} p50_ns={p50} p99_ns={p99}", all.len());
    Ok(())
}

/// Sends a text and expects it back.
pub(crate) fn say(to: SocketAddr, text: &str) -> Result<()> {
    let mut socket = TcpStream::connect(to).context("cannot connect")?;
    socket.write_all(&[&[kind::ECHO], text.as_bytes()].concat())?;
    let mut back = vec![0; text.len()];
    socket.read_exact(&mut back).context("no answer")?;
    ensure!(back == text.as_bytes(), "said `{text}`, heard {back:?}");
    println!("heard={}", back.len());
    Ok(())
}

/// The value that this share of a sorted list, in hundredths, does not exceed.
pub(crate) fn percentile(sorted: &[u64], hundredths: usize) -> Result<u64> {
    let at = (sorted.len() * hundredths / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().context("nothing was measured")
}

fn warm(to: SocketAddr) -> Result<TcpStream> {
    let mut socket = TcpStream::connect(to).context("cannot connect")?;
    socket.set_nodelay(true)?;
    socket.write_all(&[kind::ECHO])?;
    for _ in 0..WARM_UP {
        trip(&mut socket)?;
    }
    Ok(socket)
}

fn timed(mut socket: TcpStream, time: Duration) -> Result<Vec<u64>> {
    let mut times = Vec::with_capacity(1 << 16);
    let until = Instant::now() + time;
    loop {
        let start = Instant::now();
        if start >= until {
            return Ok(times);
        }
        trip(&mut socket)?;
        times.push(u64::try_from(start.elapsed().as_nanos())?);
    }
}

fn trip(socket: &mut TcpStream) -> Result<()> {
    let mut message = [0x5a; MESSAGE_BYTES];
    socket.write_all(&message)?;
    Ok(socket.read_exact(&mut message)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_percentiles() {
        let values: Vec<u64> = (0..100).collect();
        assert_eq!(percentile(&values, 50).unwrap(), 50);
        assert_eq!(percentile(&values, 99).unwrap(), 99);
        assert_eq!(percentile(&[7], 99).unwrap(), 7);
        assert!(percentile(&[], 50).is_err());
    }
}
