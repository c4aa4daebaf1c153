//! Tells the programs which source address routing would choose for a destination, so that
//! `getsockname()` of a redirected client says what it would say without a daemon.

use std::collections::BTreeMap;
use std::net::IpAddr;

use aya::maps::lpm_trie::Key;
use ebpf_abi::{Ip, SourceKey};

use crate::sys::routes::SourceRoute;

use super::kernel::{locked, map_error};
use super::{Kernel, LoadError, convert};

/// Bits before the IPv4 part of a mapped address.
const MAPPED_BITS: u32 = 96;

impl Kernel {
    /// Makes exactly these routes hold.
    pub fn set_sources(&self, routes: &[SourceRoute]) -> Result<(), LoadError> {
        let mut wanted: BTreeMap<(u32, Ip), Ip> = BTreeMap::new();
        for route in routes {
            // An address of this host is its own source; a whole network of such is left out.
            let own = (route.to.prefix_len() == route.to.max_prefix_len()).then(|| route.to.addr());
            let Some(source) = route.source.or(own) else { continue };
            let bits = match route.to.network() {
                IpAddr::V4(_) => MAPPED_BITS + u32::from(route.to.prefix_len()),
                IpAddr::V6(_) => u32::from(route.to.prefix_len()),
            };
            wanted.insert((bits, convert::to_ip(route.to.network())), convert::to_ip(source));
        }
        let mut map = locked(&self.sources);
        for ((bits, net), source) in &wanted {
            let key = Key::new(*bits, SourceKey { net: *net });
            map.insert(&key, source, 0).map_err(map_error("SOURCES"))?;
        }
        let stale: Vec<_> = map
            .keys()
            .flatten()
            .filter(|key| !wanted.contains_key(&(key.prefix_len(), key.data().net)))
            .collect();
        for key in stale {
            map.remove(&key).map_err(map_error("SOURCES"))?;
        }
        Ok(())
    }
}
