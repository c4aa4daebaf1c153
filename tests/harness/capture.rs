//! What the wire between the nodes carried: every packet, searched for bytes that must not be there.
//! A search that finds nothing proves something only beside a control run in which it finds them.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use memchr::memmem;
use nix::sys::signal::Signal;

use crate::process::{end, start, text};
use crate::segments;
use crate::wait::{eventually, soon};

/// A running capture of a node's end of the veth.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Child,
    pcap: PathBuf,
    load: Load,
}

/// How much is to be captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// Packets now and then, each in the file at once.
    Light,
    /// Megabytes at a time, which come to the file in blocks.
    Bulk,
}

impl Load {
    /// tcpdump's options. In immediate mode each packet takes as much of the buffer as the largest
    /// would (pcap-linux.c: `TPACKET_V2`), so that a burst overflows it.
    fn options(self) -> &'static [&'static str] {
        match self {
            Self::Light => &["-B", "32768", "--immediate-mode"],
            Self::Bulk => &["-B", "131072"],
        }
    }

    /// A block comes within a second (tcpdump.c: the timeout it gives to pcap).
    fn calm(self) -> Duration {
        match self {
            Self::Light => Duration::from_millis(80),
            Self::Bulk => Duration::from_millis(1500),
        }
    }
}

/// The packets of a finished capture.
#[derive(Debug)]
pub struct Packets {
    file: Vec<u8>,
    /// What TCP carried, joined.
    streams: Vec<Vec<u8>>,
}

impl Capture {
    /// Starts capturing in a network namespace; returns when it does.
    pub(crate) fn start(netns: &str, pcap: PathBuf, load: Load) -> Result<Self> {
        let log = pcap.with_extension("log");
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{netns}"));
        command.args(["tcpdump", "-i", "veth0", "-s", "0"]).args(load.options());
        command.args(["-U", "-Z", "root", "-w"]).arg(&pcap);
        let tcpdump = start(&mut command, &log)?;
        let capture = Self { tcpdump, pcap, load };
        eventually("tcpdump to listen", || {
            fs::read(&log).ok().filter(|said| text(said).contains("listening on"))
        })?;
        Ok(capture)
    }

    /// Ends the capture and gives what it saw.
    ///
    /// # Errors
    /// When the file cannot be read, or the kernel dropped packets that it should have seen.
    pub fn stop(mut self) -> Result<Packets> {
        // What has just crossed the wire is still on its way into the file.
        let mut size = 0;
        let calm = soon(Duration::from_secs(8), "a calm wire", || {
            let before = size;
            std::thread::sleep(self.load.calm());
            size = fs::metadata(&self.pcap).map_or(0, |file| file.len());
            (size == before && size > 0).then_some(())
        });
        // A wire that never calms is cut off where it is: what was seen so far is judged.
        let _calm = calm.is_ok();
        end(&mut self.tcpdump, Signal::SIGINT, Duration::from_secs(5));
        let said = text(&fs::read(self.pcap.with_extension("log"))?);
        ensure!(said.contains("\n0 packets dropped by kernel"), "the capture has holes:\n{said}");
        fs::read(&self.pcap).map(Packets::new).context("cannot read the capture")
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        end(&mut self.tcpdump, Signal::SIGKILL, Duration::from_secs(1));
    }
}

impl Packets {
    fn new(file: Vec<u8>) -> Self {
        Self { streams: segments::joined(&file), file }
    }

    /// Whether these bytes stand in any packet, or in what TCP carried from one to the next.
    pub fn contain(&self, needle: &[u8]) -> bool {
        let holds = |bytes: &Vec<u8>| memmem::find(bytes, needle).is_some();
        !needle.is_empty() && (holds(&self.file) || self.streams.iter().any(holds))
    }

    /// How often these bytes stand in what was captured, packet by packet.
    pub fn count(&self, needle: &[u8]) -> usize {
        if needle.is_empty() { 0 } else { memmem::find_iter(&self.file, needle).count() }
    }

    /// Whether a TLS handshake crossed the wire: a record of type 22, legacy version 3.1
    /// (RFC 8446 section 5.1), that holds a `ClientHello`.
    pub fn hold_tls(&self) -> bool {
        self.file.windows(6).any(|bytes| matches!(bytes, [0x16, 3, 1, _, _, 1]))
    }

    /// Up to this many bytes from where the first TLS handshake begins.
    pub fn first_tls(&self, length: usize) -> Option<Vec<u8>> {
        let at = self.file.windows(6).position(is_hello)?;
        self.file.get(at..).map(|bytes| bytes.iter().take(length).copied().collect())
    }

    /// How many bytes were captured, headers included.
    pub fn len(&self) -> usize {
        self.file.len()
    }

    /// Whether nothing crossed the wire: the file holds its header of 24 bytes alone.
    pub fn is_empty(&self) -> bool {
        self.file.len() <= 24
    }
}

fn is_hello(bytes: &[u8]) -> bool {
    matches!(bytes, [0x16, 3, 1, _, _, 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_bytes() {
        let packets = Packets::new(b"abc\x16\x03\x01\x02\x00\x01secret".to_vec());
        assert!(packets.contain(b"secret") && packets.hold_tls());
        assert!(!packets.contain(b"Secret") && !packets.contain(b""));
        assert!(Packets::new(vec![0; 24]).is_empty());
    }
}
