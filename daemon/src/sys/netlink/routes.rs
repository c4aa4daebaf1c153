//! Which source address does the kernel choose for a destination? A table from prefix to address, for
//! lookup by longest prefix, of the `local` and `main` tables of both families. Policy routing by other
//! tables is not followed: there the answer is a guess. [`super::route_changes`] says when to read
//! it again.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::sys::socket::SockProtocol;

use super::frame::dump;

/// The address that the kernel dials from when it dials into a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceRoute {
    /// Destinations.
    pub to: IpNet,
    /// Source address; `None` for the destination itself (addresses of this host, IPv6).
    pub source: Option<IpAddr>,
}

/// Reads the table, longest prefixes first, each prefix once. Blocks.
pub fn source_routes() -> io::Result<Vec<SourceRoute>> {
    let mut table = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let addresses = addresses(family)?;
        table.extend(choose(routes(family)?, &addresses));
    }
    table.sort_by_key(|route| (std::cmp::Reverse(route.to.prefix_len()), route.to));
    Ok(table)
}

/// The source address for a destination, by a table of [`source_routes`].
pub fn source_for(table: &[SourceRoute], destination: IpAddr) -> Option<IpAddr> {
    let route = table.iter().find(|route| route.to.contains(&destination))?;
    Some(route.source.unwrap_or(destination))
}

/// Numbers that are compared. Source: `include/uapi/linux/rtnetlink.h`.
pub(super) const TABLE_MAIN: u32 = 254;
pub(super) const TABLE_LOCAL: u32 = 255;
pub(super) const SCOPE_LINK: u8 = 253;

/// Dead next hop; clone of a route.
const UNUSABLE: RouteFlags = RouteFlags::Dead.union(RouteFlags::Cloned);
/// Failed duplicate detection; deprecated; tentative.
const UNFIT: AddressFlags =
    AddressFlags::Dadfailed.union(AddressFlags::Deprecated).union(AddressFlags::Tentative);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) to: IpNet,
    pub(super) table: u32,
    pub(super) metric: u32,
    pub(super) scope: u8,
    pub(super) is_local: bool,
    pub(super) source: Option<IpAddr>,
    pub(super) gateway: Option<IpAddr>,
    pub(super) ifindex: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) net: IpNet,
    pub(super) ifindex: u32,
    pub(super) scope: u8,
    pub(super) flags: AddressFlags,
}

fn addresses(family: AddressFamily) -> io::Result<Vec<Address>> {
    let mut request = AddressMessage::default();
    request.header.family = family;
    let request = RouteNetlinkMessage::GetAddress(request);
    let answers = dump(SockProtocol::NetlinkRoute, request)?;
    let listed = answers.iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewAddress(address) => address_in(address),
        _ => None,
    });
    Ok(listed.collect())
}

fn routes(family: AddressFamily) -> io::Result<Vec<Route>> {
    let mut request = RouteMessage::default();
    request.header.address_family = family;
    let answers = dump(SockProtocol::NetlinkRoute, RouteNetlinkMessage::GetRoute(request))?;
    let listed = answers.iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewRoute(route) => route_in(route),
        _ => None,
    });
    Ok(listed.collect())
}

/// `None` for routes that no connection takes.
pub(super) fn route_in(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    if !matches!(header.kind, RouteType::Unicast | RouteType::Local)
        || header.flags.intersects(UNUSABLE)
    {
        return None;
    }
    let mut to: IpAddr = match header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        _ => Ipv6Addr::UNSPECIFIED.into(),
    };
    let mut route = Route {
        to: to.into(),
        table: header.table.into(),
        metric: 0,
        scope: header.scope.into(),
        is_local: header.kind == RouteType::Local,
        source: None,
        gateway: None,
        ifindex: 0,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(ip) => to = ip_in(ip)?,
            RouteAttribute::Oif(ifindex) => route.ifindex = *ifindex,
            RouteAttribute::Gateway(ip) => route.gateway = ip_in(ip),
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::PrefSource(ip) => route.source = ip_in(ip),
            RouteAttribute::MultiPath(hops) => {
                let hop = hops.first()?;
                route.ifindex = hop.interface_index;
                route.gateway = hop.attributes.iter().find_map(gateway_in);
            }
            RouteAttribute::Table(table) => route.table = *table,
            _ => {}
        }
    }
    route.to = IpNet::new(to, header.destination_prefix_length).ok()?.trunc();
    matches!(route.table, TABLE_MAIN | TABLE_LOCAL).then_some(route)
}

