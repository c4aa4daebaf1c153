//! Packet sockets (`AF_PACKET`) of the daemon's own network namespace: they send below IP, where no
//! cgroup hook sees it.

use std::collections::BTreeSet;
use std::fs;
use std::io;

/// Source: `packet_seq_show` in `net/packet/af_packet.c`.
const LIST: &str = "/proc/net/packet";
/// The column of the inode, from 0.
const INODE: usize = 8;

/// The inodes of all packet sockets. None where the kernel has no such sockets.
///
/// # Errors
/// The list cannot be read.
pub fn inodes() -> io::Result<BTreeSet<u64>> {
    match fs::read_to_string(LIST) {
        Ok(text) => Ok(parse(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => Err(error),
    }
}

/// The first line names the columns.
fn parse(text: &str) -> BTreeSet<u64> {
    let inode = |line: &str| line.split_whitespace().nth(INODE)?.parse().ok();
    text.lines().skip(1).filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_inode_is_the_last_column() {
        let text = "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n\
            00000000b5b1a4c5 3      3    0003   2     1 0      0      48213\n\
            00000000b5b1a4c6 3      2    88cc   0     1 0      0      7\n";
        assert_eq!(parse(text), BTreeSet::from([7, 48213]));
        assert_eq!(parse(""), BTreeSet::new());
    }

    #[test]
    fn the_list_can_be_read() {
        inodes().unwrap();
    }

    proptest! {
        #[test]
        fn never_panics(text in ".*") {
            parse(&text);
        }
    }
}
