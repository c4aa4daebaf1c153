//! A set of networks as a rule writes it. "Any address" is a value of its own, so that a list
//! which came out empty (a name without addresses) never turns into "everything".

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Which addresses a rule speaks of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Networks {
    /// Every address of both families.
    #[default]
    Any,
    /// Addresses in one of these networks. An IPv6 network holds IPv6 addresses only: `::/0` does
    /// not hold `10.0.0.1`.
    Of(Vec<IpNet>),
}

impl Networks {
    /// These networks; IPv4-mapped ones (`::ffff:10.0.0.0/104`) are held in their IPv4 form.
    pub fn of(networks: impl IntoIterator<Item = IpNet>) -> Self {
        Self::Of(networks.into_iter().map(canonical).collect())
    }

    /// Whether the set holds this address; `::ffff:a.b.c.d` is taken as `a.b.c.d`.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        match self {
            Self::Any => true,
            Self::Of(networks) => networks.iter().any(|network| network.contains(&address)),
        }
    }
}

fn canonical(network: IpNet) -> IpNet {
    mapped(network).map_or(network, IpNet::V4)
}

fn mapped(network: IpNet) -> Option<Ipv4Net> {
    /// Length of the prefix `::ffff:0:0/96` (RFC 4291 section 2.5.5.2).
    const MAPPED: u8 = 96;
    let IpNet::V6(network) = network else {
        return None;
    };
    let (address, length): (Ipv6Net, u8) = (network, network.prefix_len());
    let address = address.addr().to_ipv4_mapped()?;
    Ipv4Net::new(address, length.checked_sub(MAPPED)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(network: &str, address: &str, inside: bool) {
        let networks = Networks::of([network.parse::<IpNet>().unwrap()]);
        assert_eq!(networks.contains(address.parse().unwrap()), inside, "{network} {address}");
    }

    #[test]
    fn mapped_addresses_and_networks_are_ipv4() {
        check("10.0.0.0/8", "::ffff:10.1.2.3", true);
        check("::ffff:10.0.0.0/104", "10.1.2.3", true);
        check("::ffff:10.0.0.0/104", "::ffff:11.1.2.3", false);
        check("::/0", "10.1.2.3", false);
        check("::/0", "::ffff:10.1.2.3", false);
        check("0.0.0.0/0", "2001:db8::1", false);
        check("2001:db8::/32", "2001:db8::1", true);
    }

    #[test]
    fn an_empty_list_holds_nothing() {
        assert!(!Networks::of([]).contains("10.0.0.1".parse().unwrap()));
        assert!(Networks::Any.contains("10.0.0.1".parse().unwrap()));
    }
}
