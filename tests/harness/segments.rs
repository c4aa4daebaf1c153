//! What TCP carried in a capture: the payload of each direction of each connection, joined. A search
//! of the packets alone misses what is cut in two by their borders.
//!
//! Sources: pcap-savefile(5), RFC 791, RFC 8200, RFC 9293. What it does not understand it leaves out:
//! the packets themselves are searched, too.

use std::collections::BTreeMap;

/// The file's header, and that of each packet.
const FILE_HEADER: usize = 24;
const PACKET_HEADER: usize = 16;
const ETHERNET_HEADER: usize = 14;
const TCP: u8 = 6;

/// Source and destination, addresses and ports.
type Direction = (Vec<u8>, Vec<u8>);

/// The joined payloads of a capture in the byte order of this machine, in the order of the packets.
pub(crate) fn joined(pcap: &[u8]) -> Vec<Vec<u8>> {
    let mut streams: BTreeMap<Direction, Vec<u8>> = BTreeMap::new();
    let mut rest = pcap.get(FILE_HEADER..).unwrap_or_default();
    while let Some((frame, more)) = next_frame(rest) {
        if let Some((direction, payload)) = segment(frame) {
            streams.entry(direction).or_default().extend_from_slice(payload);
        }
        rest = more;
    }
    streams.into_values().collect()
}

fn next_frame(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = rest.get(8..12)?.try_into().ok().map(u32::from_ne_bytes)?;
    let packet = rest.get(PACKET_HEADER..)?;
    packet.split_at_checked(usize::try_from(length).ok()?)
}

fn segment(frame: &[u8]) -> Option<(Direction, &[u8])> {
    let packet = frame.get(ETHERNET_HEADER..)?;
    let ipv4 = packet.first()? >> 4 == 4;
    let (protocol, addresses, header, length) = if ipv4 {
        let header = usize::from(packet.first()? & 15) * 4;
        (*packet.get(9)?, packet.get(12..20)?, header, usize::from(number(packet, 2)?))
    } else {
        (*packet.get(6)?, packet.get(8..40)?, 40, 40 + usize::from(number(packet, 4)?))
    };
    if protocol != TCP {
        return None;
    }
    // Short frames are padded: the packet says itself how long it is.
    let tcp = packet.get(header..length)?;
    let offset = usize::from(tcp.get(12)? >> 4) * 4;
    Some(((addresses.to_vec(), tcp.get(..4)?.to_vec()), tcp.get(offset..)?))
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of one TCP segment over IPv4, from this port, with padding behind it.
    fn frame(port: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; ETHERNET_HEADER];
        let length = u8::try_from(40 + payload.len()).unwrap();
        frame.extend([0x45, 0, 0, length, 0, 0, 0, 0, 64, TCP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([0, port, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0, 0, 0, 0, 0, 0, 0]);
        frame.extend(payload);
        frame.extend([0; 6]);
        frame
    }

    #[test]
    fn joins_what_packets_have_cut() {
        let mut pcap = vec![0; FILE_HEADER];
        for frame in [frame(1, b"sec"), frame(2, b"other"), frame(1, b"ret")] {
            let length = u32::try_from(frame.len()).unwrap().to_ne_bytes();
            pcap.extend([0; 8]);
            pcap.extend(length);
            pcap.extend(length);
            pcap.extend(frame);
        }
        assert_eq!(joined(&pcap), [b"secret".to_vec(), b"other".to_vec()]);
        pcap.truncate(pcap.len() - 3);
        assert_eq!(joined(&pcap), [b"sec".to_vec(), b"other".to_vec()]);
    }
}
