//! Idle connections: each has carried data once, and stays.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::api::now_ns;
use crate::{MESSAGE_BYTES, kind};

/// Longer than any measurement takes; whoever forgets to kill it is not bothered for ever.
const LONGEST: Duration = Duration::from_mins(10);

/// Prints `held=` when all are open, then keeps them.
pub(crate) fn run(to: SocketAddr, connections: usize) -> Result<()> {
    let mut held = Vec::with_capacity(connections);
    for number in 0..connections {
        let socket = used(to).with_context(|| format!("connection {number}"))?;
        held.push(socket);
    }
    println!("held={}", held.len());
    thread::sleep(LONGEST);
    Ok(())
}

/// Prints `open` once a connection has carried data, and `cut=` with the moment at which it ended.
pub(crate) fn until_cut(to: SocketAddr) -> Result<()> {
    let mut socket = used(to)?;
    socket.set_read_timeout(Some(LONGEST))?;
    println!("open");
    // However it ends: a reset is what a cut looks like.
    let _ended = socket.read(&mut [0]).is_ok();
    println!("cut={}", now_ns()?);
    Ok(())
}

fn used(to: SocketAddr) -> Result<TcpStream> {
    let mut socket = TcpStream::connect(to).context("cannot connect")?;
    socket.set_nodelay(true)?;
    let mut message = [0x5a; MESSAGE_BYTES];
    socket.write_all(&[&[kind::HOLD], message.as_slice()].concat())?;
    socket.read_exact(&mut message).context("no answer")?;
    Ok(socket)
}
