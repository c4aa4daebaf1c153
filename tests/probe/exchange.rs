//! What is said over a connection once it is open, and the check that it came through intact.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use sha2::{Digest, Sha256};
use socket2::SockRef;

use crate::connect::{self, Wish};

/// What is sent and expected back.
#[derive(Debug, Clone, Args)]
pub(crate) struct Payload {
    /// The text.
    #[arg(long, default_value = "hello")]
    text: String,
    /// How many times.
    #[arg(long, default_value_t = 1)]
    times: usize,
    /// What the server says before anything is sent.
    #[arg(long, default_value = "")]
    greeting: String,
    /// One byte at a time, each in a packet of its own.
    #[arg(long)]
    tiny: bool,
    /// Milliseconds between the connect and the first byte.
    #[arg(long, default_value_t = 0)]
    wait: u64,
    /// Milliseconds to hold the connection open after the first exchange.
    #[arg(long, default_value_t = 0)]
    hold: u64,
}

/// Sends, closes its half, expects the same back and then the end.
pub(crate) fn talk(stream: &TcpStream, payload: &Payload) -> Result<()> {
    say_addresses(stream)?;
    thread::sleep(Duration::from_millis(payload.wait));
    let bytes = payload.text.repeat(payload.times).into_bytes();
    let mut reader = stream.try_clone()?;
    let mut greeting = vec![0; payload.greeting.len()];
    reader.read_exact(&mut greeting).context("read the greeting")?;
    ensure!(greeting == payload.greeting.as_bytes(), "another greeting");
    let expected = bytes.len();
    let reading = thread::spawn(move || read_to_end(&mut reader, expected));
    send(stream, &bytes, payload.tiny).context("write")?;
    if payload.hold > 0 {
        println!("sent={}", bytes.len());
        thread::sleep(Duration::from_millis(payload.hold));
    }
    stream.shutdown(Shutdown::Write).context("shutdown")?;
    let answer = reading.join().ok().context("the reader panicked")?.context("read")?;
    ensure!(answer == bytes, "{} bytes sent, {} other bytes back", bytes.len(), answer.len());
    println!("ok={}", bytes.len());
    Ok(())
}

/// Gives the first bytes with the destination.
pub(crate) fn fast_open(wish: &Wish, payload: &Payload) -> Result<()> {
    let socket = connect::prepare(wish)?;
    let bytes = payload.text.repeat(payload.times).into_bytes();
    let sent = socket
        .send_to_with_flags(&bytes, &connect::target(wish).into(), libc::MSG_FASTOPEN)
        .context("sendto with MSG_FASTOPEN")?;
    let mut stream: TcpStream = socket.into();
    say_addresses(&stream)?;
    stream.write_all(bytes.get(sent..).unwrap_or_default())?;
    stream.shutdown(Shutdown::Write)?;
    let answer = read_to_end(&mut stream, bytes.len())?;
    ensure!(answer == bytes, "{} bytes sent, {} other bytes back", bytes.len(), answer.len());
    println!("ok={}", bytes.len());
    Ok(())
}

/// All connections are open before the first byte is sent on any.
pub(crate) fn many(address: SocketAddr, count: usize, text: &str) -> Result<()> {
    let mut streams = Vec::with_capacity(count);
    for number in 0..count {
        let stream = TcpStream::connect(address).with_context(|| format!("connect {number}"))?;
        say_addresses(&stream)?;
        streams.push(stream);
    }
    println!("open={count}");
    for (number, stream) in streams.iter_mut().enumerate() {
        write!(stream, "{text} {number}").with_context(|| format!("write {number}"))?;
        stream.shutdown(Shutdown::Write)?;
    }
    for (number, stream) in streams.iter_mut().enumerate() {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).with_context(|| format!("read {number}"))?;
        ensure!(answer == format!("{text} {number}"), "connection {number} got `{answer}`");
    }
    println!("ok={count}");
    Ok(())
}

/// One exchange, then a close that discards (`SO_LINGER` of zero sends RST).
pub(crate) fn abort(address: SocketAddr, text: &str) -> Result<()> {
    let mut stream = TcpStream::connect(address).context("connect")?;
    say_addresses(&stream)?;
    stream.write_all(text.as_bytes())?;
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back)?;
    ensure!(back == text.as_bytes(), "other bytes back");
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    println!("ok={}", text.len());
    Ok(())
}

/// Sends noise that bears this mark; the server answers with its digest when the half closes.
pub(crate) fn upload(address: SocketAddr, bytes: u64, mark: &str) -> Result<()> {
    let mut stream = TcpStream::connect(address).context("connect")?;
    say_addresses(&stream)?;
    let digest = send_noise(&mut stream, bytes, mark)?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("read")?;
    ensure!(answer == digest, "sent {digest}, the server got {answer}");
    println!("sha256={digest} ok={bytes}");
    Ok(())
}

/// Reads all there is.
pub(crate) fn download(address: SocketAddr, pause: u64) -> Result<()> {
    /// How many reads the reader dawdles over.
    const SLOW_READS: usize = 50;
    let mut stream = TcpStream::connect(address).context("connect")?;
    say_addresses(&stream)?;
    let (mut hash, mut total, mut reads) = (Sha256::new(), 0_usize, 0_usize);
    let mut buffer = vec![0; 16 * 1024];
    loop {
        if reads < SLOW_READS {
            thread::sleep(Duration::from_millis(pause));
        }
        reads += 1;
        let read = stream.read(&mut buffer).context("read")?;
        if read == 0 {
            break;
        }
        hash.update(buffer.get(..read).unwrap_or_default());
        total += read;
    }
    println!("sha256={} ok={total}", hex(&hash.finalize()));
    Ok(())
}

/// Writes this many pseudo-random bytes, with the mark at the start of every 64 KiB so that it can
/// be searched for; gives their SHA-256.
pub(crate) fn send_noise(stream: &mut impl Write, bytes: u64, mark: &str) -> io::Result<String> {
    let (mut hash, mut left, mut state) = (Sha256::new(), bytes, 0x9e37_79b9_7f4a_7c15_u64);
    let mut block = vec![0_u8; 64 * 1024];
    while left > 0 {
        for chunk in block.chunks_exact_mut(8) {
            // xorshift64: cheap, and no compression could hide a fault.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            chunk.copy_from_slice(&state.to_le_bytes());
        }
        block.iter_mut().zip(mark.bytes()).for_each(|(byte, of_mark)| *byte = of_mark);
        let size = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
        let part = block.get(..size).unwrap_or_default();
        stream.write_all(part)?;
        hash.update(part);
        left -= u64::try_from(size).unwrap_or(left);
    }
    Ok(hex(&hash.finalize()))
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        // Writing to a String cannot fail.
        let _written = write!(text, "{byte:02x}").is_ok();
    }
    text
}

fn send(mut stream: &TcpStream, bytes: &[u8], tiny: bool) -> io::Result<()> {
    if !tiny {
        return stream.write_all(bytes);
    }
    stream.set_nodelay(true)?;
    bytes.chunks(1).try_for_each(|byte| stream.write_all(byte))
}

fn read_to_end(stream: &mut TcpStream, expected: usize) -> io::Result<Vec<u8>> {
    let mut answer = Vec::with_capacity(expected);
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

fn say_addresses(stream: &TcpStream) -> Result<()> {
    println!("peer={} local={}", stream.peer_addr()?, stream.local_addr()?);
    Ok(())
}
