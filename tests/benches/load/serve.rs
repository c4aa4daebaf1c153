//! The server: a fixed number of threads that accept and serve one connection each.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::{CHUNK_BYTES, MESSAGE_BYTES, kind};

/// Connections that are served at a time; those that are held do not count.
const THREADS: usize = 32;

/// How often connections that are held are looked at for their end.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Connections that have been used once and stay open until the client closes them.
type Held = Arc<Mutex<Vec<TcpStream>>>;

/// Serves until it is killed.
pub(crate) fn run(address: SocketAddr) -> Result<()> {
    let listener = Arc::new(TcpListener::bind(address).context("cannot listen")?);
    let held = Held::default();
    let kept = Arc::clone(&held);
    let _let_go = thread::spawn(move || let_go(&kept));
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (listener, held) = (Arc::clone(&listener), Arc::clone(&held));
            thread::spawn(move || accept(&listener, &held))
        })
        .collect();
    for thread in threads {
        // A thread ends only when nothing can be accepted any more.
        let _ended = thread.join().is_ok();
    }
    Ok(())
}

fn accept(listener: &TcpListener, held: &Held) {
    while let Ok((socket, _)) = listener.accept() {
        // A client that goes away has been measured, or says itself that it failed.
        let _served = serve(socket, held).is_ok();
    }
}

fn serve(mut socket: TcpStream, held: &Held) -> Result<()> {
    socket.set_nodelay(true)?;
    let mut first = [0];
    socket.read_exact(&mut first)?;
    match first {
        [kind::ECHO] => echo(&mut socket),
        [kind::SINK] => sink(&mut socket),
        [kind::SOURCE] => source(&mut socket),
        [kind::ONCE] => {
            socket.read_exact(&mut first)?;
            Ok(socket.write_all(&first)?)
        }
        [kind::HOLD] => {
            let mut message = [0; MESSAGE_BYTES];
            socket.read_exact(&mut message)?;
            socket.write_all(&message)?;
            socket.set_nonblocking(true)?;
            held.lock().unwrap_or_else(PoisonError::into_inner).push(socket);
            Ok(())
        }
        _ => Ok(()),
    }
}

fn let_go(held: &Held) {
    loop {
        thread::sleep(LOOK_EVERY);
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        let open = |socket: &TcpStream| match socket.peek(&mut [0]) {
            Ok(count) => count > 0,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        };
        held.retain(open);
    }
}

fn echo(socket: &mut TcpStream) -> Result<()> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        match socket.read(&mut buffer)? {
            0 => return Ok(()),
            count => socket.write_all(buffer.get(..count).unwrap_or_default())?,
        }
    }
}

fn sink(socket: &mut TcpStream) -> Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut total = 0_u64;
    while chunk.first() != Some(&kind::LAST) {
        socket.read_exact(&mut chunk)?;
        total += u64::try_from(chunk.len())?;
    }
    Ok(socket.write_all(&total.to_be_bytes())?)
}

fn source(socket: &mut TcpStream) -> Result<()> {
    let mut milliseconds = [0; 4];
    socket.read_exact(&mut milliseconds)?;
    let until = Instant::now() + Duration::from_millis(u32::from_be_bytes(milliseconds).into());
    let buffer = vec![0x5a; CHUNK_BYTES];
    while Instant::now() < until {
        socket.write_all(&buffer)?;
    }
    Ok(())
}
