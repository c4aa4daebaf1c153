//! What the kernel answers over netlink: listening sockets, routes and their changes.
//! The `netlink-packet` crates take messages apart; `nix` has the sockets.

pub mod diag;
mod frame;
pub mod route_changes;
pub mod routes;
#[cfg(test)]
mod tests;
