//! What an idle connection costs in memory, at each hop, after it has carried data once.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result};
use harness::{Server, load, soon};

use crate::cpu::resident_kib;
use crate::ground::Ground;
use crate::peer::Peer;

/// Idle connections, and how many more the second load opens.
const FEW: u32 = 1000;
const MANY: u32 = 5000;
/// A relay that takes longer to open or forget them has failed.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long memory must stay the same to count as settled.
const CALM: Duration = Duration::from_millis(700);

/// Memory of the client's hop and of the server's, KiB.
pub(crate) type Hops = [f64; 2];

/// What was found of one peer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Memory {
    pub(crate) empty: Hops,
    pub(crate) few: Hops,
    pub(crate) many: Hops,
}

impl Memory {
    /// KiB for each connection at each hop: (memory at 5000 - at 0) / 5000.
    pub(crate) fn each(&self) -> Hops {
        each(self.many, self.empty, MANY)
    }

    /// The same at 1000.
    pub(crate) fn each_of_few(&self) -> Hops {
        each(self.few, self.empty, FEW)
    }
}

fn each(full: Hops, empty: Hops, connections: u32) -> Hops {
    let ([near, far], [near_empty, far_empty]) = (full, empty);
    let connections = f64::from(connections);
    [(near - near_empty) / connections, (far - far_empty) / connections]
}

/// Measures a peer that has relays; none for plain TCP.
pub(crate) fn measure(ground: &Ground, peer: Peer) -> Result<Option<Memory>> {
    let Some(hops) = ground.hops(peer) else {
        return Ok(None);
    };
    let look = || -> Result<Hops> {
        let [near, far] = &hops;
        Ok([resident_kib(near)?, resident_kib(far)?])
    };
    let empty = settled(look)?;
    let first = hold(ground, peer, FEW)?;
    let few = settled(look)?;
    let second = hold(ground, peer, MANY - FEW)?;
    let many = settled(look)?;
    drop((first, second));
    Ok(Some(Memory { empty, few, many }))
}

/// Opens connections and keeps them until the load is dropped.
pub(crate) fn hold(ground: &Ground, peer: Peer, connections: u32) -> Result<Server> {
    let words = ["hold", &ground.address(peer), &format!("--connections={connections}")];
    let held = ground.client(peer).spawn(load()?, &words)?;
    let open = || {
        let said = held.said();
        (said.contains("held=") || said.contains("FAIL")).then_some(said)
    };
    let said = soon(PATIENCE, "all connections", open)
        .with_context(|| format!("{} idle connections over {}", connections, peer.name()))?;
    anyhow::ensure!(said.contains("held="), "{} holds no connections: {said}", peer.name());
    Ok(held)
}

/// Looks until two looks in a row say the same within a hundredth.
pub(crate) fn settled(look: impl Fn() -> Result<Hops>) -> Result<Hops> {
    let mut before = look()?;
    for _ in 0..20 {
        sleep(CALM);
        let now = look()?;
        let still =
            now.iter().zip(&before).all(|(now, before)| (now - before).abs() * 100.0 < *now);
        if still {
            return Ok(now);
        }
        before = now;
    }
    Ok(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_out_what_was_added() {
        let memory =
            Memory { empty: [1000.0, 2000.0], few: [11_000.0, 2000.0], many: [101_000.0, 7000.0] };
        let shown = |hops: Hops| format!("{hops:.1?}");
        assert_eq!(shown(memory.each()), "[20.0, 1.0]");
        assert_eq!(shown(memory.each_of_few()), "[10.0, 0.0]");
    }
}