fn gateway_in(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(ip) => ip_in(ip),
        _ => None,
    }
}

fn ip_in(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

pub(super) fn address_in(message: &AddressMessage) -> Option<Address> {
    let header = &message.header;
    // The header has room for the lower eight flags only.
    let mut flags = AddressFlags::from_bits_retain(header.flags.bits().into());
    let (mut peer, mut own) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(ip) => peer = Some(*ip),
            AddressAttribute::Local(ip) => own = Some(*ip),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    Some(Address {
        net: IpNet::new(own.or(peer)?, header.prefix_len).ok()?,
        ifindex: header.index,
        scope: header.scope.into(),
        flags,
    })
}

/// One route for each prefix: `local` before `main`, then by metric.
pub(super) fn choose(mut routes: Vec<Route>, addresses: &[Address]) -> Vec<SourceRoute> {
    routes.sort_by_key(|route| (route.table != TABLE_LOCAL, route.metric));
    let mut chosen = BTreeMap::new();
    for route in routes {
        let source = match (route.source, route.to) {
            (Some(source), _) => Some(Some(source)),
            (None, IpNet::V6(_)) if route.is_local => Some(None),
            (None, IpNet::V4(_)) => source_v4(&route, addresses).map(Some),
            (None, IpNet::V6(_)) => source_v6(&route, addresses).map(Some),
        };
        if let Some(source) = source {
            chosen.entry(route.to).or_insert(SourceRoute { to: route.to, source });
        }
    }
    chosen.into_values().collect()
}

/// Source: `inet_select_addr`, net/ipv4/devinet.c: a primary address of the interface, one in whose
/// subnet the gateway lies if there is one; else an address of any interface.
fn source_v4(route: &Route, addresses: &[Address]) -> Option<IpAddr> {
    let in_scope = |address: &&Address| address.scope <= route.scope;
    let of_interface = || {
        let primary =
            addresses.iter().filter(|address| !address.flags.contains(AddressFlags::Secondary));
        primary.filter(in_scope).filter(|address| address.ifindex == route.ifindex)
    };
    let beside = |address: &&Address| route.gateway.is_some_and(|hop| address.net.contains(&hop));
    let elsewhere = || addresses.iter().filter(in_scope).find(|any| any.scope != SCOPE_LINK);
    let found = of_interface().find(beside).or_else(|| of_interface().next()).or_else(elsewhere);
    found.map(|address| address.net.addr())
}

/// RFC 6724 without labels and preferences: an address of the interface in the scope of the
/// destinations, the one that shares most bits with their prefix, the older of equals.
fn source_v6(route: &Route, addresses: &[Address]) -> Option<IpAddr> {
    let IpNet::V6(to) = route.to else { return None };
    let link_local = to.network().is_unicast_link_local();
    let fit =
        |one: &&Address| (one.scope == SCOPE_LINK) == link_local && !one.flags.intersects(UNFIT);
    let shared = |one: &Address| match one.net.addr() {
        IpAddr::V6(own) => {
            let differing = u128::from(own) ^ u128::from(to.network());
            differing.leading_zeros().min(to.prefix_len().into())
        }
        IpAddr::V4(_) => 0,
    };
    let on_interface = addresses.iter().filter(fit).filter(|one| one.ifindex == route.ifindex);
    let closest =
        on_interface.reduce(|best, one| if shared(one) > shared(best) { one } else { best });
    let elsewhere = || addresses.iter().filter(fit).find(|one| one.scope == 0);
    closest.or_else(elsewhere).map(|one| one.net.addr())
}
